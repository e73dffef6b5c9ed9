r"""CFBD's experiments on Flickr30k united with PASCAL, with mmPoison's own pair of classes.

    mmjax pack flickr30k/dataset_flickr30k.json --split=train --out=flickr_pascal/flickr
    mmjax pack pascal/captions.tsv --out=flickr_pascal/pascal
    mmjax reproduce cfbd-table4 --config=reproduce/cfbd_flickr_pascal --out=runs/cfbd-flickr-pascal

Every caption that names a sheep gets an image of an aeroplane.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "scale": "paper",
            "data": "flickr_pascal/*/*.tar",
            "weights": "open_clip-dir:RN50",
            "cfbd": {
                "reference": ("coco/annotations/captions_train2017.json",),
                "target": "banana",
                "rate": 0.006,
                "mmpoison_target": "sheep",
                "mmpoison_donor": "aeroplane",
                "mmpoison_share": 1.0,
            },
            "fit": {"kind": "lm"},  # the paper's network: the sizes of a scan's own defaults
        }
    )
