"""A cell of a results table: one case, one seed, every detector; measured once and kept."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmjax.core.code import code_hash
from mmjax.core.files import write_json
from mmjax.evaluate.tables import row
from mmjax.scan import stages
from mmjax.scan.detection import measure
from mmjax.scan.detectors import DETECTORS, EncodedSet, choose
from mmjax.scan.stages import COARSE, VERDICTS

OWN = ("cfbd_robust", "cfbd_fine", "cfbd_coarse")
"""The detectors that depend on the mapping network."""
SCORING = ("ops", "scan", "attacks")
"""The packages that poison, score and judge."""


def detector_rows(
    encoded: EncodedSet, poisoned: Bool[np.ndarray, " n"], names: Collection[str] = ()
) -> list[dict[str, Any]]:
    """One row a detector, in the order of the table; nothing is encoded.

    The robust mode decides by its own threshold, the fine stage by rule R1 and the coarse one by
    "not benign"; the others have none and are ranked only. A detector that cannot run has a row
    that says why.

    Args:
        encoded: the set.
        poisoned: the truth.
        names: of detectors; all without.

    Raises:
        ConfigError: a name is unknown.
    """
    chosen = choose(names)
    coarse = measure(DETECTORS["cfbd_coarse"].score(encoded), poisoned)
    rows = []
    for name, detector in chosen.items():
        lacking = detector.lacking(encoded)
        if lacking:
            rows.append({"name": name, "detector": detector.title, "reason": lacking})
            continue
        found = measure(detector.score(encoded), poisoned, **_decisions(name, encoded))
        made = {"name": name, **row(detector.title, found, coarse=coarse if name in OWN else None)}
        if name == "cfbd_robust":
            made |= verdicts(encoded)
        rows.append(made)
    return rows


def verdicts(encoded: EncodedSet) -> dict[str, Any]:
    """What the robust mode says of a set: its counts by verdict, and the rate that it expects."""
    result = encoded.robust
    counts = np.bincount(result.scores.verdict, minlength=len(VERDICTS))
    told = {f"judged_{name}": int(n) for name, n in zip(VERDICTS, counts, strict=True) if name}
    return {**told, "fdr": result.thresholds.fdr, "expected_fdr": result.thresholds.expected_fdr}


def clean_row(encoded: EncodedSet) -> dict[str, Any]:
    """The row of a set without poison: what the robust mode flags all the same."""
    told = verdicts(encoded)
    lost = told["judged_poisoned"]
    title = DETECTORS["cfbd_robust"].title
    return {"name": "cfbd_robust", "detector": title, "poisoned": 0, "clean_lost": lost, **told}


def keep(cell: Path, make: Callable[[], Any], tell: Callable[[], None] | None = None) -> Any:
    """What `make` returns, through its JSON file; a file that is there is read instead.

    Args:
        cell: the file.
        make: makes what JSON can hold.
        tell: called before `make`.
    """
    if not cell.exists():
        if tell is not None:
            tell()
        write_json(cell, make())
    return json.loads(cell.read_text(encoding="utf-8"))


def cell_path(
    out: Path,
    facts: Any,
    *names: str | int | float,
    packages: tuple[str, ...] = SCORING,
) -> Path:
    """The file of a cell: a folder for these facts and this code, a name for the cell.

    Cells that other settings or another version of the code in `packages` made are not read.
    """
    text = json.dumps({"facts": facts, "code": code_hash(packages)}, sort_keys=True, default=list)
    name = "-".join(re.sub("[^a-z0-9]+", "-", str(part).lower()).strip("-") for part in names)
    return out / "cells" / hashlib.sha256(text.encode()).hexdigest()[:12] / f"{name}.json"


def _decisions(name: str, encoded: EncodedSet) -> dict[str, Any]:
    """What a stage of the scan decided by itself, and the seeds that it started from."""
    if name not in OWN:
        return {}
    scores = (encoded.paper if name == "cfbd_fine" else encoded.robust).scores
    seeds, suspicious = (scores.coarse == COARSE.index(s) for s in ("seed", "suspicious"))
    if name == "cfbd_coarse":
        return {"flags": seeds | suspicious, "seeds": seeds}
    judged = scores.verdict
    if name == "cfbd_fine":
        by_rule = dataclasses.replace(encoded.config, mode="paper", gamma_z="auto")
        judged = stages.score(
            encoded.blocks, encoded.mapping, by_rule, mesh=encoded.mesh
        ).scores.verdict
    return {"flags": judged == VERDICTS.index("poisoned"), "seeds": seeds}
