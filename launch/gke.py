#!/usr/bin/env python3
"""Run a verb on a TPU slice of a GKE cluster that has JobSet and kubectl's current context.

launch/gke.py --name=NAME --image=IMAGE --topology=2x4 [options] VERB [arguments]

`scan` gives every host its part of the shards (--part=I/HOSTS) and its own chips only; when the
JobSet has ended, `mmjax scan` with the same arguments decides, on any machine that sees the folder.
`train` and `protect` (of a set) are one run over all hosts: the JobSet is restarted, and the run
resumes, when a host is lost or preempted. Inputs and --out lie in /data.

  --name=NAME              of the JobSet
  --image=IMAGE            made from launch/Dockerfile
  --topology=2x4           of the slice
  --accelerator=tpu-v5-lite-podslice   GKE's name of the kind of chip
  --hosts=2                machines of the slice
  --chips=4                chips of one host
  --claim=mmjax-data       the PersistentVolumeClaim that is mounted at /data
  --restarts=10            of the whole JobSet
  --dry_run                print the manifest and apply nothing
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

DEFAULTS = {
    "name": "",
    "image": "",
    "topology": "",
    "accelerator": "tpu-v5-lite-podslice",
    "hosts": "2",
    "chips": "4",
    "claim": "mmjax-data",
    "restarts": "10",
}
BOUNDS = {"1": "1,1,1", "4": "2,2,1", "8": "2,4,1"}
"""How the chips of one host lie."""


def manifest(options: dict[str, str], verb: str, arguments: Sequence[str]) -> str:
    """The JobSet as YAML."""
    command = ["mmjax", verb, *arguments]
    environment: dict[str, str] = {}
    if verb != "scan":
        command.append("--coordinator=auto")
    elif options["hosts"] != "1":
        command.append(f"--part=$(JOB_COMPLETION_INDEX)/{options['hosts']}")
        environment = {
            "TPU_PROCESS_BOUNDS": "1,1,1",
            "TPU_CHIPS_PER_PROCESS_BOUNDS": BOUNDS.get(options["chips"], "1,1,1"),
        }
    text = Path(__file__).with_name("jobset.yaml.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(
        text
    )
    return template.render(**options, command=command, environment=environment)


def main(arguments: Sequence[str]) -> int:
    """What the script does; its exit code."""
    options, rest, dry_run = dict(DEFAULTS), list(arguments), False
    while rest and rest[0].startswith("--"):
        name, _, value = rest.pop(0)[2:].partition("=")
        if name == "dry_run":
            dry_run = True
        elif name in options and value:
            options[name] = value
        else:
            print(__doc__, file=sys.stderr)
            return 0 if name == "help" else 2
    lacking = [f"--{name}" for name, value in options.items() if not value]
    if lacking or not rest:
        wanted = ", ".join(lacking) or "a verb"
        print(f"launch/gke.py wants {wanted}; --help tells more", file=sys.stderr)
        return 2
    made = manifest(options, rest[0], rest[1:])
    if dry_run:
        print(made)
        return 0
    done = subprocess.run(["kubectl", "apply", "-f", "-"], input=made, text=True, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
