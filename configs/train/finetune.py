"""Fine-tuning a given CLIP as the backdoor papers do: 5 epochs of 500,000 pairs at a low rate.

mmjax train --config=train/finetune --weights=open_clip-dir:RN50 --data=SHARDS --out=runs/finetuned

CleanCLIP, section 5.2 (facts/cfbd.md 2.1): batch 128, AdamW 1e-6 with decay .1, 50 warm-up steps,
cosine to zero; 19,531 steps are 5 epochs of 500,000 pairs: set `--steps` for other sets.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = {"weights": "demo"}
    config.optimizer = {
        "learning_rate": 1e-6,
        "weight_decay": 0.1,
        "b2": 0.999,
        "eps": 1e-8,
        "warmup": 50.0,
    }
    config.steps = 19_531
    config.batch_size = 128
    config.seed = 0
    return config.lock()
