"""SafeCLIP: pre-training on pairs of which some may be poisoned.

mmjax train --config=train/safeclip --data=SET --tokenizer=CLIP --out=runs/safeclip

The reference's settings (facts/cfbd.md 2.4): 5 epochs of images and captions apart, one epoch of
CLIP's loss at a hundredth of the rate, then the pairs that belong to the upper Gaussian of the
cosines with .9, 1 % more every epoch; batch 128, AdamW 5e-4, 32 epochs of a million pairs. Set
`--steps` for other sets.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = {"preset": "RN50"}
    config.defence = {
        "name": "safeclip",
        "safeclip": {
            "unimodal_epochs": 5,
            "multimodal_epochs": 1,
            "multimodal_rate": 0.01,
            "posterior": 0.9,
            "growth": 0.01,
            "largest": 0.85,
        },
    }
    config.optimizer = {
        "learning_rate": 5e-4,
        "weight_decay": 0.1,
        "b2": 0.999,
        "eps": 1e-8,
        "warmup": 10_000.0,
    }
    config.steps = 250_000
    config.batch_size = 128
    config.seed = 0
    return config.lock()
