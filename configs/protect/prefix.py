"""A control: `the the the` before every caption, nothing optimised, photos as they are.

mmjax protect INPUT --config=protect/prefix --out=protected
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.output = "shards"
    config.rounds = 0
    config.noise = {"scope": "image", "steps": 0}
    config.trigger = {"length": 3, "scope": "universal", "start": "the"}
    config.surrogate = {"model": {"preset": "RN50"}}
    config.seed = 0
    return config.lock()
