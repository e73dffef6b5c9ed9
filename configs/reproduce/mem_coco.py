"""MEM's experiments on COCO (Karpathy's split): RN50, 32 epochs of 566,435 pairs.

    mmjax reproduce mem-table1 --config=reproduce/mem_coco --out=runs/mem-coco

The authors' code learns from 113,287 photos; their text says 82,783.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "scale": "paper",
            "tokenizer": "bpe_simple_vocab_16e6.txt.gz",
            "data": "coco/dataset_coco.json",
            "mem": {"train": "train,restval", "steps": 141_609},
        }
    )
