"""An owner's folder of photos, protected: the same files again, captions, a manifest, a sheet."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.core.config import to_dict
from mmjax.core.errors import ImageError
from mmjax.core.files import write_bytes, write_json
from mmjax.core.progress import progress
from mmjax.core.rundir import RunDir
from mmjax.core.types import STATUSES
from mmjax.data.images import read_rgb
from mmjax.data.records import clean_text
from mmjax.protect.config import ProtectConfig
from mmjax.protect.folder import (
    caption_from,
    find_photos,
    output_name,
    read_captions,
    refuse_overlap,
    taken_names,
)
from mmjax.protect.guard import Guard, find_noise, find_trigger, make_guard, square_of
from mmjax.protect.photos import add_noise, format_of, read_photo, write_photo
from mmjax.protect.sheet import thumbnail, write_sheet
from mmjax.protect.survival import measure_quality, measure_survival
from mmjax.protect.vocabulary import survives, with_trigger

MANIFEST, CAPTIONS, SHEET = "protection.json", "captions.csv", "sheet.html"
UNPROMISED = (
    "It makes photos harder to learn from; it does not hide them, and it does not undo what models "
    "have learned already.",
    "It was computed against one model and measured on that model only. Another model may see "
    "less of it, or nothing; one that was trained on many other photos is hard to keep from "
    "learning a face.",
    "Whoever knows of it can take it away: the words in front of a caption can be cut off, and "
    "noise is weakened by compression, resizing and cleaning; the table says by how much.",
    "Publish the protected captions with the photos. A single unprotected copy of a photo is "
    "enough to learn from.",
)
"""What is said to every owner."""
DEMO = (
    "The bundled demo model has seen drawn scenes only, no photos: it shows how this works. For "
    "photos that matter name a CLIP with --weights."
)
"""What is said to those who name no model."""

Say = Callable[[str], None]


def protect_photos(
    config: ProtectConfig, out_dir: Path, *, say: Say = lambda line: None
) -> dict[str, Any]:
    """Protect every photo of a folder; the same call again does what is new or has changed.

    Args:
        config: the run, `output="photos"`.
        out_dir: run folder, apart from the photos: `photos/` (same names), `captions.csv`,
            `protection.json`, `sheet.html`.
        say: is told in a line of every photo that cannot be protected, and of captions that are
            made of file names.

    Returns:
        What `protection.json` holds; `photos` has one entry for every photo, whatever became of it.

    Raises:
        InputError: no photos, or `out_dir` and the photos lie in one another.
        WeightsError: the model cannot be loaded.
        RunError: `out_dir` holds another run.
    """
    folder = Path(config.inputs[0])
    refuse_overlap(folder, out_dir)
    photos, others = find_photos(folder)
    captions = read_captions(folder, config.captions, photos)
    if len(captions) < len(photos):
        say(
            f"{len(photos) - len(captions)} of {len(photos)} photos have no caption; theirs are "
            "made of their file names (give captions.csv with the columns file,caption)"
        )
    guard = make_guard(config)
    with RunDir.open(
        out_dir, verb="protect", config=config, facts={"weights": guard.fingerprint}
    ) as run:
        rows, taken = [], taken_names(photos)
        for name in progress(photos, total=len(photos), what="protecting"):
            own = captions.get(name) or (caption_from(name),)
            row = _protect(run, guard, folder, name, own, taken, given=name in captions)
            rows.append(row)
            if row["status"] != "ok":
                why = f"{STATUSES[row['status']]} ({row['message']})"
                say(f"not protected: {clean_text(name)}: {why}")
        write_bytes(out_dir / CAPTIONS, _captions(rows))
        manifest = _manifest(config, guard, rows, others)
        write_json(out_dir / MANIFEST, manifest)
        if config.photos.sheet:
            write_sheet(out_dir / SHEET, manifest)
    return manifest


def _protect(
    run: RunDir,
    guard: Guard,
    folder: Path,
    name: str,
    captions: Sequence[str],
    taken: set[str],
    *,
    given: bool,
) -> dict[str, Any]:
    """The manifest's entry of one photo, from the journal where nothing has changed."""
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        return {"file": name, "status": "missing_image", "message": str(error.strerror)}
    digest = hashlib.sha256(data).hexdigest()
    wanted = {"source_sha256": digest, "captions": list(captions)}
    unit = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    known = run.finished(unit)
    if known is not None and all(known["row"].get(k) == v for k, v in wanted.items()):
        return known["row"]
    try:
        photo = read_photo(data, max_pixels=guard.config.max_image_pixels)
    except ImageError as error:
        return {"file": name, "status": error.status, "message": str(error), **wanted}
    written = format_of(photo, guard.config.photos.format)
    target = output_name(name, written, taken)
    whole = read_rgb(data, max_pixels=guard.config.max_image_pixels, library="pillow")
    trigger = find_trigger(guard, square_of(whole, guard), captions[0], digest)
    noise = find_noise(guard, photo, captions[0], trigger, digest)
    protected = [with_trigger(guard.tokenizer, trigger, caption) for caption in captions]
    triggers = np.repeat(trigger[None], len(captions), axis=0)
    made = write_photo(add_noise(photo, noise), written, guard.config.photos.quality)
    read = read_rgb(made, max_pixels=guard.config.max_image_pixels, library="pillow")
    after = read_photo(made, max_pixels=guard.config.max_image_pixels)
    outputs = {"photo": run.path / "photos" / target}
    pictures = {"before": whole, "after": read}
    for when, picture in pictures.items():
        outputs[when] = run.path / "sheet" / f"{unit}-{when}.jpg"
        write_bytes(outputs[when], thumbnail(picture))
    write_bytes(outputs["photo"], made)
    row = {
        "file": name,
        "status": "ok",
        **wanted,
        "protected_file": target,
        "format": written,
        "width": read.width,
        "height": read.height,
        "caption_given": given,
        "trigger": trigger.tolist(),
        "protected_captions": protected,
        "captions_read_back": bool(
            survives(guard.tokenizer, list(captions), protected, triggers).all()
        ),
        "largest_noise": int(np.abs(noise.astype(np.int16)).max()),
        **measure_quality(photo.pixels, after.pixels)._asdict(),
        "survival": measure_survival(guard, whole, read, protected[0])._asdict(),
        "notes": list(photo.notes),
        "sheet": unit,
    }
    run.finish(unit, outputs, row=row)
    return json.loads(json.dumps(row))


def _captions(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """captions.csv: file, caption, protected."""
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["file", "caption", "protected"])
    for row in rows:
        if row["status"] == "ok":
            pairs = zip(row["captions"], row["protected_captions"], strict=True)
            table.writerows([row["protected_file"], *pair] for pair in pairs)
    return out.getvalue().encode(errors="surrogateescape")


def _manifest(
    config: ProtectConfig, guard: Guard, rows: Sequence[Mapping[str, Any]], others: int
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return {
        "made_by": f"mmjax {version('mmjax')}",
        "config": to_dict(config),
        "epsilon": config.epsilon,
        "surrogate": {
            "weights": config.surrogate.model.weights or "demo",
            "sha256": guard.fingerprint,
        },
        "counts": counts,
        "other_files": others,
        "photos": list(rows),
        "not_promised": [*UNPROMISED, *([] if config.surrogate.model.weights else [DEMO])],
    }
