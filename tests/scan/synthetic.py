"""Embeddings with topics, for tests of the score stage; and a mapping that is the identity."""

import functools

import numpy as np

from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.calibration import calibrate
from mmjax.scan.mapping import Mapping

D = 48


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def pairs(n, *, seed, poison=0, shuffled=0.0, popular=0.0, tightness=0.5):
    """(image, text, poisoned): captions scatter around 20 topics and images around captions.

    A poisoned pair keeps its image and gets a caption around one direction of its own. `popular`
    of the pairs belong to topic 0; `shuffled` of the captions are exchanged.
    """
    rng = np.random.default_rng(seed)
    topics = unit(rng.normal(size=(20, D)))
    topic = np.where(rng.random(n) < popular, 0, rng.integers(0, 20, n))
    cone = unit(rng.normal(size=D))
    text = unit(topics[topic] + 0.09 * rng.normal(size=(n, D)) + 0.7 * cone)
    image = unit(text + 0.12 * rng.normal(size=(n, D)))
    exchanged = rng.choice(n, int(shuffled * n), replace=False)
    text[exchanged] = text[rng.permutation(exchanged)]
    poisoned = np.zeros(n, bool)
    poisoned[rng.choice(n, poison, replace=False)] = True
    target = unit(rng.normal(size=D))
    text[poisoned] = unit(target + tightness * 0.12 * rng.normal(size=(poison, D)) + 0.7 * cone)
    return image.astype(np.float32), text.astype(np.float32), poisoned


def blocks(image, text, shards=3, dtype=np.float16):
    return [
        EmbeddingBlock(i.astype(dtype), t.astype(dtype), np.ones(len(i), bool))
        for i, t in zip(np.array_split(image, shards), np.array_split(text, shards), strict=True)
    ]


@functools.cache
def clean_reference(n=2_000, seed=100):
    """What right and wrong pairs of `pairs` look like, learned from clean ones of other topics."""
    image, text, _ = pairs(n, seed=seed)
    return calibrate(image, text, np.arange(n), np.ones(n, np.float32), np.random.default_rng(0))


def identity(d=D, fingerprint="weights"):
    """F(I) = I, as a ridge mapping."""
    zero = np.zeros(d, np.float32)
    params = {"kernel": np.eye(d, dtype=np.float32), "before": zero, "after": zero}
    return Mapping("ridge", d, 1, params, fingerprint, {}, {}, {}, clean_reference())
