#!/usr/bin/env bash
# Run a verb on a TPU slice of a GKE cluster that xpk made, as a workload of xpk.
#
#   CLUSTER=NAME WORKLOAD=NAME IMAGE=IMAGE TPU_TYPE=v5litepod-16 HOSTS=4 launch/xpk.sh VERB [arguments]
#
# IMAGE is made from launch/Dockerfile; inputs and --out must be paths that all hosts see, such as a
# mounted bucket (xpk storage). `scan` gives every host its part of the shards (--part=I/HOSTS) and its
# own chips only; afterwards `mmjax scan` with the same arguments decides, on any machine that sees the
# folder. `train` and `protect` (of a set) are one run over all hosts, restarted when a host fails or is
# preempted, and resumed.
#   HOSTS=4         machines of the slice [1]
#   BOUNDS=2,2,1    chips of one host, for scan [2,2,1: four chips, as v4 and v5e hosts have]
#   RESTARTS=10     of the whole workload [10]
#   PROJECT=... ZONE=...   if not gcloud's own
#   DRY_RUN=1       print the command and run nothing
set -euo pipefail
if (($# == 0)) || [[ -z "${CLUSTER:-}" || -z "${WORKLOAD:-}" || -z "${IMAGE:-}" || -z "${TPU_TYPE:-}" ]]; then
  echo "usage: CLUSTER=NAME WORKLOAD=NAME IMAGE=IMAGE TPU_TYPE=TYPE [HOSTS=N] launch/xpk.sh VERB [arguments]" >&2
  exit 2
fi
hosts="${HOSTS:-1}"
quoted="$(printf '%q ' mmjax "$@")"
if [[ "$1" != scan ]]; then
  quoted+="--coordinator=auto"
elif ((hosts > 1)); then
  # the shell in the container fills in the number of the host
  quoted="TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=${BOUNDS:-2,2,1} ${quoted}"
  quoted+="--part=\$JOB_COMPLETION_INDEX/$hosts"
fi
call=(xpk workload create --cluster="$CLUSTER" --workload="$WORKLOAD" --tpu-type="$TPU_TYPE")
call+=(--docker-image="$IMAGE" --max-restarts="${RESTARTS:-10}" --restart-on-user-code-failure)
# a training saves its state meanwhile
call+=(--termination-grace-period-seconds=120)
[[ -n "${PROJECT:-}" ]] && call+=(--project="$PROJECT")
[[ -n "${ZONE:-}" ]] && call+=(--zone="$ZONE")
call+=(--command="${quoted% }")
if [[ -n "${DRY_RUN:-}" ]]; then
  printf '%q ' "${call[@]}"
  echo
  exit 0
fi
exec "${call[@]}"
