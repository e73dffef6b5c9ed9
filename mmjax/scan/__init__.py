"""Finding poisoned pairs: encode once, score, decide, report (paper CFBD).

The package is callable: `mmjax.scan("x.tar", out="run1", weights="hf-dir:clip", reference="coco")`.
"""

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmjax.scan.result import ScanResult


def scan(
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    reference: str | Path | Sequence[str | Path] = (),
    truth: str | Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> "ScanResult":
    """Find poisoned pairs in a set of images and captions; the same call resumes.

    Args:
        inputs: shards (brace pattern, glob, folder, tar), a table, a folder, or embeddings.
        out: the run folder to write.
        reference: a clean captioned set to fit the mapping network on, unless `mapping` names one.
        truth: a `poison_labels.parquet` to compare with.
        overwrite: empty the folder first, if it is a scan.
        **options: other keys of `mmjax.scan.config.ScanConfig`, e.g. `weights="hf-dir:clip"`,
            `encode={"batch_size": 256}`, `stages={"seeds": 400}`.

    Returns:
        The finished run: `.verdicts` (a pyarrow table), `.summary`, `.report_path`.

    Raises:
        MmjaxError: the user must act; its message says how.
    """
    from mmjax.core.config import parse
    from mmjax.scan.config import ScanConfig
    from mmjax.scan.pipeline import run_scan

    def listed(value: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
        return (str(value),) if isinstance(value, str | Path) else tuple(map(str, value))

    values = {"inputs": listed(inputs), "reference": listed(reference), **options}
    config = parse(ScanConfig, values)
    return run_scan(config, out, truth=Path(truth) if truth else None, overwrite=overwrite)


class _CallablePackage(types.ModuleType):
    """`mmjax.scan` is a folder of the layout and the name of its main function."""

    def __call__(self, *args: Any, **kwargs: Any) -> "ScanResult":
        return scan(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
