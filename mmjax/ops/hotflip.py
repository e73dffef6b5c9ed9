"""HotFlip: discrete triggers, by first-order estimates and a beam search.

A trigger is k tokens of a caption. Exchanging token t at a slot for t' changes the loss by about

    (e_t' - e_t) . dL/de_t

(Ebrahimi et al. 2018, arXiv:1712.06751, section 3; MEM, equation 6), e the tokens' embeddings. The
tokens that this estimates best are tried in earnest, slot after slot from left to right (Wallace
et al. 2019, arXiv:1908.07125, section 2.2). The loss is the symmetric InfoNCE of the batch.

Whoever calls says what a trigger does to captions:

    encode(embedded, trigger, *args) -> unit-norm caption embeddings [b, d]

with `trigger` [n, k] ids and `embedded` [n, k, w] what stands for their embeddings. Usually n = b,
a trigger for each pair; with n = 1 it is one for all. `encode` is compiled once for each function:
pass the same one, and what changes in `args`.

Cost: `gradient` one backward pass of the text tower; `estimate` 2 n k v w FLOPs and n k v float32;
`search` beam · (c + 1) · k forward passes of the text tower, none of the image tower.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from mmjax.ops.contrastive import info_nce, swapped_info_nce

Encode = Callable[..., Float[Array, "b d"]]
Selection = Literal["joint", "per_sample"]


class Found(NamedTuple):
    """The end of a search: the triggers and the loss that they have."""

    trigger: Int32[Array, "n k"]
    loss: Float[Array, ""]


@functools.partial(jax.jit, static_argnames=("encode",))
def gradient(
    encode: Encode,
    trigger: Int32[Array, "n k"],
    table: Float[Array, "v w"],
    image: Float[Array, "b d"],
    scale: Float[Array, ""],
    *,
    args: tuple[Any, ...] = (),
) -> Float[Array, "n k w"]:
    """The gradient of the batch's InfoNCE with respect to the triggers' embeddings.

    Args:
        encode: see the module.
        trigger: token ids.
        table: the embeddings of all tokens.
        image: unit-norm image embeddings of the captions' pairs.
        scale: the inverse temperature.
        args: what `encode` wants beside.
    """

    def loss(embedded: Float[Array, "n k w"]) -> Float[Array, ""]:
        return info_nce(image, encode(embedded, trigger, *args), scale)

    return jax.grad(loss)(table[trigger])


@jax.jit
def estimate(
    gradient: Float[Array, "n k w"], table: Float[Array, "v w"], trigger: Int32[Array, "n k"]
) -> Float[Array, "n k v"]:
    """The change of the loss, to first order, when a slot's token is exchanged for each other.

    Args:
        gradient: of the loss, with respect to the triggers' embeddings.
        table: the embeddings of all tokens.
        trigger: the tokens there are; their own change is 0.
    """
    change = jnp.einsum("nkw,vw->nkv", gradient, table, precision=jax.lax.Precision.HIGHEST)
    return change - jnp.take_along_axis(change, trigger[:, :, None], axis=2)


@functools.partial(jax.jit, static_argnames=("count",))
def choose(
    estimates: Float[Array, "n k v"],
    allowed: Bool[Array, " v"],
    trigger: Int32[Array, "n k"],
    *,
    count: int,
) -> Int32[Array, "n k c"]:
    """The `count` tokens of each slot that lower the loss most by estimate, the best first.

    Args:
        estimates: see `estimate`.
        allowed: tokens that may be chosen; no other ever is.
        trigger: the tokens there are; they fill up where fewer than `count` are allowed.
        count: at most v.
    """
    gain, tokens = jax.lax.top_k(jnp.where(allowed[None, None], -estimates, -jnp.inf), count)
    return jnp.where(jnp.isneginf(gain), trigger[:, :, None], tokens).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("encode", "beam", "selection", "chunk"))
def search(
    encode: Encode,
    trigger: Int32[Array, "n k"],
    candidates: Int32[Array, "n k c"],
    table: Float[Array, "v w"],
    image: Float[Array, "b d"],
    scale: Float[Array, ""],
    *,
    beam: int = 1,
    selection: Selection = "joint",
    chunk: int = 8,
    args: tuple[Any, ...] = (),
) -> Found:
    """The best triggers that a beam search over the candidates finds; never worse than `trigger`.

    From the first slot to the last, every kept set of triggers is tried with its own token and
    with each candidate in the slot, and the `beam` sets of lowest loss are kept. `joint` puts the
    m-th candidate of every trigger to the test at once, so that the m of lowest loss wins for the
    whole batch: with `beam=1` the rule of the reference (OFF:utils.py `get_best_candidates`).
    `per_sample` adds to these the set in which every trigger has the candidate that is best with
    all other captions as they are (`swapped_info_nce`); no caption is encoded for it.

    Args:
        encode: see the module.
        trigger: where the search begins.
        candidates: see `choose`.
        table: the embeddings of all tokens.
        image: unit-norm image embeddings of the captions' pairs.
        scale: the inverse temperature.
        beam: how many sets of triggers are kept; equal ones count once.
        selection: `joint` or `per_sample`; the latter wants a trigger for each caption.
        chunk: sets of captions that are encoded at a time: speed against memory.
        args: what `encode` wants beside.

    Raises:
        ValueError: `per_sample` with fewer triggers than captions.

    Source: MEM, section 3.3; facts/mem.md 1.1 and 7.3.
    """
    if selection == "per_sample" and len(trigger) != len(image):
        raise ValueError(
            f'"per_sample" wants a trigger for each caption, got {len(trigger)} for {len(image)}; '
            'use selection="joint"'
        )

    def encode_each(sets: Int32[Array, "m n k"]) -> Float[Array, "m b d"]:
        return jax.lax.map(lambda ids: encode(table[ids], ids, *args), sets, batch_size=chunk)

    def options(kept: Int32[Array, "n k"], slot: Array, tokens: Int32[Array, "n c"]) -> Array:
        """The kept set with its own and with every candidate token in the slot."""
        own = jax.lax.dynamic_index_in_dim(kept, slot, axis=1)
        tried = jnp.concatenate([own, tokens], axis=1)
        return jax.vmap(lambda column: kept.at[:, slot].set(column), in_axes=1)(tried)

    def score(sets: Int32[Array, "m n k"], texts: Float[Array, "m b d"]) -> tuple[Array, Array]:
        """The sets of one kept set, the combined one added, and their losses."""
        losses = jax.vmap(lambda text: info_nce(image, text, scale))(texts)
        if selection == "joint":
            return sets, losses
        best = jnp.argmin(swapped_info_nce(image, texts[0], texts, scale), axis=0)
        rows = jnp.arange(len(best))
        loss = info_nce(image, texts[best, rows], scale)
        return jnp.concatenate([sets, sets[best, rows][None]]), jnp.append(losses, loss)

    def step(state: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple, None]:
        kept, known = state
        slot, tokens = at
        sets = jax.vmap(lambda one: options(one, slot, tokens))(kept)
        texts = encode_each(sets.reshape(-1, *trigger.shape))
        sets, losses = jax.vmap(score)(sets, texts.reshape(*sets.shape[:2], *texts.shape[1:]))
        losses = jnp.where(jnp.isposinf(known)[:, None], jnp.inf, losses).reshape(-1)
        sets = sets.reshape(-1, *trigger.shape)
        if beam > 1:
            losses = jnp.where(_repeated(sets), jnp.inf, losses)
        gain, chosen = jax.lax.top_k(-losses, beam)
        return (sets[chosen], -gain), None

    # one live set; places of the beam that are not filled yet have an infinite loss
    kept = jnp.broadcast_to(trigger, (beam, *trigger.shape))
    known = jnp.full(beam, jnp.inf).at[0].set(0.0)
    by_slot = (jnp.arange(trigger.shape[1]), jnp.moveaxis(candidates, 1, 0))
    (kept, known), _ = jax.lax.scan(step, (kept, known), by_slot)
    return Found(kept[0], known[0])


def _repeated(sets: Int32[Array, "m n k"]) -> Bool[Array, " m"]:
    """Which sets are equal to an earlier one."""
    equal = jnp.all(sets[:, None] == sets[None], axis=(2, 3))
    return jnp.any(jnp.tril(equal, -1), axis=1)
