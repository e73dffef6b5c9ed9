"""Neighbours by looking at every key for every query, in float64; densities made of them."""

import math


def cosine(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def ranking(query, keys, own=-1, valid=None):
    """(cosine, row) of the keys that count, nearest first, ties by row."""
    found = [
        (cosine(query, key), row)
        for row, key in enumerate(keys)
        if row != own and (valid is None or valid[row])
    ]
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def count_above(query, keys, threshold, own=-1, valid=None):
    return sum(value > threshold for value, _ in ranking(query, keys, own, valid))


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def neighbours(rows, i, k):
    """(distance, row) of the k other rows nearest to row i."""
    found = [(distance(rows[i], other), j) for j, other in enumerate(rows) if j != i]
    return sorted(found)[:k]


def k_distance(rows, i, k):
    return neighbours(rows, i, k)[-1][0]


def slof(rows, i, k):
    own = k_distance(rows, i, k)
    return sum(own / k_distance(rows, j, k) for _, j in neighbours(rows, i, k)) / k


def lid(rows, i, k):
    own = k_distance(rows, i, k)
    return -1 / (sum(math.log(r / own) for r, _ in neighbours(rows, i, k)) / k)


def dao(rows, i, k):
    own = k_distance(rows, i, k)
    near = [j for _, j in neighbours(rows, i, k)]
    return sum((own / k_distance(rows, j, k)) ** lid(rows, j, k) for j in near) / k


def released(rows, k, dimensional):
    """One batch of SLOF or DAO as HanxunH/Detect-CLIP-Backdoor-Samples computes it, row by row.

    Its two slips are kept: the neighbours' numbers are positions in a list without the row itself,
    but are used as row numbers; and a row's own list for k-distances and LID holds itself, first.
    """
    n = len(rows)
    every = [[distance(rows[i], rows[j]) for j in range(n)] for i in range(n)]
    with_itself = [sorted(line) for line in every]
    scores = []
    for i in range(n):
        others = [every[i][j] for j in range(n) if j != i]
        order = sorted(range(n - 1), key=lambda at: (others[at], at))
        own = others[order[k]]
        terms = []
        for wrong in order[:k]:
            near = with_itself[wrong]
            if dimensional:
                total = sum(math.log(near[m] / near[k] + 1e-4) for m in range(k))
                terms.append(-k / total * math.log(own / near[k]))
            else:
                terms.append(own / near[k])
        scores.append(sum(terms) / k)
    return scores
