"""CLIP's tokenizer written as a plain loop (after the text of openai/CLIP simple_tokenizer.py)."""

import html

import ftfy
import regex

WORDS = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)


def clean(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(text.split()).strip().lower()


def merge_word(symbols, ranks):
    """Applies the best-ranked merge everywhere in the word, until none is left."""
    symbols = [*symbols[:-1], symbols[-1] + "</w>"]
    while len(symbols) > 1:
        pairs = [(ranks.get(pair, len(ranks)), pair) for pair in zip(symbols, symbols[1:])]  # noqa: B905, RUF007
        rank, best = min(pairs)
        if rank == len(ranks):
            break
        merged, i = [], 0
        while i < len(symbols):
            if symbols[i : i + 2] == list(best):
                merged.append(best[0] + best[1])
                i += 2
            else:
                merged.append(symbols[i])
                i += 1
        symbols = merged
    return symbols


def encode(text, ids, merges, byte_symbols, start, end, context):
    """Padded ids of one caption, its length, and whether it was cut."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    found = []
    for word in WORDS.findall(clean(text)):
        spelt = [byte_symbols[byte] for byte in word.encode("utf-8")]
        found += [ids[symbol] for symbol in merge_word(spelt, ranks)]
    kept = [start, *found[: context - 2], end]
    return kept + [0] * (context - len(kept)), len(kept), len(found) > context - 2
