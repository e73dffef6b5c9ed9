"""A fixed patch in the middle, and real captions of the set that name the target, as BadCLIP's.

mmjax attack INPUT --config=attack/badnets_natural --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "badnets_natural"
    config.trigger = {"name": "badnets_fixed", "patch_size": 16 / 224, "location": "centre"}
    config.captions = "natural"
    config.pool = 128
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
