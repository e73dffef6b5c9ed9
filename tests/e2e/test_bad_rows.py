"""What the data has wrong is a row with a status: nothing is lost, nothing leaves its tar."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.data.faults import faulty_members, pair, plain, tar_bytes, truncated_jpeg, write_tar
from tests.e2e.conftest import Run, World, check_accounts


def _big_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (70, 70), "teal").save(file, "PNG")
    return file.getvalue()


def _good(count: int, first: int = 100) -> list:
    return [m for i in range(first, first + count) for m in pair(f"good{i}", i, b"a %d" % i)]


def test_every_broken_row_has_a_status_and_none_is_lost(
    world: World, tmp_path: Path, run: Run
) -> None:
    members, wanted = faulty_members()
    members += [
        plain("cut.jpg", truncated_jpeg()),
        plain("cut.txt", b"half a picture"),
        plain("page.jpg", b"<!DOCTYPE html><title>404 Not Found</title>"),
        plain("page.txt", b"a page"),
        plain("zero.jpg", b""),
        plain("zero.txt", b"no bytes"),
        plain("large.png", _big_png()),
        plain("large.txt", b"many pixels"),
        plain("vector.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        plain("vector.txt", b"a vector picture"),
    ]
    wanted |= {
        "cut": "truncated_image",
        "page": "undecodable_image",
        "zero": "undecodable_image",
        "large": "oversized_image",
        "vector": "unsupported_image",
        "twice": "ok",
    }
    tar = write_tar(tmp_path / "in" / "00000.tar", members + _good(20))
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    out = tmp_path / "out"
    ran = run(
        *["scan", tar, *world.flags, f"--out={out}", "--json", "--write_clean"],
        *["--config.encode.max_image_pixels=4096", "--config.encode.max_member_bytes=50000"],
    )
    assert ran.code == 3
    assert not ran.err
    summary = json.loads(ran.out)
    assert any("rows were skipped, more than max_bad_fraction" in d for d in summary["degraded"])
    table = check_accounts(out, summary, len(wanted) + 20)
    found: dict[str, str] = {}
    for row in table.to_pylist():
        found[row["key"] + "/2" * (row["key"] in found)] = row["status"]
    assert {key: found.get(key) for key in wanted} == wanted
    by_key = {row["key"]: row for row in table.to_pylist()}
    assert by_key["latin"]["flags"] == ["caption_encoding"]
    assert by_key["latin"]["caption"] == "caf\ufffd"
    assert (out / "report" / "index.html").is_file()
    after = sorted(str(p) for p in tmp_path.rglob("*") if out not in (p, *p.parents))
    assert after == before, "a member got out of its tar"
    assert not Path("hacked").exists()
    ran = run("scan", tar, *world.flags, f"--out={tmp_path / 'x'}", "--config.max_bad_fraction=1")
    assert ran.code == 0
    assert "skipped 1 x truncated_image: the image file ends before the image does" in ran.out


def test_a_cut_shard_is_read_to_where_it_ends(world: World, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    write_tar(folder / "00000.tar", _good(20))
    whole = tar_bytes(_good(20, first=200))
    # inside the picture of the last pair: header, picture, header, caption are a block each
    (folder / "00001.tar").write_bytes(whole[: 19 * 4 * 512 + 512 + 40])
    flags = [*world.flags, "--config.max_bad_fraction=1", "--json"]
    ran = run("scan", folder, *flags, f"--out={tmp_path / 'a'}")
    assert ran.code == 3
    summary = json.loads(ran.out)
    assert len(summary["degraded"]) == 1
    assert "ends inside member good219.png (wanted" in summary["degraded"][0]
    table = check_accounts(tmp_path / "a", summary, 40)
    assert table["status"].to_pylist()[-1] == "truncated_image"
    ran = run("scan", folder, *flags, f"--out={tmp_path / 'b'}", "--accept_partial")
    assert ran.code == 0
    summary = json.loads(ran.out)
    assert summary["degraded"] == []
    assert any("ends inside member" in warning for warning in summary["warnings"])


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_rows_are_undetermined(count: int, world: World, tmp_path: Path, run: Run) -> None:
    tar = write_tar(tmp_path / "few.tar", _good(count))
    ran = run("scan", tar, *world.flags, f"--out={tmp_path / 'out'}")
    assert ran.code == 0
    assert ran.out.startswith("undetermined: ")
    assert f"only {count} pair" in ran.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["counts"] == {"undetermined": count}
    check_accounts(tmp_path / "out", summary, count)


def test_a_set_without_one_good_row_is_undetermined(world: World, tmp_path: Path, run: Run) -> None:
    members = [m for i in range(8) for m in (plain(f"{i}.jpg", b"x"), plain(f"{i}.txt", b"a"))]
    tar = write_tar(tmp_path / "bad.tar", members)
    ran = run("scan", tar, *world.flags, f"--out={tmp_path / 'out'}")
    assert ran.code == 3
    assert "no pair could be scored" in ran.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    check_accounts(tmp_path / "out", summary, 8)


def test_equal_pairs_are_undetermined(world: World, tmp_path: Path, run: Run) -> None:
    members = [m for i in range(30) for m in pair(f"{i}", 1, b"a cat")]
    tar = write_tar(tmp_path / "same.tar", members)
    ran = run("scan", tar, *world.flags, f"--out={tmp_path / 'out'}")
    assert ran.code == 0
    assert "every pair has the same consistency" in ran.out
