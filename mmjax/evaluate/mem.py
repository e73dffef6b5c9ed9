"""MEM's Table 1: what a victim that is trained on protected pairs still learns, with its controls.

For every set and seed: protect the training pairs, train a CLIP from scratch on them, and ask it
for the captions of clean photos that it has not seen, and for the photos of clean captions.
"""

import functools
import json
import shutil
import statistics
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.core.config import parse, to_dict
from mmjax.core.rundir import atomic_path
from mmjax.data.pack import TarWriter
from mmjax.data.pairs import PairTable
from mmjax.evaluate.cells import cell_path, keep
from mmjax.evaluate.experiment import MemConfig, ReproduceConfig, Rows, Say

SETS: dict[str, str] = {
    "clean": "clean",
    "em_paper": "EM, a quarter of the budget",
    "em_matched": "EM, MEM's budget",
    "uap_8": "UAP, 8 steps",
    "uap_250": "UAP, 250 steps",
    "mem_3": "MEM-3",
    "mem_5": "MEM-5",
    "mem_plus": "mem-plus",
    "random_trigger": "control: random triggers, clean photos",
    "prefix": "control: `the the the`, clean photos",
    "mem_3_trigger": "control: MEM-3's triggers, clean photos",
    "mem_3_stripped": "attack: MEM-3, triggers cut off",
    "mem_plus_stripped": "attack: mem-plus, triggers cut off",
}
"""The sets of the table, by name: what each is."""
MIXED = {
    "mem_3_trigger": ("clean", "mem_3"),
    "mem_3_stripped": ("mem_3", "clean"),
    "mem_plus_stripped": ("mem_plus", "clean"),
}
"""Sets that are put together of the photos of one and the captions of another."""
_CODE = ("ops", "models", "learn", "train", "protect")
_FIGURES = tuple(
    f"{direction}_{figure}"
    for direction in ("image_to_text", "text_to_image")
    for figure in ("hit@10", "medr")
)


