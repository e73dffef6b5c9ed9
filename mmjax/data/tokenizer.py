"""Captions to token ids, exactly as CLIP and open_clip do it, run by the Rust `tokenizers`."""

import bisect
import collections
import dataclasses
import hashlib
import html
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import ftfy
import numpy as np
import tokenizers
from jaxtyping import Bool, Int32
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from mmjax.core.errors import ConfigError, TokenizerError
from mmjax.core.files import write_bytes
from mmjax.data.vocabulary import (
    END,
    START,
    WORD_END,
    Vocabulary,
    read_vocabulary,
    train_vocabulary,
)

BUCKETS: Final = (16, 24, 32, 48, 77)
"""Text lengths that a tower is compiled for; trimming to one is exact, for attention is causal."""

CLIP_VOCABULARY: Final = 49_408
CLIP_PROBE: Final = ("a photo of a cat", (320, 1125, 539, 320, 2368))
"""A caption and its ids in CLIP's vocabulary, without start and end."""

# open_clip's pattern without its special tokens: a caption is data, it cannot spell a control one;
# the long s is the one lower-case letter that its IGNORECASE matches besides those written here,
# and U+0345, whose other case is a letter, is the one character that it drops
_WORDS: Final = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{0345}]+"
_PLAIN: Final = re.compile(r"[\n\t -%'-~]*")  # printable ASCII but for the ampersand


