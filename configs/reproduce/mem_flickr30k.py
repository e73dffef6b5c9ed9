"""MEM's experiments on Flickr30k (Karpathy's split) as the paper has them: RN50, 32 epochs.

mmjax reproduce mem-table1 --config=reproduce/mem_flickr30k --out=runs/mem-flickr30k
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "scale": "paper",
            "tokenizer": "bpe_simple_vocab_16e6.txt.gz",
            "data": "flickr30k/dataset_flickr30k.json",
            "mem": {"steps": 36_250},
        }
    )
