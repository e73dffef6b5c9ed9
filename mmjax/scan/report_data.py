"""Fills `ReportData` from a finished run folder, with pictures where the source is at hand."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.core.errors import InputError
from mmjax.core.types import FLAGS, STATUSES
from mmjax.data.sources import Source
from mmjax.scan.clean import FOLDER as CLEAN
from mmjax.scan.report import Outcome, ReportData, ReportPair, SkippedGroup
from mmjax.scan.report_captions import collect_clusters, shared_words
from mmjax.scan.report_figures import Mixture
from mmjax.scan.report_groups import Row, look_again
from mmjax.scan.report_images import miniature, shared_area
from mmjax.scan.report_pictures import compare_means, thumbnails
from mmjax.scan.report_table import Tally, read_tables, repeated, tally
from mmjax.scan.report_text import LIMITS, SUMMARY, actions, cautions, verdict_sentence
from mmjax.scan.report_truth import compare
from mmjax.scan.verdicts import Drop


def report_data(
    run_dir: Path | str,
    source: Source | None = None,
    truth: pa.Table | None = None,
    *,
    title: str = "",
) -> ReportData:
    """Reads a run folder back into what the report shows.

    Args:
        run_dir: The run folder of a scan whose verdict tables are complete.
        source: What was scanned, for the pictures; without it the page has none.
        truth: A `poison_labels.parquet` table, where the truth is known.
        title: Title of the page; empty = the inputs that run.json names.

    Raises:
        InputError: the folder holds no finished scan, or the labels do not fit it.
    """
    run_dir = Path(run_dir)
    run, summary = _json(run_dir / "run.json"), _json(run_dir / "summary.json")
    thresholds = summary.get("thresholds", {})
    folder = run_dir / "verdicts"
    rows = sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
    tallied = tally(read_tables(folder), rows)

    flagged_words, other_words = tallied.word_counts()
    words = shared_words(flagged_words, other_words)
    clusters = collect_clusters(tallied.flagged_captions, other_words)
    worst, shown = (
        tallied.worst(),
        look_again(
            folder,
            repeated(tallied),
            loose_group=(summary.get("found") or {}).get("loose_group"),
        ),
    )
    means, pictures = None, {}
    if source is not None:
        means = compare_means(tallied.flagged_rows, tallied.benign_rows, source)
        pictures = thumbnails([row.place for row in (*worst, *shown.rows)], source)
    area = None if means is None else shared_area(means)
    counts, drop = dict(tallied.verdicts), _dropped(run)
    inputs = run["config"].get("inputs", []) or [run.get("facts", {}).get("of", run_dir.name)]
    return ReportData(
        title=title or ", ".join(inputs),
        outcome=_outcome(counts),
        verdict=verdict_sentence(counts, words, clusters, area),
        actions=actions(counts, drop=drop, clean_written=(run_dir / CLEAN).is_dir()),
        counts=counts,
        summary=_figures(summary),
        worst=[
            ReportPair(rank, *row, image_png=pictures.get(row.place))
            for rank, row in enumerate(worst, 1)
        ],
        findings=shown.map_rows(lambda row: _illustrated(row, pictures)),
        drop=drop,
        mean_images=means,
        c_histogram=tallied.consistency.shown(),
        mixture=_mixture(summary.get("mixture")),
        cut=_number(thresholds, "coverage"),
        seed_threshold=tallied.lowest_seed,
        z_histogram=tallied.correlation.shown(),
        z_threshold=_number(thresholds, "gamma_z"),
        words=words,
        clusters=clusters,
        skipped=_groups(tallied.statuses, STATUSES, tallied),
        remarks=_groups(tallied.remarks, FLAGS, tallied),
        truth=None if truth is None else compare(read_tables(folder), truth),
        command=shlex.join(run.get("command", [])),
        config=json.dumps(run["config"], indent=2, sort_keys=True, ensure_ascii=False),
        environment=_environment(run, summary.get("durations", {})),
        limits=LIMITS,
        warnings=[*summary.get("warnings", []), *cautions(counts)],
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; finish the scan first") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}); run the scan again") from error


def _number(thresholds: Mapping[str, Any], name: str) -> float | None:
    """A threshold, None when there is none."""
    value = thresholds.get(name)
    return None if value is None else float(value)


def _mixture(stored: Mapping[str, list[float]] | None) -> Mixture | None:
    if stored is None:
        return None
    names = ("means", "variances", "weights")
    return Mixture(*(np.asarray(stored[name], np.float64) for name in names))


def _outcome(counts: Mapping[str, int]) -> Outcome:
    if counts.get("poisoned", 0):
        return "poisoned"
    if counts.get("undetermined", 0) or sum(counts.values()) == counts.get("skipped", 0):
        return "undetermined"
    return "clean"


def _illustrated(row: Row, pictures: Mapping[tuple[str, int], bytes | None]) -> Row:
    png = pictures.get(row.place)
    return row if png is None else row._replace(jpeg=miniature(png))


def _dropped(run: Mapping[str, Any]) -> Drop:
    """Which pairs the manifests drop: `scan` has it among its stages, `rescore` by itself."""
    config = run["config"]
    return config["drop"] if run["verb"] == "rescore" else config["stages"]["drop"]


def _groups(
    counts: Mapping[str, int], meanings: Mapping[str, str], tallied: Tally
) -> list[SkippedGroup]:
    """Reasons with their counts, the commonest first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        SkippedGroup(name, meanings.get(name, ""), count, tuple(tallied.first_keys.get(name, ())))
        for name, count in ranked
    ]


def _figures(summary: Mapping[str, Any]) -> dict[str, object]:
    """The stages' figures of summary.json: those with a known meaning first, in its order."""
    stages = ("found", "thresholds", "mapping")
    flat = _flat({stage: summary[stage] for stage in stages if summary.get(stage)})
    known = {name: flat[name] for name in SUMMARY if name in flat}
    return known | {name: value for name, value in flat.items() if name not in known}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """The plain values of nested mappings, names joined by a dot."""
    flat: dict[str, object] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            flat.update(_flat(inner, f"{prefix}{name}."))
        elif isinstance(inner, bool | int | float | str) or inner is None:
            flat[prefix + name] = inner
    return flat


def _environment(run: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, str]:
    """Versions in one line, then the recorded facts (fingerprints, mesh) and durations."""
    versions = run.get("versions", {})
    lines = {"Versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    if "config_digest" in run:
        lines["Configuration digest"] = str(run["config_digest"])
    facts = _flat(run.get("facts", {}))
    lines.update({name.replace("_", " "): str(value) for name, value in facts.items()})
    if seconds:
        parts = (f"{name} {value:,.1f} s" for name, value in seconds.items())
        lines["Durations"] = ", ".join(parts)
    return lines
