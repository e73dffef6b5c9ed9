"""Draws MEM's figures from their results files, and their pages."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from mmjax.evaluate.cfbd_plots import first_seed, panels, save
from mmjax.evaluate.experiment import Rows
from mmjax.evaluate.tables import cell, read_results, write_page

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


def _shown(picture: Path) -> list[str]:
    return [f"![the figure, first seed]({picture.name})", ""]


def _lines(rows: Rows, columns: dict[str, str]) -> list[str]:
    return [
        f"| {' | '.join(columns.values())} |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
        *("| " + " | ".join(cell(row[key]) for key in columns) + " |" for row in rows),
    ]


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
