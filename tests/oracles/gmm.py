"""Weighted one-dimensional EM, one value and one component at a time, in float64."""

import numpy as np


def log_density(x, mean, variance):
    return -0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)


def mean_log_likelihood(values, counts, means, variances, weights):
    total = 0.0
    for x, n in zip(values, counts, strict=True):
        joint = [
            np.log(p) + log_density(x, m, v)
            for m, v, p in zip(means, variances, weights, strict=True)
        ]
        total += n * np.logaddexp.reduce(joint)
    return total / sum(counts)


def expectation_maximisation(values, counts, means, variances, weights, iterations):
    means, variances, weights = (np.array(a, np.float64) for a in (means, variances, weights))
    for _ in range(iterations):
        responsibilities = np.zeros((len(values), len(means)))
        for i, x in enumerate(values):
            joint = np.array(
                [
                    np.log(p) + log_density(x, m, v)
                    for m, v, p in zip(means, variances, weights, strict=True)
                ]
            )
            responsibilities[i] = np.exp(joint - np.logaddexp.reduce(joint)) * counts[i]
        for k in range(len(means)):
            share = responsibilities[:, k].sum()
            means[k] = (
                sum(r * x for r, x in zip(responsibilities[:, k], values, strict=True)) / share
            )
            variances[k] = (
                sum(
                    r * (x - means[k]) ** 2
                    for r, x in zip(responsibilities[:, k], values, strict=True)
                )
                / share
            )
            weights[k] = share / sum(counts)
    return means, variances, weights
