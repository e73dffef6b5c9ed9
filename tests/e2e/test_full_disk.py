"""Disks that are full, or read-only, as they really are: a small tmpfs; wants root."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Run, World, hashes

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
Remount = Callable[[str], None]


def mount(*arguments: str | Path) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Remount]]:
    """A disk of one megabyte, and what changes its options."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", place):
        pytest.skip("no right to mount a disk here")

    def remount(options: str) -> None:
        assert mount("-o", f"remount,{options}", place)

    yield place, remount
    subprocess.run(["umount", "--lazy", place], check=True)


def commands(world: World) -> dict[str, tuple[str, ...]]:
    """Verbs, and below them what of their folders must be equal afterwards."""
    scene = ("--config.data.scenes=16", "--config.data.heldout_scenes=0", "--config.batch_size=8")
    every = ("--config.checkpoint_every=1", "--config.log_every=1", "--steps=3")
    return {
        "scan": ("scan", str(world.shards), *world.flags, "--write_clean"),
        "train": ("train", "--config=train/demo", f"--weights={world.weights}", *scene, *every),
        "attack": ("attack", str(world.shards), "--config.image_size=32"),
    }


COMPARED = {"scan": ("verdicts", "embeddings", "clean"), "train": ("model",), "attack": ("labels",)}


def wanted(command: tuple[str, ...], out: Path, run: Run) -> tuple[dict[str, str], int]:
    """What an undisturbed run leaves, and how many bytes it takes."""
    assert run(*command, f"--out={out}").code == 0
    left = {n: h for f in COMPARED[command[0]] for n, h in hashes(out / f).items()}
    size = sum(-(-f.stat().st_size // 4096) * 4096 for f in out.rglob("*") if f.is_file())
    shutil.rmtree(out)
    return left, size


@pytest.mark.parametrize("verb", COMPARED)
def test_a_full_disk_is_one_line_and_more_room_resumes(
    verb: str, world: World, disk: tuple[Path, Remount], run: Run
) -> None:
    place, remount = disk
    command = commands(world)[verb]
    remount("size=1g")
    left, size = wanted(command, place / "run", run)
    for share in (0.05, 0.4, 0.8):
        remount(f"size={int(size * share)}")
        ran = run(*command, f"--out={place / 'run'}")
        assert ran.code == 2, share
        assert ran.last.startswith("mmjax: error: disk full while writing "), share
        assert ran.last.endswith("free some space and run it again")
        assert not list(place.rglob("*.tmp-*")), "half a file takes the room that is wanted"
    remount("size=1g")
    assert run(*command, f"--out={place / 'run'}").code == 0
    again = {n: h for f in COMPARED[verb] for n, h in hashes(place / "run" / f).items()}
    assert again == left


def test_a_read_only_disk_is_one_line(world: World, disk: tuple[Path, Remount], run: Run) -> None:
    place, remount = disk
    (place / "run").mkdir()
    remount("ro")
    for command in commands(world).values():
        for out in (place / "run", place / "new" / "run"):
            ran = run(*command, f"--out={out}")
            assert ran.code == 2
            assert len(ran.err.splitlines()) == 1
            assert "(Read-only file system); choose another --out" in ran.last
