"""MEM for what is published: a noise for each photo that relies less on the trigger.

Triggers are whole words, chosen for each caption; half of the captions are seen without theirs, and
each with its own photo; the noise is computed through JPEG. With crops and grey-scale too
(`views.crop`, `views.grey`) more was learned once the triggers were cut off (one seed, a training
each).

mmjax protect INPUT --config=protect/mem_plus --out=protected
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
    config.noise = {"scope": "image", "steps": 8, "shuffle": False}
    config.trigger = {
        "length": 3,
        "scope": "pair",
        "start": "random",
        "vocabulary": "safe",
        "rounds": 5,
        "candidates": 16,
        "selection": "per_sample",
        "dropout": 0.5,
    }
    config.views = {"crop": 1.0, "jpeg": 50, "grey": False}
    config.seed = 0
    return config.lock()
