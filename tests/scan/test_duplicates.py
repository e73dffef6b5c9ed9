"""The near-duplicate count against a loop over all pairs."""

import random
import re

import pytest

from mmjax.scan.duplicates import near_duplicates


def loop_count(captions: list[str], threshold: float) -> list[int]:
    sets = [set(re.findall(r"\w+", caption.casefold())) for caption in captions]
    return [
        sum(
            len(a & b) >= threshold * len(a | b) - 1e-9
            for j, b in enumerate(sets)
            if j != i and a and b
        )
        for i, a in enumerate(sets)
    ]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("block", [50, 20_000_000])
def test_equals_the_loop(threshold: float, block: int) -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(12)]
    captions = [" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(300)]
    captions += [
        "A photo of a banana.",
        "a  PHOTO, of a banana",
        "a photo of the banana!",
        "...",
        "",
    ]
    found = near_duplicates(captions, threshold=threshold, block=block)
    assert found.tolist() == loop_count(captions, threshold)


def test_long_captions_on_the_threshold() -> None:
    """35 words, 28 shared of 35: .8 exactly, where 0.8 * 35 is 28.000000000000004 in floats."""
    words = [f"w{i}" for i in range(35)]
    assert near_duplicates([" ".join(words), " ".join(words[:28])]).tolist() == [1, 1]
    assert near_duplicates([" ".join(words), " ".join(words[:27])]).tolist() == [0, 0]


def test_nothing_to_count() -> None:
    assert near_duplicates([]).tolist() == []
    assert near_duplicates(["", "!!", ""]).tolist() == [0, 0, 0]
