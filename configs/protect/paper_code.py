"""MEM-3 as its authors' code computes it: a random trigger and a noise of its own for each pair.

20 rounds of 200 training steps and 8 steps of noise; triggers are searched in the first five. Where
this differs from the code: noise is whole grey levels and keeps photos in their range; no special
token is ever drawn or chosen, and a caption that is cut keeps its end token; a batch holds no photo
twice, and the pairs that do not fill a batch are not left out; the norms of a ResNet's shortcuts
are not decayed. `trigger.length=5` gives MEM-5.

mmjax protect INPUT --config=protect/paper_code --tokenizer=CLIP --out=protected
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
    config.noise = {"scope": "pair", "steps": 8, "shuffle": True}
    config.trigger = {
        "length": 3,
        "scope": "pair",
        "start": "random",
        "vocabulary": "all",
        "rounds": 5,
        "candidates": 16,
        "selection": "joint",
        "beam": 1,
    }
    config.views = {"crop": 1.0, "jpeg": 0, "grey": False}
    config.seed = 0
    return config.lock()
