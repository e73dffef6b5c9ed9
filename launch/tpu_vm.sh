#!/usr/bin/env bash
# Run a verb on all hosts of a TPU VM, over ssh.
#
#   TPU=NAME ZONE=us-central2-b HOSTS=4 launch/tpu_vm.sh VERB [arguments]
#
# mmjax must be installed on every host (VENV below); --out and inputs must be paths that all of them
# see, such as a mounted bucket. `scan` gives every host its part of the shards (--part=I/HOSTS) and
# its own chips only, so that no host waits for another; afterwards the first host decides. `train`
# and `protect` (of a set) are one run over all hosts. Exit code 42 (preempted, state saved) means: once more.
#   PROJECT=...     Google Cloud project, if not the default one
#   VENV=...        folder of the virtual environment on the hosts [mmjax/.venv, from their home]
#   BOUNDS=2,2,1    chips of one host, for scan [2,2,1: four chips, as v4 and v5e hosts have]
#   DRY_RUN=1       print the commands and run nothing
set -euo pipefail
if (($# == 0)) || [[ -z "${TPU:-}" || -z "${ZONE:-}" ]]; then
  echo "usage: TPU=NAME ZONE=ZONE [HOSTS=N] launch/tpu_vm.sh VERB [arguments]" >&2
  exit 2
fi
hosts="${HOSTS:-1}"
mmjax="${VENV:-mmjax/.venv}/bin/mmjax"

# ssh_to WORKER COMMAND...: run it there, or print it
ssh_to() {
  local worker="$1" quoted
  shift
  quoted="$(printf '%q ' "$@")"
  local call=(gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$worker")
  [[ -n "${PROJECT:-}" ]] && call+=(--project="$PROJECT")
  call+=(--command="${quoted% }")
  if [[ -n "${DRY_RUN:-}" ]]; then
    printf '%q ' "${call[@]}"
    echo
  else
    "${call[@]}"
  fi
}

if [[ "$1" != scan ]]; then
  ssh_to all "$mmjax" "$@" --coordinator=auto
  exit
fi
alone=(env "TPU_PROCESS_BOUNDS=1,1,1" "TPU_CHIPS_PER_PROCESS_BOUNDS=${BOUNDS:-2,2,1}")
jobs=()
for ((host = 0; host < hosts; host++)); do
  ssh_to "$host" "${alone[@]}" "$mmjax" "$@" "--part=$host/$hosts" &
  jobs+=($!)
done
code=0
for job in "${jobs[@]}"; do
  wait "$job" || code=$?
done
((code == 0)) || exit "$code"
ssh_to 0 "${alone[@]}" "$mmjax" "$@"
