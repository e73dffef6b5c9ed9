"""The scan from end to end: open, encode, fit or load F, score, decide, write, report."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import pyarrow.parquet as pq
from jax.sharding import Mesh

from mmjax.core import keys
from mmjax.core.config import digest, parse
from mmjax.core.errors import ConfigError, InputError, RunError
from mmjax.core.mesh import make_mesh
from mmjax.core.progress import progress
from mmjax.core.rundir import RunDir, write_bytes, write_json
from mmjax.data.pack import copy_members
from mmjax.data.shards import Source
from mmjax.models.weights import Weights, load_weights
from mmjax.scan import stages
from mmjax.scan.config import FitConfig, ScanConfig
from mmjax.scan.inputs import (
    ScannedSet,
    encode_source,
    find_tokenizer,
    open_inputs,
    read_embeddings,
    stored_shards,
)
from mmjax.scan.mapping import Mapping, fit_mapping, load_mapping, save_mapping
from mmjax.scan.options import StageConfig
from mmjax.scan.reference import make_reference
from mmjax.scan.report import render
from mmjax.scan.report_data import report_data
from mmjax.scan.report_truth import compare
from mmjax.scan.result import ScanResult, summarise
from mmjax.scan.verdicts import read_verdicts, verdict_table, write_verdicts


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
    opened = open_inputs(
        config.inputs,
        input_format=config.input_format,
        split=config.split,
        max_member_bytes=config.encode.max_member_bytes,
    )
    weights = _weights(config.weights, opened)
    mapping = load_mapping(config.mapping) if config.mapping else None
    if mapping is None and not config.reference:
        raise ConfigError(
            "the scan needs a mapping network: name a folder made by `mmjax fit-mapping` with "
            "--mapping, or a clean captioned set to fit one on with --reference"
        )
    facts = {"weights": weights.fingerprint if weights else "embeddings"}
    with RunDir.open(out, verb="scan", config=config, facts=facts, overwrite=overwrite) as run:
        scanned = _encode(run, opened, weights, config, "encoding", "", mesh=mesh)
        if mapping is None:
            mapping = _fitted(run, weights, config, mesh=mesh)
        _check_mapping(mapping, weights, config.mapping)
        return _decide(
            run,
            scanned,
            mapping,
            config.stages,
            seed=config.seed,
            write_clean=config.write_clean,
            degraded_by=config,
            truth=truth,
        )


def run_rescore(
    config: StageConfig, run: Path | str, out: Path | None, *, truth: Path | None = None
) -> ScanResult:
    """Decide again from the embeddings that a scan left, without encoding.

    Args:
        config: the new thresholds.
        run: the folder of a finished scan.
        out: where to; None = RUN/rescored-DIGEST.
        truth: as in `run_scan`.

    Raises:
        RunError: `run` holds no finished scan.
    """
    run = Path(run)
    if not (run / "summary.json").is_file():
        raise RunError(f"{run} holds no finished scan; name the --out of one")
    earlier = json.loads((run / "run.json").read_text())
    if earlier["verb"] != "scan":
        raise RunError(f"{run} is a run of {earlier['verb']}; rescore wants one of scan")
    scan_config = parse(ScanConfig, earlier["config"])
    mapping = load_mapping(scan_config.mapping or run / "mapping")
    with RunDir.open(run, verb="scan", config=scan_config, facts=earlier["facts"]) as first:
        scanned = _reopen(first, scan_config)
    target = out or run / f"rescored-{digest(config)}"
    facts = {"of": run.name, "of_digest": earlier["config_digest"]}
    with RunDir.open(target, verb="rescore", config=config, facts=facts) as second:
        return _decide(
            second,
            scanned,
            mapping,
            config,
            seed=scan_config.seed,
            write_clean=False,
            degraded_by=scan_config,
            truth=truth,
        )


def _reopen(run: RunDir, config: ScanConfig) -> ScannedSet:
    """What a scan has encoded; with its source for the pictures, if that is still there."""
    try:
        opened = open_inputs(
            config.inputs,
            input_format=config.input_format,
            split=config.split,
            max_member_bytes=config.encode.max_member_bytes,
        )
    except InputError as error:
        run.log("source is gone, the report will have no pictures", error=str(error))
        opened = None
    if isinstance(opened, Path):
        return read_embeddings(run, opened, prefix="")
    summary = json.loads((run.path / "summary.json").read_text())
    return ScannedSet(stored_shards(run, summary["shards"]), opened)


def run_fit(config: FitConfig, out: Path | str, *, overwrite: bool = False) -> dict[str, Any]:
    """Fit the mapping network on a clean captioned set and write it to `out`.

    Returns:
        What is known about it: counts and held-out diagnostics.
    """
    mesh = make_mesh(config.mesh)
    opened = open_inputs(
        config.inputs,
        input_format=config.input_format,
        split=config.split,
        max_member_bytes=config.encode.max_member_bytes,
    )
    weights = _weights(config.weights, opened)
    facts = {"weights": weights.fingerprint if weights else "embeddings"}
    with RunDir.open(
        out, verb="fit-mapping", config=config, facts=facts, overwrite=overwrite
    ) as run:
        reference = _encode(run, opened, weights, config, "encoding", "", mesh=mesh)
        mapping = _fit(reference, weights, config.tokenizer, config, mesh=mesh)
        save_mapping(run.path, mapping)
        run.log("mapping", **mapping.reference, **mapping.diagnostics)
    return {"kind": mapping.kind, **mapping.reference, **mapping.diagnostics}


def _weights(spec: str, opened: Source | Path) -> Weights | None:
    if isinstance(opened, Path):
        return None
    if not spec:
        raise ConfigError(
            "these are images, and encoding them needs a clean CLIP: --weights=hf-dir:FOLDER, "
            "open_clip-dir:FOLDER or mmjax-dir:FOLDER (embeddings as input need none)"
        )
    return load_weights(spec)


def _encode(
    run: RunDir,
    opened: Source | Path,
    weights: Weights | None,
    config: ScanConfig | FitConfig,
    what: str,
    prefix: str,
    *,
    mesh: Mesh,
) -> ScannedSet:
    if isinstance(opened, Path):
        return read_embeddings(run, opened, prefix=prefix)
    if weights is None:
        raise InputError(
            f"{opened.location} holds images, but what is scanned are embeddings; give the "
            "reference as embeddings of the same model"
        )
    return encode_source(
        run,
        opened,
        weights,
        config.tokenizer,
        config.encode,
        what=what,
        prefix=prefix,
        mesh=mesh,
    )


def _fitted(run: RunDir, weights: Weights | None, config: ScanConfig, *, mesh: Mesh) -> Mapping:
    """The mapping network fitted on the reference, kept in the run folder."""
    folder = run.path / "mapping"
    if run.finished("mapping") is not None:
        return load_mapping(folder)
    opened = open_inputs(
        config.reference,
        input_format=config.reference_format,
        split=config.reference_split,
        max_member_bytes=config.encode.max_member_bytes,
    )
    reference = _encode(run, opened, weights, config, "reference", "reference/", mesh=mesh)
    mapping = _fit(reference, weights, config.tokenizer, config, mesh=mesh)
    save_mapping(folder, mapping)
    outputs = {name: folder / name for name in ("mapping.json", "model.safetensors")}
    run.finish("mapping", outputs, diagnostics=mapping.diagnostics)
    run.log("mapping", kind=mapping.kind, **mapping.reference, **mapping.diagnostics)
    return mapping


def _fit(
    reference: ScannedSet,
    weights: Weights | None,
    tokenizer: str,
    config: ScanConfig | FitConfig,
    *,
    mesh: Mesh,
) -> Mapping:
    reads = None
    if config.fit.kind == "lm":
        if weights is None and not tokenizer:
            raise ConfigError(
                "fit.kind=lm reads captions and needs a tokenizer: add --tokenizer=FOLDER, or "
                "choose --config.fit.kind=regression or ridge"
            )
        reads = find_tokenizer(weights, tokenizer)
    return fit_mapping(
        make_reference(reference, reads),
        config.fit,
        weights_fingerprint=weights.fingerprint if weights else "embeddings",
        key=keys.stream(jax.random.key(config.seed), "mapping"),
        mesh=mesh,
    )


def _check_mapping(mapping: Mapping, weights: Weights | None, path: str) -> None:
    wanted = weights.fingerprint if weights else "embeddings"
    if mapping.weights_fingerprint != wanted:
        raise ConfigError(
            f"the mapping {path} was fitted on other weights ({mapping.weights_fingerprint[:12]}) "
            f"than these ({wanted[:12]}); fit it again with `mmjax fit-mapping`"
        )


def _decide(
    run: RunDir,
    scanned: ScannedSet,
    mapping: Mapping,
    config: StageConfig,
    *,
    seed: int,
    write_clean: bool,
    degraded_by: ScanConfig,
    truth: Path | None,
) -> ScanResult:
    """Everything after encoding: scores, verdicts, manifests, clean shards, summary, report."""
    result = stages.score(scanned.blocks, mapping, dataclasses.replace(config, seed=seed))
    tables = (
        (shard.name, verdict_table(shard.name, shard.pairs(), stages.columns(result, i)))
        for i, shard in enumerate(scanned.shards)
    )
    counts = write_verdicts(run.path, tables)
    if write_clean:
        _write_clean(run, scanned)
    labels = pq.read_table(truth) if truth else None
    names = [shard.name for shard in scanned.shards]
    known = (
        compare((read_verdicts(run.path, [n]) for n in names), labels)
        if labels is not None
        else None
    )
    summary = summarise(scanned, mapping, result, counts, degraded_by, known)
    write_json(run.path / "summary.json", summary)
    page = run.path / "report" / "index.html"
    write_bytes(page, render(report_data(run.path, scanned.source, labels)).encode())
    run.log("done", **summary["counts"])
    return ScanResult(run.path, summary, page)


def _write_clean(run: RunDir, scanned: ScannedSet) -> None:
    """Copy the kept pairs of every shard to `clean/`, byte for byte."""
    if scanned.source is None:
        raise ConfigError(
            "write_clean wants the pairs themselves, got embeddings; use keep.parquet instead"
        )
    views = {shard.name: shard for shard in scanned.source.shards}
    for shard in progress(scanned.shards, total=len(scanned.shards), what="clean"):
        table = read_verdicts(run.path, [shard.name])
        kept = [
            i
            for i, verdict in enumerate(table.column("verdict").to_pylist())
            if verdict not in ("poisoned", "skipped")
        ]
        view = scanned.source.open_shard(views[shard.name])
        copy_members(view, kept, run.path / "clean" / f"{shard.name}.tar")
