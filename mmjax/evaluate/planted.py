"""A set of embedded pairs with what was planted in it: poison, and what only looks like it.

Pure functions of a set and of row numbers; who draws the rows is elsewhere. Wrong and repeated
pairs are moves of embeddings among rows: the words of a caption go with its embedding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from mmjax.scan.blocks import EmbeddingBlock, gather

Rows = Int64[np.ndarray, " m"]


class Planted(NamedTuple):
    """Embeddings, words, and the label of the attack that poisoned a pair (empty: clean)."""

    blocks: list[EmbeddingBlock]
    captions: list[str]
    attack: list[str]

    @property
    def poisoned(self) -> Bool[np.ndarray, " n"]:
        """Which pairs are poisoned."""
        return np.array([bool(name) for name in self.attack], bool)


def replace_rows(
    blocks: Sequence[EmbeddingBlock],
    rows: Rows,
    *,
    image: Float[np.ndarray, "m d"] | None = None,
    text: Float[np.ndarray, "m d"] | None = None,
) -> list[EmbeddingBlock]:
    """Blocks with other embeddings in some rows; those without such rows are not copied."""
    made, first = [], 0
    for block in blocks:
        inside = np.flatnonzero((rows >= first) & (rows < first + len(block.valid)))
        here = rows[inside] - first
        sides = []
        for stored, new in ((block.image, image), (block.text, text)):
            if new is not None and inside.size:
                stored = np.array(stored)
                stored[here] = new[inside]
            sides.append(stored)
        made.append(EmbeddingBlock(sides[0], sides[1], block.valid))
        first += len(block.valid)
    return made


def move_captions(made: Planted, rows: Rows, sources: Rows) -> Planted:
    """Row `rows[i]` gets the caption that row `sources[i]` had before.

    A permutation of the rows among themselves makes wrong pairs of right captions; the same source
    for all makes boilerplate.
    """
    captions = list(made.captions)
    for row, source in zip(rows.tolist(), sources.tolist(), strict=True):
        captions[row] = made.captions[source]
    text = gather(made.blocks, sources)[1]
    return made._replace(blocks=replace_rows(made.blocks, rows, text=text), captions=captions)


def move_images(made: Planted, rows: Rows, sources: Rows) -> Planted:
    """Row `rows[i]` gets the image that row `sources[i]` had before."""
    image = gather(made.blocks, sources)[0]
    return made._replace(blocks=replace_rows(made.blocks, rows, image=image))


def write_captions(
    made: Planted,
    rows: Rows,
    captions: Sequence[str],
    embed: Callable[[Sequence[str]], Float[np.ndarray, "m d"]],
) -> Planted:
    """Rows get new captions, which `embed` makes embeddings of."""
    words = list(made.captions)
    for row, caption in zip(rows.tolist(), captions, strict=True):
        words[row] = caption
    blocks = replace_rows(made.blocks, rows, text=embed(captions))
    return made._replace(blocks=blocks, captions=words)


def least_alike(made: Planted, rows: Rows, candidates: Int64[np.ndarray, " k"]) -> Rows:
    """For every row, the candidate whose caption is least like the row's image: a decoy's."""
    image, text = gather(made.blocks, rows)[0], gather(made.blocks, candidates)[1]
    return candidates[np.argmin(image @ text.T, axis=1)]
