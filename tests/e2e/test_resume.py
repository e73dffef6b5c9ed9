"""Interrupted scans: killed, terminated, interrupted; the same command ends at the same bytes."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmjax.cli import main
from mmjax.data.scenes import write_scenes
from tests.conftest import ROOT
from tests.e2e.conftest import SECONDS, Run, World, check_same_scan, environment, hashes

pytestmark = pytest.mark.e2e
SHARDS = 24
INTERRUPTIONS = (
    (signal.SIGKILL, -signal.SIGKILL, ""),
    (signal.SIGTERM, 42, "mmjax: terminated"),
    (signal.SIGINT, 130, "mmjax: interrupted"),
)
"""Signal, exit code, what is said."""


@pytest.fixture(scope="module")
def small(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes of the world in many small shards."""
    folder = tmp_path_factory.mktemp("small") / "shards"
    write_scenes(folder, 5 * SHARDS, 11, size=32, shard_size=5, faults=7)
    return folder


@pytest.fixture(scope="module")
def arguments(world: World, small: Path) -> list[str]:
    return ["scan", str(small), *world.flags, "--write_clean", "--config.max_bad_fraction=1"]


@pytest.fixture(scope="module")
def whole(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([*arguments, f"--out={out}"]) == 0
    return out


def interrupt(
    arguments: list[str], out: Path, shards: int, number: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Run the scan in a process that is signalled after so many shards."""
    driver = [sys.executable, "-m", "tests.e2e.signalled", str(int(number)), str(shards)]
    return subprocess.run(
        [*driver, *arguments, f"--out={out}"],
        capture_output=True,
        text=True,
        env=environment(devices=4),
        cwd=ROOT,
        timeout=SECONDS,
        check=False,
    )


def journalled(out: Path) -> int:
    """Shards that are encoded; other units of work have folders or names of their own."""
    folder = out / "journal"
    return len(list(folder.glob("0*.json"))) if folder.is_dir() else 0


@pytest.mark.slow
def test_interrupted_again_and_again_it_ends_at_the_same_bytes(
    arguments: list[str], whole: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "run"
    moments = [1, *random.Random(5).choices(range(1, SHARDS // 4), k=len(INTERRUPTIONS) - 1)]
    for moment, (number, code, says) in zip(moments, INTERRUPTIONS, strict=True):
        before = hashes(out / "journal") if (out / "journal").is_dir() else {}
        ended = interrupt(arguments, out, moment, number)
        assert ended.returncode == code
        assert ended.stdout == ""
        assert [line[: len(says)] for line in ended.stderr.splitlines()] == [says] * bool(says)
        if says:
            assert not list(out.rglob("*.tmp-*")), "what was begun is put away"
        assert len(before) + moment <= journalled(out) < SHARDS
        kept = hashes(out / "journal")
        assert {name: kept[name] for name in before} == before, "finished shards are done again"
    # what a power cut leaves: half a file under its temporary name
    (out / "embeddings" / "00003.image.npy.tmp-1").write_bytes(b"half")
    assert run(*arguments, f"--out={out}").code == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log].count("resume") == len(moments)
    encoded = [line["name"] for line in log if line["event"] == "shard"]
    assert SHARDS - len(moments) <= len(set(encoded))
    assert len(encoded) <= SHARDS + len(moments), "at most one shard is done twice each time"
    check_same_scan(out, whole)


@pytest.mark.slow
def test_damaged_outputs_and_changed_inputs_are_encoded_again(
    arguments: list[str], small: Path, whole: Path, tmp_path: Path, run: Run
) -> None:
    shards, out = tmp_path / "shards", tmp_path / "run"
    shutil.copytree(small, shards)
    moved = ["scan", str(shards), *arguments[2:], f"--out={out}"]
    assert run(*moved).code == 0
    damaged = out / "embeddings" / "00002.image.npy"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    (out / "pairs" / "00004.parquet").unlink()
    (out / "journal" / "00006.json").write_bytes(b"{")
    shutil.copyfile(shards / "00009.tar", shards / "00008.tar")
    (shards / f"{SHARDS - 1:05d}.tar").unlink()
    (shards / "sizes.json").unlink()
    (out / "log.jsonl").unlink()
    assert run(*moved).code == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    encoded = [line["name"] for line in log if line["event"] == "shard"]
    assert encoded == ["00002", "00004", "00006", "00008"]
    names = {f"{i:05d}" for i in range(SHARDS - 1)}
    assert {file.stem for file in (out / "verdicts").iterdir()} == names
    assert {file.stem for file in (out / "clean").glob("*.tar")} == names
    assert (out / "embeddings" / "00002.image.npy").read_bytes() == (
        whole / "embeddings" / "00002.image.npy"
    ).read_bytes()


@pytest.mark.slow
def test_other_settings_do_not_mix_with_a_run(
    arguments: list[str], world: World, whole: Path, tmp_path: Path, run: Run
) -> None:
    before = hashes(whole)
    ran = run(*arguments, f"--out={whole}", "--config.stages.gamma=0.8")
    assert ran.code == 2
    assert ran.err.startswith(f"mmjax: error: {whole} holds another run (config.stages.gamma was")
    ran = run("fit-mapping", world.reference, f"--weights={world.weights}", f"--out={whole}")
    assert ran.code == 2
    assert "holds another run" in ran.err
    assert hashes(whole) == before
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "stale.txt").write_text("left by the run that is replaced")
    ran = run(*arguments, f"--out={out}", "--config.stages.gamma=0.8", "--overwrite")
    assert ran.code == 0
    assert not (out / "stale.txt").exists()
