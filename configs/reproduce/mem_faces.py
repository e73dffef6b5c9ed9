"""MEM's case study on PubFig, a folder a person: OpenAI's CLIPs fine-tuned for ten epochs at 1e-5.

    mmjax reproduce mem-table4 --config=reproduce/mem_faces --out=runs/mem-faces

The surrogate's budget is that of the authors' code for fine-tuning: ten rounds of 50 steps.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "scale": "paper",
            "data": "pubfig",
            "weights": "open_clip-dir:RN50",
            "mem": {
                "victims": ("open_clip-dir:RN50", "open_clip-dir:RN101", "open_clip-dir:ViT-B-32"),
                "captions": 1,
                "rounds": 10,
                "surrogate_steps": 50,
                "surrogate_learning_rate": 1e-5,
                "learning_rate": 1e-5,
                "steps": 4_590,
            },
        }
    )