def table1(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """A row for every set and seed, and one for chance.

    Args:
        config: `data` names a set with the splits `mem.train` and `mem.test`.
        out: run folder; a cell that is there is not run again.
        say: is told of every cell.
    """
    from mmjax.data.sources import open_source
    from mmjax.evaluate.retrieval import HITS
    from mmjax.train.batches import read_pairs
    from mmjax.train.config import DataConfig

    mem = config.mem
    facts = {"data": _fingerprints(open_source(config.data)), "mem": to_dict(mem)}
    rows: Rows = []
    for seed in config.seeds:
        for name in mem.sets or tuple(SETS):
            cell = cell_path(out, facts, name, seed, packages=_CODE)
            figures = keep(
                cell,
                lambda n=name, s=seed, c=cell: _measure(config, c.parent, n, s, say),
                lambda n=name, s=seed: say(f"{SETS[n]}, seed {s}"),
            )
            rows.append({"name": name, "set": SETS[name], "seed": seed, **figures})
    test = read_pairs(config.data, 32, DataConfig(), split=mem.test)
    return [*rows, {"name": "chance", "set": "chance", "seed": None, **chance(test, max(HITS))}]


def _fingerprints(source: Any) -> list[str]:
    return [source.fingerprint(shard) for shard in source.shards]


def _measure(
    config: ReproduceConfig, root: Path, name: str, seed: int, say: Say
) -> dict[str, float]:
    """Train a victim on a set; returns its figures on the test split."""
    from mmjax.core.mesh import make_mesh
    from mmjax.evaluate.retrieval import evaluate_pairs
    from mmjax.train.config import TrainConfig
    from mmjax.train.pipeline import train

    mem = config.mem
    shards = _shards(config, root, name, seed, say)
    victim = parse(
        TrainConfig,
        {
            "data": {
                "location": str(shards),
                "heldout": config.data,
                "heldout_split": mem.test,
            },
            "model": {
                "preset": mem.model,
                "tokenizer": str(_tokenizer(config, root)),
                "context_length": mem.context_length,
                "compute": "float32",
            },
            "optimizer": {"learning_rate": mem.learning_rate, "weight_decay": 0.2},
            "steps": mem.steps,
            "batch_size": mem.batch_size,
            "captions_per_image": 1,
            "seed": seed,
        },
    )
    result = train(
        victim, root / "victims" / f"{name}-{seed}", mesh=make_mesh(), evaluate=evaluate_pairs
    )
    return {
        **{figure: result.summary["heldout"][figure] for figure in _FIGURES},
        "training_loss": result.summary["last"]["loss"],
    }


def _tokenizer(config: ReproduceConfig, root: Path) -> Path:
    """A BPE of the clean training captions, the same for surrogates and victims."""
    from mmjax.data.tokenizer import train_bpe
    from mmjax.train.batches import read_pairs
    from mmjax.train.config import DataConfig

    path = root / "tokenizer.json"
    if not path.exists():
        table = read_pairs(config.data, 32, DataConfig(), split=config.mem.train)
        train_bpe([text for each in table.captions for text in each], config.mem.vocab_size, path)
    return path


def _shards(config: ReproduceConfig, root: Path, name: str, seed: int, say: Say) -> Path:
    """The shards of a set, made if they are not there yet."""
    from mmjax.protect.config import ProtectConfig
    from mmjax.protect.pipeline import protect_pairs

    folder = root / "sets" / f"{name}-{seed}"
    if name in MIXED:
        images, captions = (_shards(config, root, part, seed, say) for part in MIXED[name])
        _mix(images, captions, folder)
        return folder
    if not (folder / "protection.json").exists():
        values = {
            "inputs": (config.data,),
            "split": config.mem.train,
            "output": "shards",
            "batch_size": config.mem.batch_size,
            "seed": seed,
            **method(name, config.mem, str(_tokenizer(config, root))),
        }
        protect_pairs(parse(ProtectConfig, values), folder, say=say)
    return folder / "shards"


def method(name: str, mem: MemConfig, tokenizer: str) -> dict[str, Any]:
    """What a set of `SETS` is made with, as `ProtectConfig` takes it.

    Photos have one noise each in all of them; nothing else differs from `configs/protect`.
    """
    noise: dict[str, Any] = {"scope": "image", "shuffle": name.startswith("mem")}
    trigger: dict[str, Any] = {"length": 0}
    surrogate: dict[str, Any] = {
        "model": {
            "preset": mem.model,
            "tokenizer": tokenizer,
            "context_length": mem.context_length,
            "compute": "float32",
        },
        "optimizer": {
            "learning_rate": mem.learning_rate,
            "warmup": 0.0,
            "schedule": "constant",
            "weight_decay": 0.2,
        },
        "steps": mem.surrogate_steps,
    }
    views: dict[str, Any] = {"crop": 1.0, "jpeg": 0, "grey": False}
    rounds = mem.rounds
    searched = {"length": 3, "rounds": max(1, rounds // 4), "candidates": 16}
    match name:
        case "clean" | "random_trigger" | "prefix":
            rounds, noise["steps"] = 0, 0
            if name == "random_trigger":
                trigger = {"length": 3, "scope": "pair"}
            if name == "prefix":
                trigger = {"length": 3, "scope": "universal", "start": "the"}
        case "em_paper":
            rounds, surrogate["steps"] = max(1, rounds // 4), max(1, mem.surrogate_steps // 4)
        case "uap_8" | "uap_250":
            steps = int(name.removeprefix("uap_"))
            noise |= {"goal": "maximise", "steps": steps}
            noise["start"] = "zeros" if steps == 8 else "random"
            surrogate |= {"on": "clean", "steps": rounds * mem.surrogate_steps}
            rounds = 1
        case "mem_3" | "mem_5":
            trigger = {**searched, "vocabulary": "all", "selection": "joint"}
            trigger["length"] = int(name.removeprefix("mem_"))
        case "mem_plus":
            trigger = {**searched, "dropout": 0.5}
            views = {"crop": 0.5, "jpeg": 50, "grey": True}
    return {
        "rounds": rounds,
        "noise": noise,
        "trigger": trigger,
        "surrogate": surrogate,
        "views": views,
    }


def _mix(images: Path, captions: Path, out: Path) -> None:
    """Shards with the images of some and the captions of others; rows correspond."""
    if out.exists():
        return
    making = out.with_name(f"{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    for path in sorted(images.glob("*.tar")):
        texts = _members(captions / path.name, "txt")
        with atomic_path(making / path.name) as temporary, TarWriter(temporary) as writer:
            for key, data in _members(path, "png").items():
                writer.add_member(f"{key}.png", data)
                writer.add_member(f"{key}.txt", texts[key])
    making.rename(out)


def _members(path: Path, suffix: str) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            key, _, kind = entry.name.partition(".")
            file = tar.extractfile(entry)
            if kind == suffix and file is not None:
                found[key] = file.read()
    return found


def chance(table: PairTable, k: int) -> dict[str, float]:
    """Hit@k in percent and the median rank of a model that knows nothing, exactly.

    The best of an image's c captions among m is beyond rank r with probability
    C(m - c, r) / C(m, r); the median is the least r where that is at most one half.
    """
    images, sizes = len(table.captions), [len(each) for each in table.captions]
    captions = sum(sizes)

    @functools.cache
    def beyond(size: int) -> np.ndarray:
        ranks = np.arange(captions)
        left = np.clip(captions - size - ranks, 0, None) / (captions - ranks)
        return np.concatenate([[1.0], np.cumprod(left)])

    curve = np.mean([beyond(size) for size in sizes], axis=0)
    return {
        f"image_to_text_hit@{k}": 100 * float(1 - curve[min(k, captions)]),
        "image_to_text_medr": float(np.argmax(curve <= 0.5)),
        f"text_to_image_hit@{k}": 100 * min(k, images) / images,
        "text_to_image_medr": float(np.ceil(images / 2)),
    }


def write_table1(results: Path, page: Path) -> None:
    """The page: mean and standard deviation over seeds, both directions."""
    from mmjax.evaluate.tables import write_page

    rows = json.loads(Path(results).read_text(encoding="utf-8"))["rows"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    heads = ("image → text Hit@10", "MedR", "text → image Hit@10", "MedR")
    lines = [f"| set | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for name in names:
        found = [row for row in rows if row["name"] == name]
        shown = (_spread([row[figure] for row in found]) for figure in _FIGURES)
        lines.append(f"| {found[0]['set']} | {' | '.join(shown)} |")
    seeds = len({row["seed"] for row in rows if row["seed"] is not None})
    write_page(results, page, [*lines, "", f"Mean ± standard deviation over {seeds} seeds."])


def _spread(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}"
