"""RoCLIP: pre-training on pairs of which some may be poisoned.

mmjax train --config=train/roclip --data=SET --tokenizer=CLIP --out=runs/roclip

The reference's settings (facts/cfbd.md 2.3): captions come from a pool of 21,845 in every second
epoch, AutoAugment and rewordings throughout, 24 epochs of a million pairs, batch 512, AdamW 5e-5,
10,000 warm-up steps. Set `--steps` for other sets.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = {"preset": "RN50"}
    config.defence = {"name": "roclip", "roclip": {"pool": 21_845, "every": 2, "augment": True}}
    config.optimizer = {
        "learning_rate": 5e-5,
        "weight_decay": 0.1,
        "b2": 0.999,
        "eps": 1e-8,
        "warmup": 10_000.0,
    }
    config.steps = 46_875
    config.batch_size = 512
    config.seed = 0
    return config.lock()
