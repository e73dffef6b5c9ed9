"""CLIP's BPE vocabulary: its byte alphabet, the three file formats it comes in, and training."""

import collections
import gzip
import heapq
import itertools
import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from mmjax.core.errors import ConfigError, TokenizerError

WORD_END: Final = "</w>"
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
FILLER: Final = re.compile(r"<\|unused\d+\|>")  # the ids of a trained vocabulary without a merge
_SPECIALS: Final = ((START, END), ("<start_of_text>", "<end_of_text>"))
_CLIP_MERGES: Final = 49_152 - 256 - 2  # of the 262,145 lines of bpe_simple_vocab_16e6.txt
_LARGEST_FILE: Final = 2**26  # bytes; CLIP's own files have 1 to 4 MB
_BPE_GZ: Final = "bpe_simple_vocab_16e6.txt.gz"

Merge = tuple[str, str]


class Vocabulary(NamedTuple):
    """A byte-level BPE whose words end in `</w>`; `end` is the largest id."""

    ids: dict[str, int]
    merges: list[Merge]
    start: int
    end: int


def byte_alphabet() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the order of CLIP's ids.

    Source: `bytes_to_unicode` of openai/CLIP clip/simple_tokenizer.py.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def _assemble(merges: list[Merge], specials: Iterable[str]) -> dict[str, int]:
    """Ids in CLIP's order: bytes, bytes that end a word, merges, special tokens."""
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(symbol + WORD_END for symbol in alphabet)]
    tokens += [left + right for left, right in merges]
    return {token: index for index, token in enumerate([*tokens, *specials])}


def read_vocabulary(location: Path) -> Vocabulary:
    """Reads a vocabulary from a folder or one of its files.

    Looks for `tokenizer.json`, then `vocab.json` with `merges.txt`, then CLIP's own
    `bpe_simple_vocab_16e6.txt.gz`.

    Raises:
        TokenizerError: there is no such file, it is damaged, or it is no CLIP-style BPE.
    """
    path = _find(location)
    if path.suffix == ".gz":
        lines = _read(path).rstrip("\n").split("\n")[1 : _CLIP_MERGES + 1]
        merges = _parse_merges(lines, path)
        return _check(_assemble(merges, _SPECIALS[1]), merges, path)
    if path.name == "tokenizer.json":
        return _from_tokenizer_json(path)
    merges_path = path.with_name("merges.txt")
    if not merges_path.is_file():
        raise TokenizerError(f"{path} needs merges.txt beside it; copy it from the model's folder")
    lines = [line for line in _read(merges_path).split("\n") if line.strip()]
    start = 1 if lines and lines[0].startswith("#version") else 0
    return _check(_mapping(_load_json(path), path), _parse_merges(lines[start:], merges_path), path)


def _find(location: Path) -> Path:
    wanted = "tokenizer.json, vocab.json with merges.txt, or " + _BPE_GZ
    if location.is_file():
        if location.name.endswith(".txt.gz") or location.name in ("tokenizer.json", "vocab.json"):
            return location
        raise TokenizerError(f"{location} is not a tokenizer file; give a folder with {wanted}")
    if not location.is_dir():
        raise TokenizerError(f"no tokenizer at {location}; give a folder with {wanted}")
    for name in ("tokenizer.json", "vocab.json", _BPE_GZ):
        if (location / name).is_file():
            return location / name
    found = ", ".join(sorted(entry.name for entry in location.iterdir())[:8]) or "nothing"
    raise TokenizerError(f"{location} holds no tokenizer (wanted {wanted}; it holds {found})")


def _read(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if not data or len(data) > _LARGEST_FILE:
            raise TokenizerError(
                f"{path} is {'empty' if not data else 'far too large'}; copy it again"
            )
        return data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} cannot be read ({error}); copy it again") from error


def _load_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is not valid JSON ({error}); copy it again") from error


def _mapping(value: Any, path: Path) -> dict[str, int]:
    if not isinstance(value, dict) or not all(type(index) is int for index in value.values()):
        raise TokenizerError(f"{path} does not map tokens to ids; copy it again")
    return value


def _parse_merges(entries: Iterable[Any], path: Path) -> list[Merge]:
    """Merges from lines "a b" or pairs ["a", "b"]."""
    merges: list[Merge] = []
    for entry in entries:
        parts = entry.split() if isinstance(entry, str) else entry
        if not isinstance(parts, list) or [type(part) for part in parts] != [str, str]:
            raise TokenizerError(f"{path}: merge {len(merges)} is {entry!r}, not two tokens")
        merges.append((parts[0], parts[1]))
    return merges


