"""The scan from end to end: open, encode, fit or load F, score, decide, write, report."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pyarrow as pa
from jax.sharding import Mesh

from mmjax.core import keys
from mmjax.core.config import digest, parse
from mmjax.core.errors import ConfigError, InputError, RunError
from mmjax.core.files import write_bytes, write_json
from mmjax.core.mesh import make_mesh
from mmjax.core.rundir import RunDir
from mmjax.data.embeddings import EmbeddingSource
from mmjax.scan import stages
from mmjax.scan.clean import write_clean
from mmjax.scan.config import FitConfig, ScanConfig
from mmjax.scan.inputs import (
    ScannedSet,
    changed_shards,
    embed,
    read_embeddings,
    stored_shards,
)
from mmjax.scan.kept import Kept, Recall
from mmjax.scan.mapping import NUMBERS, Mapping, fit_mapping, load_mapping, save_mapping
from mmjax.scan.options import StageConfig
from mmjax.scan.prepare import (
    Model,
    Prepared,
    open_config,
    prepare_fit,
    prepare_scan,
    read_labels,
)
from mmjax.scan.reference import make_reference
from mmjax.scan.report import render
from mmjax.scan.report_data import report_data
from mmjax.scan.report_truth import compare
from mmjax.scan.result import ScanResult, summarise
from mmjax.scan.verdicts import decided_files, read_verdicts, verdict_table, write_verdicts

MAPPING, DECISION = "stage/mapping", "stage/decision"
"""Units of the journal; no shard can have such a name."""
FITTING = "fitting"
"""In the run folder while F is fitted: what the same command goes on from."""


class FinishedScan(NamedTuple):
    """A finished scan, opened again; `gone` says why its source is not there, if it is not.

    `recall` knows the figures that it kept.
    """

    config: ScanConfig
    digest: str
    scanned: ScannedSet
    mapping: Mapping
    gone: str
    recall: Recall


def run_scan(
    config: ScanConfig, out: Path | str, *, truth: Path | None = None, overwrite: bool = False
) -> ScanResult:
    """Scan a set of pairs; the same call on the same folder goes on where it stopped.

    Args:
        config: what to scan, with what, and how it is decided.
        out: the run folder.
        truth: a `poison_labels.parquet` to compare with in the report; it decides nothing.
        overwrite: empty the folder first, if it is a scan.

    Returns:
        The finished run.

    Raises:
        InputError, WeightsError, TokenizerError, ConfigError, RunError: the user must act.
    """
    mesh = make_mesh(config.mesh)
    labels = read_labels(truth)
    given = prepare_scan(config)
    with RunDir.open(
        out, verb="scan", config=config, facts=given.facts, overwrite=overwrite
    ) as run:
        scanned = embed(
            run, given.opened, given.model, config.encode, what="encoding", prefix="", mesh=mesh
        )
        mapping = _kept_mapping(run, given, config, mesh=mesh)
        return _decide(
            run,
            scanned,
            mapping,
            config.stages,
            config,
            labels=labels,
            clean=config.write_clean,
            mesh=mesh,
            recall=_kept(run, scanned, write=True),
        )


def run_rescore(
    config: StageConfig, run: Path | str, out: Path | None, *, truth: Path | None = None
) -> ScanResult:
    """Decide again from the embeddings that a scan left, without encoding.

    Args:
        config: the new thresholds.
        run: the folder of a finished scan; nothing in it changes.
        out: where to; None = RUN/rescored-DIGEST.
        truth: as in `run_scan`.

    Raises:
        RunError: `run` holds no finished scan, is in use, or is not what was written.
        InputError: the embeddings that it read where they lay are gone or others now.
    """
    run = Path(run)
    if out is not None and Path(out).resolve() == run.resolve():
        raise RunError(f"{run} is the scan itself; choose another --out")
    labels = read_labels(truth)
    with open_scan(run) as earlier:
        target = out or run / f"rescored-{digest(config)}"
        facts = {"of": run.name, "of_digest": earlier.digest}
        with RunDir.open(target, verb="rescore", config=config, facts=facts) as second:
            if earlier.gone:
                second.log("no pictures", because=earlier.gone)
            return _decide(
                second,
                earlier.scanned,
                earlier.mapping,
                config,
                earlier.config,
                labels=labels,
                clean=False,
                mesh=make_mesh(earlier.config.mesh),
                recall=earlier.recall,
            )


@contextlib.contextmanager
def open_scan(run: Path | str) -> Iterator[FinishedScan]:
    """Open what a finished scan left, without encoding; nothing in its folder changes meanwhile.

    Args:
        run: its folder, which is only read.

    Raises:
        RunError: `run` holds no finished scan, is in use, or is not what was written.
        InputError: the embeddings that it read where they lay are gone or others now.
    """
    run = Path(run)
    earlier = _finished_scan(run)
    config = parse(ScanConfig, earlier["config"])
    with RunDir.read(run) as first:
        scanned, gone = _reopen(first, config)
        mapping = load_mapping(run / "mapping")
        recall = _kept(first, scanned, write=False)
        yield FinishedScan(config, earlier["config_digest"], scanned, mapping, gone, recall)


def _kept(run: RunDir, scanned: ScannedSet, *, write: bool) -> Kept:
    return Kept(run, [MAPPING, *(shard.name for shard in scanned.shards)], write=write)


def _finished_scan(run: Path) -> dict[str, Any]:
    """The `run.json` of a finished scan."""
    try:
        earlier = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{run} is not a run of mmjax; name the --out of a scan") from error
    if earlier["verb"] != "scan":
        raise RunError(f"{run} is a run of {earlier['verb']}; one of scan is wanted")
    if not (run / "summary.json").is_file():
        raise RunError(f"the scan in {run} is not finished; its own command goes on with it")
    return earlier


def _reopen(run: RunDir, config: ScanConfig) -> tuple[ScannedSet, str]:
    """What a scan has encoded, with its source for the pictures; and why that is not there."""
    try:
        opened, gone = open_config(config), ""
    except InputError as error:
        opened, gone = None, str(error)
    names = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))["shards"]
    damaged = [name for name in names if run.finished(name) is None]
    if damaged:
        raise RunError(
            f"{run.path}: what the scan kept of {damaged[0]} is damaged (`mmjax verify` names the "
            "files); its own command makes it anew"
        )
    if isinstance(opened, EmbeddingSource):
        changed = changed_shards(run.path, opened, names)
        if changed:
            raise InputError(f"{run.path}: {changed[0]} the scan read it; scan again")
        return read_embeddings(run, opened, prefix=""), gone
    try:
        return ScannedSet(stored_shards(run, names), opened), gone
    except FileNotFoundError as error:
        raise InputError(
            f"{run.path} scanned embeddings where they lay, and they are gone: {gone}"
        ) from error


def run_fit(config: FitConfig, out: Path | str, *, overwrite: bool = False) -> dict[str, Any]:
    """Fit the mapping network on a clean captioned set and write it to `out`.

    Returns:
        What is known about it: counts and held-out diagnostics.
    """
    mesh = make_mesh(config.mesh)
    given = prepare_fit(config)
    with RunDir.open(
        out, verb="fit-mapping", config=config, facts=given.facts, overwrite=overwrite
    ) as run:
        reference = embed(
            run, given.opened, given.model, config.encode, what="encoding", prefix="", mesh=mesh
        )
        mapping = _fit(reference, given.model, config, run.path / FITTING, mesh=mesh)
        save_mapping(run.path, mapping)
        _forget_fitting(run)
        run.log("mapping", **mapping.reference, **mapping.diagnostics)
    return {"kind": mapping.kind, **mapping.reference, **mapping.diagnostics}


def _kept_mapping(run: RunDir, given: Prepared, config: ScanConfig, *, mesh: Mesh) -> Mapping:
    """The mapping network: the named one or one fitted on the reference; OUT/mapping keeps it."""
    folder = run.path / "mapping"
    fingerprints: list[str] = []
    if given.reference is not None:
        fingerprints = [given.reference.fingerprint(shard) for shard in given.reference.shards]
    entry = run.finished(MAPPING)
    if entry is not None and entry["reference"] == fingerprints:
        _forget_fitting(run)
        return load_mapping(folder)
    mapping = given.mapping
    if given.reference is not None:
        reference = embed(
            run,
            given.reference,
            given.model,
            config.encode,
            what="reference",
            prefix="reference/",
            mesh=mesh,
        )
        mapping = _fit(reference, given.model, config, run.path / FITTING, mesh=mesh)
        run.log("mapping", kind=mapping.kind, **mapping.reference, **mapping.diagnostics)
    if mapping is None:
        raise ConfigError("the scan needs a mapping network: --mapping or --reference")
    save_mapping(folder, mapping)
    files = [folder / name for name in ("mapping.json", *NUMBERS)]
    outputs = {file.name: file for file in files if file.is_file()}
    run.finish(MAPPING, outputs, reference=fingerprints)
    _forget_fitting(run)
    return mapping


def _forget_fitting(run: RunDir) -> None:
    old = run.path / f"{FITTING}.old"
    if old.exists():
        shutil.rmtree(old)
    if (run.path / FITTING).exists():
        (run.path / FITTING).rename(old)  # a half of it would mislead the next call
        shutil.rmtree(old)


def _fit(
    reference: ScannedSet,
    model: Model,
    config: ScanConfig | FitConfig,
    folder: Path,
    *,
    mesh: Mesh,
) -> Mapping:
    return fit_mapping(
        make_reference(reference, model.tokenizer if config.fit.kind == "lm" else None),
        config.fit,
        weights_fingerprint=model.fingerprint,
        key=keys.stream(jax.random.key(config.seed), "mapping"),
        mesh=mesh,
        folder=folder,
    )


def _decide(
    run: RunDir,
    scanned: ScannedSet,
    mapping: Mapping,
    stage_config: StageConfig,
    scan_config: ScanConfig,
    *,
    labels: pa.Table | None,
    clean: bool,
    mesh: Mesh,
    recall: Recall,
) -> ScanResult:
    """Everything after encoding: scores, verdicts, manifests, clean shards, summary, report."""
    # what an earlier call said stands only once all of it is written anew
    (run.path / "summary.json").unlink(missing_ok=True)
    result = stages.score(scanned.blocks, mapping, stage_config, mesh=mesh, recall=recall)
    tables = (
        (shard.name, verdict_table(shard.name, shard.pairs(), stages.columns(result, i)))
        for i, shard in enumerate(scanned.shards)
    )
    counts = write_verdicts(run.path, tables, drop=stage_config.drop)
    names = [shard.name for shard in scanned.shards]
    known = None
    if labels is not None:
        known = compare((read_verdicts(run.path, [name]) for name in names), labels)
    if clean and scanned.source is not None:
        write_clean(run, scanned.source, drop=stage_config.drop)
    summary = summarise(scanned, mapping, result, counts, scan_config, known)
    write_json(run.path / "summary.json", summary)
    page = run.path / "report" / "index.html"
    write_bytes(page, render(report_data(run.path, scanned.source, labels)).encode())
    run.finish(DECISION, {str(f.relative_to(run.path)): f for f in decided_files(run.path)})
    run.log("done", **summary["counts"])
    return ScanResult(run.path, summary, page)
