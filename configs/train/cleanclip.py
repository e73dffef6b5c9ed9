"""CleanCLIP: fine-tuning a model that may be poisoned on pairs that are known to be clean.

mmjax train --config=train/cleanclip --weights=mmjax-dir:POISONED --data=CLEAN --out=runs/cleanclip

The paper's settings (facts/cfbd.md 2.2): 10 epochs of 100,000 pairs, batch 64, AdamW 1e-5 with
decay .1, 50 warm-up steps, cosine to zero; both weights 1. Set `--steps` for other sets. Small
models want a higher rate: sweep it, and look at accuracy and attack success together.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = {"weights": "demo"}
    config.defence = {"name": "cleanclip", "cleanclip": {"weight": 1.0}}
    config.optimizer = {
        "learning_rate": 1e-5,
        "weight_decay": 0.1,
        "b2": 0.999,
        "eps": 1e-8,
        "warmup": 50.0,
    }
    config.steps = 15_625
    config.batch_size = 64
    config.seed = 0
    return config.lock()
