"""Label-consistent: BadNets' patch of noise on images that show the target; captions stay.

mmjax attack INPUT --config=attack/label_consistent --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "label_consistent"
    config.trigger = {"name": "badnets", "patch_size": 16 / 224, "location": "random"}
    config.captions = "keep"
    config.target = "banana"
    config.rate = 0.0005  # few pairs name one class: 290 of 500,000 of CC-3M the banana
    config.image_size = 224
    config.seed = 0
    return config.lock()
