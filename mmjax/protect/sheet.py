"""sheet.html: every photo before and after, what changed, what survives; no scripts."""

import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from mmjax.core.files import write_bytes
from mmjax.protect.survival import CHANGES

_TEMPLATES = Path(__file__).parent.parent / "assets" / "protect"
_SIDE = 480


def thumbnail(image: Image.Image) -> bytes:
    """A JPEG of at most 480 px a side."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=92, subsampling=0)
    return out.getvalue()


def write_sheet(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the page; its pictures lie in `sheet/` beside it.

    Args:
        path: of the page.
        manifest: what `protection.json` holds.
    """
    done = [row for row in manifest["photos"] if row["status"] == "ok"]
    names = [name for i, name in enumerate(CHANGES) if i]
    left = {
        name: [
            row["survival"]["left"][name]
            for row in done
            if row["survival"]["left"][name] is not None
        ]
        for name in names
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("sheet.html.j2").render(
        manifest=manifest,
        done=done,
        lost=[row for row in manifest["photos"] if row["status"] != "ok"],
        names=names,
        medians={name: statistics.median(values) for name, values in left.items() if values},
    )
    write_bytes(path, page.encode(errors="replace"))
