"""Trojan: a patch in a corner that drives two units of a surrogate; template captions.

mmjax attack INPUT --config=attack/trojan --weights=hf-dir:CLIP --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {
        "name": "trojan",
        "patch_size": 32 / 224,
        "sample": 1024,
        "steps": 200,
        "batch_size": 32,
        "step_size": 0.02,
        "epsilon": 0.3,
        "units": 2,
    }
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    config.weights = ""
    return config.lock()
