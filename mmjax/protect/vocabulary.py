"""The tokens that triggers may be made of, and captions with a trigger in front."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from mmjax.core.errors import TokenizerError
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.vocabulary import FILLER, WORD_END

_SAFE = re.compile(f"[a-z]{{2,}}{WORD_END}")


def allowed_tokens(tokenizer: Tokenizer, vocabulary: str) -> Bool[np.ndarray, " v"]:
    """Which tokens a trigger may have.

    `safe` are whole words of two and more letters a to z whose text is read as this one token: put
    in front of any caption, each is read back as itself. 32,849 of CLIP's 49,408 tokens are.
    `natural` ones are among them (`wording`). `all` are all but the special tokens and those that
    a small vocabulary is filled up with, which no text has; a third of CLIP's ends no word and
    grows together with what follows it when it is written as text
    (facts/mem.md 1.3).

    Args:
        tokenizer: of the surrogate.
        vocabulary: `safe`, `natural` or `all`.

    Raises:
        TokenizerError: the tokenizer has no such token.
    """
    words = tokenizer.vocabulary
    allowed = np.ones(tokenizer.vocab_size, np.bool_)
    if vocabulary != "all":
        allowed[:] = False
        safe = {t.removesuffix(WORD_END): i for t, i in words.ids.items() if _SAFE.fullmatch(t)}
        read = tokenizer.encode(list(safe))
        tokens = np.fromiter(safe.values(), np.int64, len(safe))
        allowed[tokens[(read.lengths == 3) & (read.ids[:, 1] == tokens)]] = True
    allowed[[words.start, words.end]] = False
    allowed[[i for token, i in words.ids.items() if FILLER.fullmatch(token)]] = False
    if not allowed.any():
        raise TokenizerError("the tokenizer has no whole words of a to z to make triggers of")
    return allowed


def token_of_the(tokenizer: Tokenizer) -> int:
    """The token of `the`.

    Raises:
        TokenizerError: it has none.
    """
    read = tokenizer.encode(["the"])
    if read.lengths[0] != 3:
        raise TokenizerError("the tokenizer has no token for `the`; use trigger.start=random")
    return int(read.ids[0, 1])


class Slotted(NamedTuple):
    """Captions with free places for a trigger after the start token, and without.

    Fields:
        ids: [start, 0 ... 0, caption, end, 0 ...].
        plain: [start, caption, end, 0 ...], cut where `ids` are cut.
        lengths: of `ids`, start and end included.
    """

    ids: Int32[np.ndarray, "m context"]
    plain: Int32[np.ndarray, "m context"]
    lengths: Int32[np.ndarray, " m"]


def make_room(tokenizer: Tokenizer, captions: list[str], places: int) -> Slotted:
    """Tokens of captions with `places` free ones in front; a caption too long loses its end.

    Raises:
        TokenizerError: no room is left for a caption.
    """
    context = tokenizer.context_length
    room = context - 2 - places
    if room < 1:
        raise TokenizerError(
            f"{places} tokens of a trigger leave nothing of a context of {context}; shorten it"
        )
    read = tokenizer.encode(captions)
    inner = np.minimum(read.lengths - 2, room)
    column = np.arange(context)[None]
    end = tokenizer.vocabulary.end
    plain = np.where(column <= inner[:, None], read.ids, 0)
    plain = np.where(column == inner[:, None] + 1, end, plain).astype(np.int32)
    ids = np.zeros_like(plain)
    ids[:, 0] = tokenizer.vocabulary.start
    ids[:, 1 + places :] = plain[:, 1 : context - places]
    return Slotted(ids, plain, (inner + 2 + places).astype(np.int32))


def with_trigger(tokenizer: Tokenizer, trigger: Int32[np.ndarray, " k"], caption: str) -> str:
    """The caption as it is published: the trigger's words, a space, the caption."""
    return f"{tokenizer.decode(trigger.tolist())} {caption}" if len(trigger) else caption


def survives(
    tokenizer: Tokenizer,
    captions: list[str],
    written: list[str],
    triggers: Int32[np.ndarray, "m k"],
) -> Bool[np.ndarray, " m"]:
    """Which published captions are read as the trigger's tokens and then the caption's own."""
    wanted = make_room(tokenizer, captions, triggers.shape[1]).ids
    wanted[:, 1 : 1 + triggers.shape[1]] = triggers
    return (tokenizer.encode(written).ids == wanted).all(axis=1)
