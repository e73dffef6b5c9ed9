"""The numbers behind CFBD's Figures 2, 4, 5, 6 and 7; `cfbd_plots` draws them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mmjax.core import keys
from mmjax.evaluate.cfbd_cells import run_attacks
from mmjax.evaluate.clean_set import CleanSet
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.planted import Planted
from mmjax.evaluate.tables import row
from mmjax.ops.gmm import Mixture, coverage_cut, fit_mixture
from mmjax.scan import stages
from mmjax.scan.blocks import gather
from mmjax.scan.detection import measure, precision_recall
from mmjax.scan.detectors import DETECTORS

SIX = ("badnets", "blended", "trojan", "issba", "wanet", "sig")
COMPONENTS = (1, 2, 3, 4, 5)
GAMMAS = (0.75, 0.8, 0.85, 0.875, 0.9, 0.925, 0.95, 0.975)
"""K and gamma of Figure 6a."""
QS = (10, 25, 50, 100, 200, 400)
"""Of Figure 6b, and two smaller ones: where 60 pairs are poisoned, 50 seeds are most of them."""
_BINS, _POINTS, _CAPTION_PAIRS = 60, 200, 20_000


def figure2(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Correlation among captions, similarity of the pairs, correlation with the poisoned ones."""
    return run_attacks(config, out, say, SIX, _similarities)


