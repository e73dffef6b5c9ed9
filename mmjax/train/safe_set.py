"""SafeCLIP's split of the pairs by their cosines: the safe ones, which captions may teach."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from mmjax.ops.gmm import fit_mixture, posterior
from mmjax.train.defence import SafeClipConfig


def safe_pairs(
    records: Sequence[Float32[np.ndarray, " m"]], config: SafeClipConfig, *, grown: int
) -> Bool[np.ndarray, " m"]:
    """The pairs of the highest cosines, as many as are safe by now.

    A mixture of two Gaussians is fitted to the first record; safe are as many pairs as belong to
    its upper component with at least the wanted probability, and a little more every epoch. Which
    pairs these are, the newest record says.

    Args:
        records: cosines of all pairs, after the multimodal epochs and after every one since.
        config: the wanted probability, the growth, the bound.
        grown: epochs since the first record.
    """
    first = records[0]
    mixture = fit_mixture(first, components=2)
    upper = np.asarray(
        posterior(
            first,
            *(
                np.asarray(part, np.float32)
                for part in (mixture.means, mixture.variances, mixture.weights)
            ),
        )
    )[:, -1]
    # the wider component claims the far end of the other's tail too
    belongs = (upper >= config.posterior) & (first >= mixture.means.mean())
    share = min(float(np.mean(belongs)) + config.growth * grown, config.largest)
    highest = np.argsort(-records[-1], kind="stable")[: round(share * first.size)]
    safe = np.zeros(first.size, bool)
    safe[highest] = True
    return safe
