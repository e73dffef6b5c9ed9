"""A world in small: shards of scenes, a random CLIP with its tokenizer, a fitted mapping."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.cli import main
from mmjax.data.embeddings import write_embeddings
from mmjax.data.scenes import make_scenes, write_scenes
from mmjax.data.tokenizer import train_bpe
from mmjax.models.clip import build
from mmjax.models.presets import PRESETS, TextPreset, VisionPreset
from mmjax.models.weights import save_weights
from tests.conftest import ROOT

SECONDS = 300
"""A verb that takes longer hangs, also on a machine that is busy with other things."""
FLOAT32 = "--config.encode.precision=float32"
SHARDS, ROWS = 5, 40
TINY = dataclasses.replace(
    PRESETS["demo"],
    name="e2e",
    embed_dim=16,
    vision=VisionPreset(32, 32, 1, patch_size=16, head_width=16),
    text=TextPreset(width=32, heads=2, layers=1, vocab_size=600, context_length=32),
)


class World(NamedTuple):
    """Where everything lies. `shards` hold `SHARDS * ROWS` scenes; `mapping` is of kind ridge."""

    folder: Path
    shards: Path
    reference: Path
    model: Path
    mapping: Path

    @property
    def weights(self) -> str:
        return f"mmjax-dir:{self.model}"

    @property
    def flags(self) -> list[str]:
        """What a scan of images needs beside its input and output; float32 on every machine."""
        return [f"--weights={self.weights}", f"--mapping={self.mapping}", FLOAT32]


class Ran(NamedTuple):
    """How a verb ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.splitlines()[-1] if self.err else ""


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once: nothing may write into it."""
    return make_world(tmp_path_factory.mktemp("world"))


def make_world(folder: Path) -> World:
    """Shards, reference, model and mapping in a folder."""
    made = World(
        folder, folder / "shards", folder / "reference", folder / "model", folder / "mapping"
    )
    write_scenes(made.shards, SHARDS * ROWS, 7, size=32, shard_size=ROWS)
    write_scenes(made.reference, 60, 8, size=32, shard_size=60)
    save_model(made.model)
    fit = ["fit-mapping", str(made.reference), f"--weights={made.weights}", FLOAT32]
    code = main([*fit, "--kind=ridge", f"--out={made.mapping}"])
    assert code == 0
    return made


def save_model(folder: Path, seed: int = 0) -> None:
    """A CLIP of random weights, with a tokenizer of its own.

    The towers share a projection and what is added before it, so that similarities are positive.
    """
    captions = [scene.captions[0] for scene in make_scenes(60, 9, 32)]
    train_bpe(captions, TINY.text.vocab_size, folder / "tokenizer.json")
    variables = build(TINY).init(jax.random.key(seed))
    params = variables["params"]
    added = {
        "projection": params["visual"]["projection"],
        "norm_after": params["visual"]["norm_after"] | {"bias": 0.7 * jnp.ones(TINY.text.width)},
    }
    towers = {name: params[name] | added for name in ("visual", "text")}
    made = {**variables, "params": params | towers}
    save_weights(folder, TINY, made, folder / "tokenizer.json")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a verb in this process."""

    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Ran(int(code), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def scanned(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted scan of the shards, with clean shards; nothing may write into it."""
    out = tmp_path_factory.mktemp("scanned") / "run"
    assert main(["scan", str(world.shards), *world.flags, f"--out={out}", "--write_clean"]) == 0
    return out


def environment(devices: int = 1) -> dict[str, str]:
    """Of a subprocess: the settings of the tests, so many devices, all of them CPUs."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}


def command(arguments: Sequence[str | Path]) -> list[str]:
    """The installed `mmjax`, by its module, so that no PATH is needed."""
    start = "from mmjax.cli import entry_point; entry_point()"
    return [sys.executable, "-c", start, *map(str, arguments)]


def run_process(*arguments: str | Path, cwd: Path | None = None, devices: int = 1) -> Ran:
    """Runs a verb in a process of its own."""
    done = subprocess.run(
        command(arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(devices),
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def on_eight_devices(*python: str) -> Any:
    """What `python ...` prints as JSON in a process with eight devices."""
    done = subprocess.run(
        [sys.executable, *python],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(devices=8),
        timeout=12 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def verdicts(out: Path) -> pa.Table:
    """All verdict rows of a run, in order."""
    return pa.concat_tables([pq.read_table(f) for f in sorted((out / "verdicts").glob("*"))])


def hashes(folder: Path, *, without: Sequence[str] = ()) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path; `without` are first parts."""
    return {
        str(name): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (name := file.relative_to(folder)).parts[0] not in without
    }


def check_same_scan(made: Path, wanted: Path) -> None:
    """Two scans of one set left the same bytes.

    Not compared is what tells of the run itself: its times, its processes, its parts. The page
    names the run's folder, and the decision's journal entry holds the hash of the page.
    """
    one, other = (
        hashes(out, without=("lock", "log.jsonl", "run.json", "parts")) for out in (made, wanted)
    )
    page = str(Path("report", "index.html"))
    for name in (page, str(Path("journal", "stage", "decision.json"))):
        assert one.pop(name)
        assert other.pop(name)
    assert one == other
    assert any(Path(name).parts[0] == "verdicts" for name in one)
    pages = [(out / page).read_text().replace(str(out), "RUN") for out in (made, wanted)]
    assert pages[0] == pages[1]


def encoded_by_parts(out: Path) -> list[str]:
    """Shards that processes with --part say they encoded, in order of their names."""
    lines = [
        json.loads(line)
        for file in (out / "parts").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    return sorted(line["name"] for line in lines if line["event"] == "shard")


def check_accounts(out: Path, summary: dict[str, Any], rows: int) -> pa.Table:
    """The law of every scan: each input row is in one verdict row and in one manifest."""
    table = verdicts(out)
    assert table.num_rows == rows == summary["total"] == sum(summary["counts"].values())
    assert sum(summary["statuses"].values()) == rows
    known = {"benign", "poisoned", "mismatched", "undetermined", "skipped"}
    assert set(table["verdict"].to_pylist()) <= known
    listed = [
        row
        for name in ("keep", "drop", "skipped")
        for row in pq.read_table(out / f"{name}.parquet").to_pylist()
    ]
    places = [(row["shard"], row["ordinal"]) for row in listed]
    assert len(places) == len(set(places)) == rows
    wanted = table.select(["shard", "ordinal", "key", "verdict"]).to_pylist()
    order = [(row["shard"], row["ordinal"]) for row in wanted]
    assert [row for _, row in sorted(zip(places, listed, strict=True), key=lambda x: x[0])] == [
        row for _, row in sorted(zip(order, wanted, strict=True), key=lambda x: x[0])
    ]
    for row in table.to_pylist():
        assert (row["verdict"] == "skipped") == (row["status"] != "ok")
        assert (row["poison_score"] is None) == (row["status"] != "ok")
        assert row["is_poisoned"] == (row["verdict"] == "poisoned")
        assert bool(row["error_message"]) == (row["status"] != "ok")
    return table


def embeddings(
    folder: Path, rows: int, *, seed: int, poison: int = 0, scale: float = 1.0, topics: int = 20
) -> Path:
    """clip-retrieval embeddings of captioned topics; `poison` rows share a caption, not an image.

    A clean caption lies near its image; a poisoned one is near one point that no image is near.
    """
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(0)  # the same topics in every set
    d = 32
    centres = shared.normal(size=(topics, d))
    target = shared.normal(size=d)
    image = centres[rng.integers(topics, size=rows)] + 0.5 * rng.normal(size=(rows, d))
    text = image + 0.7 * rng.normal(size=(rows, d))
    captions = [f"a picture of topic {i % topics}, number {i}" for i in range(rows)]
    bad = rng.permutation(rows)[:poison]
    image[bad] = rng.normal(size=(poison, d))
    text[bad] = 1.5 * target[None, :] + 0.1 * rng.normal(size=(poison, d))
    for row in bad:
        captions[row] = f"a photo of a banana, {row}"
        image[row] -= (image[row] @ target) * target / (target @ target)
    image /= np.linalg.norm(image, axis=1, keepdims=True) / scale
    text /= np.linalg.norm(text, axis=1, keepdims=True) / scale
    write_embeddings(
        folder,
        image.astype(np.float32),
        text.astype(np.float32),
        captions=captions,
        image_paths=[f"{i}.jpg" for i in range(rows)],
        rows_per_part=-(-rows // 2),
    )
    return folder


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


def browse(browser: str, page: Path, *options: str) -> str:
    """Opens a page in a browser of our own and returns what it prints."""
    profile = page.with_suffix(".profile")
    process = subprocess.Popen(
        [browser, *QUIET, f"--user-data-dir={profile}", *options, page.as_uri()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0
    return output
