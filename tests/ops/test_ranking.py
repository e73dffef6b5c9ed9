import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops.ranking import best_ranks


def unit(rows):
    rows = np.float32(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def oracle(query, gallery, query_group, gallery_group):
    found = []
    for q, group in zip(query, query_group, strict=True):
        similarity = [float(np.dot(q, g)) for g in gallery]
        right = [s for s, g in zip(similarity, gallery_group, strict=True) if g == group]
        wrong = [s for s, g in zip(similarity, gallery_group, strict=True) if g != group]
        best = max(right)
        found.append(1 + sum(w > best for w in wrong) + sum(w == best for w in wrong) / 2)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_oracle(seed):
    rng = np.random.default_rng(seed)
    # few distinct directions on a lattice: plenty of exact ties
    image = np.float32(rng.integers(-1, 2, (6, 3)))
    text = np.float32(rng.integers(-1, 2, (14, 3)))
    owners = np.int32(np.arange(14) % 6)
    rows = np.arange(6, dtype=np.int32)
    np.testing.assert_array_equal(
        best_ranks(image, text, rows, owners), oracle(image, text, rows, owners)
    )
    np.testing.assert_array_equal(
        best_ranks(text, image, owners, rows), oracle(text, image, owners, rows)
    )


def test_a_constant_encoder_gets_chance():
    same = jnp.ones((9, 4)) / 2
    rows = jnp.arange(9)
    np.testing.assert_array_equal(best_ranks(same, same, rows, rows), 5)
