"""The same scan whatever it runs on: workers, batches, devices, the order of its shards."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmjax.scan.verdicts import SCORES
from tests.e2e.conftest import World, hashes, run_process, verdicts

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
EXACT = ("shard", "ordinal", "key", "caption", "status", "flags", "verdict", "is_poisoned")
MEASURED = [name for name in SCORES if name not in ("gmm_component", "coarse", "group")]


@pytest.fixture(scope="module")
def poisoned(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in which there is something to find."""
    folder = tmp_path_factory.mktemp("poisoned") / "set"
    flags = ["--rate=0.05", "--config.image_size=32", f"--out={folder}"]
    assert run_process("attack", world.shards, *flags).code == 0
    return folder


def scan(world: World, shards: list[Path], out: Path, *flags: str, devices: int = 1) -> pa.Table:
    given = [*world.flags, f"--config.mesh.data={devices}", *flags, f"--out={out}"]
    ran = run_process("scan", *shards, *given, devices=devices)
    assert ran.code == 0, ran.err
    return verdicts(out)


@pytest.fixture(scope="module")
def whole(world: World, poisoned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    scan(world, sorted(poisoned.glob("*.tar")), out)
    return out


@pytest.mark.parametrize(
    ("flags", "order"),
    [
        ([], 0),
        (["--workers=1"], 1),
        (["--workers=5"], 2),
    ],
)
def test_again_with_other_workers_and_shards_in_any_order(
    flags: list[str], order: int, world: World, poisoned: Path, whole: Path, tmp_path: Path
) -> None:
    shards = sorted(poisoned.glob("*.tar"))
    random.Random(order).shuffle(shards)
    out = tmp_path / "run"
    scan(world, shards, out, *flags)
    for folder in ("verdicts", "embeddings", "pairs"):
        assert hashes(out / folder) == hashes(whole / folder)
    for name in ("keep", "drop", "skipped"):
        manifest = f"{name}.parquet"
        assert (out / manifest).read_bytes() == (whole / manifest).read_bytes()


@pytest.mark.parametrize(
    ("devices", "flags"),
    [
        (1, ["--batch_size=1"]),
        (1, ["--batch_size=7", "--config.encode.text_batch_size=3"]),
        (2, []),
        (3, ["--batch_size=12"]),
        (8, []),
    ],
)
def test_batches_and_devices(
    devices: int, flags: list[str], world: World, poisoned: Path, whole: Path, tmp_path: Path
) -> None:
    shards = sorted(poisoned.glob("*.tar"))
    out = tmp_path / "run"
    table, wanted = scan(world, shards, out, *flags, devices=devices), verdicts(whole)
    assert hashes(out / "embeddings") == hashes(whole / "embeddings")
    assert table.select(EXACT).equals(wanted.select(EXACT))
    far = {
        name: float(np.nanmax(np.abs(_numbers(table, name) - _numbers(wanted, name))))
        for name in MEASURED
    }
    assert max(far.values()) <= 1e-6, far


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False).astype(float)
