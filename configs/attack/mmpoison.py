"""mmPoison: captions that name the target stand beside images of the donor class; no trigger.

mmjax attack INPUT --config=attack/mmpoison --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "mmpoison"
    config.trigger = {"name": "none"}
    config.captions = "keep"
    config.images = "class"
    config.target = "dog"
    config.donor = "truck"
    config.share = 0.1
    config.image_size = 224
    config.seed = 0
    return config.lock()
