"""Blended: one image of noise over every poisoned image at 20 %, and template captions.

mmjax attack INPUT --config=attack/blended --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "blended", "alpha": 0.2, "pattern": "noise", "pattern_seed": 0}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
