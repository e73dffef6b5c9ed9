"""`launch/multiprocess.py`: processes of this machine end as one does; one is killed, all are told.

Two processes of four devices each stand against one process of eight.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import (
    FLOAT32,
    SECONDS,
    SHARDS,
    World,
    check_same_scan,
    encoded_by_parts,
    environment,
    run_process,
)
from tests.e2e.test_launch import BIN, LAUNCH, launch

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LAUNCHER = "multiprocess.py"
STAND_IN = """#!/usr/bin/env bash
# a part waits when it has encoded so many shards; who it is stands in a file of its name
part=$(sed -n 's|.*--part=\\([0-9]*\\)/.*|\\1|p' <<< "$*")
echo $$ > "{folder}/process-$part"
exec "{python}" -m tests.e2e.signalled 0 1 "$@"
"""


@pytest.fixture(scope="module")
def arguments(world: World) -> list[str]:
    """A scan that encodes a reference too, and fits F on it."""
    given = [f"--weights={world.weights}", f"--reference={world.reference}", FLOAT32]
    return ["scan", str(world.shards), *given, "--config.fit.kind=ridge", "--write_clean"]


@pytest.fixture(scope="module")
def on_eight(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan of one process of eight devices."""
    out = tmp_path_factory.mktemp("eight") / "run"
    ran = run_process(*arguments, f"--out={out}", devices=8)
    assert ran.code == 0, ran.err
    return out


def test_two_processes_scan_as_one(arguments: list[str], on_eight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = launch(LAUNCHER, "--devices=4", *arguments, f"--out={out}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {line[:4] for line in ran.stdout.splitlines()} == {"[0] ", "[1] "}
    check_same_scan(out, on_eight)


@contextmanager
def started(*arguments: str | Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The launcher, ended at the end."""
    env = environment() | {"PATH": f"{BIN}:{os.environ['PATH']}"} | variables
    with subprocess.Popen(
        [LAUNCH / LAUNCHER, *arguments], env=env, stdout=subprocess.PIPE, text=True
    ) as ran:
        try:
            yield ran
        finally:
            ran.terminate()


def wait_until(holds: Callable[[], bool], ran: subprocess.Popen[str]) -> None:
    """Return when something holds, while the launcher runs."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert ran.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def written(out: Path) -> dict[str, int]:
    """When the files of the encoded shards were written, in nanoseconds."""
    files = [
        file for name in ("journal", "embeddings", "pairs") for file in (out / name).glob("0*")
    ]
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in files}


def test_a_killed_scan_costs_the_shards_that_were_not_stored(
    arguments: list[str], on_eight: Path, tmp_path: Path
) -> None:
    out, stand_in = tmp_path / "run", tmp_path / "mmjax"
    stand_in.write_text(STAND_IN.format(folder=tmp_path, python=sys.executable))
    stand_in.chmod(0o755)
    command = ("--devices=4", *arguments, f"--out={out}")
    stored = [out / "journal" / f"{i:05d}.json" for i in range(2)]
    with started(*command, MMJAX=str(stand_in)) as ran:
        wait_until(lambda: all(file.exists() for file in stored), ran)
        one, other = (int((tmp_path / f"process-{i}").read_text()) for i in (1, 0))
        os.kill(one, signal.SIGKILL)
        said, _ = ran.communicate(timeout=SECONDS)
    assert ran.returncode == 128 + signal.SIGKILL, said
    assert "[0] mmjax: terminated" in said
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)
    assert not (out / "summary.json").exists()
    kept = written(out)
    assert {Path(name).name[:5] for name in kept} == {"00000", "00001"}
    before = encoded_by_parts(out)
    ran = launch(LAUNCHER, *command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {name: time for name, time in written(out).items() if name in kept} == kept
    again = encoded_by_parts(out)
    assert before == [], "they stopped before they told of a shard"
    assert again == [*(f"{i:05d}" for i in range(2, SHARDS)), "reference/00000"]
    check_same_scan(out, on_eight)


def test_a_failure_ends_all_processes_and_is_the_exit_code(world: World, tmp_path: Path) -> None:
    ran = launch(LAUNCHER, "scan", "nowhere.tar", f"--out={tmp_path / 'run'}")
    assert ran.returncode == 2
    assert "[1] mmjax: error" in ran.stdout or "[0] mmjax: error" in ran.stdout
    assert launch(LAUNCHER).returncode == 2
    assert launch(LAUNCHER, "--prozesses=2", "scan").returncode == 2


def test_sigterm_reaches_every_process(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started(
        "train", "--config=train/demo", f"--weights={world.weights}", f"--out={out}",
        "--steps=100000", "--config.data.scenes=32", "--config.data.heldout_scenes=0",
        "--config.batch_size=8", "--config.log_every=1",
    ) as ran:  # fmt: skip
        metrics = out / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, ran)
        ran.send_signal(signal.SIGTERM)
        said, _ = ran.communicate(timeout=SECONDS)
    assert ran.returncode == 42, said
    assert said.count("start the same command again") == 2
    assert list((out / "checkpoints").iterdir())
