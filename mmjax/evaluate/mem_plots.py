"""Draws MEM's figures from their results files, and their pages."""

import base64
import io
import math
import textwrap
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmjax.evaluate.cfbd_plots import first_seed, panels, save
from mmjax.evaluate.directions import Direction, above, lines
from mmjax.evaluate.experiment import Rows
from mmjax.evaluate.mem_figures import MEDR
from mmjax.evaluate.mem_methods import PROTECTIONS
from mmjax.evaluate.tables import cell, read_results, write_page

_ENDS = ("best", "last")
_MEDR = ("MedR, image → text", "MedR, text → image")
_FIGURE4 = {
    "set": "set",
    "seed": "seed",
    "first": "loss of the first epoch",
    "last": "of the last",
    **{
        f"{key}_{end}": f"{title}, {end}"
        for key, title in zip(MEDR, _MEDR, strict=True)
        for end in _ENDS
    },
}
_CLAIMS = (
    ("EM's loss falls faster than that of clean pairs", "first", "clean", "em_matched"),
    ("MEM-3's falls faster than EM's", "first", "em_matched", "mem_3"),
    ("MEM-5's falls faster than EM's", "first", "em_matched", "mem_5"),
    ("UAP hardly speeds it up: EM's falls faster", "first", "uap_8", "em_matched"),
    ("in the end MEM-3 has the worse MedR than EM", f"{MEDR[0]}_last", "mem_3", "em_matched"),
    ("in the end MEM-5 has the worse MedR than MEM-3", f"{MEDR[0]}_last", "mem_5", "mem_3"),
)
"""A claim, the figure that it is about, the set that has more of it and the one that has less."""
_HEADING = (
    "The paper's directions; MedR that differ by less than two standard errors of blind guesses "
    "cannot be told:"
)
_GROWN = 12
"""Times that noise is drawn."""
_FIGURE7 = {
    "set": "set",
    "seed": "seed",
    "image_to_text_hit@1": "new photos that get the right name, %",
    "image_to_text_medr": "MedR of the name",
    "text_to_image_hit@1": "names that get a right photo, %",
    "text_to_image_medr": "MedR of the photo",
}
_FIGURE5 = {
    "set": "set",
    "seed": "seed",
    "first_words": "attribution on the first three words",
    "like_clean": "correlation of heat maps with the clean victim's",
    "cosine": "mean cosine",
    "completeness_gap": "completeness gap, at worst",
}
_FIGURE6 = {
    "set": "set",
    "seed": "seed",
    "matched_cosine": "cosine of pairs",
    "other_cosine": "photo and a caption of another",
    "captions_cosine": "captions of one photo",
}


def write_figure4(results: Path, page: Path) -> None:
    """Curves of means over seeds, their ends, and what the paper says of them."""
    rows = read_results(results)["rows"]
    picture = page.with_suffix(".png")
    save(_figure4(rows), picture)
    chance = next(row for row in rows if row["seed"] is None)
    told = [row for row in rows if row["seed"] is not None]
    ends = [
        {
            "set": row["set"],
            "seed": row["seed"],
            "first": row["loss"][0],
            "last": row["loss"][-1],
            **{f"{key}_best": min(row[key]) for key in MEDR},
            **{f"{key}_last": row[key][-1] for key in MEDR},
        }
        for row in told
    ]
    ends.append(
        {
            "set": "chance",
            "photos": chance["photos"],
            **{f"{k}_{end}": chance[k] for k in MEDR for end in _ENDS},
        }
    )
    body = [*_shown(picture, "means over seeds"), *_lines(ends, _FIGURE4), ""]
    write_page(results, page, [*body, *lines(_directions(ends), _HEADING)])


def _directions(ends: Rows) -> list[Direction]:
    """What the paper says of the curves, by means over seeds."""

    def mean(name: str, key: str) -> float | None:
        values = [row[key] for row in ends if row["set"] == PROTECTIONS[name]]
        return float(np.mean(values)) if values else None

    chance = next(row for row in ends if row["set"] == "chance")
    asked = chance["photos"] * len({row["seed"] for row in ends if row is not chance})
    told = []
    for claim, key, high, low in _CLAIMS:
        more, less = mean(high, key), mean(low, key)
        found = above(claim, more, less, (PROTECTIONS[high], PROTECTIONS[low]))
        if key in chance and more is not None and less is not None:
            near = abs(more - less) <= 2 * chance[key] / math.sqrt(asked)
            found = found._replace(holds=None) if near else found
        told.append(found)
    return told


def write_figure5(results: Path, page: Path) -> None:
    """The picture of the first seed, and the figures of all."""
    rows = read_results(results)["rows"]
    picture = page.with_suffix(".png")
    save(_figure5(first_seed(rows)), picture)
    write_page(results, page, [*_shown(picture), *_lines(rows, _FIGURE5)])


def write_figure6(results: Path, page: Path) -> None:
    """The picture of the first seed, and the figures of all."""
    rows = read_results(results)["rows"]
    picture = page.with_suffix(".png")
    save(_figure6(first_seed(rows)), picture)
    write_page(results, page, [*_shown(picture), *_lines(rows, _FIGURE6)])


def write_figure7(results: Path, page: Path) -> None:
    """The picture of the first seed, and how often each victim names new photos rightly."""
    rows = read_results(results)["rows"]
    picture = page.with_suffix(".png")
    save(_figure7(first_seed(rows)), picture)
    write_page(results, page, [*_shown(picture), *_lines(rows, _FIGURE7)])


