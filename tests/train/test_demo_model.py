"""The bundled model is the one its card describes, and it aligns scenes that it has never seen."""

import re
from pathlib import Path

import numpy as np
import pytest

import mmjax
from mmjax.core.files import file_sha256
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import load_tokenizer
from mmjax.evaluate.retrieval import evaluate_pairs
from mmjax.models.clip import build
from mmjax.models.weights import load_weights
from mmjax.train.batches import generate_pairs

FOLDER = Path(mmjax.__file__).parent / "assets" / "demo"


def test_files_are_those_of_the_card_and_small():
    card = (FOLDER / "README.md").read_text()
    listed = dict(re.findall(r"\| (\S+\.(?:json|safetensors)) \| ([0-9a-f]{64}) \|", card))
    assert set(listed) == {"mmjax_config.json", "model.safetensors", "tokenizer.json"}
    assert {name: file_sha256(FOLDER / name) for name in listed} == listed
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4_000_000


@pytest.fixture(scope="module")
def demo():
    weights = load_weights("demo")
    assert weights.tokenizer_path is not None
    context = weights.preset.text.context_length
    return weights, load_tokenizer(weights.tokenizer_path, context)


def figures(demo, table):
    weights, tokenizer = demo
    return evaluate_pairs(build(weights.preset), weights.variables, tokenizer, table)


def test_it_aligns_fresh_scenes(demo):
    found = figures(demo, generate_pairs(256, 64, 1, seed=4242))
    assert found["auroc_matched"] > 0.98
    # captions name the colour half of the time and the ground rarely; chance is 4
    assert found["text_to_image_hit@10"] > 85


def test_it_does_not_align_what_does_not_belong_together(demo):
    table = generate_pairs(256, 64, 1, seed=4242)
    moved = PairTable(table.images, table.captions[7:] + table.captions[:7], {})
    found = figures(demo, moved)
    assert 0.4 < found["auroc_matched"] < 0.6
    assert np.isclose(found["text_to_image_medr"], 128, atol=30)
