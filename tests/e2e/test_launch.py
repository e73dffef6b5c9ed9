"""The launchers: a verb gets onto machines, its exit code comes back.

Machines that are not here are stood in for by programs that write down how they were called;
`test_multiprocess` has the launcher that needs no other machine.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.conftest import SECONDS, environment
from tests.e2e.jobset_schema import JOBSET

pytestmark = pytest.mark.e2e
LAUNCH = ROOT / "launch"
BIN = Path(sys.executable).parent
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0")" "$@" | "{python}" -c \
'import json,sys; print(json.dumps(sys.stdin.read().splitlines()))' >> "$CALLS"
exit "${{CODE:-0}}"
"""


def launch(
    name: str, *arguments: str | Path, first: Path = BIN, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A launcher, with the tests' interpreter's folder on the path, after `first`."""
    env = environment() | variables
    env["PATH"] = f"{first}:{BIN}:{env['PATH']}"
    return subprocess.run(
        [str(LAUNCH / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture
def machines(tmp_path: Path):
    """A folder of programs that note their arguments, and what they noted."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("srun", "scontrol", "gcloud", "kubectl", "xpk", "mmjax"):
        (folder / name).write_text(FAKE.format(python=sys.executable))
        (folder / name).chmod(0o755)

    def noted() -> list[list[str]]:
        return [json.loads(line) for line in calls.read_text().splitlines()]

    return folder, calls, noted


def test_scripts_are_sound() -> None:
    scripts = [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), ROOT / ".ci" / "run"]
    assert len(scripts) == 6
    found = subprocess.run(
        [BIN / "shellcheck", *scripts], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


def test_local_runs_a_verb_on_as_many_devices_as_asked() -> None:
    ran = launch("local.sh", "doctor", DEVICES="2")
    assert "2 x cpu" in ran.stdout, ran.stderr


def test_local_hands_on_the_exit_code_and_wants_a_verb() -> None:
    assert launch("local.sh", "scan", "nowhere.tar").returncode == 2
    ran = launch("local.sh")
    assert ran.returncode == 2
    assert ran.stderr.startswith("usage: launch/local.sh VERB")


@pytest.mark.parametrize(("first", "step"), [(1, 1), (0, 2), (3, 5)])
def test_an_array_of_slurm_jobs_is_the_parts_and_the_job_after_it_decides(
    first: int, step: int, machines
) -> None:
    folder, calls, noted = machines
    array = {
        "SLURM_ARRAY_TASK_COUNT": "4",
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_STEP": str(step),
        "CALLS": str(calls),
    }
    given = ("my shards/{0..3}.tar", "--out=run")
    plain = {"MMJAX": str(folder / "mmjax"), "CALLS": str(calls)}
    for task in range(first, first + 4 * step, step):
        more = array | {"SLURM_ARRAY_TASK_ID": str(task)}
        assert launch("slurm_scan.sbatch", *given, **plain | more).returncode == 0
    assert launch("slurm_scan.sbatch", *given, **plain).returncode == 0
    parts = [[f"--part={i}/4"] for i in range(4)]
    assert noted() == [["mmjax", "scan", *given, *part] for part in [*parts, []]]


@pytest.mark.parametrize("code", [0, 42, 2])
def test_a_slurm_training_that_was_stopped_is_queued_again(code: int, machines) -> None:
    folder, calls, noted = machines
    more = {"CALLS": str(calls), "CODE": str(code), "SLURM_JOB_ID": "7", "MMJAX": "mmjax"}
    ran = launch("slurm_train.sbatch", "train", "--out=a b", first=folder, **more)
    assert ran.returncode == code
    called = ["srun", "--kill-on-bad-exit=1", "--wait=60", "mmjax"]
    wanted = [[*called, "train", "--out=a b", "--coordinator=auto"]]
    assert noted() == wanted + [["scontrol", "requeue", "7"]] * (code == 42)


def test_every_host_of_a_tpu_vm_has_its_part_and_the_first_decides(machines) -> None:
    folder, calls, noted = machines
    more = {"CALLS": str(calls), "TPU": "pod", "ZONE": "z", "HOSTS": "2"}
    ran = launch("tpu_vm.sh", "scan", "my shards", "--out=run", first=folder, **more)
    assert ran.returncode == 0, ran.stderr
    calls_made = noted()
    assert len(calls_made) == 3
    hosts = [next(a for a in call if a.startswith("--worker")) for call in calls_made]
    assert sorted(hosts[:2]) + hosts[2:] == ["--worker=0", "--worker=1", "--worker=0"]
    commands = [shlex.split(call[-1].removeprefix("--command=")) for call in calls_made]
    for host, command in zip(hosts[:2], commands[:2], strict=True):
        assert command[-5:] == [
            "mmjax/.venv/bin/mmjax", "scan", "my shards", "--out=run",
            f"--part={host[-1]}/2",
        ]  # fmt: skip
    assert commands[2][-4:] == ["mmjax/.venv/bin/mmjax", "scan", "my shards", "--out=run"]
    assert launch("tpu_vm.sh", "train", first=folder, **more).returncode == 0
    assert noted()[3][-2:] == [
        "--worker=all",
        "--command=mmjax/.venv/bin/mmjax train --coordinator=auto",
    ]
    assert launch("tpu_vm.sh", "scan", first=folder, **more | {"CODE": "3"}).returncode == 3
    assert launch("tpu_vm.sh", "scan", first=folder, CALLS=str(calls)).returncode == 2


def gke(*arguments: str) -> dict[str, Any]:
    options = ("--name=n", "--image=i", "--topology=2x4", "--dry_run")
    ran = launch("gke.py", *options, *arguments)
    assert ran.returncode == 0, ran.stderr
    made = yaml.safe_load(ran.stdout)
    jsonschema.validate(made, JOBSET)
    return made


def test_a_jobset_is_made_for_a_slice() -> None:
    made = gke("--hosts=3", "scan", 'a "b"', "--out=/data/run")
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (3, 3, "Indexed")
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    assert container["command"] == [
        "mmjax", "scan", 'a "b"', "--out=/data/run", "--part=$(JOB_COMPLETION_INDEX)/3",
    ]  # fmt: skip
    assert {e["name"] for e in container["env"]} >= {"JOB_COMPLETION_INDEX", "TPU_PROCESS_BOUNDS"}
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    train = gke("train")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert train["containers"][0]["command"] == ["mmjax", "train", "--coordinator=auto"]
    assert len(train["containers"][0]["env"]) == 1


def test_a_jobset_of_odd_names_is_text_and_the_schema_sees_what_a_cluster_would_refuse() -> None:
    made = gke("--hosts=1", "--claim=123", "--accelerator=true", "train", "--seed=1")
    spec = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = spec["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "123"
    for spoiled, field, value in (
        (pod["containers"][0], "resourcs", {}),
        (pod["containers"][0]["resources"]["limits"], "google.com/tpu", None),
        (pod, "restartPolicy", "OnFailure"),
        (pod["nodeSelector"], "cloud.google.com/gke-tpu-topology", 4),
        (spec, "parallelism", "2"),
        (made["spec"]["failurePolicy"]["rules"][0], "name", "ask-the-user"),
        (made["metadata"], "name", "Upper"),
    ):
        before = dict(spoiled)
        spoiled[field] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(made, JOBSET)
        spoiled.clear()
        spoiled.update(before)
    jsonschema.validate(made, JOBSET)


def test_a_workload_of_xpk_is_the_parts_or_one_run(machines) -> None:
    folder, calls, noted = machines
    given = {"CLUSTER": "c", "WORKLOAD": "w", "IMAGE": "i", "TPU_TYPE": "v5litepod-16"}
    more = {"CALLS": str(calls), "HOSTS": "4", **given}
    ran = launch("xpk.sh", "scan", "my shards", "--out=run", first=folder, **more)
    assert ran.returncode == 0, ran.stderr
    assert launch("xpk.sh", "train", "--out=run", first=folder, **more).returncode == 0
    scan, train = noted()
    assert scan[:3] == ["xpk", "workload", "create"]
    assert {"--cluster=c", "--workload=w", "--tpu-type=v5litepod-16"} < set(scan)
    command = scan[-1].removeprefix("--command=")
    # as the shell in the container would run it
    stand_in = 'mmjax() { printf "%s\\n" "$TPU_PROCESS_BOUNDS" "$@"; }; '
    said = subprocess.run(
        ["bash", "-c", stand_in + command],
        env={"JOB_COMPLETION_INDEX": "3", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == ["1,1,1", "scan", "my shards", "--out=run", "--part=3/4"]
    assert train[-1] == "--command=mmjax train --out=run --coordinator=auto"
    assert launch("xpk.sh", "scan", first=folder, CALLS=str(calls)).returncode == 2


def test_a_jobset_is_applied(machines) -> None:
    folder, calls, noted = machines
    options = ("--name=n", "--image=i", "--topology=2x4", "train")
    assert launch("gke.py", *options, first=folder, CALLS=str(calls)).returncode == 0
    assert noted() == [["kubectl", "apply", "-f", "-"]]
    ran = launch("gke.py", "--name=n", "train")
    assert ran.returncode == 2
    assert "wants --image, --topology" in ran.stderr
