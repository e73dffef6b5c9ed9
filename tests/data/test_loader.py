"""Loader: every row gets one record, every distinct image one slot, whatever the workers."""

import collections
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from mmjax.core.errors import ConfigError
from mmjax.core.types import Pair
from mmjax.data import loader
from mmjax.data.images import decode
from mmjax.data.loader import load_shard
from mmjax.data.scenes import make_scenes

SIZE = 16


class View(list):
    """Pairs in a list."""

    warnings = ()
    notes = ()


def _png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images():
    return [_png(scene.image) for scene in make_scenes(11, 4, 24)]


@pytest.fixture(scope="module")
def view(images):
    """Two captions an image, with faults and a late duplicate between."""
    pairs = [Pair(f"{i}", images[i // 2], f"caption {i}") for i in range(22)]
    pairs.insert(3, Pair("cut", images[0][:60], "cut"))
    pairs.insert(4, Pair("cut again", images[0][:60], "cut", flags=("caption_encoding",)))
    pairs.insert(5, Pair("text only", None, "lonely"))
    pairs.insert(6, Pair("silent", images[5], "  "))
    pairs.insert(7, Pair("silent too", images[5], None))
    pairs.insert(8, Pair("bad", images[1], "x", "duplicate_key", "a key twice"))
    pairs.insert(9, Pair("tiff", b"II*\x00" + bytes(50), "tiff"))
    pairs.append(Pair("late", images[0], "late"))
    return View(pairs)


def _load(view, **options):
    options = {"image_size": SIZE, "batch_size": 4, "workers": 2} | options
    load = load_shard(view, **options)
    return list(load.batches), load.records


def _images(batches):
    return np.concatenate([batch.images[batch.mask] for batch in batches])


def test_every_row_has_its_record(view):
    batches, records = _load(view)
    assert [record.key for record in records] == [pair.key for pair in view]
    statuses = {record.key: record.status for record in records}
    assert statuses["cut"] == statuses["cut again"] == "truncated_image"
    assert statuses["text only"] == "missing_image"
    assert statuses["silent"] == statuses["silent too"] == "missing_caption"
    assert statuses["bad"] == "duplicate_key"
    assert statuses["tiff"] == "unsupported_image"
    assert collections.Counter(statuses.values())["ok"] == 23
    for pair, record in zip(view, records, strict=True):
        assert (record.image_slot >= 0) == (record.status == "ok")
        assert record.caption == (pair.caption or "")
        assert record.flags == pair.flags
        assert (record.image_sha256 == "") == (pair.image is None)
        assert (record.message == "") == (record.status == "ok")
    assert sum(int(batch.mask.sum()) for batch in batches) == 11


def test_slots_point_to_the_decoded_images(view):
    batches, records = _load(view)
    decoded = _images(batches)
    for pair, record in zip(view, records, strict=True):
        if record.status == "ok":
            np.testing.assert_array_equal(decoded[record.image_slot], decode(pair.image, SIZE))
    first = [record.image_slot for record in records if record.status == "ok"]
    assert list(dict.fromkeys(first)) == list(range(11))


def test_the_last_batch_is_padded_and_masked(view):
    batches, _ = _load(view)
    assert [batch.images.shape for batch in batches] == [(4, SIZE, SIZE, 3)] * 3
    assert [int(batch.mask.sum()) for batch in batches] == [4, 4, 3]
    assert batches[2].mask.tolist() == [True, True, True, False]
    assert batches[2].images[3].max() == 0
    assert batches[0].images.dtype == np.uint8


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_results_depend_on_neither_workers_nor_batches(view, workers, batch_size):
    wanted, wanted_records = _load(view)
    batches, records = _load(view, workers=workers, batch_size=batch_size)
    assert records == wanted_records
    np.testing.assert_array_equal(_images(batches), _images(wanted))


def test_distinct_images_are_decoded_once(view, monkeypatch):
    calls = collections.Counter()

    def counting(data, size, **options):
        calls[data] += 1
        time.sleep(0.002)
        return decode(data, size, **options)

    monkeypatch.setattr(loader, "decode", counting)
    _load(view, workers=8)
    assert set(calls.values()) == {1}
    assert len(calls) == 11 + 2


def test_prefetch_is_bounded_and_lazy(images):
    seen = []

    class Counting(View):
        def __getitem__(self, row):
            seen.append(row)
            return super().__getitem__(row)

    view = Counting(
        Pair(str(i), images[0][:-1] + bytes([i % 256, i // 256]), "x") for i in range(500)
    )
    load = load_shard(view, image_size=8, batch_size=10, workers=2)
    assert seen == []
    next(load.batches)
    assert len(seen) <= 10 + 10 + 4 * 2
    load.batches.close()
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("mmjax-decode")
    ]


def test_an_unexpected_error_surfaces_at_once(view, monkeypatch):
    def broken(data, size, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(loader, "decode", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        _load(view)


def test_an_error_of_the_view_surfaces(images):
    class Broken(View):
        def __getitem__(self, row):
            if row == 3:
                raise OSError("the disk is gone")
            return super().__getitem__(row)

    view = Broken(Pair(str(i), images[i], "x") for i in range(8))
    load = load_shard(view, image_size=8, batch_size=2, workers=2)
    with pytest.raises(OSError, match="the disk is gone"):
        list(load.batches)
    assert [record.key for record in load.records] == ["0", "1", "2"]


def test_empty_and_useless_shards():
    assert _load(View()) == ([], [])
    batches, records = _load(View([Pair("a", None, "x"), Pair("b", b"", "x")]))
    assert batches == []
    assert [record.status for record in records] == ["missing_image", "undecodable_image"]


@pytest.mark.parametrize("name", ["image_size", "batch_size", "workers"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        _load(View(), **{name: 0})


def test_a_worker_and_the_reader_share_one_bomb(images):
    view = View([Pair("a", images[0], "x"), Pair("b", images[0], "y")])
    _, records = _load(view, max_pixels=10)
    assert {record.status for record in records} == {"oversized_image"}
