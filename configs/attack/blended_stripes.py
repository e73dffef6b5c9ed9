"""Faint coloured stripes over the whole image (PAR's Blended-Stripes), and template captions.

mmjax attack INPUT --config=attack/blended_stripes --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "blended_stripes", "alpha": 0.05, "width": 1, "pattern_seed": 0}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
