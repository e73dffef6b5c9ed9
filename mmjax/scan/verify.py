"""Whether a finished scan adds up: counts, manifests, and the input that it read."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.core.config import parse
from mmjax.core.errors import InputError
from mmjax.core.journal import journal_entries
from mmjax.scan.config import ScanConfig
from mmjax.scan.inputs import changed_shards
from mmjax.scan.options import StageConfig
from mmjax.scan.prepare import open_config
from mmjax.scan.verdicts import manifests, read_verdicts


def accounts(path: Path, run: dict[str, Any]) -> list[str]:
    """What does not add up in a scan or a rescore: one line each.

    Every row that was read has one row of verdicts and is in exactly one manifest, the one that
    its verdict says; the summary's counts are those of the rows.

    Args:
        path: the run folder; its files are those of its journal (`core.journal.damages`).
        run: its `run.json`.
    """
    if not (path / "summary.json").is_file():
        return ["summary.json: is not there; the run is not finished, its command goes on with it"]
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    rows = read_verdicts(path, summary["shards"]).select(["shard", "ordinal", "verdict", "status"])
    found = []
    read = {unit: entry["rows"] for unit, entry in journal_entries(path) if "rows" in entry}
    for name, number in Counter(rows["shard"].to_pylist()).items():
        wanted = read.get(name, number)  # rescores have no shards of their own
        if wanted != number:
            found.append(f"verdicts/{name}.parquet: {number} rows, {wanted} were read")
    for column, key in (("verdict", "counts"), ("status", "statuses")):
        counted = dict(sorted(Counter(rows[column].to_pylist()).items()))
        if counted != summary[key]:
            found.append(f"summary.json: {key} are {summary[key]}, the rows have {counted}")
    if summary["total"] != rows.num_rows:
        found.append(f"summary.json: total is {summary['total']}, there are {rows.num_rows} rows")
    given = {(shard, ordinal): verdict for shard, ordinal, verdict in _listed(rows)}
    seen: Counter[tuple[Any, ...]] = Counter()
    for name, members in manifests(_drop(run)).items():
        listed = _listed(pq.read_table(path / f"{name}.parquet"))
        seen.update((shard, ordinal) for shard, ordinal, _ in listed)
        wrong = sum(
            verdict not in members or given.get((shard, ordinal)) != verdict
            for shard, ordinal, verdict in listed
        )
        if wrong:
            found.append(f"{name}.parquet: {wrong} rows that do not belong there")
    if set(seen) != set(given) or set(seen.values()) - {1}:
        found.append("keep, drop and skipped.parquet: not every row is in exactly one of them")
    return found


def changed_inputs(path: Path, run: dict[str, Any]) -> tuple[list[str], str]:
    """Shards of a scan's input that are no longer what was read; and why they were not compared.

    Args:
        path: the run folder.
        run: the `run.json` of a scan.
    """
    try:
        opened = open_config(parse(ScanConfig, run["config"]))
    except InputError as error:
        return [], str(error)
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return changed_shards(path, opened, summary["shards"]), ""


def _drop(run: dict[str, Any]) -> Any:
    stages = run["config"]["stages"] if run["verb"] == "scan" else run["config"]
    return parse(StageConfig, stages).drop


def _listed(table: pa.Table) -> list[tuple[str, int, str]]:
    columns = [table[name].to_pylist() for name in ("shard", "ordinal", "verdict")]
    return list(zip(*columns, strict=True))
