import itertools
import math

import numpy as np
import pytest
from PIL import Image

from mmjax.data.scenes import scene_arrays
from mmjax.evaluate.experiment import ReproduceConfig
from mmjax.evaluate.reproduce import run_experiment
from mmjax.evaluate.retrieval import (
    HITS,
    auroc_matched,
    chance,
    group_chance,
    group_retrieval,
    ranks,
    retrieval,
)
from mmjax.evaluate.tables import read_results


@pytest.fixture(scope="module")
def embedded():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(23, 8)).astype(np.float32)
    owners = np.repeat(np.arange(23, dtype=np.int32), 2)
    text = image[owners] + rng.normal(size=(46, 8)).astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return image, text, owners


def test_figures_by_hand(embedded):
    image, text, owners = embedded
    found = retrieval(image, text, owners)
    similarity = image @ text.T
    hits, places = 0, []
    for caption, owner in enumerate(owners):
        place = 1 + int(np.sum(similarity[:, caption] > similarity[owner, caption]))
        places.append(place)
        hits += place <= 5
    assert found["text_to_image_hit@5"] == pytest.approx(100 * hits / 46)
    assert found["text_to_image_medr"] == np.median(places)
    best = [
        min(np.flatnonzero(owners[np.argsort(-row)] == i)) + 1 for i, row in enumerate(similarity)
    ]
    assert found["image_to_text_hit@1"] == pytest.approx(100 * np.mean(np.array(best) == 1))
    assert found["image_to_text_medr"] == np.median(best)
    assert 0.8 < found["auroc_matched"] < 1


def test_the_block_changes_nothing(embedded):
    image, text, owners = embedded
    rows = np.arange(23, dtype=np.int32)
    np.testing.assert_array_equal(
        ranks(image, text, rows, owners, block=5), ranks(image, text, rows, owners, block=64)
    )


def test_perfect_and_blind_encoders():
    eye = np.eye(4, dtype=np.float32)
    rows = np.arange(4, dtype=np.int32)
    assert auroc_matched(eye, eye, rows) == 1
    assert retrieval(eye, eye, rows)["image_to_text_hit@1"] == 100
    same = np.full((4, 4), 0.5, np.float32)
    blind = retrieval(same, same, rows)
    assert blind["auroc_matched"] == 0.5
    assert blind["text_to_image_medr"] == 2.5


def test_chance_of_flickr8k_is_what_counting_says():
    found = chance(np.repeat(np.arange(1000, dtype=np.int32), 5), 1000)
    beyond = math.comb(4995, 10) / math.comb(5000, 10)
    assert found["image_to_text_hit@10"] == pytest.approx(100 * (1 - beyond), rel=1e-9)
    first = (rank for rank in range(5000) if 2 * math.comb(5000 - rank, 5) <= math.comb(5000, 5))
    assert found["image_to_text_medr"] == next(first) == 647
    assert found["text_to_image_hit@10"] == 1.0
    assert found["text_to_image_medr"] == 500


def test_chance_is_what_random_ranks_give():
    rng = np.random.default_rng(0)
    sizes = np.array([1, 3, 3, 5] * 5)
    owners = np.repeat(np.arange(20, dtype=np.int32), sizes)
    order = np.argsort(rng.random((4000, len(owners))), axis=1)
    ranks = np.argsort(order, axis=1) + 1
    best = np.minimum.reduceat(ranks, np.cumsum(sizes) - sizes, axis=1)
    found = chance(owners, 20)
    for k in HITS:
        assert found[f"image_to_text_hit@{k}"] == pytest.approx(100 * np.mean(best <= k), abs=0.7)
        assert found[f"text_to_image_hit@{k}"] == 5 * k
    assert abs(found["image_to_text_medr"] - np.median(best)) <= 1


def test_photos_of_a_person_share_a_name():
    """Any photo of the person counts, the best-placed one; by hand, and for a blind encoder."""
    image = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    names = np.array([[1, 0], [0, 1]], np.float32)
    people = np.array([0, 1, 0, 1], np.int32)
    found = group_retrieval(image, names, people, np.arange(2, dtype=np.int32))
    # photos 1 and 2 are nearer to the other's name; both names find a photo of theirs first
    assert found["image_to_text_hit@1"] == 50
    assert found["image_to_text_medr"] == 1.5
    assert found["text_to_image_hit@1"] == 100
    blind = group_retrieval(
        np.ones_like(image), np.ones_like(names), people, np.arange(2, dtype=np.int32)
    )
    assert blind["image_to_text_medr"] == 1.5, "a tie with the other name"
    assert blind["text_to_image_medr"] == 2.0, "ties with both photos of the other person"


def test_chance_by_groups_counts_all_orders():
    """Every order of a small gallery, one by one."""
    images, names = np.array([0, 0, 1, 2, 2], np.int32), np.array([0, 1, 2], np.int32)
    best = [
        1 + min(place for place, i in enumerate(order) if images[i] == name)
        for order in itertools.permutations(range(5))
        for name in names
    ]
    found = group_chance(images, names)
    assert found["text_to_image_hit@1"] == pytest.approx(100 * np.mean(np.array(best) == 1))
    assert found["text_to_image_medr"] == np.median(best) == 2
    assert found["image_to_text_hit@1"] == pytest.approx(100 / 3)
    assert found["image_to_text_medr"] == 2


def test_chance_of_fewer_captions_than_k_is_certain():
    found = chance(np.arange(3, dtype=np.int32), 3)
    assert found["image_to_text_hit@5"] == found["text_to_image_hit@5"] == 100


@pytest.mark.slow
def test_an_experiment_asks_both_ways_and_tells_chance(tmp_path):
    scenes = scene_arrays(12, 5, 64, captions=2)
    (tmp_path / "set" / "images").mkdir(parents=True)
    captions, splits = [], []
    for i, (pixels, texts) in enumerate(zip(scenes.images, scenes.captions, strict=True)):
        Image.fromarray(pixels).save(tmp_path / "set" / "images" / f"{i}.png")
        captions += [f"{i}.png\t{text}\n" for text in texts]
        splits.append(f"{i}.png\t{'test' if i < 9 else 'train'}\n")
    (tmp_path / "set" / "captions.tsv").write_text("".join(captions))
    (tmp_path / "set" / "splits.tsv").write_text("".join(splits))
    config = ReproduceConfig(
        experiment="flickr8k-retrieval",
        data=str(tmp_path / "set"),
        weights="demo",
        results=str(tmp_path / "results"),
    )
    file, page = run_experiment(config, tmp_path / "out", command="x", say=lambda line: None)
    (row,) = read_results(file)["rows"]
    assert (row["images"], row["captions"]) == (9, 18)
    metrics = row["metrics"]
    assert metrics["image_retrieval_chance@1"] == pytest.approx(1 / 9)
    assert metrics["image_retrieval_recall@5"] > metrics["image_retrieval_chance@5"]
    asks = [line for line in page.read_text().splitlines() if line.startswith("| demo")]
    assert len(asks) == 2
    assert f"{metrics['image_retrieval_recall@1']:.4f}" in asks[0]
    assert f"{metrics['text_retrieval_recall@1']:.4f}" in asks[1]