def _shown(picture: Path, what: str = "first seed") -> list[str]:
    return [f"![the figure, {what}]({picture.name})", ""]


def _lines(rows: Rows, columns: dict[str, str]) -> list[str]:
    return [
        f"| {' | '.join(columns.values())} |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
        *("| " + " | ".join(cell(row.get(key)) for key in columns) + " |" for row in rows),
    ]


def _figure4(rows: Rows) -> Figure:
    """The loss, then MedR of both directions with chance; an epoch is a look at all pairs."""
    figure, axes = panels(3, 3)
    chance = next(row for row in rows if row["seed"] is None)
    names = {"loss": "training loss", **dict(zip(MEDR, _MEDR, strict=True))}
    for name in dict.fromkeys(row["set"] for row in rows if row["seed"] is not None):
        own = [row for row in rows if row["set"] == name]
        for place, key in zip(axes, names, strict=True):
            mean = np.mean([row[key] for row in own], axis=0)
            place.plot(np.arange(1, len(mean) + 1), mean, label=name)
    for place, (key, title) in zip(axes, names.items(), strict=True):
        place.set(title=title, xlabel="epoch", ylim=(0, None))
        if key in chance:
            place.axhline(chance[key], color="#999999", ls="--", lw=1, label="chance")
    axes[1].legend(fontsize=7)
    return figure


def _figure7(rows: Rows) -> Figure:
    """A line a person: the owner's pair, noise and protected pair of every set, a new photo."""
    clean, *others = rows
    columns = 2 + 2 * len(others)
    figure, axes = panels(len(clean["people"]) * columns, columns, size=(2.4, 2.6))
    for number, person in enumerate(clean["people"]):
        place, *line, last = axes[number * columns : (number + 1) * columns]
        photo = _pixels(person["photo"])
        _picture(place, photo, person["caption"], "the owner's pair" if not number else "")
        answers = [f"{clean['set']}: {', '.join(person['answers'])}"]
        for row, noisy, told in zip(others, line[::2], line[1::2], strict=True):
            own = row["people"][number]
            protected = _pixels(own["photo"])
            grown = np.clip(128 + _GROWN * (protected - photo), 0, 255)
            _picture(noisy, grown, "", f"noise x {_GROWN}" if not number else "")
            _picture(told, protected, own["caption"], row["set"] if not number else "")
            answers.append(f"{row['set']}: {', '.join(own['answers'])}")
        asked = "a new photo, and whose it is thought to be" if not number else ""
        _picture(last, _pixels(person["new"]), "\n".join(answers), asked)
        last.set_ylabel(person["person"], fontsize=7)
    return figure


def _pixels(png: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(png)), formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"), np.int16)


def _picture(place: Axes, pixels: np.ndarray, below: str, above_it: str) -> None:
    """A picture between lines of text; what a trigger holds beyond ASCII is drawn as `?`."""
    place.imshow(pixels.astype(np.uint8))
    below = "".join(c if c.isascii() and (c.isprintable() or c == "\n") else "?" for c in below)
    text = "\n".join("\n".join(textwrap.wrap(line, 34)) for line in below.split("\n"))
    place.set_xlabel(text, fontsize=6, parse_math=False)
    place.set_title("\n".join(textwrap.wrap(above_it, 24)), fontsize=8)
    place.set_xticks([])
    place.set_yticks([])


def _figure5(rows: Rows) -> Figure:
    """A line a pair: the photo, then its heat map and words for every victim."""
    photos = np.array(rows[0]["pixels"], np.uint8)
    figure, axes = panels(len(photos) * (1 + len(rows)), 1 + len(rows), size=(2.2, 2.5))
    for number, photo in enumerate(photos):
        line = axes[number * (1 + len(rows)) : (number + 1) * (1 + len(rows))]
        line[0].imshow(photo)
        line[0].set_title("photo" if not number else "")
        for place, row in zip(line[1:], rows, strict=True):
            heat = np.array(row["heat"][number])
            place.imshow(photo)
            extent = (-0.5, photo.shape[1] - 0.5, photo.shape[0] - 0.5, -0.5)
            place.imshow(
                heat, cmap="inferno", alpha=0.6, extent=extent, interpolation="bilinear", vmax=1
            )
            values = np.abs(row["values"][number])
            words = sorted(zip(-values, row["words"][number], strict=True))[:4]
            place.set_xlabel(", ".join(word for _, word in words), fontsize=7)
            place.set_title(row["set"] if not number else "", fontsize=8)
        for place in line:
            place.set_xticks([])
            place.set_yticks([])
    return figure


def _figure6(rows: Rows) -> Figure:
    figure, axes = panels(len(rows), len(rows), size=(4.0, 3.6))
    colours = colormaps["tab20"]
    for place, row in zip(axes, rows, strict=True):
        images, captions = np.array(row["images_at"]), np.array(row["captions_at"])
        owners = np.array(row["owners"])
        for photo in range(len(images)):
            colour = [colours(photo % 20)]
            place.scatter(*images[photo], marker="^", c=colour, s=36)
            place.scatter(*captions[owners == photo].T, marker="o", c=colour, s=16)
        place.set_title(row["set"])
        place.set_xticks([])
        place.set_yticks([])
    return figure
