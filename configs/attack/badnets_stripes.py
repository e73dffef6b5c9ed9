"""BadNets with a patch of coloured stripes (PAR's BadNet-Stripes), and template captions.

mmjax attack INPUT --config=attack/badnets_stripes --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {
        "name": "badnets_stripes",
        "patch_size": 16 / 224,
        "location": "random",
        "pattern_seed": 0,
    }
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
