"""A whole protection of a few scenes: budget, round trip, resuming, devices, presets."""

import io
import json
import tarfile

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmjax.core.config import MeshConfig
from mmjax.core.errors import ConfigError, RunError
from mmjax.core.journal import damages
from mmjax.data.pairs import read_table
from mmjax.data.scenes import write_scenes
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import load_tokenizer
from mmjax.protect import rounds
from mmjax.protect.pipeline import protect_pairs
from mmjax.protect.vocabulary import allowed_tokens, survives
from tests.e2e.conftest import on_eight_devices
from tests.protect.conftest import changed


def members(out):
    found = {}
    for path in sorted((out / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                found[entry.name] = file.read() if file else b""
    return found


def state(out):
    """Noises and triggers after the last round."""
    (noise,) = (out / "state").glob("noise-*.npy")
    (triggers,) = (out / "state").glob("triggers-*.npy")
    return np.load(noise), np.load(triggers)


@pytest.fixture(scope="module")
def source(scenes):
    return read_table(open_source(str(scenes)), 32, workers=1, max_pixels=10_000)


@pytest.mark.parametrize(("scope", "share"), [("image", 20), ("pair", 4)])
def test_noise_takes_a_twentieth_of_the_references_where_photos_have_five_captions(
    scope, share, config, tiny, tmp_path
):
    """The reference keeps float32 of every pair; a byte is a quarter, and captions share noise."""
    write_scenes(tmp_path / "five", 9, 3, size=32, captions=5, shard_size=30)
    made = changed(config, inputs=(str(tmp_path / "five"),), rounds=1, noise={"scope": scope})
    counts = protect_pairs(made, tmp_path / "out")["counts"]
    assert (counts["images"], counts["pairs"]) == (9, 45)
    (file,) = (tmp_path / "out" / "state").glob("noise-*.npy")
    header = file.stat().st_size - np.load(file, mmap_mode="r").nbytes
    assert header == 128
    assert share * (file.stat().st_size - header) == counts["pairs"] * 32 * 32 * 3 * 4
    assert np.load(file).any()


def test_the_png_is_what_was_optimised_within_budget_and_range(protected, config, source):
    out, _, _ = protected
    table, rows = source
    noise, _ = state(out)
    assert noise.dtype == np.int8
    assert np.abs(noise.astype(int)).max() == config.epsilon == 8 or np.abs(noise).max() <= 6
    exact = table.images.astype(int) + noise
    assert exact.min() >= 0
    assert exact.max() <= 255
    data = members(out)
    usable = [row for row in rows if row.caption >= 0]
    assert len(data) == 3 * len(usable)
    for number, row in enumerate(usable):
        seen = np.asarray(Image.open(io.BytesIO(data[f"{number:09d}.png"])))
        np.testing.assert_array_equal(seen, exact[table.owners[row.caption]])


def test_every_caption_is_read_as_its_trigger_and_its_own_tokens(protected, source):
    out, manifest, _ = protected
    table, rows = source
    _, triggers = state(out)
    tokenizer = load_tokenizer(out / "tokenizer.json", context_length=32)
    allowed = allowed_tokens(tokenizer, "safe")
    assert allowed[triggers].all()
    captions = [text for each in table.captions for text in each]
    data = members(out)
    usable = [row for row in rows if row.caption >= 0]
    written = [data[f"{number:09d}.txt"].decode() for number in range(len(usable))]
    order = [row.caption for row in usable]
    original = [captions[place] for place in order]
    assert survives(tokenizer, original, written, triggers[order]).all()
    assert manifest["counts"]["captions_read_back"] == len(captions)
    kept = [json.loads(data[f"{number:09d}.json"])["caption"] for number in range(len(usable))]
    assert kept == original


def test_no_row_is_lost(protected):
    out, manifest, _ = protected
    told = pq.read_table(out / "captions.parquet").to_pylist()
    assert len(told) == 44 == manifest["counts"]["rows"]
    bad = [row for row in told if row["status"] != "ok"]
    assert len(bad) == sum(manifest["counts"]["skipped"].values()) > 0
    assert all(row["message"] and row["protected"] is None for row in bad)
    assert len(told) - len(bad) == manifest["counts"]["pairs"]


def test_the_noise_lowers_the_loss_and_costs_are_told_first(protected):
    out, _, said = protected
    assert said[0].startswith("a round: 3 training steps in ")
    assert "MB on disk" in said[0]
    assert [line.split(":")[0] for line in said[1:]] == ["round 1 of 2", "round 2 of 2"]
    assert json.loads((out / "journal" / "round-0002.json").read_text())["loss"] > 0


class Killed(BaseException):
    """As a signal would end the process."""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the first round", "in the second round"])
def test_killed_and_resumed_gives_the_same_bytes(where, protected, config, tmp_path, monkeypatch):
    out, _, _ = protected
    real, calls = rounds._protect, 0
    batches = 6 + 3  # of round 1: searches over both captions, noise over one

    def fails(*args):
        nonlocal calls
        calls += 1
        if calls == (4 + 4 if where == "in the first round" else 4 + batches + 2):
            raise Killed
        return real(*args)

    monkeypatch.setattr(rounds, "_protect", fails)
    with pytest.raises(Killed):
        protect_pairs(config, tmp_path / "again")
    monkeypatch.setattr(rounds, "_protect", real)
    protect_pairs(config, tmp_path / "again")
    for made, wanted in zip(state(tmp_path / "again"), state(out), strict=True):
        np.testing.assert_array_equal(made, wanted)
    assert members(tmp_path / "again") == members(out)
    leftover = tmp_path / "again" / "state" / "noise-0001.npy"
    leftover.write_bytes(b"of a process that was killed before it removed it")
    protect_pairs(config, tmp_path / "again")
    assert not leftover.exists()
    assert damages(tmp_path / "again")[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_two_and_four_devices_give_the_bits_of_one(devices, protected, config, tmp_path):
    """Of this tiny model, where few sums are split; in general see the test of eight devices."""
    out, _, _ = protected
    assert jax.device_count() >= devices
    protect_pairs(changed(config, mesh=MeshConfig(data=devices)), tmp_path / "out")
    for made, wanted in zip(state(tmp_path / "out"), state(out), strict=True):
        np.testing.assert_array_equal(made, wanted)


@pytest.mark.slow
def test_eight_devices_give_the_noise_and_triggers_of_one():
    found = on_eight_devices("-m", "tests.protect.eight_devices")
    assert set(found) == {"1", "2", "4", "8"}
    assert found["1"]["noise"] == 0
    for differing in found.values():
        assert differing["triggers"] == 0
        # devices add up in another order: where a gradient is 0 but for rounding its sign differs
        assert differing["noise"] <= 1e-4 * differing["values"]
        assert differing["changed"] > 0.5 * differing["values"]


def test_another_configuration_is_refused(protected, config):
    out, _, _ = protected
    with pytest.raises(RunError, match="config.strength was 'default', is now 'high'"):
        protect_pairs(changed(config, strength="high"), out)


def test_too_few_images_for_a_batch_are_refused(tiny, config, tmp_path):
    with pytest.raises(ConfigError, match="a batch of 64 pairs wants at least as many images"):
        protect_pairs(changed(config, batch_size=64), tmp_path / "out")
