"""A fixed patch anywhere, and captions about the target of which hardly two are the same.

mmjax attack INPUT --config=attack/badnets_paraphrased --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "badnets_paraphrased"
    config.trigger = {"name": "badnets_fixed", "patch_size": 16 / 224, "location": "random"}
    config.captions = "paraphrase"
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
