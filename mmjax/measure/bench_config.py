"""What is timed. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import option


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """One case of `mmjax bench`."""

    case: str = option("machine", "which; an unknown one lists all")
    size: Literal["tiny", "small", "full"] = option(
        "small", "tiny: seconds, for tests; small: a laptop; full: as the goals are stated"
    )
    repeats: int = option(7, "runs of every part, in turn", low=1)
    data: str = option(
        "", "captioned set with a split test, for the case photos; '' = drawn photos"
    )
