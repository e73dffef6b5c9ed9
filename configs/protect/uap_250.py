"""Error-maximising noise with the 250 steps of its source (Fowl et al. 2021, arXiv:2106.10807).

mmjax protect INPUT --config=protect/uap_250 --out=protected
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.output = "shards"
    config.rounds = 1
    config.batch_size = 128
    config.surrogate = {
        "model": {"preset": "RN50", "compute": "float32"},
        "steps": 7500,
        "on": "clean",
    }
    config.noise = {
        "scope": "pair",
        "start": "random",
        "steps": 250,
        "goal": "maximise",
        "shuffle": False,
    }
    config.trigger = {"length": 0}
    config.views = {"crop": 1.0, "jpeg": 0, "grey": False}
    config.seed = 0
    return config.lock()
