"""MEM-3 as its paper describes it: one trigger for all, from `the`, until the loss is below .01.

mmjax protect INPUT --config=protect/paper_text --tokenizer=CLIP --out=protected
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.output = "shards"
    config.rounds = 20
    config.batch_size = 128
    config.stop_loss = 0.01
    config.surrogate = {
        "model": {"preset": "RN50", "compute": "float32"},
        "steps": 200,
        "on": "protected",
    }
    config.noise = {"scope": "image", "steps": 8, "shuffle": True}
    config.trigger = {
        "length": 3,
        "scope": "universal",
        "start": "the",
        "vocabulary": "all",
        "rounds": 20,
        "candidates": 16,
        "selection": "joint",
        "beam": 3,
    }
    config.views = {"crop": 1.0, "jpeg": 0, "grey": False}
    config.seed = 0
    return config.lock()
