"""A faint lattice of triangles over the whole image (PAR's Triangles), and template captions.

mmjax attack INPUT --config=attack/blended_triangles --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.trigger = {"name": "blended_triangles", "alpha": 0.05, "width": 14}
    config.target = "banana"
    config.rate = 0.01
    config.image_size = 224
    config.seed = 0
    return config.lock()
