"""The choice of victims."""

import random

import numpy as np
import pytest

from mmjax.attacks.victims import (
    Candidate,
    choose,
    lot,
    names_target,
    victim_count,
)
from mmjax.core.errors import ConfigError


@pytest.mark.parametrize(
    ("pairs", "rate", "count", "wanted"),
    [(10_455, 0.01, 0, 105), (250, 0.01, 0, 3), (1000, 0, 0, 0), (1000, 0.01, 7, 7), (0, 0, 0, 0)],
)
def test_victim_count(pairs: int, rate: float, count: int, wanted: int) -> None:
    assert victim_count(pairs, float(rate), count) == wanted


def test_a_rate_below_one_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than one pair"):
        victim_count(40, 0.01)


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A Banana on a plate", True),
        ("two bananas.", True),
        ("a bananaphone", False),
        ("bandana", False),
        ("", False),
    ],
)
def test_names_target(caption: str, found: bool) -> None:
    assert bool(names_target("banana").search(caption)) == found


def test_a_target_of_two_words_may_be_spaced_otherwise() -> None:
    assert names_target("fire  truck").search("red Fire truck!")
    assert not names_target("fire truck").search("a truck on fire")
    assert names_target("c++").search("a c++ book")


def test_choice_does_not_depend_on_order_and_skips_the_unusable() -> None:
    everyone = [Candidate(lot(3, "victims", f"k{i}"), i % 4, i) for i in range(200)]
    asked: list[Candidate] = []

    def usable(some: list[Candidate]) -> list[bool]:
        asked.extend(some)
        return [one.ordinal % 5 != 0 for one in some]

    chosen = choose(everyone, 20, usable)
    assert len(set(chosen)) == 20
    assert all(one.ordinal % 5 for one in chosen)
    assert len(asked) < 40  # no more decoding than needed
    assert chosen == choose(random.Random(0).sample(everyone, 200), 20, usable)
    expected = [one for one in sorted(everyone) if one.ordinal % 5][:20]
    assert chosen == expected


def test_too_few_candidates_are_all_taken() -> None:
    everyone = [Candidate(2, 0, 0), Candidate(1, 0, 1), Candidate(0, 0, 2)]
    assert choose(everyone, 3, lambda some: [one.ordinal != 1 for one in some]) == [
        everyone[2],
        everyone[0],
    ]


def test_lots_are_uniform_and_independent_by_purpose_and_seed() -> None:
    draws = np.array([lot(0, "victims", f"k{i}") / 2**64 for i in range(4000)])
    assert abs(draws.mean() - 0.5) < 0.02
    for seed, purpose in [(1, "victims"), (0, "caption")]:
        other = np.array([lot(seed, purpose, f"k{i}") / 2**64 for i in range(4000)])
        assert abs(np.corrcoef(draws, other)[0, 1]) < 0.06
