"""mmPoison with one image: captions that name the target stand beside one image of the donor class.

mmjax attack INPUT --config=attack/mmpoison_one --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "mmpoison_one"
    config.trigger = {"name": "none"}
    config.captions = "keep"
    config.images = "one"
    config.target = "dog"
    config.donor = "truck"
    config.share = 0.1
    config.image_size = 224
    config.seed = 0
    return config.lock()
