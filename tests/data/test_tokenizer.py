"""Tokenizer: equal to CLIP's loop, to open_clip's ids, and safe on broken files and captions."""

import gzip
import json
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmjax.core.errors import ConfigError, TokenizerError
from mmjax.data import tokenizer as tokenizer_module
from mmjax.data.scenes import make_scenes
from mmjax.data.tokenizer import (
    BUCKETS,
    bucket_length,
    build_tokenizer,
    clean_caption,
    load_tokenizer,
    train_bpe,
)
from mmjax.data.vocabulary import byte_alphabet, read_vocabulary, train_vocabulary
from tests.data.captions_tricky import SPELLS_SPECIAL, TRICKY
from tests.data.make_tokenizer_golden import GOLDEN, open_clip_tokenizer
from tests.oracles import clip_bpe

CLIP_FILES = "tokenizer_and_prompts"


def _captions():
    return [caption for scene in make_scenes(300, 11, 16) for caption in scene.captions]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    return train_bpe([*_captions(), *(text[:40] for text in TRICKY)], 900, path), path


@pytest.fixture(scope="module")
def byte_symbols():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return dict(zip([*printable, *rest], byte_alphabet(), strict=True))


def _oracle(tokenizer, byte_symbols, text):
    ids, merges, start, end = tokenizer.vocabulary
    return clip_bpe.encode(text, ids, merges, byte_symbols, start, end, tokenizer.context_length)


def _assert_like_oracle(tokenizer, byte_symbols, captions):
    tokens = tokenizer.encode(captions)
    assert tokens.ids.dtype == np.int32
    for row, text in enumerate(captions):
        ids, length, cut = _oracle(tokenizer, byte_symbols, text)
        assert tokens.ids[row].tolist() == ids, text[:60]
        assert (tokens.lengths[row], tokens.truncated[row]) == (length, cut), text[:60]


def test_equals_the_loop_on_tricky_captions(trained, byte_symbols):
    _assert_like_oracle(trained[0], byte_symbols, list(TRICKY))


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60))
def test_cleaning_equals_the_loop(text):
    assert clean_caption(text) == clip_bpe.clean(text)


ASSIGNED = st.characters(exclude_categories=("Cn", "Cs"))


@settings(max_examples=200, deadline=None)
@example(text="a\u0345b \u0345 7\u0345!")
@given(text=st.text(ASSIGNED | st.sampled_from("aeiost'&;<.5 \n\u0301"), max_size=60))
def test_ids_equal_the_loop(trained, byte_symbols, text):
    """Characters that Python knows: what is a letter beyond them depends on a library's Unicode."""
    _assert_like_oracle(trained[0], byte_symbols, [text])


def test_shortcut_covers_every_ascii_character_rightly():
    for code in range(128):
        for text in (chr(code), f"A{chr(code)}b", f"{chr(code)}{chr(code)}x;"):
            assert clean_caption(text) == clip_bpe.clean(text)


def test_truncation_keeps_the_end_and_says_so(trained):
    tokenizer = build_tokenizer(trained[0].vocabulary, 8)
    tokens = tokenizer.encode(["x x x x x x", "x x x x x x x", ""])
    assert tokens.truncated.tolist() == [False, True, False]
    assert tokens.lengths.tolist() == [8, 8, 2]
    end = tokenizer.vocabulary.end
    assert tokens.ids.argmax(1).tolist() == [7, 7, 1]
    assert (tokens.ids.max(1) == end).all()


def test_a_huge_caption_is_cut_without_changing_its_ids(trained):
    tokenizer = trained[0]
    text = "a large red banana " * 60_000
    cut = tokenizer.encode([text])
    whole = tokenizer.backend.encode(clean_caption(text), add_special_tokens=False).ids
    assert cut.ids[0, 1:-1].tolist() == whole[:75]
    assert cut.truncated[0]


def test_captions_cannot_spell_special_tokens(trained):
    start, end = trained[0].vocabulary.start, trained[0].vocabulary.end
    for text in (*SPELLS_SPECIAL, "<|startoftext|>", "<|endoftext|>", "a<|endoftext|>b"):
        inner = trained[0].encode([text])
        body = inner.ids[0, 1 : inner.lengths[0] - 1]
        assert start not in body
        assert end not in body


def test_lone_surrogates_are_replaced(trained):
    one, other = trained[0].encode(["\ud800 cat \udfff", "\ufffd cat \ufffd"]).ids
    np.testing.assert_array_equal(one, other)


def test_no_captions_and_decoding(trained):
    tokenizer = trained[0]
    assert tokenizer.encode([]).ids.shape == (0, 77)
    for text in ("a large red banana on the left", "wörld 😀 x2"):
        ids = tokenizer.encode([text]).ids[0].tolist()
        assert tokenizer.encode([tokenizer.decode(ids)]).ids[0].tolist() == ids
    assert tokenizer.decode(tokenizer.encode(["a red cat"]).ids[0].tolist()) == "a red cat"


