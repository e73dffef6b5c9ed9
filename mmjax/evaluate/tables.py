"""Tables of detection results: a JSON file with every measure, and the Markdown page made of it."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.core.errors import InputError
from mmjax.core.files import write_bytes, write_json
from mmjax.scan.detection import Detection


def row(detector: str, result: Detection, *, coarse: Detection | None = None) -> dict[str, Any]:
    """One row of a results file: a detector's measures, its coarse stage's AUROC beside them."""
    return {
        "detector": detector,
        "coarse_auroc": coarse.auroc if coarse else None,
        **dataclasses.asdict(result),
    }


COLUMNS: dict[str, str] = {
    "case": "case",
    "attack": "attack",
    "rate": "rate",
    "q": "q",
    "fault": "faults",
    "gamma": "γ",
    "components": "K",
    "fdr_asked": "FDR asked",
    "fdr_realised": "FDR realised",
    "detector": "detector",
    "seed": "seed",
    "mapping": "mapping network",
    "pairs": "pairs",
    "poisoned": "poisoned",
    "coarse_auroc": "coarse AUROC",
    "seed_purity": "seed purity",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "recall_at_poisoned": "recall@n",
    "fpr_at_95_tpr": "FPR@95TPR",
    "tpr_at_0_1_fpr": "TPR@.1FPR",
    "tpr_at_1_fpr": "TPR@1FPR",
    "tpr": "TPR",
    "fpr": "FPR",
    "survivors": "survivors",
    "clean_lost": "clean lost",
    "judged_mismatched": "mismatched",
    "expected_fdr": "expected FDR",
    "leaked": "poison in D_b",
    "benign_size": "pairs in D_b",
}
"""Columns of the Markdown table, by the key of a results file's row; empty ones are left out."""

TEXTS = ("case", "attack", "detector", "mapping")


def write_results(
    path: Path | str,
    rows: Sequence[dict[str, Any]],
    *,
    title: str,
    command: str,
    notes: Sequence[str] = (),
) -> None:
    """Write the results JSON that `write_table` turns into Markdown.

    Args:
        path: the JSON file.
        rows: see `row`.
        title: of the table.
        command: what made the results, to be typed again.
        notes: sentences that stand under the table.
    """
    content = {"title": title, "command": command}
    write_json(path, {**content, "rows": list(rows), "notes": list(notes)})


def read_results(path: Path | str) -> dict[str, Any]:
    """What `write_results` has written.

    Raises:
        InputError: the file is not a results JSON.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
        missing = [key for key in ("title", "command", "rows") if key not in results]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a results file of mmjax: {error}") from error
    if missing:
        raise InputError(f"{path} is not a results file of mmjax: it has no {missing[0]}")
    return results


def write_table(results_json: Path | str, out_md: Path | str) -> None:
    """Turn a results JSON into the Markdown page of docs/results: the table of all its rows.

    Raises:
        InputError: the file is not a results JSON.
    """
    rows = read_results(results_json)["rows"]
    write_page(results_json, out_md, [*table(rows), "", MEANING, *reasons(rows)])


def write_page(results_json: Path | str, out_md: Path | str, body: Sequence[str]) -> None:
    """Write a page of docs/results: title, command, the lines of `body`, the notes.

    Raises:
        InputError: the file is not a results JSON.
    """
    source = Path(results_json)
    results = read_results(source)
    lines = [
        f"# {results['title']}",
        "",
        f"Generated from `{source.name}`, which was made by",
        "",
        f"    {results['command']}",
        "",
        *body,
        *(f"\n{note}" for note in results.get("notes", [])),
    ]
    write_bytes(out_md, ("\n".join(lines) + "\n").encode())


MEANING = (
    "TPR, FPR, survivors (poison not found) and clean lost are at the detector's own threshold; – "
    "where it has none or the measure is not defined. recall@n: share of the poison among the n "
    "top scores, n = poisoned pairs."
)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The Markdown lines of a table of rows; columns that are empty are left out."""
    columns = {k: v for k, v in COLUMNS.items() if any(r.get(k) is not None for r in rows)}
    return [
        "| " + " | ".join(columns.values()) + " |",
        "|" + "|".join("---" if key in TEXTS else "---:" for key in columns) + "|",
        *("| " + " | ".join(cell(r.get(key)) for key in columns) + " |" for r in rows),
    ]


def own_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """`table` of what the scan found, where a page has the means of the other detectors."""
    told = "Rows of the scan; those of the other detectors stand in the JSON:"
    return [told, "", *table([r for r in rows if str(r.get("name", "")).startswith("cfbd_")])]


def reasons(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Why measures of some rows are not defined, a paragraph each."""
    return [
        f"\nNot defined: {reason}." for reason in sorted({r.get("reason", "") for r in rows} - {""})
    ]


def pivot(rows: Sequence[dict[str, Any]], down: str, across: str, value: str) -> list[str]:
    """A Markdown table of the means of a value over the rows that share two keys.

    Keys stand in the order in which they come; where no row has the value, the cell is empty (–).
    """
    names, heads = (list(dict.fromkeys(r[key] for r in rows)) for key in (down, across))
    lines = [
        f"| {down} | " + " | ".join(cell(h) for h in heads) + " |",
        "|---" + "|---:" * len(heads) + "|",
    ]
    for name in names:
        found = [
            [
                r[value]
                for r in rows
                if (r[down], r[across]) == (name, head) and r.get(value) is not None
            ]
            for head in heads
        ]
        shown = [cell(float(np.mean(values)) if values else None) for values in found]
        lines.append(f"| {cell(name)} | " + " | ".join(shown) + " |")
    return lines


def cell(value: Any) -> str:
    """A table cell; rates keep four digits, and are never rounded to 1 or 0."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value).replace("|", "\\|")
    if 0 < value < 0.001:
        return f"{value:.2g}"
    if 0.9999 < value < 1:
        return f"{value:.6f}" if value < 0.9999995 else ">0.999999"
    return f"{value:.4f}"
