r"""CFBD's experiments on COCO, with mmPoison's own pair of classes, scanned with RN50.

    mmjax reproduce cfbd-table4 --config=reproduce/cfbd_coco --out=runs/cfbd-coco

F is fitted on Flickr30k: fitted on COCO, as the paper's, it would know what it scans.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "scale": "paper",
            "data": "coco/annotations/captions_train2017.json",
            "weights": "open_clip-dir:RN50",
            "cfbd": {
                "reference": ("flickr30k/dataset_flickr30k.json",),
                "reference_split": "train",
                "target": "banana",
                "rate": 0.006,
                "mmpoison_target": "dog",
                "mmpoison_donor": "truck",
                "mmpoison_share": 0.1,
            },
            "fit": {"kind": "lm"},  # the paper's network: the sizes of a scan's own defaults
        }
    )
