"""What is planned. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import option
from mmjax.core.errors import ConfigError
from mmjax.train.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class HostConfig:
    """What the hosts can do; the defaults are cautious, `mmjax bench loader` measures yours."""

    decode_rate: float = option(
        250.0, "images that one core reads, decodes and resizes a second", low=0.1
    )
    cores: int = option(0, "cores of one host; 0 = as the table of chips has it", low=0)
    transfer: float = option(12e9, "bytes a second from a host to its chips", low=1.0)


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """One step of a run that is compiled ahead of time, for machines that are not here."""

    step: Literal["encode", "text", "train", "pgd"] = option(
        "encode", "encode: images of a scan; text: its captions; train; pgd: noise of protect"
    )
    preset: str = option("RN50", "shape of the model (models.presets)")
    batch_size: int = option(1024, "images (or captions) of a step, over all devices", low=1)
    topology: str = option("v5e:2x4", "CHIP:SHAPE of v4, v5e, v5p, v6e")
    platform: Literal["tpu", "cpu"] = option(
        "tpu", "tpu: needs libtpu, no TPU (pip install mmjax[tpu-plan]); cpu: simulated devices"
    )
    devices: int = option(1, "how many, for platform=cpu", low=1)
    pairs: float = option(3.3e6, "pairs of the data set; CC-3M has 3.3 million", low=1.0)
    tokens: int = option(32, "length of a caption's bucket", low=1)
    pgd_steps: int = option(8, "steps of PGD on a batch", low=1)
    train: TrainConfig = option(
        TrainConfig(), "of step=train: mesh, fsdp, accumulate, loss_chunk, model.remat, average"
    )
    host: HostConfig = option(HostConfig(), "")
    sweep: bool = option(False, "double the batch until it does not fit")

    def validate(self) -> None:
        """Reject a topology that is none."""
        from mmjax.measure.chips import chip_of

        if self.platform == "tpu":
            chip_of(self.topology)
        elif self.sweep:
            raise ConfigError("sweep looks for what fits into an accelerator: platform=tpu")
