"""ABL: what is learned first is isolated as poison, left out and unlearned.

mmjax train --config=train/abl --data=SET --out=runs/abl
mmjax detectors SCAN --truth=LABELS --losses=runs/abl/losses.parquet

Losses are recorded after each of the first 10 epochs, as in the only published form for CLIP
(facts/cfbd.md 2.5); 1 % is isolated (`--config.defence.abl.isolate=3000` for a budget that an
oracle knows) and unlearned in the last 5 epochs. Set `--steps` to more than 15 epochs of your set.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = {"preset": "RN50"}
    config.defence = {
        "name": "abl",
        "abl": {
            "recorded_epochs": 10,
            "gather": "clip",
            "isolate": 0.01,
            "unlearn_epochs": 5,
            "unlearn_rate": 0.1,
        },
    }
    config.optimizer = {
        "learning_rate": 5e-4,
        "weight_decay": 0.1,
        "b2": 0.999,
        "eps": 1e-8,
        "warmup": 0.05,
    }
    config.steps = 125_000
    config.batch_size = 128
    config.seed = 0
    return config.lock()
