"""A reference groups the captions of one image and leaves out what was skipped."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmjax.core.errors import InputError
from mmjax.data.loader import Record
from mmjax.data.tokenizer import train_bpe
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.inputs import ScannedSet, ScannedShard
from mmjax.scan.reference import MINIMUM, make_reference
from mmjax.scan.store import pair_table


def scanned(images: int, captions: int = 2, shards: int = 2) -> ScannedSet:
    """Every image `captions` times, one bad row at the start of every shard."""
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(images, 4)).astype(np.float16)
    rows = np.repeat(np.arange(images), captions)
    made = []
    for number, part in enumerate(np.array_split(rows, shards)):
        image = np.concatenate([np.zeros((1, 4), np.float16), distinct[part]])
        text = np.concatenate([np.zeros((1, 4), np.float16), rng.normal(size=(len(part), 4))])
        valid = np.arange(len(image)) > 0
        records = [Record("bad", "not this", "undecodable_image", "x", (), "", -1)]
        records += [Record(str(i), f"image {i}", "ok", "", (), "", i) for i in part]
        table = pair_table(records)
        block = EmbeddingBlock(image, text.astype(np.float16), valid)
        made.append(ScannedShard(f"{number}", block, lambda table=table: table, ()))
    return ScannedSet(tuple(made), None)


def test_captions_of_an_image_stand_under_it(tmp_path: Path) -> None:
    tokenizer = train_bpe(["image 1"], 514, tmp_path / "tokenizer.json")
    given = scanned(30)
    reference = make_reference(given, tokenizer)
    assert reference.image.shape == (30, 4)
    assert reference.text.shape == (60, 4)
    np.testing.assert_array_equal(np.bincount(reference.image_of), np.full(30, 2))
    rows = np.concatenate([np.asarray(s.block.image[1:]) for s in given.shards])
    np.testing.assert_array_equal(reference.image[reference.image_of], rows)
    captions = pa.concat_tables([s.pairs() for s in given.shards])["caption"].to_pylist()
    tokens = tokenizer.encode([c for c in captions if c != "not this"])
    np.testing.assert_array_equal(reference.tokens, tokens.ids)
    assert make_reference(given, None).tokens is None


def test_too_few_images_are_refused() -> None:
    make_reference(scanned(MINIMUM), None)
    with pytest.raises(InputError, match=rf"holds {MINIMUM - 1} usable .* at least {MINIMUM}"):
        make_reference(scanned(MINIMUM - 1), None)
