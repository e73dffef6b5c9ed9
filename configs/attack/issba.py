"""ISSBA: 100 bits hidden in each image, by a network trained on the set; template captions.

mmjax attack INPUT --config=attack/issba --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {
        "name": "issba",
        "bits": 100,
        "width": 32,
        "sample": 4096,
        "steps": 1000,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "image_weight": 100.0,
        "pattern_seed": 0,
    }
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