def figure4(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """The consistency of clean and poisoned pairs, its mixture, the benign set."""
    return run_attacks(config, out, say, SIX, _consistency)


def figure5(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Precision-recall curves of the coarse, the fine and the robust stage."""
    return run_attacks(config, out, say, SIX, _curves)


def figure6(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Poison in the benign set by K and gamma; what is found by q."""
    return run_attacks(config, out, say, SIX[:5], _ablations)


def figure7(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """How well mixtures of 1 to 5 Gaussians fit the consistency; z and its threshold."""
    return run_attacks(config, out, say, SIX, _fits)


def _similarities(clean: CleanSet, made: Planted, seed: int) -> Rows:
    rng = keys.host(seed, "caption pairs")
    valid = np.concatenate([block.valid for block in made.blocks])
    image, text = gather(made.blocks, np.arange(valid.size))
    bad, good = np.flatnonzero(valid & made.poisoned), np.flatnonzero(valid & ~made.poisoned)
    within = [_pairwise(text[rows], rng) for rows in (bad, good)]
    similarity = np.sum(image * text, axis=1)
    z = text @ text[bad].mean(axis=0)
    own = np.sum(text[bad] ** 2, axis=1)
    z[bad] = (bad.size * z[bad] - own) / max(bad.size - 1, 1)  # a pair is no evidence of itself
    rows: Rows = []
    for name, of_bad, of_good, sign in (
        ("correlation of two captions", within[0], within[1], 1),
        ("similarity of image and caption", similarity[bad], similarity[good], -1),
        ("correlation with the poisoned captions", z[bad], z[good], 1),
    ):
        values = np.concatenate([of_bad, of_good])
        truth = np.arange(values.size) < of_bad.size
        shown = _histogram(values, truth)
        facts = {"measure": name, "overlap": _overlap(shown), "histogram": shown}
        means = {"mean_poisoned": float(of_bad.mean()), "mean_clean": float(of_good.mean())}
        rows.append({**facts, **means, **row(name, measure(sign * values, truth))})
    return rows


def _pairwise(text: Float[np.ndarray, "n d"], rng: np.random.Generator) -> Float[np.ndarray, " m"]:
    """Cosines of random pairs of different captions' rows."""
    one = rng.integers(0, len(text), _CAPTION_PAIRS)
    other = (one + rng.integers(1, max(len(text), 2), _CAPTION_PAIRS)) % len(text)
    return np.sum(text[one] * text[other], axis=1)


def _consistency(clean: CleanSet, made: Planted, seed: int) -> Rows:
    c, truth = _values(clean, made, seed)
    mixture = fit_mixture(c, components=clean.config.stages.components)
    cut = coverage_cut(mixture, clean.config.stages.gamma)
    benign = c <= cut
    facts = {
        "detector": DETECTORS["cfbd_coarse"].title,
        "histogram": _histogram(c, truth),
        "mixture": _mixture(mixture),
        "cut": cut,
        "gamma": clean.config.stages.gamma,
        "benign_size": int(benign.sum()),
        "leaked": int((benign & truth).sum()),
        "lowest_mean": float(mixture.means[0]),
        "mean_poisoned": float(c[truth].mean()),
    }
    return [{**facts, **row(str(facts["detector"]), measure(c, truth))}]


def _curves(clean: CleanSet, made: Planted, seed: int) -> Rows:
    encoded, truth = clean.encoded(made, seed), made.poisoned
    rows: Rows = []
    for name in ("cfbd_coarse", "cfbd_fine", "cfbd_robust"):
        scores = DETECTORS[name].score(encoded)
        found = row(DETECTORS[name].title, measure(scores, truth))
        rows.append({"name": name, **found, "curve": _curve(scores, truth)})
    return rows


def _curve(
    scores: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]
) -> dict[str, list[float]]:
    """Precision where recall grows: even steps of the threshold would see almost no poison."""
    whole = precision_recall(scores, truth, points=scores.size)
    recall, first = np.unique(whole["recall"], return_index=True)
    kept = np.unique(np.linspace(0, recall.size - 1, min(_POINTS, recall.size)).round().astype(int))
    kept = kept[recall[kept] > 0]
    precision = np.asarray(whole["precision"])[first[kept]]
    return {"recall": recall[kept].tolist(), "precision": precision.tolist()}


def _ablations(clean: CleanSet, made: Planted, seed: int) -> Rows:
    c, truth = _values(clean, made, seed)
    rows: Rows = []
    for components in COMPONENTS:
        mixture = fit_mixture(c, components=components)
        for gamma in GAMMAS:
            benign = c <= coverage_cut(mixture, gamma)
            rows.append(
                {
                    "ablation": "K, gamma",
                    "detector": DETECTORS["cfbd_coarse"].title,
                    "components": components,
                    "gamma": gamma,
                    "pairs": c.size,
                    "poisoned": int(truth.sum()),
                    "benign_size": int(benign.sum()),
                    "leaked": int((benign & truth).sum()),
                }
            )
    for q in QS:
        paper = dataclasses.replace(clean.config.stages, mode="paper", seeds=q)
        result = stages.score(made.blocks, clean.mapping, paper)
        scored = result.scores.coarse != stages.COARSE.index("")
        z = np.where(scored, result.scores.text_correlation, np.float32(np.nan))
        flags = result.scores.verdict == stages.VERDICTS.index("poisoned")
        seeds = result.scores.coarse == stages.COARSE.index("seed")
        found = measure(z, made.poisoned, flags=flags, seeds=seeds)
        rows.append({"ablation": "q", "q": q, **row(DETECTORS["cfbd_fine"].title, found)})
    return rows


def _fits(clean: CleanSet, made: Planted, seed: int) -> Rows:
    c, truth = _values(clean, made, seed)
    rows: Rows = []
    for components in COMPONENTS:
        mixture = fit_mixture(c, components=components)
        free = 3 * len(mixture.means) - 1
        bits = -2 * mixture.log_likelihood * c.size + free * np.log(c.size)
        rows.append(
            {
                "detector": f"mixture of {components}",
                "components": components,
                "pairs": c.size,
                "poisoned": int(truth.sum()),
                "log_likelihood": mixture.log_likelihood,
                "bic_per_pair": float(bits / c.size),
                "mixture": _mixture(mixture),
                "histogram": _histogram(c, truth),
            }
        )
    paper = dataclasses.replace(clean.config.stages, mode="paper")
    result = stages.score(made.blocks, clean.mapping, paper)
    scored = result.scores.coarse != stages.COARSE.index("")
    z = result.scores.text_correlation
    flags = result.scores.verdict == stages.VERDICTS.index("poisoned")
    shown = _histogram(z[scored], made.poisoned[scored])
    found = measure(np.where(scored, z, np.float32(np.nan)), made.poisoned, flags=flags)
    title = DETECTORS["cfbd_fine"].title
    facts = {"histogram": shown, "gamma_z": result.thresholds.gamma_z}
    return [*rows, {**facts, **row(title, found)}]


def _values(
    clean: CleanSet, made: Planted, seed: int
) -> tuple[Float[np.ndarray, " s"], Bool[np.ndarray, " s"]]:
    """The consistency of the scored pairs, and the truth."""
    c = DETECTORS["cfbd_coarse"].score(clean.encoded(made, seed))
    scored = ~np.isnan(c)
    return c[scored], made.poisoned[scored]


def _histogram(values: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """Counts of clean and poisoned values in the same bins."""
    edges = np.linspace(float(values.min()), float(values.max()) + 1e-6, _BINS + 1)
    clean, poisoned = (np.histogram(values[t], edges)[0].tolist() for t in (~truth, truth))
    return {"edges": edges.tolist(), "clean": clean, "poisoned": poisoned}


def _overlap(histogram: dict[str, Any]) -> float:
    """The mass that the two distributions share, in [0, 1]."""
    one, two = (np.asarray(histogram[name], float) for name in ("clean", "poisoned"))
    return float(np.minimum(one / max(one.sum(), 1), two / max(two.sum(), 1)).sum())


def _mixture(mixture: Mixture) -> dict[str, list[float]]:
    return {
        name: np.asarray(getattr(mixture, name)).tolist()
        for name in ("means", "variances", "weights")
    }
