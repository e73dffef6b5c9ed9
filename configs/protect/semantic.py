"""MEM with triggers that read like the beginning of a caption (its semantic triggers, offline).

A bigram model of the captions' own words takes the place of BERT.

mmjax protect INPUT --config=protect/semantic --out=protected
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.output = "shards"
    config.rounds = 20
    config.batch_size = 128
    config.surrogate = {
        "model": {"preset": "RN50", "compute": "float32"},
        "steps": 200,
        "on": "protected",
    }
    config.noise = {"scope": "image", "steps": 8, "shuffle": True}
    config.trigger = {
        "length": 3,
        "scope": "pair",
        "vocabulary": "natural",
        "rounds": 20,
        "candidates": 16,
        "selection": "per_sample",
    }
    config.views = {"crop": 1.0, "jpeg": 0, "grey": False}
    config.seed = 0
    return config.lock()
