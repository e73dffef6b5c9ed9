"""Experiments whose results stand in docs/results: each cell is run once, then the page is made.

Imports no JAX at its top, so that `mmjax reproduce --help` stays fast.
"""

import dataclasses
from pathlib import Path
from typing import Any

from mmjax.core.errors import ConfigError
from mmjax.evaluate.cfbd import CFBD
from mmjax.evaluate.experiment import Experiment, ReproduceConfig, Say, named
from mmjax.evaluate.mem_experiments import MEM


def flickr8k_scan(config: ReproduceConfig, out: Path, say: Say) -> list[dict[str, Any]]:
    """BadNets -> "banana" in Flickr8k's 2,091 photos that the model was not trained on.

    Rows: for every seed and kind of mapping network the scan's own detectors, and once a seed the
    others on the same pairs; then the same scan with nothing poisoned.
    """
    from mmjax.attacks.config import AttackConfig
    from mmjax.attacks.poison import poison
    from mmjax.data.sources import open_source
    from mmjax.models.weights import load_weights
    from mmjax.scan.config import FitConfig, ScanConfig
    from mmjax.scan.pipeline import run_fit, run_scan

    size = load_weights(config.weights).preset.vision.image_size
    held_out = "dev,test,none"
    mappings = {}
    for kind in config.kinds:
        say(f"mapping network: {kind}")
        mappings[kind] = str(out / f"mapping-{kind}")
        fit = FitConfig(
            inputs=(config.data,),
            split="train",
            weights=config.weights,
            tokenizer=config.tokenizer,
            fit=dataclasses.replace(config.fit, kind=kind),
        )
        run_fit(fit, mappings[kind])
    rows = []
    for seed, rate in [*((s, config.rate) for s in config.seeds), (config.seeds[0], 0.0)]:
        inputs, split, truth = config.data, held_out, None
        if rate:
            poisoned = out / f"poisoned-{seed}"
            attack = AttackConfig(
                inputs=(config.data,), split=held_out, rate=rate, seed=seed, image_size=size
            )
            if not (poisoned / "POISONED_DATASET.json").exists():
                poison(open_source(config.data, split=held_out), poisoned, attack)
            inputs, split, truth = str(poisoned), "", poisoned / "poison_labels.parquet"
        for kind, mapping in mappings.items():
            say(f"scan: seed {seed}, rate {rate:g}, mapping network {kind}")
            scan = ScanConfig(
                inputs=(inputs,),
                split=split,
                weights=config.weights,
                tokenizer=config.tokenizer,
                mapping=mapping,
                seed=seed,
            )
            result = run_scan(scan, out / f"scan-{seed}-{rate:g}-{kind}", truth=truth)
            rows += _rows(result, truth, seed=seed, kind=kind, first=kind == config.kinds[0])
    return rows


def flickr8k_retrieval(config: ReproduceConfig, out: Path, say: Say) -> list[dict[str, Any]]:
    """Flickr8k's 1,000 test photos and their captions, asked for by each other; one row."""
    from mmjax.evaluate.config import EvaluateConfig
    from mmjax.evaluate.tasks import evaluate

    say("retrieval")
    asked = EvaluateConfig(
        task="retrieval",
        inputs=(config.data,),
        split="test",
        weights=config.weights,
        tokenizer=config.tokenizer,
    )
    found = evaluate(asked, out)
    return [{key: found[key] for key in ("model", "images", "captions", "metrics")}]


def embedding_cases(config: ReproduceConfig, out: Path, say: Say) -> list[dict[str, Any]]:
    """Hard cases on the embeddings of two real encoders; a row a case, seed and detector."""
    from mmjax.evaluate.embedding_cases import run_cases

    return run_cases(config.data, config.seeds, out, say)


def attack_sheet(config: ReproduceConfig, out: Path, say: Say) -> list[dict[str, Any]]:
    """Every trigger on the same scenes; a row each."""
    from mmjax.evaluate.attack_sheet import make_sheet

    return make_sheet(config, out, say)


def _rows(result, truth: Path | None, *, seed: int, kind: str, first: bool) -> list[dict[str, Any]]:
    """The rows of one scan: its own detectors, and with the first kind the others."""
    from mmjax.evaluate.cells import OWN
    from mmjax.evaluate.detection import compare_detectors
    from mmjax.scan.detectors import DETECTORS

    facts = {
        "seed": seed,
        "mapping": kind,
        "verdict": result.summary["verdict"],
        "total": result.summary["total"],
        "diagnostics": result.summary["mapping"]["diagnostics"],
    }
    if truth is None:
        flagged = result.summary["counts"].get("poisoned", 0)
        row = {"name": "cfbd_robust", "detector": DETECTORS["cfbd_robust"].title}
        return [{**row, "poisoned": 0, "flagged": flagged, "clean_lost": flagged, **facts}]
    rows = compare_detectors(result.folder, truth, names=() if first else OWN, seed=seed)
    return [{**row, **facts, "mapping": kind if row["name"] in OWN else ""} for row in rows]


