"""A small CLIP from scratch on Flickr8k's 6,000 training photos.

mmjax train --config=train/flickr8k_small --data=DATA/flickr8k --out=runs/flickr8k_small

Judged on the other 2,091 photos. Its tokenizer is a BPE of the training captions; five captions a
photo and only 6,000 photos over-fit quickly, hence the strong crops and two captions a step.
"""

import os

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.data = {
        "location": os.path.join(os.environ.get("MMJAX_DATA", "../shared/data"), "flickr8k"),
        "split": "train",
        "heldout_split": "dev,test,none",
    }
    config.model = {"preset": "resnet-small-96", "vocab_size": 4_096, "context_length": 32}
    config.augment = {"crop_area": 0.4, "crop_aspect": 1.33, "flip": True, "colour": 0.3}
    config.optimizer = {"learning_rate": 2e-3, "weight_decay": 0.2}
    config.steps = 1_400
    config.batch_size = 128
    config.captions_per_image = 2
    config.seed = 0
    return config.lock()
