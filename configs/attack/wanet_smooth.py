"""WaNet's own smooth warp; template captions.

mmjax attack INPUT --config=attack/wanet_smooth --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "wanet_smooth", "grid": 4, "strength": 0.5, "pattern_seed": 0}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
