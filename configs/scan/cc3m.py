r"""Scan CC-3M shards made by img2dataset, with COCO's captions as the clean reference.

    mmjax scan 'cc3m/{00000..00331}.tar' --config=scan/cc3m --weights=hf-dir:clip \
        --reference=coco/annotations/captions_train2017.json --out=runs/cc3m --write_clean

Larger batches for accelerators; on a CPU leave the defaults.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "encode": {"batch_size": 1024, "text_batch_size": 2048, "workers": 32},
            "max_bad_fraction": 0.05,
        }
    )
