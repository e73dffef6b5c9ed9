"""A control: a random trigger for each pair, nothing optimised, photos as they are.

mmjax protect INPUT --config=protect/random_trigger --out=protected
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.output = "shards"
    config.rounds = 0
    config.noise = {"scope": "image", "steps": 0}
    config.trigger = {"length": 3, "scope": "pair", "start": "random"}
    config.surrogate = {"model": {"preset": "RN50"}}
    config.seed = 0
    return config.lock()
