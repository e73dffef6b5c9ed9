"""The search for natural triggers: word after word, each among those that fit its neighbours."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from mmjax.ops import hotflip
from mmjax.protect.config import TriggerConfig
from mmjax.protect.wording import WordModel


def fill_in(
    encode: Callable[..., Float[Array, "b d"]],
    triggers: Int32[Array, "b k"],
    change: Float[Array, "b k v"],
    words: WordModel,
    config: TriggerConfig,
    given: dict[str, Any],
) -> Int32[Array, "b k"]:
    """The triggers after one search from left to right.

    In each place the `fitting` words of greatest log P(word | word before) + log P(word after |
    word) are left; of these the `candidates` of best first-order estimate are tried.

    Args:
        encode: as `ops.hotflip` wants it; its last two arguments are the captions' ids, with
            places for triggers, and the trigger of each.
        triggers: where the search begins, a trigger a caption, in the captions' order.
        change: estimates, see `hotflip.estimate`.
        words: what fits.
        config: `fitting`, `candidates`, `selection`.
        given: `table`, `image`, `scale` and `args` of `hotflip.search`.
    """
    places = triggers.shape[1]
    first_words = given["args"][1][:, 1 + places]

    def with_word(
        place: int,
        embedded: Float[Array, "b 1 w"],
        token: Int32[Array, "b 1"],
        kept: Int32[Array, "b k"],
        table: Float[Array, "v w"],
        *args: Any,
    ) -> Float[Array, "b d"]:
        whole = table[kept].at[:, place].set(embedded[:, 0])
        return encode(whole, kept.at[:, place].set(token[:, 0]), *args)

    for place in range(places):
        fits = fitting(words, triggers, first_words, place, count=config.fitting)
        rows = jnp.arange(len(fits))[:, None]
        left = jnp.zeros(change.shape[::2], bool).at[rows, fits].set(True)
        estimates = jnp.where(left, change[:, place], jnp.inf)[:, None]
        own = triggers[:, place, None]
        everything = jnp.ones(change.shape[-1], bool)  # `left` has said what may be chosen
        count = min(config.candidates, fits.shape[1])
        tried = hotflip.choose(estimates, everything, own, count=count)
        found = hotflip.search(
            functools.partial(with_word, place),
            own,
            tried,
            **{**given, "args": (triggers, given["table"], *given["args"])},
            selection=config.selection,
        )
        triggers = triggers.at[:, place].set(found.trigger[:, 0])
    return triggers


def fitting(
    words: WordModel,
    triggers: Int32[Array, "b k"],
    after: Int32[Array, " b"],
    place: int,
    *,
    count: int,
) -> Int32[Array, "b f"]:
    """The `count` tokens that fit best in a place of each trigger, the best first.

    Args:
        words: the model.
        triggers: whose words stand around the place.
        after: the first token of each caption.
        place: from 0.
        count: more than there are words gives all.
    """
    states, logs = jnp.asarray(words.state), jnp.asarray(words.log_probability)
    known = len(words.tokens)
    before = states[triggers[:, place - 1]] if place else jnp.full(len(triggers), known)
    last = place == triggers.shape[1] - 1
    behind = states[after if last else triggers[:, place + 1]]
    score = logs[before, :known] + logs[:known, behind].T
    return jnp.asarray(words.tokens)[jax.lax.top_k(score, min(count, known))[1]]
