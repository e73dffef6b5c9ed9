"""Textual correlation by the definition: every cosine, then the mean, in float64 (CFBD Eq. 6)."""

import numpy as np


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def text_correlation(text, seeds):
    return np.array([np.mean([cosine(t, s) for s in seeds]) for t in text])


def leave_one_out(seeds):
    rows = []
    for i, seed in enumerate(seeds):
        rows.append(np.mean([cosine(seed, s) for j, s in enumerate(seeds) if j != i]))
    return np.array(rows)


def mean_pairwise_cosine(rows):
    pairs = [cosine(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j]
    return float(np.mean(pairs))


def centre(text):
    text = np.asarray(text, np.float64)
    mean = text.sum(0) / len(text)
    return np.stack([(t - mean) / np.sqrt(np.sum((t - mean) ** 2)) for t in text])
