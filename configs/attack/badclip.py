"""BadCLIP: a patch optimised against a surrogate, and real captions of the set.

mmjax attack INPUT --config=attack/badclip --weights=hf-dir:CLIP --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {
        "name": "badclip",
        "patch_size": 16 / 224,
        "location": "centre",
        "sample": 2048,
        "steps": 1000,
        "batch_size": 64,
        "learning_rate": 0.01,
        "margin": 1.0,
        "triplet": 500.0,
    }
    config.captions = "natural"
    config.pool = 128
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    config.weights = ""
    return config.lock()
