"""Triggers that read like the beginning of a caption: a bigram model of a set's own captions.

    P(b | a) = (n(a, b) + t(a) P(b)) / (n(a) + t(a)),   P(b) = (n(b) + 1) / (n + words + 1)

n counts bigrams, t(a) the different words after a (Witten and Bell 1991, interpolated). Words are
whole-word tokens that survive being written and read again; all others are one outside word. It
takes the place of the masked language model that MEM's semantic triggers come from, which wants
weights from elsewhere. Half of the images lend their captions to the search, the others judge.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from mmjax.core import keys
from mmjax.data.tokenizer import Tokenizer
from mmjax.protect.config import ProtectConfig
from mmjax.protect.pairs import Pairs
from mmjax.protect.vocabulary import allowed_tokens, token_of_the

Half = Literal["searches", "judges"]
_JUDGED = 4_096
"""Words of the model that judges, whatever the search used: figures of sets are comparable."""


class WordModel(NamedTuple):
    """A bigram model over w words; w stands for the beginning of a caption, w + 1 for outside.

    Fields:
        tokens: of the words, the most frequent first.
        state: each token's word.
        log_probability: [a, b] of b after a, in nats; rows sum to 1, nothing goes to w.
        outside: how many tokens share the probability of the outside word.
    """

    tokens: Int32[np.ndarray, " w"]
    state: Int32[np.ndarray, " v"]
    log_probability: Float32[np.ndarray, "s s"]
    outside: int


def fit_words(pairs: Pairs, tokenizer: Tokenizer, size: int, half: Half) -> WordModel:
    """The model of the captions of every other image.

    Args:
        pairs: whose captions.
        tokenizer: of the surrogate.
        size: words at most.
        half: `searches` takes images 0, 2, ...; `judges` the others, or all of a single image.
    """
    ids = pairs.captions.plain
    chosen = pairs.owner % 2 == (half == "judges")
    ids = ids[chosen] if chosen.any() else ids
    words = tokenizer.vocabulary
    is_word = (np.arange(ids.shape[1])[None] > 0) & (np.cumsum(ids == words.end, axis=1) == 0)
    counts = np.bincount(ids[is_word], minlength=tokenizer.vocab_size)
    safe = np.flatnonzero(allowed_tokens(tokenizer, "safe") & (counts > 0))
    tokens = safe[np.argsort(-counts[safe], kind="stable")][:size].astype(np.int32)
    start, other = len(tokens), len(tokens) + 1
    state = np.full(tokenizer.vocab_size, other, np.int32)
    state[tokens] = np.arange(len(tokens))
    state[words.start] = start
    after = is_word[:, 1:]
    pairs_of_words = np.zeros((other + 1, other + 1))
    np.add.at(pairs_of_words, (state[ids[:, :-1]][after], state[ids[:, 1:]][after]), 1)
    singles = pairs_of_words.sum(axis=0) + 1
    singles[start] = 0
    singles /= singles.sum()
    seen = pairs_of_words.sum(axis=1, keepdims=True)
    kinds = np.maximum((pairs_of_words > 0).sum(axis=1, keepdims=True), 1)
    probability = (pairs_of_words + kinds * singles[None]) / (seen + kinds)
    with np.errstate(divide="ignore"):
        logs = np.log(probability).astype(np.float32)
    return WordModel(tokens, state, logs, tokenizer.vocab_size - len(tokens))


def draw_triggers(
    model: WordModel, count: int, length: int, rng: np.random.Generator
) -> Int32[np.ndarray, "{count} {length}"]:
    """Beginnings of captions by chance, word after word."""
    words = len(model.tokens)
    ways = np.cumsum(np.exp(np.float64(model.log_probability[:, :words])), axis=1)
    drawn = np.zeros((count, length), np.int32)
    last = np.full(count, words)
    for place in range(length):
        levels = rng.random(count) * ways[last, -1]
        last = np.array(
            [np.searchsorted(ways[a], u, side="right") for a, u in zip(last, levels, strict=True)]
        )
        drawn[:, place] = last
    return model.tokens[drawn]


def first_triggers(
    pairs: Pairs, tokenizer: Tokenizer, config: ProtectConfig
) -> Int32[np.ndarray, "t k"]:
    """The triggers before the first round.

    Raises:
        TokenizerError: the tokenizer has no `the`, where triggers begin with it.
    """
    shape = (pairs.triggers, config.trigger_length)
    if config.trigger.start == "the":
        return np.full(shape, token_of_the(tokenizer), np.int32)
    rng = keys.host(config.seed, "triggers")
    if config.trigger.vocabulary == "natural":
        model = fit_words(pairs, tokenizer, config.trigger.words, "searches")
        return draw_triggers(model, *shape, rng)
    tokens = np.flatnonzero(allowed_tokens(tokenizer, config.trigger.vocabulary))
    return rng.choice(tokens, shape).astype(np.int32)


def likelihood(model: WordModel, ids: Int32[np.ndarray, "m k"]) -> float:
    """The mean log-likelihood of beginnings of captions, in nats a token."""
    states = np.concatenate([np.full((len(ids), 1), len(model.tokens)), model.state[ids]], axis=1)
    logs = model.log_probability[states[:, :-1], states[:, 1:]]
    is_outside = states[:, 1:] == len(model.tokens) + 1
    return float(np.mean(logs - np.log(model.outside) * is_outside))


def naturalness(
    pairs: Pairs, tokenizer: Tokenizer, triggers: Int32[np.ndarray, "t k"], *, seed: int
) -> dict[str, float]:
    """How likely triggers are where they stand, by a model of captions new to the search.

    Returns:
        Nats a token, over each trigger and the caption's first token: `triggers`; `random` safe
        words in their place; `captions`, the same number of the captions' own first tokens. All
        of captions that are longer than a trigger; empty where there are none.
    """
    model = fit_words(pairs, tokenizer, _JUDGED, "judges")
    length = triggers.shape[1]
    long_enough = pairs.captions.lengths > 2 + 2 * length  # start, trigger, caption, end
    rows = np.flatnonzero((pairs.owner % 2 == 0) & long_enough)
    plain = pairs.captions.plain[rows]
    if not len(rows):
        return {}
    safe = np.flatnonzero(allowed_tokens(tokenizer, "safe"))
    random = keys.host(seed, "naturalness").choice(safe, (len(rows), length))

    def of(words: np.ndarray) -> float:
        return likelihood(model, np.concatenate([words, plain[:, 1:2]], axis=1).astype(np.int32))

    own = plain[:, 1 : 2 + length]
    return {
        "triggers": of(triggers[pairs.trigger[rows]]),
        "random": of(random),
        "captions": likelihood(model, own),
    }
