"""Losses and ranks are of float32 on every machine: a TPU rounds to bfloat16 what is not told."""

import jax
import jax.numpy as jnp
import pytest

from mmjax.ops.contrastive import chunked_info_nce, info_nce, swapped_info_nce
from mmjax.ops.pair_losses import pair_losses
from mmjax.ops.pool import nearest_entries
from mmjax.ops.ranking import best_ranks

ROWS = jax.ShapeDtypeStruct((6, 4), jnp.float32)
GROUPS = jax.ShapeDtypeStruct((6,), jnp.int32)
SCALE = jax.ShapeDtypeStruct((), jnp.float32)
CASES = {
    "info_nce": (info_nce, (ROWS, ROWS, SCALE)),
    "chunked_info_nce": (lambda *a: chunked_info_nce(*a, chunk=4), (ROWS, ROWS, SCALE)),
    "swapped_info_nce": (
        swapped_info_nce,
        (ROWS, ROWS, jax.ShapeDtypeStruct((2, 6, 4), jnp.float32), SCALE),
    ),
    "pair_losses": (
        pair_losses,
        (ROWS, ROWS, SCALE, jax.ShapeDtypeStruct((6,), jnp.bool_)),
    ),
    "nearest_entries": (nearest_entries, (ROWS, jax.ShapeDtypeStruct((2, 3, 1, 4), jnp.float32))),
    "best_ranks": (best_ranks, (ROWS, ROWS, GROUPS, GROUPS)),
}


@pytest.mark.parametrize("name", CASES)
def test_products_are_told_not_to_round(name):
    function, arguments = CASES[name]

    def value_and_gradients(first, *others):
        value, back = jax.vjp(lambda rows: function(rows, *others), first)
        return value, back(jnp.ones_like(value))

    lowered = jax.jit(value_and_gradients).lower(*arguments).as_text()
    products = [line for line in lowered.splitlines() if "dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products), products
