"""CFBD's Tables 3 and 4: what is found of nine attacks, at four rates, by every detector."""

from pathlib import Path
from typing import Any

from mmjax.evaluate.cells import cell_path, detector_rows, keep
from mmjax.evaluate.cfbd_set import ATTACKS, attack_config, chosen_attacks, identity, open_set
from mmjax.evaluate.clean_set import CleanSet, Planted, plant
from mmjax.evaluate.directions import Direction, above, lines
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.tables import MEANING, pivot, read_results, reasons, table, write_page
from mmjax.scan.detectors import EncodedSet


def encoded(clean: CleanSet, made: Planted, seed: int) -> EncodedSet:
    """What the detectors see of a planted set."""
    return EncodedSet(
        made.blocks, made.captions, clean.scan.mapping, clean.scan.config.stages, seed=seed
    )


def table4(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Every detector on every attack."""
    attacks = chosen_attacks(config, ATTACKS)
    rows: Rows = []
    for seed in config.seeds:
        clean = open_set(config, out, seed)
        for name in attacks:
            rows += _measured(config, out, say, clean, name, seed, None)
    return rows


def _measured(
    config: ReproduceConfig,
    out: Path,
    say: Say,
    clean: CleanSet,
    name: str,
    seed: int,
    rate: float | None,
) -> Rows:
    """The rows of an attack and seed, a detector each."""
    attack = attack_config(name, config, clean, seed=seed, rate=rate)

    def make() -> list[dict[str, Any]]:
        made = plant(clean, attack)
        return detector_rows(encoded(clean, made, seed), made.poisoned)

    cell = cell_path(out, identity(config), name, attack.rate, seed)
    found = keep(cell, make, lambda: say(f"{name}, rate {attack.rate:g}, seed {seed}"))
    return [{"attack": name, "rate": attack.rate, "seed": seed, **line} for line in found]


def write_table4(results_json: Path, out_md: Path) -> None:
    """The page of Table 4: AUROC by detector and attack, directions, and all rows."""
    rows = read_results(results_json)["rows"]
    body = [
        "AUROC, mean of the seeds:",
        "",
        *pivot(rows, "detector", "attack", "auroc"),
        "",
        *lines(table4_directions(rows)),
        "",
        *table(rows),
        "",
        MEANING,
        *reasons(rows),
    ]
    write_page(results_json, out_md, body)


def table4_directions(rows: Rows) -> list[Direction]:
    """What the paper's Table 4 and Figure 5 say."""
    fine, coarse = (mean(rows, "auroc", name=n) for n in ("cfbd_fine", "cfbd_coarse"))
    others = [a for a in dict.fromkeys(r["attack"] for r in rows) if a not in ("badclip",)]
    least = min(
        (mean(rows, "auroc", name="cfbd_fine", attack=a) or 1.0 for a in others), default=None
    )
    hardest = mean(rows, "auroc", name="cfbd_fine", attack="badclip")
    return [
        above("the fine stage ranks better than the coarse one", fine, coarse, ("fine", "coarse")),
        above(
            "BadCLIP is the hardest attack for the fine stage",
            least,
            hardest,
            ("the lowest of the others", "BadCLIP"),
        ),
    ]


def mean(rows: Rows, value: str, **wanted: Any) -> float | None:
    """The mean of a value over the rows that have it and fit."""
    found = [
        r[value]
        for r in rows
        if r.get(value) is not None and all(r.get(k) == v for k, v in wanted.items())
    ]
    return sum(found) / len(found) if found else None
