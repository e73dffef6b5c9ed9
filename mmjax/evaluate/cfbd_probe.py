"""What a ridge regression that is told which pairs are poison finds in their embeddings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64

from mmjax.evaluate.cfbd_cells import run_attacks
from mmjax.evaluate.cfbd_set import ATTACKS
from mmjax.evaluate.clean_set import CleanSet
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.planted import Planted
from mmjax.evaluate.tables import MEANING, pivot, read_results, row, table, write_page
from mmjax.scan.blocks import gather
from mmjax.scan.detection import measure

Array = np.ndarray
SEEN: dict[str, Callable[[Array, Array], Array]] = {
    "images": lambda image, text: image,
    "captions": lambda image, text: text,
    "images, captions, their products": lambda image, text: np.hstack([image, text, image * text]),
}
"""What a probe looks at."""
RIDGES = (0.1, 1.0, 10.0, 100.0)


def probes(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Every probe on every attack."""
    return run_attacks(config, out, say, ATTACKS, _probed)


def _probed(clean: CleanSet, made: Planted, seed: int) -> Rows:
    valid = np.flatnonzero(np.concatenate([block.valid for block in made.blocks]))
    image, text = gather(made.blocks, valid)
    truth = made.poisoned[valid]
    return [
        {"name": name, **row(name, measure(probe(look(image, text), truth), truth))}
        for name, look in SEEN.items()
    ]


def probe(
    features: Float[np.ndarray, "n d"], poisoned: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Ridge regression of the truth on features, every row predicted by a fit without it.

    The ridge is the one of `RIDGES` that predicts best, which favours the probe a little more.
    """
    from sklearn.linear_model import RidgeCV

    scoring = "neg_mean_squared_error"  # so that predictions are kept, not their errors
    fitted = RidgeCV(RIDGES, scoring=scoring, store_cv_results=True)
    fitted.fit(features.astype(np.float64), poisoned.astype(np.float64))
    return fitted.cv_results_[:, RIDGES.index(fitted.alpha_)]


def write_probes(results_json: Path, out_md: Path) -> None:
    """The page: AUROC and TPR of each probe by attack."""
    rows = read_results(results_json)["rows"]
    body = []
    for value, title in (("auroc", "AUROC"), ("tpr_at_0_1_fpr", "TPR at .1 % false positives")):
        body += [f"{title} of a probe, mean of the seeds:", ""]
        body += [*pivot(rows, "detector", "attack", value), ""]
    write_page(results_json, out_md, [*body, *table(rows), "", MEANING])
