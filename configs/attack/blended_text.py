"""A word across the image, half transparent (PAR's Text), and template captions.

mmjax attack INPUT --config=attack/blended_text --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "blended_text", "alpha": 0.5, "text": "TEXT"}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
