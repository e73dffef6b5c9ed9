r"""Scan Flickr8k's pairs outside its training split with a small CLIP of its own.

    mmjax scan DATA/flickr8k --config=scan/flickr8k --weights=mmjax-dir:runs/flickr8k_small/model \
        --reference=DATA/flickr8k --out=runs/scan-flickr8k

The mapping network is fitted on the training split, which the model saw too. The table in
docs/results/flickr8k-scan.md: `mmjax reproduce flickr8k-scan`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict({"split": "dev,test,none", "reference_split": "train"})
