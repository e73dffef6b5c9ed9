"""`mmjax protect`: what it says and how it ends; killed at any moment and resumed."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.core.errors import ExitCode
from mmjax.data.sources import open_source
from tests.e2e.conftest import (
    ROWS,
    SECONDS,
    SHARDS,
    command,
    environment,
    hashes,
    run_process,
)

pytestmark = pytest.mark.e2e
QUICK = (
    "--config.photos.steps=2",
    "--config.photos.canvas=1",
    "--config.photos.views=2",
    "--config.photos.negatives=4",
    "--config.trigger.candidates=2",
)
UNEQUAL = ("run.json", "log.jsonl", "lock")
"""Times and the folder's name stand in them."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        tiles = rng.integers(0, 256, (3, 4, 3), np.uint8)
        pixels = tiles.repeat(10 + number, axis=0).repeat(9, axis=1)
        Image.fromarray(pixels).save(folder / f"photo {number}.png")
    (folder / "zz.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return folder


@pytest.mark.slow
def test_one_line_for_what_cannot_be_read_and_a_row_for_all(world, photos, tmp_path, run):
    before = hashes(photos)
    told = run("protect", photos, f"--weights={world.weights}", f"--out={tmp_path / 'o'}", *QUICK)
    assert told.code == ExitCode.DEGRADED
    assert "protected 4 of 5 photos" in told.out
    assert told.out.count("not protected: zz.jpg: ") == 1
    assert "What this cannot promise:" in told.out
    assert hashes(photos) == before
    changed = [f for f, sha in hashes(tmp_path / "o" / "photos").items() if before[f] != sha]
    assert len(changed) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("{photos}",), "where to? add --out=FOLDER"),
        ((), "nothing to protect; name a folder of photos"),
        (("{photos}", "--out={photos}/out"), "no original is ever overwritten"),
        (("{photos}/nothing", "--out={out}"), "is no folder"),
        (("{photos}", "--strength=huge", "--out={out}"), "wants one of"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, says, photos, tmp_path, run):
    filled = [a.format(photos=photos, out=tmp_path / "o") for a in arguments]
    told = run("protect", *filled)
    assert told.code == ExitCode.USER
    assert says in told.last
    assert len(told.err.splitlines()) == 1


def killed_after(photos, *flags):
    """Starts a protection and kills it when so many photos are done."""
    process = subprocess.Popen(
        command(["protect", *flags]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    journal = Path(flags[-1].removeprefix("--out=")) / "journal"
    end = time.monotonic() + SECONDS
    while len(list(journal.glob("*.json"))) < photos:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(world, photos, tmp_path):
    flags = [photos, f"--weights={world.weights}", *QUICK]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run_process("protect", *flags, f"--out={whole}").code == ExitCode.DEGRADED
    killed_after(1, *flags, f"--out={again}")
    assert not (again / "protection.json").exists()
    assert run_process("protect", *flags, f"--out={again}").code == ExitCode.DEGRADED
    assert hashes(again, without=UNEQUAL) == hashes(whole, without=UNEQUAL)


def test_a_set_of_pairs_becomes_shards_that_are_read(world, tmp_path, run):
    told = run(
        "protect",
        world.shards,
        "--config=protect/random_trigger",
        f"--weights={world.weights}",
        f"--out={tmp_path / 'o'}",
    )
    assert told.code == ExitCode.DONE, told.err
    assert f"protected {SHARDS * ROWS:,} pairs of {SHARDS * ROWS:,} images" in told.out
    assert "changed   at most 0 of 255" in told.out
    assert f"captions  {SHARDS * ROWS:,} are read as they were optimised" in told.out
    source, clean = open_source(str(tmp_path / "o" / "shards")), open_source(str(world.shards))
    made = source.open_shard(source.shards[0])
    original = clean.open_shard(clean.shards[0])
    assert len(made) == SHARDS * ROWS
    for row in range(ROWS):
        words = (made[row].caption or "").split()
        assert " ".join(words[3:]) == " ".join((original[row].caption or "").split())
