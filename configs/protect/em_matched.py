"""EM (error-minimising noise, Huang et al. 2021) with the same budget as MEM.

mmjax protect INPUT --config=protect/em_matched --out=protected
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
    config.noise = {"scope": "pair", "steps": 8, "shuffle": False}
    config.trigger = {"length": 0}
    config.views = {"crop": 1.0, "jpeg": 0, "grey": False}
    config.seed = 0
    return config.lock()
