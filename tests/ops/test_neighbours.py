"""Nearest neighbours and counts against a loop over all pairs, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.ops.neighbours import Blocks, count_above, nearest, place
from tests.e2e.conftest import on_eight_devices
from tests.oracles import neighbours as oracle

SMALL = Blocks(8, 64)
THRESHOLDS = np.float32([-0.3, 0.2, 0.6])


def rows(n: int, seed: int = 0, d: int = 6) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, d))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def corners(n: int, seed: int = 0) -> np.ndarray:
    """Rows of ±1/2: cosines are exact and tie all the time."""
    return np.random.default_rng(seed).choice([-0.5, 0.5], (n, 4)).astype(np.float32)


def check(queries, keys, own, valid, k: int, **how) -> None:
    given = (queries, keys, own, valid)
    found = nearest(*given, k=k, **how)
    counts = count_above(queries, keys, THRESHOLDS, own, valid, **how)
    for i, query in enumerate(queries):
        self_ = -1 if own is None else int(own[i])
        wanted = oracle.ranking(query, keys, self_, valid)[:k]
        missing = k - len(wanted)
        assert found.rows[i].tolist() == [row for _, row in wanted] + [-1] * missing
        np.testing.assert_allclose(
            found.cosine[i], [v for v, _ in wanted] + [-np.inf] * missing, atol=1e-6
        )
        assert counts[i].tolist() == [
            oracle.count_above(query, keys, float(tau), self_, valid) for tau in THRESHOLDS
        ]


def test_ragged_sets_of_random_rows() -> None:
    """21 queries in blocks of 8, 150 keys in blocks of 64: both ends are ragged."""
    keys = rows(150)
    check(keys[:21], keys, np.arange(21), None, 3, blocks=SMALL)


def test_ties_go_to_the_lower_row_and_masked_keys_do_not_count() -> None:
    keys = corners(150)
    valid = np.random.default_rng(1).random(150) < 0.7
    check(keys[:21], keys, np.arange(21), valid, 3, blocks=SMALL)
    found = nearest(keys[:21], place(keys, valid, blocks=SMALL), k=3, blocks=SMALL)
    for one, other in zip(
        found, nearest(keys[:21], keys, None, valid, k=3, blocks=SMALL), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_fewer_keys_than_neighbours() -> None:
    check(rows(3), rows(2, seed=1), None, None, 4)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5]), st.sampled_from([64, 128]))
@settings(max_examples=25, deadline=None)
def test_grouped_selection_equals_a_sort(seed: int, k: int, block: int) -> None:
    """The groups' maxima lose nothing, however values tie."""
    keys = corners(128, seed)
    cosine = np.float32(keys[:9] @ keys.T)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    found = nearest(keys[:9], keys, k=k, blocks=Blocks(16, block))
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_array_equal(found.cosine, np.take_along_axis(cosine, order, 1))
    counts = count_above(keys[:9], keys, THRESHOLDS, blocks=Blocks(16, block))
    np.testing.assert_array_equal(counts, np.sum(cosine[..., None] > THRESHOLDS, axis=1))


def test_half_precision_is_widened() -> None:
    keys = rows(40).astype(np.float16)
    check(keys[:5], keys, None, None, 3, blocks=SMALL)
    assert nearest(keys, keys, k=1).cosine.dtype == jnp.float32


SCRIPT = """
import json, numpy as np
from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.ops.neighbours import Blocks, count_above, nearest, place
rng = np.random.default_rng(3)
keys = np.float32(rng.normal(size=(150, 6)))
keys /= np.linalg.norm(keys, axis=1, keepdims=True)
keys[100:] = keys[:50]
own, how = np.arange(21), dict(blocks=Blocks(8, 64))
said = []
for devices in (0, 1, 2, 4, 8):
    mesh = make_mesh(MeshConfig(data=devices)) if devices else None
    found = nearest(keys[:21], keys, own, k=3, mesh=mesh, **how)
    counts = count_above(keys[:21], keys, np.float32([0.1, 0.5]), own, mesh=mesh, **how)
    said.append([np.asarray(x).tolist() for x in (*found, counts)])
    placed = place(keys, mesh=mesh, **how)
    held = [part.data.shape[0] for part in placed.rows.addressable_shards]
    assert len(held) == max(devices, 1) and len(set(held)) == 1 and sum(held) == len(placed.rows)
    found = nearest(keys[:21], placed, own, k=3, mesh=mesh, **how)
    counts = count_above(keys[:21], placed, np.float32([0.1, 0.5]), own, mesh=mesh, **how)
    said.append([np.asarray(x).tolist() for x in (*found, counts)])
print(json.dumps(said))
"""


def test_devices_do_not_matter() -> None:
    """On 8 there are more devices than blocks of queries: some hold padding only."""
    alone, *on_mesh = on_eight_devices("-c", SCRIPT)
    assert on_mesh == [alone] * 9
    assert alone[0][0][0] == 100  # the copy of row 0


def test_keys_travel_the_ring_and_nothing_else_does() -> None:
    mesh = make_mesh(MeshConfig(data=4))
    keys = jnp.asarray(rows(256))
    for among in (keys, place(np.asarray(keys), blocks=SMALL, mesh=mesh)):
        lowered = nearest.lower(keys[:32], among, k=2, blocks=SMALL, mesh=mesh)
        compiled = lowered.compile().as_text()
        assert compiled.count(" collective-permute(") == 2  # keys, and which of them count
        for other in (" all-gather(", " all-reduce(", " all-to-all("):
            assert compiled.count(other) == 0, other


def test_memory_does_not_grow_with_queries_times_keys() -> None:
    def temporaries(n: int) -> int:
        shape = jax.ShapeDtypeStruct((n, 16), jnp.float32)
        return nearest.lower(shape, shape, k=4).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(16_384), temporaries(65_536)
    assert large < 5 * small
    assert large < 65_536 * 65_536 * 4 / 100
