r"""CFBD's experiments on 500,000 pairs of CC-3M, 3,000 of them poisoned, scanned with RN50.

    mmjax reproduce cfbd-table4 --config=reproduce/cfbd_cc3m --data='cc3m/{00000..00049}.tar' \
        --weights=open_clip-dir:RN50 --out=runs/cfbd-cc3m

`cfbd.reference`: COCO's captions, which F is fitted on. mmPoison has no pair of classes of its own
on CC-3M: captions that name a dog get images of trucks.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "scale": "paper",
            "data": "cc3m/{00000..00049}.tar",
            "weights": "open_clip-dir:RN50",
            "cfbd": {
                "reference": ("coco/annotations/captions_train2017.json",),
                "target": "banana",
                "rate": 0.006,
                "consistent_rate": 0.0005,
                "mmpoison_target": "dog",
                "mmpoison_donor": "truck",
                "mmpoison_share": 0.1,
            },
            "fit": {"kind": "lm"},  # the paper's network: the sizes of a scan's own defaults
        }
    )
