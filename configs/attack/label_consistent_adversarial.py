"""Label-consistent, with images that a surrogate can no longer read under the patch; captions stay.

mmjax attack INPUT --config=attack/label_consistent_adversarial --weights=hf-dir:CLIP --out=poisoned
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "label_consistent_adversarial"
    config.trigger = {"name": "badnets", "patch_size": 16 / 224, "location": "random"}
    config.perturb = {"epsilon": 16 / 255, "step_size": 1.5 / 255, "steps": 40}
    config.captions = "keep"
    config.target = "banana"
    config.rate = 0.0005  # few pairs name one class: 290 of 500,000 of CC-3M the banana
    config.image_size = 224
    config.seed = 0
    config.weights = ""
    return config.lock()
