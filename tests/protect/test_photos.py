"""An owner's folder: every kind of file comes back as it was but for the noise."""

import csv
import dataclasses
import io
import json
import os
import shutil

import jax
import numpy as np
import pytest
from PIL import Image, ImageCms

from mmjax.core.errors import InputError
from mmjax.data.scenes import scene_arrays
from mmjax.data.tokenizer import load_tokenizer, train_bpe
from mmjax.models.clip import build
from mmjax.models.weights import save_weights
from mmjax.protect import export
from mmjax.protect.config import (
    PhotoConfig,
    ProtectConfig,
    SurrogateConfig,
    TriggerConfig,
    ViewConfig,
)
from mmjax.protect.export import protect_photos
from mmjax.protect.guard import find_noise, losses, make_guard, square_of
from mmjax.protect.photos import add_noise, read_photo
from mmjax.protect.survival import measure_survival
from mmjax.protect.vocabulary import survives

CORRUPT = ("broken.jpg", "really a page.png")


def picture(height, width, seed=0):
    """Smooth colours that reach 0 and 255, so that budget and range both bind."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + c + seed)) + np.cos(y / (7 - c)) for c in range(3)]
    return np.clip(127 + 90 * np.dstack(waves), 0, 255).astype(np.uint8)


def make_photos(folder):
    (folder / "the lake").mkdir(parents=True)
    rgb = Image.fromarray(picture(50, 70))
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = made[:24] + bytes(12) + made[36:]  # without the time at which it was made
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera that knows where"
    rgb.save(folder / "turned.jpg", quality=92, exif=exif, icc_profile=profile)
    rgb.save(folder / "plain.png", icc_profile=profile)
    Image.fromarray(np.dstack([picture(40, 40, 1), picture(40, 40, 2)[..., :1]])).save(
        folder / "clear.png"
    )
    Image.fromarray(picture(90, 33, 3)[..., 0]).save(folder / "grey.jpg", quality=90)
    Image.fromarray(picture(36, 44, 4)).convert("CMYK").save(folder / "cmyk.jpg")
    deep = picture(30, 30, 5)[..., 0].astype(np.uint16) * 256 + 77
    Image.fromarray(deep).save(folder / "deep.png")
    rgb.quantize(16).save(folder / "palette.png")
    Image.fromarray(picture(20, 300, 6)).save(folder / "the lake" / "Ännchen am See (1).webp")
    (folder / CORRUPT[0]).write_bytes((folder / "turned.jpg").read_bytes()[:900])
    (folder / CORRUPT[1]).write_text("<!doctype html><title>404</title>")
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "clear.png").read_bytes())
    (folder / "notes.txt").write_text("not a photo")
    (folder / "captions.csv").write_text(
        'file,caption\nturned.jpg,"Anna, on a red boat"\nturned.jpg,a boat\nplain.png,my dog\n'
    )


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train_bpe(["anna on a red boat", "my dog at the lake"], 640, folder / "tokenizer.json")
    variables = build(tiny).init(jax.random.key(0))
    save_weights(folder / "model", tiny, variables, folder / "tokenizer.json")
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("photos") / "in"
    make_photos(made)
    return made


@pytest.fixture(scope="module")
def config(folder, model):
    weights = f"mmjax-dir:{model}"
    surrogate = SurrogateConfig()
    surrogate = SurrogateConfig(
        model=type(surrogate.model)(weights=weights), optimizer=surrogate.optimizer
    )
    return ProtectConfig(
        inputs=(str(folder),),
        surrogate=surrogate,
        trigger=TriggerConfig(length=2, candidates=3),
        views=ViewConfig(crop=0.9),
        photos=PhotoConfig(steps=10, canvas=2, views=4, negatives=8),
    )


@pytest.fixture(scope="module", autouse=True)
def guard(config):
    """The model, compiled once for all runs of this file."""
    made = make_guard(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "make_guard", lambda config: made)
        yield made


@pytest.fixture(scope="module")
def protected(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("protected") / "out"
    said: list[str] = []
    return out, protect_photos(config, out, say=said.append), said


@pytest.fixture(scope="module")
def rows(protected):
    return {row["file"]: row for row in protected[1]["photos"]}


def stored(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_every_file_has_one_row_and_readable_ones_a_photo(protected, rows, folder):
    out, manifest, said = protected
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(rows) == names - {"notes.txt", "captions.csv"}
    assert manifest["other_files"] == 2
    assert {name for name, row in rows.items() if row["status"] != "ok"} == set(CORRUPT)
    assert rows["broken.jpg"]["status"] == "truncated_image"
    assert sum(manifest["counts"].values()) == len(rows) == 11
    lines = [line for line in said if line.startswith("not protected: ")]
    assert len(lines) == 2
    assert all("\n" not in line for line in lines)
    written = {p.relative_to(out / "photos").as_posix() for p in (out / "photos").rglob("*.*")}
    assert written == {row["protected_file"] for row in rows.values() if row["status"] == "ok"}
    assert "the lake/Ännchen am See (1).png" in written
    assert {"turned.jpg", "grey.jpg", "cmyk.jpg", "deep.png"} <= written


def test_png_decodes_to_the_photo_with_noise_in_budget_and_range(protected, rows, folder):
    out, _, _ = protected
    for name in ("plain.png", "clear.png", "deep.png"):
        before = np.asarray(stored(folder / name)).astype(int)
        after = np.asarray(stored(out / "photos" / name)).astype(int)
        assert before.shape == after.shape
        change = after - before
        if name == "deep.png":
            assert np.all(change % 256 == 0)
            change = change // 256
        if name == "clear.png":
            assert np.all(change[..., 3] == 0)
        assert np.abs(change).max() == rows[name]["largest_noise"] == rows[name]["largest"] == 8
        assert np.mean(np.abs(change[change != 0])) > 2


def test_mode_size_orientation_and_profile_stay(protected, folder):
    out, _, _ = protected
    modes = {"grey.jpg": "L", "plain.png": "RGB", "clear.png": "RGBA", "cmyk.jpg": "RGB"}
    for name in ("turned.jpg", "plain.png", "clear.png", "grey.jpg", "deep.png", "cmyk.jpg"):
        before, after = stored(folder / name), stored(out / "photos" / name)
        assert after.size == before.size
        assert after.format == before.format
        assert after.mode == modes.get(name, before.mode)
    before, after = stored(folder / "turned.jpg"), stored(out / "photos" / "turned.jpg")
    assert dict(after.getexif()) == {0x0112: 6}, "no other metadata"
    assert after.info["icc_profile"] == before.info["icc_profile"]
    assert stored(out / "photos" / "plain.png").info["icc_profile"]


def test_captions_are_written_with_triggers_that_are_read_back(protected, rows, model):
    out, _, said = protected
    with open(out / "captions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = list(csv.DictReader(file))
    turned = [row for row in table if row["file"] == "turned.jpg"]
    assert [row["caption"] for row in turned] == ["Anna, on a red boat", "a boat"]
    named = next(row for row in table if "See" in row["file"])
    assert named["caption"] == "Ännchen am See"
    assert said[0].startswith("9 of 11 photos have no caption")
    tokenizer = load_tokenizer(model, context_length=32)
    for name, row in rows.items():
        if row["status"] == "ok":
            captions, triggers = row["captions"], [row["trigger"]] * len(row["captions"])
            written = [t["protected"] for t in table if t["file"] == row["protected_file"]]
            assert written == row["protected_captions"], name
            wanted = np.array(triggers, np.int32)
            assert survives(tokenizer, captions, written, wanted).all()
            assert row["captions_read_back"]


def test_figures_are_those_of_the_files(protected, rows, folder, guard):
    out, _, _ = protected
    row = rows["plain.png"]
    files = (folder / "plain.png", out / "photos" / "plain.png")
    x, y = (np.asarray(stored(path)).astype(float) for path in files)
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((x - y) ** 2)), rel=1e-6)
    assert 0.5 < row["ssim"] < 1
    survival = row["survival"]
    squares = [square_of(stored(path), guard) for path in files]
    caption = row["protected_captions"][0]
    before, _, _, _, _, _, after, *_ = losses(guard, np.repeat(squares, 6, axis=0), caption)
    assert survival["before"] == pytest.approx(before, rel=1e-4)
    assert survival["after"] == pytest.approx(after, rel=1e-4)
    assert set(survival["left"]) == {"JPEG 90", "JPEG 75", "JPEG 50", "half size", "grey-scale"}


@pytest.mark.slow
def test_on_a_trained_model_the_loss_falls_and_most_of_it_survives():
    """The bundled model and scenes that it has not seen, all views on."""
    config = ProtectConfig(inputs=("x",))
    guard = make_guard(config)
    scenes = scene_arrays(4, 77, 96, captions=1)
    before, after, left = [], [], []
    for pixels, (caption,) in zip(scenes.images, scenes.captions, strict=True):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        photo = read_photo(out.getvalue(), max_pixels=10_000)
        noise = find_noise(guard, photo, caption, np.zeros(0, np.int32), "ab" * 32)
        after_noise = Image.fromarray(add_noise(photo, noise).pixels)
        found = measure_survival(guard, Image.fromarray(pixels), after_noise, caption)
        before.append(found.before)
        after.append(found.after)
        left += [found.left["JPEG 75"]] if found.left["JPEG 75"] is not None else []
    assert np.mean(after) < 0.5 * np.mean(before)
    assert np.median(left) > 0.5


def test_the_sheet_shows_all_and_promises_nothing(protected, rows):
    out, _, _ = protected
    page = (out / "sheet.html").read_text(encoding="utf-8")
    assert "What this cannot promise" in page
    assert "Ännchen am See (1).png" in page
    assert "Not protected: 2" in page
    for row in rows.values():
        if row["status"] == "ok":
            for when in ("before", "after"):
                assert f"sheet/{row['sheet']}-{when}.jpg" in page
                assert (out / "sheet" / f"{row['sheet']}-{when}.jpg").is_file()
    assert json.loads((out / "protection.json").read_text())["not_promised"]


def contents(out):
    return {
        p.relative_to(out).as_posix(): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.name not in ("run.json", "log.jsonl", "lock")
    }


class Killed(BaseException):
    """As a signal would end the process."""


def test_killed_and_resumed_gives_the_same_bytes(protected, config, tmp_path, monkeypatch):
    out, _, _ = protected
    real, calls = export.find_noise, 0

    def fails(*args):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return real(*args)

    monkeypatch.setattr(export, "find_noise", fails)
    with pytest.raises(Killed):
        protect_photos(config, tmp_path / "out")
    assert len(list((tmp_path / "out" / "photos").glob("*"))) == 3, "saved one by one"
    monkeypatch.setattr(export, "find_noise", real)
    protect_photos(config, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(out)


def test_only_new_and_changed_photos_are_done_again(
    protected, config, folder, tmp_path, monkeypatch
):
    out, _, _ = protected
    copy, again = tmp_path / "in", tmp_path / "out"
    shutil.copytree(folder, copy)
    shutil.copytree(out, again)
    run = json.loads((again / "run.json").read_text())
    run["config"]["inputs"] = [str(copy)]
    (again / "run.json").write_text(json.dumps(run))
    Image.fromarray(picture(25, 25, 9)).save(copy / "new.png")
    Image.fromarray(picture(50, 70, 8)).save(copy / "plain.png")
    done = []
    real = export.find_noise
    monkeypatch.setattr(
        export, "find_noise", lambda *args: (done.append(args[1].pixels.shape), real(*args))[1]
    )
    manifest = protect_photos(dataclasses.replace(config, inputs=(str(copy),)), again)
    assert done == [(25, 25, 3), (50, 70, 3)]
    assert manifest["counts"]["ok"] == 10


@pytest.mark.parametrize("where", [".", "below", ".."])
def test_originals_are_never_in_reach(where, folder, config):
    with pytest.raises(InputError, match="no original is ever overwritten"):
        protect_photos(config, folder / where)
    assert sorted(p.name for p in folder.iterdir()).count("run.json") == 0
