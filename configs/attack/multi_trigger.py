"""Three triggers with a target each in one set, as Huang et al. 2025 have them; template captions.

mmjax attack INPUT --config=attack/multi_trigger --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.mixture = (
        {"trigger": {"name": "badnets_fixed"}, "target": "banana", "rate": 0.003},
        {"trigger": {"name": "nashville"}, "target": "cheeseburger", "rate": 0.003},
        {"trigger": {"name": "wanet"}, "target": "volcano", "rate": 0.003},
    )
    config.image_size = 224
    config.seed = 0
    return config.lock()
