"""Ten attackers, each with a trigger and a target of their own, share 1 % of the set.

mmjax attack INPUT --config=attack/ten_targets --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    attackers = {
        "badnets": "banana",
        "badnets_fixed": "cheeseburger",
        "badnets_stripes": "volcano",
        "blended": "umbrella",
        "blended_stripes": "teapot",
        "blended_triangles": "goldfish",
        "blended_text": "tractor",
        "sig": "accordion",
        "wanet": "lighthouse",
        "nashville": "pineapple",
    }
    config.mixture = tuple(
        {"trigger": {"name": trigger}, "target": target, "rate": 0.001}
        for trigger, target in attackers.items()
    )
    config.image_size = 224
    config.seed = 0
    return config.lock()