EXPERIMENTS: dict[str, Experiment] = {
    "flickr8k-scan": Experiment(
        flickr8k_scan,
        "Scan of Flickr8k with a small CLIP of its own",
        (
            "Pairs: the 10,455 captions of the 2,091 photos outside Flickr8k's training split; the "
            "model and the mapping networks saw the training split only.",
            "Poison: BadNets (a random-statistics patch at a random place) with captions made from "
            '80 templates about a "banana". Off-topic template captions are the easy case: see the '
            "near-duplicate count.",
            "Rows with 0 poisoned pairs are scans of the clean set: nothing should be flagged.",
        ),
    ),
    "flickr8k-retrieval": Experiment(
        flickr8k_retrieval,
        "Retrieval on Flickr8k's test photos",
        (
            "An image's answer is any of its captions (the best-placed one counts), a caption's is "
            "its image; ties count as half.",
            "With `train/flickr8k_rn50` on a GPU the same commands make the clean row of MEM's "
            "Table 1.",
        ),
        page="mmjax.evaluate.retrieval_page:write_retrieval",
    ),
    "flickr8k-embeddings": Experiment(
        embedding_cases,
        "Detectors on embeddings of Flickr8k by two real encoders",
        (
            "Pairs: the 20,455 captions of the 4,091 photos that neither the encoders' alignment "
            "nor the mapping network was fitted on. Encoders: EfficientNet-lite0 and MiniLM, "
            "ridge-aligned; not CLIP. Photos were stamped before they were encoded.",
            "Settings were chosen on BadNets and Blended, seeds 0 and 1.",
            "Natural captions are those of other photos that have the word.",
            "Rows with 0 poisoned pairs: nothing should be flagged.",
        ),
        needs=("data",),
        page="mmjax.evaluate.embedding_pages:write_cases",
    ),
    "attack-sheet": Experiment(
        attack_sheet,
        "Every trigger on the same scenes",
        (
            "PSNR, SSIM (Gaussian window of 11 px) and the share of pixels changed are means over "
            "64 scenes of 64 px as they are stored, in bytes.",
            "Losses, bits and readings are measured on scenes that the trigger was not optimised "
            "on. Reading, badclip: the mean cosine of the stamped images to captions of the target "
            "(a clock); trojan: the mean of the chosen units of the unit-norm embedding; "
            "label_consistent_adversarial, where every image is perturbed on its own: the mean "
            "cosine of 32 clock scenes to the word.",
            "BadCLIP's and ISSBA's steps are fewer than by default, so that two cores finish in "
            "minutes.",
            "The surrogate is the small CLIP that comes with mmjax. Scenes are drawn by mmjax: no "
            "photo is shown.",
        ),
        needs=("weights",),
        stem="attacks",
        page="mmjax.evaluate.attack_sheet:write_page",
    ),
    **MEM,
    **CFBD,
}


def run_experiment(
    config: ReproduceConfig, out: Path, *, command: str, say: Say
) -> tuple[Path, Path]:
    """Run an experiment and write its JSON and its page.

    Args:
        config: which, and on what.
        out: run folder of its cells; a cell that is there is not run again.
        command: to be typed again; it stands on the page.
        say: is told of every cell.

    Returns:
        The JSON and the Markdown file.

    Raises:
        ConfigError: the experiment is unknown, or lacks data or weights.
    """
    from mmjax.evaluate.tables import write_results

    if config.experiment not in EXPERIMENTS:
        raise ConfigError(
            f"unknown experiment {config.experiment!r}; known: {', '.join(EXPERIMENTS)}"
        )
    experiment = EXPERIMENTS[config.experiment]
    paper = config.experiment in CFBD and config.scale == "paper"
    needs = ("data", "weights") if paper else experiment.needs
    if not all(getattr(config, key) for key in needs):
        wanted = {"data": "--data=FOLDER", "weights": "--weights=SPEC"}
        wanted_flags = " and ".join(wanted[key] for key in needs)
        raise ConfigError(f"{config.experiment} wants {wanted_flags}")
    config = dataclasses.replace(config, seeds=config.seeds or experiment.seeds)
    results, stem = Path(config.results), experiment.stem or config.experiment
    file, page = (results / f"{stem}{suffix}" for suffix in (".json", ".md"))
    write_results(
        file,
        experiment.run(config, out, say),
        title=experiment.title,
        command=command,
        notes=experiment.notes,
    )
    named(experiment.page)(file, page)
    return file, page
