"""Near-duplicate captions, counted exactly: the trivial detector that any other has to beat."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

WORD = re.compile(r"\w+")


def near_duplicates(
    captions: Sequence[str], *, threshold: float = 0.8, block: int = 4_000_000
) -> Int[np.ndarray, " n"]:
    """For each caption, how many other captions of the set are near-duplicates of it.

    Two captions are near-duplicates when the Jaccard similarity of their sets of words (lower
    case, punctuation dropped) is at least `threshold`: |A ∩ B| / |A ∪ B|. A caption without a word
    has none.

    Exact, without comparing all pairs: equal sets are counted once; then two sets can only reach
    the threshold t if they share one of their |A| - ceil(t |A|) + 1 rarest words (prefix filter,
    Bayardo et al. 2007), so that candidates come from a sparse product over the rare words alone,
    block by block, and only they are compared. Cost: O(sum over words of the squared number of
    sets that have the word among their rarest); memory O(`block`).

    Args:
        captions: the set.
        threshold: in (0, 1].
        block: candidate pairs held at a time.
    """
    if not captions:
        return np.zeros(0, np.int64)
    words, lengths, group = _distinct_sets(captions)
    counts = np.bincount(group, minlength=len(lengths))
    total = counts.copy()
    for left, right in _near_pairs(words, lengths, threshold, block):
        total += np.bincount(left, counts[right], minlength=len(total)).astype(np.int64)
        total += np.bincount(right, counts[left], minlength=len(total)).astype(np.int64)
    return np.where(lengths[group] > 0, total[group] - 1, 0)


def _distinct_sets(
    captions: Sequence[str],
) -> tuple[csr_array, Int[np.ndarray, " m"], Int[np.ndarray, " n"]]:
    """(distinct word sets as sparse rows, rarest word first; their sizes; the row of a caption)."""
    sets = [frozenset(WORD.findall(caption.casefold())) for caption in captions]
    first: dict[frozenset[str], int] = {}
    group = np.array([first.setdefault(words, len(first)) for words in sets], np.int64)
    frequency = Counter(itertools.chain.from_iterable(first))
    # ties in alphabetical order: sets have no order of their own, and results must repeat
    rarest_first = sorted(frequency, key=lambda word: (frequency[word], word))
    rank = {word: i for i, word in enumerate(rarest_first)}
    lengths = np.array([len(words) for words in first], np.int64)
    columns = np.array([i for words in first for i in sorted(rank[w] for w in words)], np.int32)
    pointer = np.concatenate([[0], np.cumsum(lengths)])
    shape = (len(first), max(len(rank), 1))
    rows = csr_array((np.ones(len(columns), np.int32), columns, pointer), shape=shape)
    return rows, lengths, group


def _near_pairs(
    words: csr_array, lengths: Int[np.ndarray, " m"], threshold: float, block: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (i < j) of rows whose Jaccard similarity reaches the threshold, in blocks."""
    # the small constants keep ceil(0.8 * 35) = ceil(28.000000000000004) at 28
    prefix = np.where(lengths > 0, lengths - np.ceil(threshold * lengths - 1e-9) + 1, 0)
    within = np.arange(words.nnz) - np.repeat(words.indptr[:-1], lengths)
    inside = within < np.repeat(prefix, lengths)
    pointer = np.concatenate([[0], np.cumsum(prefix)]).astype(np.int64)
    rare = csr_array(
        (np.ones(int(inside.sum()), np.int32), words.indices[inside], pointer), shape=words.shape
    )
    by_word = rare.T.tocsr()
    cost = np.diff(by_word.indptr)[rare.indices]
    work = np.concatenate([[0], np.cumsum(cost)])[rare.indptr]
    start = 0
    while start < len(lengths):
        stop = int(np.searchsorted(work, work[start] + block, side="right")) - 1
        stop = min(max(stop, start + 1), len(lengths))
        product = (rare[start:stop] @ by_word).tocoo()
        left, right = product.row.astype(np.int64) + start, product.col.astype(np.int64)
        a, b = lengths[left], lengths[right]
        possible = (left < right) & (np.minimum(a, b) >= threshold * np.maximum(a, b) - 1e-9)
        left, right, sizes = left[possible], right[possible], (a + b)[possible]
        common = np.empty(len(left), np.int64)
        for at in range(0, len(left), 250_000):
            part = slice(at, at + 250_000)
            common[part] = words[left[part]].multiply(words[right[part]]).sum(axis=1).ravel()
        near = common >= threshold * (sizes - common) - 1e-9
        yield left[near], right[near]
        start = stop
