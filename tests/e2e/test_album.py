"""Forty photos of all sizes, formats, modes, turns and names: each comes back, in any viewer."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmjax.core.errors import ExitCode
from tests.e2e.conftest import browse, hashes, run_process
from tests.e2e.test_protect import QUICK, UNEQUAL, killed_after

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
COUNT = 40
READ = {
    "jpg": ("L", "RGB", "CMYK"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("L", "P"),
}
TURNED = ("jpg", "png", "webp")
"""Formats that hold an orientation."""
UNREAD = {"tif": ("RGB", "CMYK")}
FOLDERS = ("", "Sommer am See", "夏/海辺 🐚", "été (2)")


def picture(mode, width, height, number):
    y, x = np.mgrid[:height, :width] / 23
    waves = [np.sin(x + number + c) + np.cos(y * (c + 1)) for c in range(4)]
    pixels = np.clip(127 + 80 * np.dstack(waves), 0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 256 + 77)
    if mode == "LA":
        return Image.fromarray(pixels[..., :2], "LA")
    if mode in ("RGBA", "CMYK"):
        return Image.fromarray(pixels, mode)
    return Image.fromarray(pixels[..., :3]).convert(mode)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """The photos, two of each kind; some differ in nothing but their suffix."""
    folder = tmp_path_factory.mktemp("album") / "in"
    kinds = [(suffix, mode) for suffix, modes in {**READ, **UNREAD}.items() for mode in modes]
    sides = np.geomspace(32, 1_200, COUNT).astype(int)
    for number in range(COUNT):
        suffix, mode = kinds[7 * number % len(kinds)]
        path = folder / FOLDERS[number % 4] / f"Ännchen № {number // 8}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 1 + (number + number // 8) % 8
        turn = {"exif": exif} if suffix in TURNED else {}
        size = int(sides[number]), int(sides[11 * number % COUNT])
        picture(mode, *size, number).save(path, **turn)
    assert len(hashes(folder)) == COUNT
    return folder


@pytest.fixture(scope="module")
def protected(world, album, tmp_path_factory):
    out = tmp_path_factory.mktemp("protected") / "out"
    told = run_process("protect", album, f"--weights={world.weights}", *QUICK, f"--out={out}")
    assert told.code == ExitCode.DEGRADED, told.err
    return out, json.loads((out / "protection.json").read_text(encoding="utf-8"))["photos"]


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def turned(path):
    return opened(path).getexif().get(0x0112, 1)


def test_every_photo_opens_at_its_size_name_and_turn(album, protected):
    out, rows = protected
    assert sorted(row["file"] for row in rows) == sorted(hashes(album))
    good = [row for row in rows if row["status"] == "ok"]
    refused = {row["file"]: row["status"] for row in rows if row["status"] != "ok"}
    assert {Path(name).suffix for name in refused} == {".tif"}
    assert set(refused.values()) == {"unsupported_image"}
    assert len(good) + len(refused) == COUNT
    written = {row["protected_file"] for row in good}
    assert written == set(hashes(out / "photos"))
    assert len(written) == len(good), "no photo lies under another's name"
    assert {turned(album / row["file"]) for row in good} == set(range(1, 9))
    kept = {"1": "L", "P": "RGB", "CMYK": "RGB"}
    for row in good:
        source, target = album / row["file"], out / "photos" / row["protected_file"]
        before, after = opened(source), opened(target)
        assert after.size == before.size, row["file"]
        assert turned(target) == turned(source), row["file"]
        assert after.format == ("JPEG" if before.format == "JPEG" else "PNG")
        assert after.mode == kept.get(before.mode, before.mode), row["file"]
        assert target.relative_to(out / "photos").parent == source.relative_to(album).parent
        same = source.suffix in (".jpg", ".png")
        assert target.name == source.name if same else target.name.startswith(source.stem)
        if "A" in before.mode:
            assert before.getchannel("A").tobytes() == after.getchannel("A").tobytes()
        if after.format == "PNG" and before.mode != "I;16":
            change = np.subtract(
                *(np.asarray(each.convert("RGB"), int) for each in (before, after))
            )
            assert 0 < np.abs(change).max() <= 8, row["file"]


def test_killed_and_resumed_gives_the_same_bytes(world, album, protected, tmp_path):
    out, _ = protected
    flags = [album, f"--weights={world.weights}", *QUICK, f"--out={tmp_path / 'again'}"]
    killed_after(COUNT // 3, *flags)
    assert not (tmp_path / "again" / "protection.json").exists()
    assert run_process("protect", *flags).code == ExitCode.DEGRADED
    assert hashes(tmp_path / "again", without=UNEQUAL) == hashes(out, without=UNEQUAL)


def test_every_photo_opens_in_a_browser(browser, protected, tmp_path):
    out, rows = protected
    files = [out / "photos" / row["protected_file"] for row in rows if row["status"] == "ok"]
    page = tmp_path / "page.html"
    images = "".join(f'<img src="{path.as_uri()}">' for path in files)
    sizes = "[...document.images].map(i => `${i.naturalWidth}x${i.naturalHeight}`).join(' ')"
    told = f"onload = () => {{ document.title = {sizes}; }}"
    page.write_text(f"<title></title><script>{told}</script>{images}", encoding="utf-8")
    shown = [ImageOps.exif_transpose(opened(path)).size for path in files]
    wanted = " ".join(f"{width}x{height}" for width, height in shown)
    assert f"<title>{wanted}</title>" in browse(browser, page, "--dump-dom")
