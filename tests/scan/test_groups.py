"""The graph of captions, and the groups of flagged pairs in it."""

import numpy as np
import pytest

from mmjax.scan import groups
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.groups import SPARE, Graph, caption_graph, find_groups, fingerprints
from tests.scan import synthetic

N = 700


@pytest.fixture(scope="module")
def embedded():
    image, text, _ = synthetic.pairs(N, seed=4)
    image[1::3] = image[::3][: len(image[1::3])]  # two captions for a third of the images
    return image.astype(np.float16), text.astype(np.float16)


def built(image, text, scored=None, ranking=None, shards=2) -> Graph:
    scored = np.arange(len(image)) if scored is None else scored
    ranking = np.zeros(len(scored), np.float32) if ranking is None else ranking
    mean = text.astype(np.float32).mean(axis=0)
    return caption_graph(synthetic.blocks(image, text, shards), scored, mean, ranking)


def test_neighbours_are_the_nearest_captions_of_other_images(embedded) -> None:
    image, text = embedded
    scored = np.delete(np.arange(N), 5)
    graph = built(image, text, scored)
    assert np.unique(graph.caption_of).size == graph.queries.size == N - 1
    shifted = text.astype(np.float64) - text.astype(np.float32).mean(axis=0)
    centred = shifted / np.linalg.norm(shifted, axis=1, keepdims=True)
    same = np.all(image[:, None, :] == image[None, :, :], axis=2)
    cosine = np.where(same, -np.inf, centred @ centred.T)[np.ix_(scored, scored)]
    row_of = np.argsort(graph.caption_of)
    for row, number in enumerate(graph.caption_of[:50]):
        wanted = np.sort(cosine[row])[::-1][:300]
        np.testing.assert_allclose(graph.cosine[number], wanted, atol=2e-3)
        np.testing.assert_allclose(cosine[row][row_of[graph.near[number]]], wanted, atol=2e-3)


def test_equal_captions_are_one(embedded) -> None:
    image, text = (v.copy() for v in embedded)
    text[100:110] = text[7]
    graph = built(image, text)
    assert graph.queries.size == N - 10
    assert np.unique(graph.caption_of[[7, *range(100, 110)]]).size == 1


def test_shards_and_blocks_do_not_matter(embedded, monkeypatch) -> None:
    first = built(*embedded)
    monkeypatch.setattr(groups, "_QUERIES", 128)
    again = built(*embedded, shards=7)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_of_a_large_set_only_the_likeliest_wrong_pairs_are_asked(embedded, monkeypatch) -> None:
    monkeypatch.setattr(groups, "MOST_QUERIES", 60)
    monkeypatch.setattr(groups, "USUAL_QUERIES", 10)
    ranking = np.random.default_rng(0).normal(size=N).astype(np.float32)
    graph = built(*embedded, ranking=ranking)
    likeliest = graph.caption_of[np.argsort(-ranking)[:60]]
    np.testing.assert_array_equal(graph.queries, np.union1d(likeliest, np.arange(10)))
    np.testing.assert_array_equal(graph.queries[graph.usual], np.arange(10))
    monkeypatch.undo()
    whole = built(*embedded)
    assert whole.queries.size == N
    assert whole.usual.all()


def test_one_image_with_all_captions_has_no_neighbours() -> None:
    _, text, _ = synthetic.pairs(SPARE + 10, seed=0)
    graph = built(np.repeat(text[:1], len(text), axis=0), text)
    assert np.all(graph.near == -1)
    assert np.all(graph.cosine == -np.inf)
    one = find_groups(graph, np.ones(len(text), bool))
    assert [(group.images, group.captions) for group in one] == [(1, len(text))]


def test_captions_of_one_image_are_alike_or_not() -> None:
    image, text, poisoned = synthetic.pairs(N, seed=0, poison=30)
    rng = np.random.default_rng(0)
    chosen = np.flatnonzero(~poisoned)
    some = rng.choice(chosen, 60, replace=False)
    for rows in (poisoned, some):
        image[rows] = image[rows][0]
    graph = built(image, text)
    assert graph.alike[graph.image_of[poisoned]].all()
    assert not graph.alike[graph.image_of[some]].any()
    assert np.sum(graph.alike) == 1


def test_pairs_of_one_target_are_a_group() -> None:
    image, text, poisoned = synthetic.pairs(N, seed=0, poison=30)
    found = find_groups(built(image, text), poisoned)
    assert found[0].rows.tolist() == np.flatnonzero(poisoned).tolist()
    assert (found[0].images, found[0].captions) == (30, 30)


def test_two_targets_are_two_groups() -> None:
    image, text, poisoned = synthetic.pairs(3_000, seed=0, poison=240)
    second = np.flatnonzero(poisoned)[:120]
    text[second] = synthetic.unit(text[second] - 2 * text[poisoned].mean(axis=0))
    found = find_groups(built(image, text), poisoned)
    assert [group.rows.size for group in found] == [120, 120]
    assert set(found[0].rows) in ({*second.tolist()}, set(np.flatnonzero(poisoned)) - {*second})


def test_rows_that_share_nothing_are_the_last_group(embedded) -> None:
    graph = built(*embedded)
    first = np.flatnonzero(graph.image_of == graph.image_of[0])
    far = [r for r in range(3, N, 40) if r not in graph.near[graph.caption_of[0], :100]][:2]
    chosen = np.zeros(N, bool)
    chosen[[*first, *far]] = True
    linked = np.isin(graph.caption_of[far[0]], graph.near[graph.caption_of[far[1]], :100])
    found = find_groups(graph, chosen)
    assert first.size == 2
    assert not linked
    assert [group.rows.tolist() for group in found] == [first.tolist(), far]
    assert [group.linked for group in found] == [True, False]


def test_nothing_flagged_no_group(embedded) -> None:
    assert find_groups(built(*embedded), np.zeros(N, bool)) == []


def test_fingerprints_are_equal_for_equal_rows_only() -> None:
    rows = np.random.default_rng(0).normal(size=(5_000, 16)).astype(np.float16)
    rows[77] = rows[3]
    found = fingerprints(rows)
    assert found[77] == found[3]
    assert np.unique(found).size == 4_999
    block = EmbeddingBlock(rows, rows, np.ones(5_000, bool))
    assert np.array_equal(fingerprints(block.image), found)
