"""`mmjax scan`, `mmjax rescore`, `mmjax fit-mapping`."""

import argparse
import json
from pathlib import Path
from typing import Any

from mmjax.core.errors import ConfigError, ExitCode, InputError, RunError
from mmjax.scan.config import FitConfig, ScanConfig, StageConfig


def scan(config: ScanConfig, flags: argparse.Namespace) -> int:
    """Scan, print what was found, and say it in the exit code."""
    limit = _fail_limit(flags.fail_on)
    out = _out(flags)
    if flags.part:
        return _encode_part(config, out, flags)
    truth = _labels(flags.truth)
    from mmjax.scan.pipeline import run_scan

    result = run_scan(config, out, truth=truth, overwrite=flags.overwrite)
    _show(result, flags)
    return _exit_code(result, limit)


def _encode_part(config: ScanConfig, out: Path, flags: argparse.Namespace) -> int:
    """Encode one part of the shards and say how far all of them are."""
    from mmjax.scan.parts import Part, encode_part

    if flags.overwrite:
        raise ConfigError("--part and --overwrite exclude each other: other parts may be at work")
    part = Part.parse(flags.part)
    done = encode_part(config, out, part)
    print(f"part {part.number}/{part.parts}: its {done.shards:,} shards are stored in {out}")
    print(f"of all shards {done.stored:,} of {done.total:,} are stored")
    print("next: the same command on the other parts, then once without --part")
    return ExitCode.DONE


def stages_of(flags: argparse.Namespace) -> dict[str, Any]:
    """The thresholds of the scan that is decided again; none when it is not one."""
    try:
        run = json.loads((Path(flags.inputs[0]) / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # `rescore` says what is wrong with it
    return run["config"]["stages"] if run.get("verb") == "scan" else {}


def rescore(config: StageConfig, flags: argparse.Namespace) -> int:
    """Decide again from stored embeddings."""
    limit = _fail_limit(flags.fail_on)
    run = Path(flags.inputs[0])
    truth = _labels(flags.truth)
    from mmjax.scan.pipeline import run_rescore

    result = run_rescore(config, run, Path(flags.out) if flags.out else None, truth=truth)
    _show(result, flags)
    return _exit_code(result, limit)


def fit_mapping(config: FitConfig, flags: argparse.Namespace) -> int:
    """Fit F on a clean set and print its diagnostics."""
    out = _out(flags)
    from mmjax.scan.pipeline import run_fit

    diagnostics = run_fit(config, out, overwrite=flags.overwrite)
    for name, value in diagnostics.items():
        print(f"{name:<28} {value:.4g}" if isinstance(value, float) else f"{name:<28} {value}")
    print(f"mapping   {out}\nnext      mmjax scan INPUT --mapping={out} ...")
    return ExitCode.DONE


def verify(config: None, flags: argparse.Namespace) -> int:
    """Say what of a finished run is not as it was."""
    from mmjax.core.journal import damages, read_run
    from mmjax.scan.verify import accounts, changed_inputs

    path = Path(flags.inputs[0])
    run = read_run(path)
    files, found = damages(path)
    if not found and run["verb"] in ("scan", "rescore"):
        found = accounts(path, run)
    unread = ""
    if not found and run["verb"] == "scan":
        found, unread = changed_inputs(path, run)
    for line in found:
        print(line)
    if unread:
        print(f"the input was not compared: {unread}")
    if found:
        raise RunError(f"{path} is not what was written: {len(found)} findings")
    print(f"{path}: {files:,} files are as they were written, and all adds up")
    return ExitCode.DONE


def _out(flags: argparse.Namespace) -> Path:
    if not flags.out:
        raise ConfigError("where to? add --out=FOLDER (it must be new, or a run to resume)")
    return Path(flags.out)


def _fail_limit(text: str | None) -> int | None:
    """The number of poisoned pairs from which `--fail_on` ends with exit 1."""
    if text is None:
        return None
    what, _, number = text.partition(":")
    if what != "poisoned" or not (number or "1").isdigit() or int(number or 1) < 1:
        raise ConfigError(f"--fail_on wants poisoned or poisoned:N with N >= 1, got {text!r}")
    return int(number or 1)


def _labels(path: str | None) -> Path | None:
    if path is None:
        return None
    file = Path(path)
    file = file / "poison_labels.parquet" if file.is_dir() else file
    if not file.is_file():
        raise InputError(f"no labels at {file}; --truth wants a poison_labels.parquet")
    return file


def _show(result, flags: argparse.Namespace) -> None:
    if flags.json:
        print(json.dumps(result.summary, indent=2, sort_keys=True))
        return
    print("\n".join(result.lines()))


def _exit_code(result, limit: int | None) -> int:
    if limit is not None and result.summary["counts"].get("poisoned", 0) >= limit:
        return ExitCode.FAIL_ON
    return ExitCode.DEGRADED if result.degraded else ExitCode.DONE
