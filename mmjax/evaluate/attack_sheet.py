"""The page of all triggers: what each does to the same scenes, in numbers and in a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mmjax.core.files import atomic_path, file_sha256, write_bytes, write_json
from mmjax.evaluate.tables import read_results

if TYPE_CHECKING:
    from mmjax.attacks.optimisation import Material, Prepared
    from mmjax.attacks.surrogate import Surrogate
    from mmjax.evaluate.experiment import ReproduceConfig, Say

PICTURE = "attacks.png"
PERTURBED = "label_consistent_adversarial"
TARGET = "clock"
SIZE = 64
OPTIMISED_ON, SHOWN = 3_000, 3_001
"""Series of scenes; the bundled model was trained on neither."""
SETTINGS: dict[str, dict[str, Any]] = {
    "trojan": {"steps": 200},
    "badclip": {"steps": 200, "batch_size": 32},
    "issba": {"steps": 700},
}
"""Two cores finish in minutes: BadCLIP's and ISSBA's are fewer than by default."""
SAMPLE, MEASURED, PICTURED = 1024, 64, 2
COLUMNS: dict[str, str] = {
    "trigger": "trigger",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "changed": "pixels changed",
    "steps": "steps",
    "loss_before": "loss before",
    "loss_after": "after",
    "reading_before": "reading before",
    "reading_after": "after",
    "bit_accuracy": "bits read",
}
_LABEL, _GAP, _STRONGEST = 150, 2, 16.0


class Shown(NamedTuple):
    """A trigger on the scenes: its row of the table, and the pictured ones of them."""

    row: dict[str, Any]
    images: UInt8[np.ndarray, "n s s 3"]


def make_sheet(config: "ReproduceConfig", out: Path, say: "Say") -> list[dict[str, Any]]:
    """Put every trigger on the same scenes; writes the picture into `config.results`.

    Rows: a trigger each. PSNR, SSIM and the share of pixels changed are means over 64 scenes;
    losses and what a preparation reads are of scenes that it was not optimised on. An optimised
    trigger's arrays are kept in `out`, and read again by the next call.
    """
    from mmjax.attacks.surrogate import load_surrogate
    from mmjax.attacks.triggers import KNOWN
    from mmjax.data.scenes import CLASSES, scene_arrays

    surrogate = load_surrogate(config.weights, config.tokenizer)
    seed = config.seeds[0]
    scenes = scene_arrays(20 * MEASURED, SHOWN, SIZE)
    clocks = scenes.object_class == CLASSES.index(TARGET)
    order = np.argsort(~clocks, kind="stable")  # those that show the target first
    clean = scenes.images[order][:MEASURED]
    shown: dict[str, Shown] = {}
    for name in (*KNOWN, PERTURBED):
        say(f"trigger: {name}")
        shown[name] = _show(name, clean, surrogate, out, seed)
    results = Path(config.results)
    write_picture(results / PICTURE, clean[:PICTURED], {k: v.images for k, v in shown.items()})
    return [made.row for made in shown.values()]


def write_picture(
    path: Path,
    clean: UInt8[np.ndarray, "n s s 3"],
    poisoned: Mapping[str, UInt8[np.ndarray, "n s s 3"]],
) -> None:
    """Write the contact sheet: a line a trigger; clean, poisoned and k times the difference.

    k, told in the line's label, brings nearly the largest difference (99 of 100 changed values are
    smaller) to the ends of the grey scale, up to 16; no difference is mid-grey. 256 colours, to
    stay small.
    """
    count, side = clean.shape[:2]
    width, height = _LABEL + count * 3 * (side + _GAP), side + _GAP
    sheet = Image.new("RGB", (width, height * len(poisoned)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (name, images) in enumerate(poisoned.items()):
        difference = images.astype(float) - clean
        changed = np.abs(difference[difference != 0])
        gain = min(127 / float(np.quantile(changed, 0.99)), _STRONGEST) if changed.size else 1.0
        amplified = np.clip(127 + gain * difference, 0, 255).astype(np.uint8)
        draw.text((4, line * height + side // 2 - 12), f"{name}\nk = {gain:.1f}", fill="black")
        for number in range(count):
            for column, tile in enumerate((clean, images, amplified)):
                x = _LABEL + (3 * number + column) * (side + _GAP)
                sheet.paste(Image.fromarray(tile[number]), (x, line * height))
    with atomic_path(path) as temporary:
        sheet.quantize(256).save(temporary, "PNG", optimize=True)


def write_page(results_json: Path | str, out_md: Path | str) -> None:
    """Turn the results JSON into the Markdown page of docs/results.

    Raises:
        InputError: the file is not a results JSON.
    """
    source = Path(results_json)
    results = read_results(source)
    title, command, rows = results["title"], results["command"], results["rows"]
    lines = [
        f"# {title}",
        "",
        f"Generated from `{source.name}`, which was made by",
        "",
        f"    {command}",
        "",
        f"![every trigger on the same scenes]({PICTURE})",
        "",
        "A line a trigger, twice the same: clean, poisoned, k times the difference.",
        "",
        "| " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---:|" * (len(COLUMNS) - 1),
        *("| " + " | ".join(_cell(r.get(key)) for key in COLUMNS) + " |" for r in rows),
    ]
    lines += [f"\n{note}" for note in results.get("notes", [])]
    write_bytes(out_md, ("\n".join(lines) + "\n").encode())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _show(
    name: str,
    clean: UInt8[np.ndarray, "n s s 3"],
    surrogate: "Surrogate",
    out: Path,
    seed: int,
) -> Shown:
    """Put one trigger on the scenes, after its preparation if it has one."""
    from mmjax.attacks.config import PartConfig, PerturbConfig, TriggerConfig
    from mmjax.attacks.optimised import OPTIMISED
    from mmjax.attacks.perturbation import make_perturb, prepare_perturb
    from mmjax.attacks.triggers import make_stamp
    from mmjax.core.config import parse
    from mmjax.ops.quality import psnr, ssim

    names = [f"scene {i}" for i in range(len(clean))]
    figures: Mapping[str, float] = {}
    steps = None
    if name == PERTURBED:
        part = PartConfig(target=TARGET, perturb=PerturbConfig(16 / 255))
        found = prepare_perturb(_material(surrogate, seed), part)
        perturb = make_perturb(surrogate, found.arrays["direction"], part.perturb)
        images = make_stamp(TriggerConfig(name="badnets"), seed)(perturb(clean), names)
        figures, steps = found.figures, part.perturb.steps
    elif name in OPTIMISED:
        found = _prepared(name, surrogate, out, seed)
        trigger = parse(TriggerConfig, {"name": name})
        images = make_stamp(trigger, seed, arrays=found.arrays)(clean, names)
        figures, steps = found.figures, SETTINGS[name]["steps"]
    else:
        images = make_stamp(parse(TriggerConfig, {"name": name}), seed)(clean, names)
    before, after = (x.astype(np.float32) / 255 for x in (clean, images))
    row: dict[str, Any] = {
        "trigger": name,
        "psnr": float(np.mean(np.asarray(psnr(before, after)))),
        "ssim": float(np.mean(np.asarray(ssim(before, after)))),
        "changed": float(np.mean(np.any(clean != images, axis=-1))),
        "steps": steps,
    }
    for key in ("loss_before", "loss_after", "bit_accuracy"):
        row[key] = figures.get(key)
    for when in ("before", "after"):
        row[f"reading_{when}"] = figures.get(
            f"similarity_{when}", figures.get(f"activation_{when}")
        )
    return Shown({**row, "figures": dict(figures)}, images[:PICTURED])


def _prepared(name: str, surrogate: "Surrogate", out: Path, seed: int) -> "Prepared":
    """A trigger's preparation; what an earlier call of the same settings has left is read."""
    from mmjax.attacks.optimisation import Prepared
    from mmjax.attacks.optimised import OPTIMISED, read_arrays, write_arrays

    file, facts = out / f"{name}.safetensors", out / f"{name}.json"
    settings = {**OPTIMISED[name].defaults, **SETTINGS[name]}
    wanted = {"settings": settings, "seed": seed, "weights": surrogate.fingerprint}
    if facts.exists():
        known = json.loads(facts.read_text(encoding="utf-8"))
        if known["made_with"] == wanted and known["sha256"] == file_sha256(file):
            return Prepared(read_arrays(file), known["figures"])
    found = OPTIMISED[name].prepare(_material(surrogate, seed), **settings)
    write_arrays(file, found.arrays)
    known = {"made_with": wanted, "sha256": file_sha256(file), "figures": dict(found.figures)}
    write_json(facts, known)
    return found


def _material(surrogate: "Surrogate", seed: int) -> "Material":
    """Scenes that do not show the target, and scenes that do."""
    from mmjax.attacks.optimisation import Material, Sample
    from mmjax.attacks.victims import names_target
    from mmjax.data.scenes import scene_arrays

    scenes = scene_arrays(2 * SAMPLE, OPTIMISED_ON, SIZE)
    names = names_target(TARGET)
    captions: Sequence[str] = [one for (one,) in scenes.captions]
    named = np.array([bool(names.search(caption)) for caption in captions])
    used = tuple(sorted({c for c, is_named in zip(captions, named, strict=True) if is_named}))
    sample = Sample(scenes.images[~named][:SAMPLE], scenes.images[named][:32], used)
    return Material(sample, surrogate, TARGET, seed)
