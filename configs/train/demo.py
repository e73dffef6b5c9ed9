"""The bundled demo model: a small CLIP on generated scenes.

mmjax train --config=train/demo --out=runs/demo
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.data = {"location": "scenes", "scenes": 32_000, "heldout_scenes": 1_000}
    config.model = {"preset": "demo", "vocab_size": 1_024}
    config.optimizer = {"learning_rate": 3e-3}
    config.steps = 3_000
    config.batch_size = 128
    config.export_dtype = "float16"
    config.seed = 0
    return config.lock()
