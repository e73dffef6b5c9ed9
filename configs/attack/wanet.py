"""WaNet as CleanCLIP has it: every pixel jitters by half a pixel; template captions.

mmjax attack INPUT --config=attack/wanet --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "wanet", "grid": 0, "strength": 1.0, "pattern_seed": 0}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