def _from_tokenizer_json(path: Path) -> Vocabulary:
    content = _load_json(path)
    model = content.get("model") if isinstance(content, dict) else None
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE" or model.get("end_of_word_suffix") != WORD_END:
        raise TokenizerError(f"{path} is no CLIP tokenizer (a BPE with {WORD_END}), but {kind}")
    ids = dict(_mapping(model.get("vocab"), path))
    for token in content.get("added_tokens") or ():
        if not isinstance(token, dict) or not {"content", "id"} <= token.keys():
            raise TokenizerError(f"{path}: {token!r} is no added token; copy it again")
        ids |= _mapping({token["content"]: token["id"]}, path)
    return _check(ids, _parse_merges(model.get("merges") or (), path), path)


def _check(ids: dict[str, int], merges: list[Merge], path: Path) -> Vocabulary:
    """Checks all that encoding relies on, so that no caption can fail or be lost later."""
    if sorted(ids.values()) != list(range(len(ids))):
        raise TokenizerError(f"{path}: ids are not 0 to {len(ids) - 1}, each once; copy it again")
    missing = [
        symbol for symbol in byte_alphabet() if not {symbol, symbol + WORD_END} <= ids.keys()
    ]
    if missing:
        raise TokenizerError(
            f"{path} has no token for {len(missing)} of the 256 bytes "
            f"(a file of {len(ids)} tokens is cut short, or no CLIP vocabulary)"
        )
    for left, right in merges:
        if not {left, right, left + right} <= ids.keys():
            raise TokenizerError(f"{path}: the merge {left} + {right} is not in the vocabulary")
    for start, end in _SPECIALS:
        if start in ids and end in ids:
            if ids[end] != len(ids) - 1:
                raise TokenizerError(
                    f"{path}: the id of {end} is {ids[end]}, not the largest ({len(ids) - 1}); "
                    "CLIP pools at the largest id"
                )
            return Vocabulary(ids, merges, ids[start], ids[end])
    raise TokenizerError(f"{path} has neither {START} and {END} nor OpenAI's own spelling of them")


def train_vocabulary(word_counts: dict[str, int], size: int) -> Vocabulary:
    """Learns merges by byte pair encoding; equal counts are settled by the tokens' order.

    The tokenizers library's trainer numbers tokens by hash order, so its files differ from run to
    run; this one is deterministic, and quick for the few thousand words of small caption sets.

    Args:
        word_counts: occurrences of each word, spelt in `byte_alphabet`.
        size: number of tokens of the result; ids without a merge are filled with unused tokens.

    Raises:
        ConfigError: `size` leaves no room for 512 byte tokens and two special ones.
    """
    room = size - 2 * 256 - 2
    if room < 0:
        raise ConfigError(
            f"a vocabulary needs at least 514 tokens (bytes and specials), got {size}"
        )
    words = [
        ([*word[:-1], word[-1] + WORD_END], count) for word, count in sorted(word_counts.items())
    ]
    pairs: collections.Counter[Merge] = collections.Counter()
    places: dict[Merge, set[int]] = collections.defaultdict(set)
    for place, (symbols, count) in enumerate(words):
        for pair in itertools.pairwise(symbols):
            pairs[pair] += count
            places[pair].add(place)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(queue)
    merges: list[Merge] = []
    while len(merges) < room and queue:
        count, best = heapq.heappop(queue)
        if -count != pairs[best] or count == 0:  # counted anew since, and queued again
            continue
        merges.append(best)
        changed: set[Merge] = set()
        for place in places.pop(best):
            symbols, repeats = words[place]
            merged = merge_symbols(symbols, best)
            for pair in itertools.pairwise(symbols):
                pairs[pair] -= repeats
            for pair in itertools.pairwise(merged):
                pairs[pair] += repeats
                places[pair].add(place)
            changed.update(itertools.pairwise(symbols), itertools.pairwise(merged))
            words[place] = (merged, repeats)
        for pair in changed:
            heapq.heappush(queue, (-pairs[pair], pair))
    unused = [f"<|unused{index}|>" for index in range(room - len(merges))]
    ids = _assemble(merges, [*unused, START, END])
    return Vocabulary(ids, merges, size - 2, size - 1)


def merge_symbols(symbols: list[str], pair: Merge) -> list[str]:
    """Joins every occurrence of `pair`, from left to right."""
    merged: list[str] = []
    for symbol in symbols:
        if merged and merged[-1] == pair[0] and symbol == pair[1]:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged
