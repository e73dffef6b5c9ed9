"""Moves of captions and images among rows."""

import numpy as np
import pytest

from mmjax.evaluate.planted import (
    Planted,
    least_alike,
    move_captions,
    move_images,
    replace_rows,
    write_captions,
)
from mmjax.scan.blocks import EmbeddingBlock


@pytest.fixture
def made() -> Planted:
    """Nine pairs in three blocks; row i has image i and caption -i."""
    rows = np.arange(9, dtype=np.float16)[:, None] * np.ones(2, np.float16)[None, :]
    blocks = [
        EmbeddingBlock(rows[a:b], -rows[a:b], np.ones(b - a, bool))
        for a, b in ((0, 3), (3, 5), (5, 9))
    ]
    return Planted(blocks, [f"caption {i}" for i in range(9)], [""] * 8 + ["badnets"])


def side(made: Planted, name: str) -> list[float]:
    return np.concatenate([getattr(block, name) for block in made.blocks])[:, 0].tolist()


def test_only_the_named_rows_are_replaced(made: Planted) -> None:
    new = replace_rows(made.blocks, np.array([7, 3]), text=np.array([[70.0, 70.0], [30.0, 30.0]]))
    text = np.concatenate([block.text for block in new])[:, 0]
    assert text.tolist() == [0, -1, -2, 30, -4, -5, -6, 70, -8]
    assert new[0].text is made.blocks[0].text
    assert all(a.image is b.image for a, b in zip(new, made.blocks, strict=True))
    assert side(made, "text")[3] == -3


def test_captions_move_with_their_words(made: Planted) -> None:
    rows = np.array([1, 4, 6])
    swapped = move_captions(made, rows, np.roll(rows, 1))
    assert side(swapped, "text") == [0, -6, -2, -3, -1, -5, -4, -7, -8]
    words = [-int(caption.split()[1]) for caption in swapped.captions]
    assert words == side(swapped, "text")
    assert side(swapped, "image") == side(made, "image")
    copies = move_captions(made, rows, np.repeat(rows[:1], 3))
    assert [copies.captions[r] for r in rows] == ["caption 1"] * 3
    assert copies.attack == made.attack
    assert move_captions(made, rows[:0], rows[:0]) == made


def test_images_move_alone(made: Planted) -> None:
    moved = move_images(made, np.array([0, 8]), np.array([5, 5]))
    assert side(moved, "image") == [5, 1, 2, 3, 4, 5, 6, 7, 5]
    assert moved.captions == made.captions
    assert side(moved, "text") == side(made, "text")


def test_new_captions_are_embedded(made: Planted) -> None:
    def lengths(captions):
        return np.array([[len(c)] * 2 for c in captions], np.float32)

    new = write_captions(made, np.array([2, 5]), ["ab", "cde"], lengths)
    assert (new.captions[2], new.captions[5]) == ("ab", "cde")
    assert [side(new, "text")[i] for i in (2, 5)] == [2, 3]


def test_a_decoy_gets_the_caption_least_like_its_image(made: Planted) -> None:
    # <image, text> = -2 i j: the largest j is the least alike
    assert least_alike(made, np.array([1, 2]), np.array([3, 7, 0])).tolist() == [7, 7]
