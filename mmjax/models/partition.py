"""How a CLIP model's parameters are split over the mesh: one table for both towers."""

from jax.sharding import PartitionSpec

from mmjax.core.mesh import DATA, MODEL

RULES = (
    # products that widen: their outputs lie over `model` ...
    (r"/(qkv|expand|query|key|value|patch)/kernel$", PartitionSpec(DATA, MODEL)),
    (r"/(qkv|expand|query|key|value)/bias$", PartitionSpec(MODEL)),
    # ... and the products that narrow take them from there
    (r"/(out|contract)/kernel$", PartitionSpec(MODEL, DATA)),
    (r"/projection$", PartitionSpec(DATA, MODEL)),
    (r"/token_embedding$", PartitionSpec(MODEL, DATA)),
    (r"/position$", PartitionSpec(None, DATA)),
    (r"/(stem_\d|conv_[12]|shortcut)/kernel$", PartitionSpec(None, None, DATA, MODEL)),
    (r"/conv_3/kernel$", PartitionSpec(None, None, MODEL, DATA)),
)
"""(pattern of a parameter's path, spec); norms, other biases and the scale are on every device.

`model` splits products, as Megatron does (arXiv:1909.08053); `data` splits what is left of the
storage (FSDP), and the compiler gathers an array where it is used.
"""