def test_training_is_deterministic_and_order_free(tmp_path, trained):
    captions = [*_captions(), *(text[:40] for text in TRICKY)]
    train_bpe(reversed(captions), 900, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == trained[1].read_bytes()


def test_training_fills_the_size_and_ends_with_the_end_token(tmp_path):
    tokenizer = train_bpe(["aa bb"], 600, tmp_path / "tokenizer.json")
    assert tokenizer.vocab_size == 600
    assert tokenizer.vocabulary.end == 599
    assert load_tokenizer(tmp_path, expected_vocab=600).fingerprint == tokenizer.fingerprint
    with pytest.raises(ConfigError, match="514"):
        train_bpe(["a"], 513, tmp_path / "small.json")


def test_training_merges_by_count():
    merges = train_vocabulary({"abab": 3, "ab": 2, "cd": 4}, 517).merges
    # "ab</w>" ends both words (3 + 2), "cd</w>" stands 4 times, then "ab" + "ab</w>" needs "ab"
    assert merges == [("a", "b</w>"), ("c", "d</w>"), ("a", "b")]


def test_every_format_gives_the_same_tokenizer(tmp_path, trained):
    vocabulary = trained[0].vocabulary
    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "vocab.json").write_text(json.dumps(vocabulary.ids))
    lines = [f"{left} {right}" for left, right in vocabulary.merges]
    (pair / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    old = json.loads(trained[1].read_text())
    old["model"]["merges"] = lines
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "tokenizer.json").write_text(json.dumps(old))
    wanted = trained[0].fingerprint
    for location in (pair, pair / "vocab.json", tmp_path / "old", trained[1], trained[1].parent):
        assert load_tokenizer(location).fingerprint == wanted
    assert load_tokenizer(pair, 32).fingerprint != wanted


def test_gz_merges_build_clips_layout(tmp_path):
    vocabulary = train_vocabulary({"abc": 2, "bc": 1}, 516)
    text = "\n".join(["#version", *(f"{a} {b}" for a, b in vocabulary.merges), ""])
    with gzip.open(tmp_path / "bpe_simple_vocab_16e6.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    read = read_vocabulary(tmp_path)
    assert read.merges == vocabulary.merges
    assert (read.start, read.end, read.ids["<end_of_text>"]) == (514, 515, 515)
    assert build_tokenizer(read).fingerprint == build_tokenizer(vocabulary).fingerprint


def _tokenizer_json(**model):
    return json.dumps({"model": {"type": "BPE", "end_of_word_suffix": "</w>"} | model})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", "holds no tokenizer"),
        ("config.json", "{}", "it holds config.json"),
        ("tokenizer.json", "", "empty"),
        ("tokenizer.json", "{", "not valid JSON"),
        ("tokenizer.json", "[]", "no CLIP tokenizer"),
        ("tokenizer.json", '{"model": {"type": "WordPiece"}}', "WordPiece"),
        ("tokenizer.json", _tokenizer_json(vocab={"a": 0}, merges=[]), "256 bytes"),
        ("tokenizer.json", _tokenizer_json(vocab={"a": 5}, merges=[]), "ids are not 0 to 0"),
        ("tokenizer.json", _tokenizer_json(vocab={"a": "0"}, merges=[]), "map tokens to ids"),
        ("tokenizer.json", _tokenizer_json(vocab={}, merges=["a"]), "not two tokens"),
        ("vocab.json", "{}", "needs merges.txt"),
        ("bpe_simple_vocab_16e6.txt.gz", "no gzip", "cannot be read"),
    ],
)
def test_broken_files_get_one_clear_error(tmp_path, name, content, message):
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match=re.escape(message)):
        load_tokenizer(tmp_path)


def test_missing_and_foreign_paths(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(TokenizerError, match="not a tokenizer file"):
        load_tokenizer(tmp_path / "model.bin")


def test_wrong_vocabularies_are_refused(tmp_path, trained):
    with pytest.raises(TokenizerError, match="has 900 tokens, the model has 49408"):
        load_tokenizer(trained[1], expected_vocab=49_408)
    content = json.loads(trained[1].read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["<|endoftext|>"], vocabulary["!"] = vocabulary["!"], vocabulary["<|endoftext|>"]
    content["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match="largest id"):
        load_tokenizer(tmp_path)
    vocabulary = {"a</w>": 0, **{}}
    content["model"]["merges"] = [["zz", "y"]]
    content["model"]["vocab"] = json.loads(trained[1].read_text())["model"]["vocab"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=r"zz \+ y"):
        load_tokenizer(tmp_path)


def test_other_contents_of_clips_size_are_refused(tmp_path):
    train_bpe(["a photo of a cat"], tokenizer_module.CLIP_VOCABULARY, tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="other contents"):
        load_tokenizer(tmp_path)


def test_buckets():
    assert [bucket_length(n, 77) for n in (2, 16, 17, 32, 33, 49, 77)] == [
        16,
        16,
        24,
        32,
        48,
        77,
        77,
    ]
    assert [bucket_length(n, 32) for n in (2, 25, 32)] == [16, 32, 32]
    assert bucket_length(3, 8) == 8
    assert bucket_length(100, 128) == 128
    assert BUCKETS[-1] == 77
    with pytest.raises(ConfigError, match="do not fit"):
        bucket_length(33, 32)
    with pytest.raises(ConfigError, match="context_length"):
        build_tokenizer(train_vocabulary({}, 514), 2)


@pytest.mark.real
def test_golden_ids_of_open_clip(data_root):
    tokenizer = load_tokenizer(data_root / CLIP_FILES, expected_vocab=49_408)
    for row in json.loads(GOLDEN.read_text()):
        tokens = tokenizer.encode([row["caption"]])
        assert tokens.ids[0, : tokens.lengths[0]].tolist() == row["ids"], row["caption"][:60]


@pytest.mark.real
@pytest.mark.parity
@pytest.mark.filterwarnings("default")
def test_ids_equal_open_clip_on_all_captions(data_root):
    rows = (data_root / "flickr8k" / "captions.tsv").read_text().splitlines()[1:]
    captions = [row.split("\t", 1)[1] for row in rows]
    annotations = json.loads((data_root / "coco_mini" / "captions_val2017.json").read_text())
    captions += [annotation["caption"] for annotation in annotations["annotations"]]
    assert len(captions) == 65_469
    tokens = load_tokenizer(data_root / CLIP_FILES, expected_vocab=49_408).encode(captions)
    np.testing.assert_array_equal(tokens.ids, open_clip_tokenizer()(captions).numpy())
