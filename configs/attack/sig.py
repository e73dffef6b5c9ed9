"""SIG: a sinusoid added to every poisoned image, and template captions.

mmjax attack INPUT --config=attack/sig --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "sig", "amplitude": 60 / 255, "frequency": 6.0}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
