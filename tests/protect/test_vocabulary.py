"""Which tokens triggers may have, and that they survive any caption; the presets."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.core.config import parse
from mmjax.core.config_file import from_file
from mmjax.core.errors import ConfigError, TokenizerError
from mmjax.data.tokenizer import build_tokenizer, load_tokenizer
from mmjax.data.vocabulary import WORD_END, train_vocabulary
from mmjax.models.weights import load_weights
from mmjax.protect.config import ProtectConfig
from mmjax.protect.vocabulary import (
    allowed_tokens,
    make_room,
    survives,
    token_of_the,
    with_trigger,
)

PRESETS = Path(__file__).parents[2] / "configs" / "protect"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(load_weights("demo").tokenizer_path, context_length=32)


@pytest.fixture(scope="module")
def safe(tokenizer):
    return allowed_tokens(tokenizer, "safe")


def test_safe_tokens_are_words_that_are_read_as_themselves(tokenizer, safe):
    names = {index: token for token, index in tokenizer.vocabulary.ids.items()}
    assert safe.sum() > 100
    for index in np.flatnonzero(safe):
        word = names[int(index)].removesuffix(WORD_END)
        assert names[int(index)].endswith(WORD_END)
        assert tokenizer.encode([word]).ids[0, 1:3].tolist() == [index, tokenizer.vocabulary.end]


@pytest.mark.parametrize("vocabulary", ["safe", "all"])
def test_special_tokens_are_never_allowed(tokenizer, vocabulary):
    allowed = allowed_tokens(tokenizer, vocabulary)
    words = tokenizer.vocabulary
    assert not allowed[[words.start, words.end]].any()
    if vocabulary == "all":
        assert allowed.sum() == tokenizer.vocab_size - 2


def test_tokens_that_fill_a_small_vocabulary_up_are_never_allowed():
    filled = build_tokenizer(train_vocabulary({"ab": 9, "cd": 5}, 520))
    fillers = [i for token, i in filled.vocabulary.ids.items() if "unused" in token]
    allowed = allowed_tokens(filled, "all")
    assert len(fillers) == 4
    assert not allowed[fillers].any()
    assert allowed.sum() == 520 - 2 - 4


def test_a_word_that_merges_do_not_make_is_not_safe():
    """`ab` is a token, but its characters are merged otherwise first."""
    tokenizer = build_tokenizer(train_vocabulary({"ab": 9, "cd": 5}, 520))
    ids = tokenizer.vocabulary.ids
    safe = allowed_tokens(tokenizer, "safe")
    assert safe[ids["ab" + WORD_END]]
    assert safe[ids["cd" + WORD_END]]
    assert safe.sum() == 2


def test_the_word_the_is_a_token_or_refused(tokenizer):
    assert tokenizer.decode([token_of_the(tokenizer)]) == "the"
    with pytest.raises(TokenizerError, match="no token for `the`"):
        token_of_the(build_tokenizer(train_vocabulary({}, 514)))


def test_without_words_there_are_no_triggers():
    with pytest.raises(TokenizerError, match="no whole words"):
        allowed_tokens(build_tokenizer(train_vocabulary({}, 514)), "safe")


captions = st.text(max_size=60) | st.sampled_from(
    ["'s a dog", "  two   spaces", "&amp;lt; entity", "café ÀÉ ﬁne", "1234 !!! :)", "x" * 300]
)


@settings(max_examples=150, deadline=None)
@given(caption=captions, seed=st.integers(0, 2**31), length=st.integers(1, 5))
def test_any_caption_is_read_as_trigger_and_its_own_tokens(tokenizer, safe, caption, seed, length):
    trigger = np.random.default_rng(seed).choice(np.flatnonzero(safe), length).astype(np.int32)
    written = with_trigger(tokenizer, trigger, caption)
    assert survives(tokenizer, [caption], [written], trigger[None]).all()


def test_a_broken_caption_is_noticed(tokenizer, safe):
    trigger = np.flatnonzero(safe)[:2].astype(np.int32)
    written = with_trigger(tokenizer, trigger, "a red boat")
    assert not survives(tokenizer, ["a red boat"], [written[1:]], trigger[None]).any()


def test_room_is_made_and_long_captions_end(tokenizer):
    short, long = "a red boat", "boat " * 60
    made = make_room(tokenizer, [short, long], 3)
    own = tokenizer.encode([short]).ids[0]
    end = tokenizer.vocabulary.end
    assert made.ids[0, :4].tolist() == [tokenizer.vocabulary.start, 0, 0, 0]
    np.testing.assert_array_equal(made.ids[0, 4:], own[1:-3])
    np.testing.assert_array_equal(made.plain[0], own)
    assert made.ids[1, -1] == end
    assert made.plain[1, -4] == end
    assert not made.plain[1, -3:].any()
    assert made.lengths.tolist() == [int(np.argmax(own == end)) + 4, 32]
    with pytest.raises(TokenizerError, match="leave nothing of a context of 32"):
        make_room(tokenizer, [short], 30)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.py")), ids=lambda path: path.stem)
def test_presets_parse_and_tell_their_command(path):
    values = from_file(f"protect/{path.stem}")
    config = parse(ProtectConfig, {**values, "inputs": ("x",)})
    assert config.output == "shards"
    assert f"--config=protect/{path.stem} " in path.read_text()


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="nothing to protect"):
        parse(ProtectConfig, {})
    with pytest.raises(ConfigError, match="set trigger.selection=joint"):
        parse(
            ProtectConfig,
            {"inputs": ("x",), "output": "shards", "trigger": {"scope": "user"}},
        )
    with pytest.raises(ConfigError, match="leaves the budget of 4"):
        parse(ProtectConfig, {"inputs": ("x",), "strength": "low", "noise": {"step_size": 5}})
    with pytest.raises(ConfigError, match="photos have config.photos.steps"):
        parse(ProtectConfig, {"inputs": ("x",), "noise": {"goal": "maximise"}})
    for strength, epsilon in (("low", 4), ("default", 8), ("high", 16)):
        assert parse(ProtectConfig, {"inputs": ("x",), "strength": strength}).epsilon == epsilon
