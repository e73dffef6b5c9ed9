"""`mmjax evaluate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmjax.core.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from mmjax.evaluate.config import EvaluateConfig


def evaluate(config: "EvaluateConfig", flags: argparse.Namespace) -> int:
    """Measure a model and print its figures."""
    if not flags.out:
        raise ConfigError("where to? add --out=FOLDER")
    from mmjax.evaluate.tasks import evaluate as run

    result = run(config, Path(flags.out), overwrite=flags.overwrite)
    width = max(map(len, result["metrics"]))
    for name, value in result["metrics"].items():
        print(f"{name:<{width}}  {value:.4f}")
    skipped = ", ".join(f"{count} x {status}" for status, count in result["skipped"].items())
    of = f" of {result['classes']:,} classes" if "classes" in result else ""
    print(f"images {result['images']:,}{of}" + (f", skipped {skipped}" if skipped else ""))
    print(f"result {Path(flags.out) / 'result.json'}")
    return ExitCode.DONE