class Tokens(NamedTuple):
    """Token ids, zero after the end token; `lengths` count the start and the end token."""

    ids: Int32[np.ndarray, "n context"]
    lengths: Int32[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A CLIP tokenizer; `fingerprint` changes with anything that changes an id."""

    backend: tokenizers.Tokenizer
    vocabulary: Vocabulary
    context_length: int
    longest_token: int
    fingerprint: str

    @property
    def vocab_size(self) -> int:
        """Number of tokens, and rows of the text tower's embedding."""
        return len(self.vocabulary.ids)

    def encode(self, captions: Sequence[str]) -> Tokens:
        """Cleans and encodes captions; a longer one is cut and still ends with the end token.

        Equals open_clip's SimpleTokenizer, with two exceptions: a caption that spells a special
        token (`<end_of_text>`) gets the ids of its characters, and a character that Unicode
        assigned in the last years may count as a letter for one library and not for the other.
        """
        room = self.context_length - 2
        reach = room * (self.longest_token + 1)
        texts = [_cut(clean_caption(caption), reach) for caption in captions]
        ids = np.zeros((len(texts), self.context_length), np.int32)
        lengths = np.empty(len(texts), np.int32)
        truncated = np.zeros(len(texts), np.bool_)
        ids[:, 0] = self.vocabulary.start
        for row, encoding in enumerate(
            self.backend.encode_batch_fast(texts, add_special_tokens=False)
        ):
            found = encoding.ids
            count = min(len(found), room)
            ids[row, 1 : count + 1] = found[:count]
            ids[row, count + 1] = self.vocabulary.end
            lengths[row], truncated[row] = count + 2, len(found) > room
        return Tokens(ids, lengths, truncated)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the end token, words apart by one space."""
        words = itertools.takewhile(lambda index: index != self.vocabulary.end, ids)
        inner = [index for index in words if index != self.vocabulary.start]
        text = self.backend.decode(inner, skip_special_tokens=False)
        return text.replace(WORD_END, " ").strip()


def clean_caption(text: str) -> str:
    """Cleans a caption as open_clip does: ftfy, HTML entities twice, white space, lower case.

    Printable ASCII without an ampersand has nothing to fix and takes a short cut.
    Source: `_clean_lower` of open_clip's tokenizer.py.
    """
    if _PLAIN.fullmatch(text) is None:
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _cut(text: str, reach: int) -> str:
    """Drops whole words that no id can come from; keeps what is not longer than `reach`."""
    if len(text) <= reach:
        return text
    end = text.find(" ", reach)
    return text if end < 0 else text[:end]


def load_tokenizer(
    location: Path | str, context_length: int = 77, expected_vocab: int | None = None
) -> Tokenizer:
    """Loads a tokenizer from a folder or a file (the formats of `read_vocabulary`).

    Args:
        location: the folder or file.
        context_length: ids per caption, start and end included.
        expected_vocab: rows of the text tower's embedding; None accepts any number.

    Raises:
        TokenizerError: no or a damaged vocabulary, of another size than expected, or one of
            CLIP's size that gives a known caption other ids.
        ConfigError: `context_length` below 3.
    """
    location = Path(location)
    tokenizer = build_tokenizer(read_vocabulary(location), context_length)
    if expected_vocab is not None and tokenizer.vocab_size != expected_vocab:
        raise TokenizerError(
            f"the tokenizer at {location} has {tokenizer.vocab_size} tokens, the model has "
            f"{expected_vocab}; use the tokenizer that was published with the model"
        )
    if tokenizer.vocab_size == CLIP_VOCABULARY:
        caption, wanted = CLIP_PROBE
        found = tuple(tokenizer.backend.encode(caption, add_special_tokens=False).ids)
        if found != wanted:
            raise TokenizerError(
                f"the tokenizer at {location} has CLIP's size but other contents: {caption!r} "
                f"gives {found[:8]}, not {wanted}; copy CLIP's own tokenizer files"
            )
    return tokenizer


def build_tokenizer(vocabulary: Vocabulary, context_length: int = 77) -> Tokenizer:
    """Makes a tokenizer of a vocabulary (see `load_tokenizer`)."""
    if context_length < 3:
        raise ConfigError(
            f"context_length must be at least 3 (start, a token, end), got {context_length}"
        )
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=vocabulary.merges,
        end_of_word_suffix=WORD_END,
        continuing_subword_prefix="",
        cache_capacity=100_000,
    )
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(
        backend=backend,
        vocabulary=vocabulary,
        context_length=context_length,
        longest_token=max(map(len, vocabulary.ids)),
        fingerprint=_fingerprint(vocabulary, context_length),
    )


def _fingerprint(vocabulary: Vocabulary, context_length: int) -> str:
    """Equal for the same vocabulary in another file format or with other special spellings."""
    special = (vocabulary.start, vocabulary.end)
    ids = sorted((index, token) for token, index in vocabulary.ids.items() if index not in special)
    content = [context_length, special, ids, vocabulary.merges, _WORDS]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def bucket_length(max_length: int, context_length: int) -> int:
    """The smallest of `BUCKETS` that holds `max_length` ids, at most `context_length`.

    Raises:
        ConfigError: `max_length` exceeds `context_length`.
    """
    if max_length > context_length:
        raise ConfigError(
            f"{max_length} tokens do not fit a context of {context_length}; encode first"
        )
    place = bisect.bisect_left(BUCKETS, max_length)
    return min(BUCKETS[place], context_length) if place < len(BUCKETS) else context_length


def train_bpe(captions: Iterable[str], vocab_size: int, path: Path | str) -> Tokenizer:
    """Trains a small CLIP-style BPE and writes it as a `tokenizer.json`.

    The same captions, in any order, give the same file byte for byte.

    Args:
        captions: texts to learn from.
        vocab_size: number of tokens, special and unused ones included (at least 514).
        path: the file to write; Hugging Face's libraries read it too.

    Returns:
        The tokenizer, with CLIP's context length of 77.

    Raises:
        ConfigError: `vocab_size` is below 514.
    """
    splitter = build_tokenizer(train_vocabulary({}, 514)).backend.pre_tokenizer
    counts: collections.Counter[str] = collections.Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(clean_caption(caption)))
    tokenizer = build_tokenizer(train_vocabulary(counts, vocab_size))
    write_bytes(path, _to_json(tokenizer).encode())
    return tokenizer


def _to_json(tokenizer: Tokenizer) -> str:
    """A stand-alone tokenizer.json: as `tokenizer.backend`, plus cleaning and special tokens."""
    full = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    full.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    full.add_special_tokens([START, END])
    full.post_processor = processors.RobertaProcessing(
        (END, tokenizer.vocabulary.end),
        (START, tokenizer.vocabulary.start),
        trim_offsets=False,
        add_prefix_space=False,
    )
    return full.to_str(pretty=True) + "\n"
