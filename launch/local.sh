#!/usr/bin/env bash
# Run a verb on this machine, with all its devices: launch/local.sh VERB ... (e.g. scan --config=scan/cc3m)
#   DEVICES=8 launch/local.sh ...   simulates eight CPU devices
set -euo pipefail
if (($# == 0)); then
  echo "usage: launch/local.sh VERB [arguments]; VERB --help tells what they are" >&2
  exit 2
fi
root="$(cd "$(dirname "$0")/.." && pwd)"
[[ -x "$root/.venv/bin/mmjax" ]] && PATH="$root/.venv/bin:$PATH"
[[ -n "${DEVICES:-}" ]] && export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$DEVICES"
exec mmjax "$@"
