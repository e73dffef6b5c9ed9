"""MEM's experiments on Flickr8k as the paper has them: RN50, the whole split, 32 epochs.

    mmjax reproduce mem-table1 --config=reproduce/mem_flickr8k --out=runs/mem-flickr8k

Every other of MEM's experiments but table 4 and figure 7 (`mem_faces`) takes the same file.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "scale": "paper",
            "tokenizer": "bpe_simple_vocab_16e6.txt.gz",
            "data": "flickr8k",
            "mem": {"steps": 7_500},
        }
    )
