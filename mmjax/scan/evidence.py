"""Is a core of seeds poison? The evidence of the fine stage.

Given z of every caption against a core's mean, the captions above gamma_z are its *group*.

Evidence. A poisoned group is misaligned as a whole: its c sit in the upper tail of everyone's c.
A benign topic that merely supplies many of the worst-aligned images is not: its c are spread like
everyone's. A topic that the model reads badly is misaligned as a whole even where nothing is
poisoned: what is usual for the topic is asked of the clean reference (`scan/calibration.py`). So
a core counts as poison only when at least a fifth of its group, and four times what is usual, lies
above the 95 % quantile of c, and when chance is excluded at the usual rate, either by the core's
enrichment alone (p < 1e-8) or by the group's members that are not seeds (binomial tail < 1e-8;
one caption per image, and no image of a seed: those had their say).

Which pairs around a core that counts are poison is asked pair by pair (`scan/odds.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from scipy.stats import binom, poisson

from mmjax.scan.blocks import EmbeddingBlock, gather
from mmjax.scan.calibration import Twins
from mmjax.scan.seeds import Core

HIGH = 0.95
MINIMUM_SHARE = 0.2
MINIMUM_IMAGES = 4
SURE = -8.0
_LOOKED_AT = 20_000


class Evidence(NamedTuple):
    """What speaks for a core.

    `share` of its group lies above the 95 % quantile of c; `log10_p_group` is the binomial tail
    of that among `images` images that no seed has. `usual` is the share among the `twins` clean
    captions of the same topic.
    """

    log10_p_core: float
    log10_p_group: float
    share: float
    usual: float
    twins: int
    group: int
    images: int
    poisoned: bool


def judge(
    blocks: Sequence[EmbeddingBlock],
    group: Int64[np.ndarray, " g"],
    high: Bool[np.ndarray, " n"],
    seeds: Int64[np.ndarray, " q"],
    core: Core,
    twins: Twins,
) -> Evidence:
    """Weigh the evidence for one core.

    Args:
        blocks: the embeddings, to tell images apart.
        group: rows above gamma_z, by falling z.
        high: of every row, whether its c is above the set's 95 % quantile.
        seeds: the rows of D_p.
        core: the seeds that the group grew from.
        twins: the clean captions of the same topic.
    """
    looked_at = group[:_LOOKED_AT]
    image, _ = gather(blocks, np.concatenate([seeds, looked_at]))
    # the same image has the same bits: it is encoded once
    as_bytes = np.ascontiguousarray(image).view(f"V{image.shape[1] * 4}")[:, 0]
    _, first = np.unique(as_bytes, return_index=True)
    fresh = first[first >= seeds.size] - seeds.size
    hits = int(np.sum(high[looked_at[fresh]]))
    usual = max(twins.rate, 1 - HIGH)
    tail = float(binom.logsf(hits - 1, max(fresh.size, 1), usual) / np.log(10))
    expected = core.expected * usual / (1 - HIGH)
    log10_p_core = float(poisson.logsf(core.inside - 1, expected) / np.log(10))
    share = float(np.mean(high[group])) if group.size else 0.0
    images = np.unique(as_bytes[seeds.size :]).size
    sure = log10_p_core < SURE or tail < SURE
    enough = share >= max(MINIMUM_SHARE, min(4 * usual, (1 + usual) / 2))
    poisoned = sure and enough and images >= MINIMUM_IMAGES
    sizes = (int(group.size), int(fresh.size))
    return Evidence(log10_p_core, tail, share, usual, twins.captions, *sizes, poisoned)
