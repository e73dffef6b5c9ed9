"""The page of retrieval results: both directions, chance beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.evaluate.retrieval import HITS
from mmjax.evaluate.tables import cell, read_results, write_page

DIRECTIONS = {"image_retrieval": "captions ask for images", "text_retrieval": "images for captions"}


def write_retrieval(results_json: Path | str, out_md: Path | str) -> None:
    """The table of a retrieval experiment.

    Raises:
        InputError: the file is not a results JSON.
    """
    write_page(results_json, out_md, lines(read_results(results_json)["rows"]))


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Of every row two lines of a Markdown table, one a direction."""
    heads = [f"{what}@{k}" for k in HITS for what in ("recall", "chance")]
    found = [
        "| model | images | captions | direction | " + " | ".join(heads) + " | median rank |",
        "|---|---:|---:|---|" + "---:|" * (len(heads) + 1),
    ]
    for row in rows:
        for task, told in DIRECTIONS.items():
            values = [row["metrics"][f"{task}_{name}"] for name in (*heads, "median_rank")]
            cells = [row["model"], row["images"], row["captions"], told, *values]
            found.append("| " + " | ".join(map(cell, cells)) + " |")
    return found
