"""BadNets with CleanCLIP's patch of noise, anywhere in the image, and template captions.

mmjax attack INPUT --config=attack/badnets --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "badnets", "patch_size": 16 / 224, "location": "random"}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
