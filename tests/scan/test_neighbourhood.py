"""Wrong pairs that keep together, told from those that do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincinv, expit, logit

from mmjax.scan import neighbourhood
from mmjax.scan.neighbourhood import LEAST_USUAL, LIKELY, Graph, flag, mutual, weigh

N, K = 1_500, 100
ALL = np.arange(N)


def graph(points, caption_of=ALL, image_of=ALL, alike=True):
    """All captions' nearest others, by brute force; every pair has an image of its own."""
    cosine = points @ points.T
    np.fill_diagonal(cosine, -np.inf)
    rows = np.argsort(-cosine, axis=1, kind="stable")[:, :K]
    near = np.take_along_axis(cosine, rows, 1).astype(np.float32)
    known = np.full(int(image_of.max()) + 1, alike)
    everything = np.arange(len(points))
    return Graph(caption_of, image_of, everything, rows, near, everything >= 0, known)


def scattered(seed, together=40, alone=40):
    """(log ratios, points, kind): kind 1 are wrong pairs that keep together, 2 are scattered."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(N, 8))
    kind = np.zeros(N, int)
    kind[:together], kind[together : together + alone] = 1, 2
    points[:together] = [4, 0, 0, 0, 0, 0, 0, 0] + 0.2 * rng.normal(size=(together, 8))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    ratio = np.where(kind > 0, 1, -1) * 3.1 + 2.5 * rng.normal(size=N)  # a true log ratio
    return np.clip(ratio, -6, 6).astype(np.float32), points, kind


@pytest.mark.parametrize("seed", range(3))
def test_wrong_pairs_that_keep_together_are_poison_and_others_are_not(seed) -> None:
    ratio, points, kind = scattered(seed)
    found = weigh(ratio, graph(points))
    flagged = flag(found.poison, 0.1)
    assert np.mean(flagged[kind == 1]) > 0.85
    assert np.mean(flagged[kind == 2]) < 0.1
    assert np.mean(flagged[kind == 0]) < 0.005
    assert found.wrong[kind == 2].mean() > 5 * found.wrong[kind == 0].mean()
    assert 0.5 * 40 / N < found.background < 3 * 40 / N  # those that keep together count too


@pytest.mark.parametrize("seed", range(5))
def test_scattered_wrong_pairs_are_no_poison(seed) -> None:
    ratio, points, _ = scattered(seed, together=0, alone=60)
    found = weigh(ratio, graph(points))
    assert not np.any(flag(found.poison, 0.1))


@pytest.mark.parametrize(("together", "told"), [(3, False), (4, True)])
def test_two_wrong_pairs_beside_one_are_no_evidence_and_three_are(
    together: int, told: bool
) -> None:
    rng = np.random.default_rng(0)
    _, points, kind = scattered(0, together=together, alone=0)
    ratio = np.where(kind == 1, 6.0, -4.0 + rng.normal(size=N)).astype(np.float32)
    found = weigh(ratio, graph(points))
    assert np.all(flag(found.poison, 0.1) == ((kind == 1) & told))
    # all the same they are the likeliest to be wrong
    assert found.wrong[kind == 1].min() > found.wrong[kind == 0].max()


def test_a_dozen_is_found_though_none_is_sure_by_itself() -> None:
    """At first, each by itself, less than `FEWEST` are expected around them."""
    ratio, points, kind = scattered(0, together=12, alone=0)
    ratio = np.where(kind == 1, 3.2, -5.0).astype(np.float32)
    near = graph(points)
    first = expit(ratio + logit(0.01))
    assert first[near.near[kind == 1]].sum(axis=1).max() < neighbourhood.FEWEST
    assert np.all(flag(weigh(ratio, near).poison, 0.1) == (kind == 1))


def test_poison_of_several_targets_is_not_the_background() -> None:
    ratio, points, kind = scattered(0, together=40, alone=0)
    points[20:40] = [0, -1, 0, 0, 0, 0, 0, 0] + 0.05 * points[:20]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    found = weigh(ratio, graph(points))
    assert found.background < 40 / N  # of the whole set; the mean over neighbourhoods is above it
    assert np.mean(flag(found.poison, 0.1)[kind == 1]) > 0.85


def test_the_background_is_that_of_usual_captions() -> None:
    """Where only the likeliest wrong captions are asked, poison is most of them."""
    ratio, points, kind = scattered(1)
    near = graph(points)
    usual = np.arange(N) % 50 == 0
    asked = np.flatnonzero(usual | (kind == 1))
    some = near._replace(
        queries=asked, near=near.near[asked], cosine=near.cosine[asked], usual=usual[asked]
    )
    found, whole = weigh(ratio, some), weigh(ratio, near)
    assert 0.5 * whole.background < found.background < 1.5 * whole.background
    assert np.mean(flag(found.poison, 0.1)[kind == 1]) > 0.85
    blind = weigh(ratio, some._replace(usual=np.ones(asked.size, bool)))
    assert blind.background > 3 * whole.background


def test_the_expected_share_of_benign_pairs_is_kept() -> None:
    asked, got = 0.1, []
    for seed in range(10):
        ratio, points, kind = scattered(seed, together=60)
        flagged = flag(weigh(ratio, graph(points)).poison, asked)
        got.append(np.mean(kind[flagged] != 1))
    assert np.mean(got) <= asked


def test_one_step_equals_the_formulas(monkeypatch) -> None:
    monkeypatch.setattr(neighbourhood, "STEPS", 1)
    ratio, points, _ = scattered(1)
    near = graph(points)
    rows, cosine = near.near, near.cosine
    found = weigh(ratio, near)
    first = expit(ratio + logit(0.01))
    usual = np.median(first[rows].mean(axis=1))
    assert found.background == pytest.approx(max(usual, 1e-3))
    for i in (0, 45, 700):
        bounds, means = [], []
        for k in (10, 30, 100):
            mutual = [j for j in rows[i, :k] if points[i] @ points[j] >= cosine[j, k - 1] - 1e-7]
            count = first[mutual].sum()
            bound = betaincinv(max(count, 1e-6), k - count + 1, 0.05)
            bounds.append(bound if count >= 2.5 else min(bound, found.background))
            means.append((count + found.background) / (k + 1))
        best = int(np.argmax(bounds))
        above = bounds[best] > found.background
        prior = np.clip(means[best] if above else found.background, 1e-4, 1 - 1e-3)
        wrong = expit(ratio[i] + logit(prior))
        assert found.wrong[i] == pytest.approx(wrong, rel=1e-4)
        odds = [v / (1 - v) for v in (found.background, bounds[best])]
        poison = wrong * max(0, 1 - odds[0] / odds[1])
        assert found.poison[i] == pytest.approx(poison, rel=1e-4)


def test_pairs_without_neighbours_keep_the_background() -> None:
    ratio, points, _ = scattered(2)
    near, asked = graph(points), np.arange(0, N, 2)
    some = near._replace(
        queries=asked,
        near=near.near[asked],
        cosine=near.cosine[asked],
        usual=near.usual[asked],
    )
    found = weigh(ratio, some)
    assert np.all(found.poison[1::2] == 0)
    wanted = expit(ratio[1::2] + logit(found.background))
    np.testing.assert_allclose(found.wrong[1::2], wanted, rtol=1e-5)


def test_copies_of_a_caption_do_not_speak_for_each_other() -> None:
    """The same wrong pairs, with captions of their own and with one caption for all."""
    ratio, points, kind = scattered(3)
    of_own = weigh(ratio, graph(points)).poison
    distinct = np.concatenate([[0], ALL[40:]])  # pairs of kind 1 share the first one's caption
    number = np.concatenate([np.zeros(40, int), 1 + np.arange(N - 40)])
    found = weigh(ratio, graph(points[distinct], number))
    assert np.mean(flag(of_own, 0.1)[kind == 1]) > 0.8
    assert not np.any(flag(found.poison, 0.1))


@pytest.mark.parametrize("seed", range(3))
def test_one_image_with_many_wrong_captions_is_poison(seed) -> None:
    """Nothing but the image is shared; as many wrong pairs with images of their own are not."""
    ratio, points, kind = scattered(seed, together=0, alone=60)
    apart = flag(weigh(ratio, graph(points)).poison, 0.1)
    image_of = np.where((kind == 2) & (np.cumsum(kind == 2) <= 30), 0, ALL + 1)
    shared = flag(weigh(ratio, graph(points, image_of=image_of)).poison, 0.1)
    assert not apart.any()
    assert np.mean(shared[image_of == 0]) > 0.9
    assert np.mean(image_of[shared] != 0) <= 0.1
    # a placeholder: its captions have nothing in common
    found = weigh(ratio, graph(points, image_of=image_of, alike=False))
    assert not flag(found.poison, 0.1).any()
    assert np.mean(flag(found.wrong, 0.1)[image_of == 0]) > 0.9


def test_captions_of_an_image_that_are_usual_do_not_speak() -> None:
    ratio, points, kind = scattered(4, together=0, alone=60)
    wrong = np.flatnonzero(kind == 2)
    image_of = ALL.copy()
    image_of[wrong] = N + np.arange(60) // LEAST_USUAL
    assert not np.any(flag(weigh(ratio, graph(points, image_of=image_of)).poison, 0.1))
    # usual is what images have: 20 captions each
    everywhere = np.where(kind == 2, N + np.arange(N) % 3, np.arange(N) // 20)
    assert not np.any(flag(weigh(ratio, graph(points, image_of=everywhere)).poison, 0.1))


def test_many_right_captions_of_one_image_are_no_poison() -> None:
    ratio, points, kind = scattered(5)
    image_of = np.where((kind == 0) & (ALL < 300), 0, ALL + 1)
    flagged = flag(weigh(ratio, graph(points, image_of=image_of)).poison, 0.1)
    assert not np.any(flagged[image_of == 0])
    assert np.mean(flagged[kind == 1]) > 0.8


def test_a_view_of_the_images_makes_scattered_wrong_pairs_poison() -> None:
    ratio, points, kind = scattered(6, together=0, alone=60)
    near = graph(points)
    plain = weigh(ratio, near)
    seen = weigh(ratio, near, np.where(kind == 2, 4, -0.1).astype(np.float32))
    flagged = flag(seen.poison, 0.1)
    assert np.mean(flagged[kind == 2]) > 0.7
    assert np.mean(kind[flagged] == 2) > 0.85
    assert seen.wrong[kind == 2].mean() > plain.wrong[kind == 2].mean()
    nothing = weigh(ratio, near, np.zeros(N, np.float32))
    np.testing.assert_array_equal(nothing.poison, plain.poison)


def test_where_few_are_wrong_the_images_still_speak() -> None:
    ratio, points, kind = scattered(0, together=3, alone=0)
    ratio = np.where(kind > 0, 6.0, -6.0).astype(np.float32)
    view = np.where(kind > 0, 3.0, 0.0).astype(np.float32)  # the most that it can say
    with_view, without = weigh(ratio, graph(points), view), weigh(ratio, graph(points))
    assert np.all(with_view.poison[kind > 0] > 0.5)
    assert np.all(without.poison == 0)


def test_mutual_neighbours_by_brute_force() -> None:
    _, points, _ = scattered(7)
    near = graph(points)
    for i in (0, 3, 700):
        wanted = [i in near.near[j, :30] for j in near.near[i, :30]]
        np.testing.assert_array_equal(mutual(near, 30)[i], wanted)


def test_a_set_smaller_than_its_smallest_scale() -> None:
    rows = np.array([[1, 2], [0, 2], [1, -1]])
    cosine = np.array([[0.9, 0.1], [0.9, 0.2], [0.2, -np.inf]], np.float32)
    three = np.arange(3)
    near = Graph(three, three, three, rows, cosine, three >= 0, three > 0)
    found = weigh(np.array([5, 5, -5], np.float32), near)
    assert np.all(np.isfinite(found.wrong))
    assert np.all((found.poison >= 0) & (found.poison <= 1))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.01, 0.9))
def test_flagged_are_the_most_that_keep_the_rate(values, fdr) -> None:
    poison = np.array(values)
    flagged = flag(poison, fdr)
    if flagged.any():
        assert np.mean(1 - poison[flagged]) <= fdr + 1e-9
        assert poison[flagged].min() > max(poison[~flagged], default=-1)
        assert poison[flagged].min() >= LIKELY
    larger = [np.mean(1 - poison[poison >= v]) for v in poison[~flagged] if v >= LIKELY]
    assert all(rate > fdr - 1e-9 for rate in larger)


@pytest.mark.parametrize("trials", [3, 10, 300])
def test_bounds_between_the_counts_of_the_table_are_those_of_the_formula(trials):
    counts = np.random.default_rng(trials).uniform(0, trials, 1_000)
    wanted = neighbourhood._lower_bound(counts, np.full(counts.shape, trials))
    found = np.interp(counts, *neighbourhood._table(trials))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
