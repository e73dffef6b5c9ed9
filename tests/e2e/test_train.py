"""`mmjax train` in processes of its own: terminated, killed, resumed, two processes as one."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import SECONDS, World, environment, hashes

pytestmark = pytest.mark.e2e
STEPS = 60
OPTIONS = (
    "--config=train/demo",
    f"--steps={STEPS}",
    "--config.data.scenes=48",
    "--config.data.heldout_scenes=0",
    "--config.model.compute=float32",
    "--config.batch_size=16",
    "--config.log_every=1",
    "--config.fsdp=true",
)


def start(
    world: World, out: Path, *more: str, stop: int | str, devices: int
) -> subprocess.Popen[str]:
    arguments = [*OPTIONS, f"--weights={world.weights}", f"--out={out}", *more]
    return start_verb("train", *arguments, stop=stop, devices=devices)


def start_verb(
    verb: str, *arguments: str, stop: int | str = 0, devices: int
) -> subprocess.Popen[str]:
    # the compiler's slow passes only cost minutes here
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.terminated", str(stop), verb, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(devices=devices), "XLA_FLAGS": flags},
        cwd=ROOT,
    )


def end(*started: subprocess.Popen[str]) -> tuple[list[int], str]:
    """Exit codes of processes, and what all of them said."""
    said = ["".join(process.communicate(timeout=3 * SECONDS)) for process in started]
    return [process.returncode for process in started], "\n".join(said)


def two(
    world: World, out: Path, *more: str, stop: int | str, devices: int = 4
) -> tuple[list[int], str]:
    """Two processes, their devices each; the first is signalled after `stop` steps."""
    arguments = (*OPTIONS, f"--weights={world.weights}", f"--out={out}", *more)
    return together("train", *arguments, stop=stop, devices=devices)


def together(
    verb: str, *arguments: str, stop: int | str = 0, devices: int
) -> tuple[list[int], str]:
    """A verb in two processes that join."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    joined = (*arguments, f"--coordinator=localhost:{port}", "--processes=2")
    return end(
        *(
            start_verb(verb, *joined, f"--process={i}", stop=stop if i == 0 else 0, devices=devices)
            for i in range(2)
        )
    )


def curve(out: Path, steps: int = STEPS) -> np.ndarray:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    return np.array([line["loss"] for line in lines])


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process with eight devices that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    codes, said = end(start(world, out, stop=0, devices=8))
    assert codes == [0], said
    return out


@pytest.mark.slow
def test_sigterm_saves_and_exits_42_and_the_same_command_ends_at_the_same_bytes(
    world: World, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = end(start(world, out, stop=5, devices=8))
    assert codes == [42], said
    assert "stopped after step 6 of 60; start the same command again" in said
    assert (out / "checkpoints" / "6").is_dir()
    codes, said = end(start(world, out, stop=0, devices=8))
    assert codes == [0], said
    assert hashes(out / "model") == hashes(whole / "model")
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_two_processes_train_stop_and_resume_together(
    world: World, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = two(world, out, stop=5)
    assert codes == [42, 42], said
    saved = [path.name for path in (out / "checkpoints").iterdir()]
    assert len(saved) == 1
    assert 5 < int(saved[0]) < STEPS
    codes, said = two(world, out, stop=0)
    assert codes == [0, 0], said
    np.testing.assert_allclose(curve(out), curve(whole), rtol=1e-5)


@pytest.mark.slow
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(
    world: World, whole: Path, tmp_path: Path
) -> None:
    out, often = tmp_path / "run", "--config.checkpoint_every=5"
    codes, said = two(world, out, often, stop="13:9")
    assert codes[0] == -signal.SIGKILL, said
    assert codes[1] != 0, "no process waits for ever for a lost one"
    assert (out / "checkpoints" / "10").is_dir()
    codes, said = two(world, out, often, stop=0)
    assert codes == [0, 0], said
    assert "first metrics are of step 11" in said
    np.testing.assert_allclose(curve(out), curve(whole), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_judge_and_split_the_pairs_as_one_does(world: World, tmp_path: Path) -> None:
    """SafeCLIP, three steps an epoch, the processes stopped between its splits.

    Two devices each: with four, eight of 192 cosines were up to 2e-4 apart after nine steps.
    """
    defended = (
        "--defence=safeclip",
        "--steps=12",
        "--config.defence.safeclip.unimodal_epochs=1",
        "--config.defence.safeclip.largest=0.6",
        "--config.checkpoint_every=0",
    )
    alone, together = tmp_path / "alone", tmp_path / "together"
    codes, said = end(start(world, alone, *defended, stop=0, devices=4))
    assert codes == [0], said
    codes, said = two(world, together, *defended, stop=5, devices=2)
    assert codes == [42, 42], said
    codes, said = two(world, together, *defended, stop=0, devices=2)
    assert codes == [0, 0], said
    names = [path.name for path in sorted((alone / "judged").iterdir())]
    assert names == ["00000006.npy", "00000009.npy"]
    for name in names:
        one, other = (np.load(out / "judged" / name) for out in (alone, together))
        np.testing.assert_allclose(other, one, atol=1e-4)
    np.testing.assert_allclose(curve(together, 12), curve(alone, 12), rtol=1e-4)
