"""BadNets with a fixed patch of dots, anywhere in the image, and template captions.

mmjax attack INPUT --config=attack/badnets_fixed --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "badnets_fixed", "patch_size": 16 / 224, "location": "random"}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
