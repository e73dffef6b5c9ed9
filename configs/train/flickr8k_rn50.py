"""CLIP RN50 from scratch on Flickr8k at 224 px: the "clean" row of MEM's Table 1, for a GPU.

mmjax train --config=train/flickr8k_rn50 --tokenizer=DATA/bpe_simple_vocab_16e6.txt.gz --out=OUT

The paper's settings (facts/mem.md 3): batch 128, 32 epochs of the 30,000 pairs, AdamW 5e-4 with
decay .2, cosine to zero, no augmentation. Its warm-up of 10,000 steps is longer than the run of
7,500: here a tenth of it.
"""

import os

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.data = {
        "location": os.path.join(os.environ.get("MMJAX_DATA", "../shared/data"), "flickr8k"),
        "split": "train",
        "heldout_split": "test",
    }
    config.model = {"preset": "RN50"}
    config.optimizer = {
        "learning_rate": 5e-4,
        "weight_decay": 0.2,
        "b2": 0.999,
        "eps": 1e-8,
        "warmup": 0.1,
    }
    config.steps = 7_500
    config.batch_size = 128
    config.seed = 0
    return config.lock()
