"""What a CPU computes faster finds what `lax.conv` in float32 finds."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jax import lax

from mmjax.cli import main
from mmjax.data.scenes import write_scenes
from mmjax.models import convolution
from tests.e2e.conftest import verdicts

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
DECIDED = ("shard", "ordinal", "key", "caption", "status", "flags", "verdict", "is_poisoned")


class Shown(NamedTuple):
    """A poisoned set, a mapping for it, and what the plain formulation says of it."""

    shards: Path
    mapping: Path
    plain: pa.Table


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """1,000 scenes, 30 of them poisoned by BadNets, scanned with `lax.conv` in float32."""
    folder = tmp_path_factory.mktemp("shown")
    write_scenes(folder / "clean", 1_000, 21, size=64, shard_size=500)
    write_scenes(folder / "reference", 300, 22, size=64)
    shards, mapping = folder / "shards", folder / "mapping"
    attack = ["--rate=0.03", "--config.image_size=64", "--config.trigger.patch_size=0.25"]
    assert main(["attack", str(folder / "clean"), *attack, f"--out={shards}"]) == 0
    fit = ["--weights=demo", "--kind=ridge", f"--out={mapping}"]
    assert main(["fit-mapping", str(folder / "reference"), *fit]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "pays", lambda *_: False)
        return Shown(shards, mapping, scan(shards, mapping, folder / "plain", "float32"))


def scan(shards: Path, mapping: Path, out: Path, compute: str) -> pa.Table:
    flags = ["--weights=demo", f"--mapping={mapping}", f"--config.encode.precision={compute}"]
    assert main(["scan", str(shards), *flags, f"--out={out}"]) == 0
    return verdicts(out)


def test_verdicts_by_winograd_are_those_of_the_plain_formulation(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []

    def pays(*shapes: object) -> bool:
        taken.append(real(*shapes))
        return taken[-1]

    real = convolution.pays
    monkeypatch.setattr(convolution, "pays", pays)
    table = scan(shown.shards, shown.mapping, tmp_path / "run", "float32")
    assert any(taken)
    assert table.select(DECIDED).equals(shown.plain.select(DECIDED))


def test_matrix_products_find_what_the_compilers_bfloat16_finds(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both round to bfloat16 after sums of another order, which no later layer takes back."""
    taken: list[str] = []

    def by_compiler(name: str) -> Callable[..., jax.Array]:
        def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
            taken.append(name)
            margin = kernel.shape[0] // 2
            return lax.conv_general_dilated(
                x.astype(jnp.bfloat16),
                kernel.astype(jnp.bfloat16),
                (stride, stride),
                [(margin, margin)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                preferred_element_type=jnp.float32,
            )

        return convolve

    fast = scan(shown.shards, shown.mapping, tmp_path / "fast", "bfloat16")
    for name in ("row3", "unfolded"):
        monkeypatch.setattr(convolution, name, by_compiler(name))
    plain = scan(shown.shards, shown.mapping, tmp_path / "plain", "bfloat16")
    assert {*taken} == {"row3", "unfolded"}
    same_but_for_the_threshold(shown, fast, plain)


def test_bfloat16_finds_what_float32_finds(shown: Shown, tmp_path: Path) -> None:
    """Another precision, no formulation: pairs at the threshold may fall on either side."""
    table = scan(shown.shards, shown.mapping, tmp_path / "run", "bfloat16")
    same_but_for_the_threshold(shown, table, shown.plain)


def same_but_for_the_threshold(shown: Shown, found: pa.Table, plain: pa.Table) -> None:
    """All planted pairs are judged alike, and all but one in two hundred of the others."""
    moved = verdict(found) != verdict(plain)
    planted = pq.read_table(shown.shards / "poison_labels.parquet")["is_poisoned"].to_numpy()
    assert not moved[planted].any()
    assert moved.sum() <= len(moved) / 200, f"{moved.sum()} of {len(moved)} pairs"


def test_there_is_something_to_find(shown: Shown) -> None:
    planted = pq.read_table(shown.shards / "poison_labels.parquet")["is_poisoned"].to_numpy()
    assert planted.sum() == 30
    assert (verdict(shown.plain)[planted] == "poisoned").sum() >= 25


def verdict(table: pa.Table) -> np.ndarray:
    return table["verdict"].to_numpy()
