"""The engine finds what a kill can do; a few trials of each verb with `-m slow`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.crash.engine import Child, Moment, contents, differences

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    # these children run no JAX and wait for no thread
    pytest.mark.filterwarnings("ignore:os.fork", "ignore:.*use of fork"),
]


def write_slowly(out: Path) -> int:
    """What no verb may do: a file is there before it is whole."""
    out.mkdir(exist_ok=True)
    (out / "first").write_bytes(b"whole")
    with open(out / "second", "ab", buffering=0) as file:
        file.write(b"one")
        (out / "between").touch()
        file.write(b"two")
    (out / "between").unlink()
    return 3


@pytest.fixture
def child(tmp_path: Path):
    made = Child(lambda: write_slowly(tmp_path / "out"), tmp_path / "out")
    yield made
    made.close()


def left(folder: Path) -> dict[str, str]:
    return contents(folder, without=("lock",), steps=())


def test_a_kill_between_two_writes_is_seen(child: Child, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = child.run()
    assert (ended.code, ended.stage) == (3, "between")
    assert ended.events == 5  # the folder, three files opened, one removed
    whole = left(out)
    assert sorted(whole) == ["first", "second"]
    for file in out.iterdir():
        file.unlink()
    ended = child.run(Moment(signal.SIGKILL, event=4))
    assert (ended.code, ended.events, ended.stage) == (-signal.SIGKILL, 4, "between")
    assert child.run().code == 3  # appends, as it was not told that half is there
    assert differences(left(out), whole) == ["second"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_after_some_time(number: signal.Signals, tmp_path: Path) -> None:
    def sleep() -> int:
        time.sleep(60)
        return 0

    child = Child(sleep, tmp_path / "out")
    ended = child.run(Moment(number, seconds=0.2))
    # SIGINT is an exception, which no `main` is there to catch
    assert ended.code == (70 if number == signal.SIGINT else -number)
    assert 0.2 <= ended.seconds < 30
    assert ended.stage == ""
    child.close()


def test_steps_count_by_name_and_logs_not_at_all(tmp_path: Path) -> None:
    for name in ("lock", "a/b", "checkpoints/3/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = contents(tmp_path, without=("lock",), steps=("checkpoints",))
    assert sorted(found) == ["a/b", "checkpoints/3"]
    (tmp_path / "checkpoints" / "3" / "x").write_text("other times")
    assert contents(tmp_path, without=("lock",), steps=("checkpoints",)) == found


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["scan", "train", "protect", "protect photos", "attack"])
def test_a_few_trials_of(verb: str, tmp_path: Path) -> None:
    record = tmp_path / "crash.json"
    command = [sys.executable, "-m", "tests.crash", "--trials=4", f"--verb={verb}", "--seed=1"]
    done = subprocess.run(
        [*command, f"--record={record}"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 trials, 0 of them wrong" in done.stdout
