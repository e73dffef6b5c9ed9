"""Tars: a fault becomes a row, a warning or a `ShardError`; nothing is executed or extracted."""

import gzip
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmjax.core.errors import ShardError
from mmjax.core.types import FLAGS, STATUSES
from mmjax.data.archives import open_archive
from mmjax.data.pack import copy_members
from mmjax.data.shards import SourceOptions
from mmjax.data.tars import TarView, open_tar, split_name
from tests.data import faults

OPTIONS = SourceOptions(max_member_bytes=50_000)


def rows_of(path: Path, options: SourceOptions = OPTIONS) -> dict:
    """Rows by key; the second of a key as "KEY/2"."""
    view = open_tar(str(path), options)
    rows = {}
    for index in range(len(view)):
        pair = view[index]
        rows[pair.key if pair.key not in rows else f"{pair.key}/2"] = pair
    assert len(rows) == len(view)
    return rows


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> dict:
    members, _ = faults.faulty_members()
    path = faults.write_tar(tmp_path_factory.mktemp("tars") / "00000.tar", members)
    return rows_of(path)


@pytest.mark.parametrize(("key", "status"), faults.faulty_members()[1].items())
def test_each_fault_has_its_status(faulty, key, status):
    assert faulty[key].status == status
    assert (faulty[key].message == "") == (status == "ok")


def test_every_key_is_a_row(faulty):
    assert faulty.keys() == faults.faulty_members()[1].keys()
    assert {pair.status for pair in faulty.values()} <= STATUSES.keys()
    assert {flag for pair in faulty.values() for flag in pair.flags} <= FLAGS.keys()


@pytest.mark.parametrize(
    ("key", "caption", "flagged"),
    [
        ("latin", "caf�", True),
        ("bom", "with a mark", False),
        ("utf16", "grüße", True),
        ("nul", "a�b", True),
        ("json", "from the sidecar", False),
        ("surrogate", "a�b", True),
        ("far", "far from its image", False),
    ],
)
def test_captions_are_storable_text(faulty, key, caption, flagged):
    assert faulty[key].caption == caption
    assert (faulty[key].flags == ("caption_encoding",)) is flagged


def test_non_adjacent_members_are_one_row(faulty):
    assert faulty["far"].image == faults.image_bytes(18)


def test_nothing_is_written_or_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = faults.write_tar(tmp_path / "00000.tar", faults.faulty_members()[0])
    rows_of(path)
    assert [p.name for p in tmp_path.iterdir()] == ["00000.tar"]


def test_keys_end_at_the_first_dot_of_the_base_name():
    assert split_name("a.b/002.v1.JPG") == ("a.b/002", "v1.jpg")
    assert split_name("./7.txt") == ("7", "txt")
    assert split_name("._7.jpg") is None
    assert split_name("README") is None


def test_members_without_a_key_are_noted(tmp_path):
    members = [*faults.pair("a"), faults.plain("README", b"x"), faults.plain("._a.png", b"x")]
    view = TarView(str(faults.write_tar(tmp_path / "x.tar", members)))
    assert len(view) == 1
    assert "2 members without a key" in view.notes[0]
    assert view.warnings == ()


def test_key_options(tmp_path):
    members = [
        faults.plain("a.seg.png", faults.image_bytes(1)),
        faults.plain("a.png", faults.image_bytes(2)),
        faults.plain("a.cap", b"chosen"),
        faults.plain("a.txt", b"other"),
    ]
    path = str(faults.write_tar(tmp_path / "x.tar", members))
    chosen = open_tar(path, SourceOptions(image_key="seg.png", text_key="cap"))[0]
    assert (chosen.image, chosen.caption) == (faults.image_bytes(1), "chosen")
    usual = open_tar(path, SourceOptions())[0]
    assert (usual.image, usual.caption) == (faults.image_bytes(2), "other")


def test_of_several_images_the_preferred_one_is_the_pairs(tmp_path):
    members = [
        faults.plain("a.png", faults.image_bytes(1)),
        faults.plain("a.txt", b"one"),
        faults.plain("a.jpg", faults.image_bytes(2)),
        faults.plain("a.webp", faults.image_bytes(3)),
    ]
    view = open_tar(str(faults.write_tar(tmp_path / "x.tar", members)), OPTIONS)
    assert [(pair.image, pair.status) for pair in (view[0], view[1], view[2])] == [
        (faults.image_bytes(2), "ok"),
        (faults.image_bytes(1), "duplicate_key"),
        (faults.image_bytes(3), "duplicate_key"),
    ]
    assert "a.png appears a second time" in view[1].message
    assert [[m.name for m in view.members(i)] for i in range(3)] == [
        ["a.txt", "a.jpg"],
        ["a.png"],
        ["a.webp"],
    ]
    first = open_tar(view.path, SourceOptions(image_key="webp;png"))[0]
    assert (first.image, first.caption) == (faults.image_bytes(3), "one")


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_members_equal_tarfile(tmp_path, tar_format):
    long = "d" * 60 + "/" + "k" * (30 if tar_format == tarfile.USTAR_FORMAT else 250)
    names = ["a.png", f"{long}.png", "dir.x/b.tar.txt"]
    if tar_format != tarfile.USTAR_FORMAT:
        names.append("ünï ☃.png")
    members = [faults.plain(name, bytes([i]) * (700 * i)) for i, name in enumerate(names)]
    folder = tarfile.TarInfo("dir")
    folder.type = tarfile.DIRTYPE
    path = faults.write_tar(tmp_path / "x.tar", [(folder, b""), *members], tar_format)
    archive = open_archive(str(path))
    with tarfile.open(path) as tar:
        wanted = [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    assert [(m.name, m.data, m.size) for m in archive.members] == wanted
    assert archive.warnings == ()


@pytest.mark.parametrize("what", faults.not_tars())
def test_other_files_are_named(tmp_path, what):
    path = tmp_path / "00000.tar"
    path.write_bytes(faults.not_tars()[what])
    with pytest.raises(ShardError, match=what):
        open_tar(str(path), OPTIONS)


def test_missing_file(tmp_path):
    with pytest.raises(ShardError, match="No such file"):
        open_tar(str(tmp_path / "no.tar"), OPTIONS)


def test_every_cut_gives_rows_and_a_warning(tmp_path):
    whole = faults.tar_bytes(m for i in range(3) for m in faults.pair(f"k{i}", i))
    path = tmp_path / "cut.tar"
    for cut in [0, *range(512, len(whole), 97)]:
        path.write_bytes(whole[:cut])
        view = open_tar(str(path), OPTIONS)
        rows = [view[i] for i in range(len(view))]
        ends = whole[:cut].rstrip(b"\0")
        if len(ends) < len(whole.rstrip(b"\0")):
            assert view.warnings, cut
        assert [p.status for p in rows[:-1]] == ["ok"] * len(rows[:-1]), cut
        if rows and rows[-1].status != "ok":
            assert rows[-1].status in ("truncated_image", "missing_caption")


def test_cut_inside_a_member_names_it(tmp_path):
    image = faults.plain("b.png", bytes(5000))
    whole = faults.tar_bytes([*faults.pair("a"), faults.plain("b.txt", b"hello"), image])
    start = whole.index(b"b.png") + 512
    path = tmp_path / "00017.tar"
    path.write_bytes(whole[: start + 2048])
    view = open_tar(str(path), OPTIONS)
    assert [view[0].status, view[1].status] == ["ok", "truncated_image"]
    assert view[1].caption == "hello"
    assert "ends inside member b.png (wanted 5000 bytes, got 2048)" in view.warnings[0]
    assert copy_members(view, [0, 1], tmp_path / "out.tar") == 2
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getnames() == ["a.png", "a.txt", "b.txt"]


def test_missing_end_mark_damage_and_trailing_bytes_are_warned_of(tmp_path):
    whole = faults.tar_bytes([*faults.pair("a"), *faults.pair("b", 1)])
    content = whole.rstrip(b"\0")
    path = tmp_path / "x.tar"
    path.write_bytes(content + bytes(-len(content) % 512))
    assert (
        "without the end-of-archive mark after member 'b.txt'"
        in open_tar(str(path), OPTIONS).warnings[0]
    )
    path.write_bytes(whole + whole)
    view = open_tar(str(path), OPTIONS)
    assert (len(view), "goes on after" in view.warnings[0]) == (2, True)
    broken = bytearray(whole)
    broken[whole.index(b"b.png") + 10] ^= 0xFF
    path.write_bytes(broken)
    view = open_tar(str(path), OPTIONS)
    assert (len(view), "damaged header" in view.warnings[0]) == (1, True)


def test_empty_files(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(b"")
    view = open_tar(str(path), OPTIONS)
    assert (len(view), "it is empty" in view.warnings[0]) == (0, True)
    path.write_bytes(bytes(10240))
    view = open_tar(str(path), OPTIONS)
    assert (len(view), view.warnings) == (0, ())


def test_gzipped_tar_under_tar_name(tmp_path):
    whole = faults.tar_bytes(m for i in range(3) for m in faults.pair(f"k{i}", i))
    path = tmp_path / "x.tar"
    path.write_bytes(gzip.compress(whole))
    view = open_tar(str(path), OPTIONS)
    assert [view[i].status for i in range(len(view))] == ["ok"] * 3
    path.write_bytes(gzip.compress(whole)[:-200])
    view = open_tar(str(path), OPTIONS)
    assert "damaged gzip" in view.warnings[0]
    path.write_bytes(faults.gzip_bomb())
    with pytest.raises(ShardError, match="unpacks to more than"):
        open_tar(str(path), OPTIONS)
    path.write_bytes(gzip.compress(b"no tar at all" * 100))
    with pytest.raises(ShardError, match="no tar"):
        open_tar(str(path), OPTIONS)


@pytest.mark.parametrize(
    "header",
    [
        {"size": -512},  # a size that points backwards
        {"type": tarfile.GNUTYPE_LONGNAME, "size": 2**30},  # a name that would fill the memory
        {"type": tarfile.XHDTYPE, "size": 2**30},
    ],
)
def test_hostile_headers_end_the_shard(tmp_path, header):
    info = tarfile.TarInfo("x.png")
    for name, value in header.items():
        setattr(info, name, value)
    block = info.tobuf(tarfile.GNU_FORMAT)
    good = faults.tar_bytes(faults.pair("a")).rstrip(b"\0")
    path = tmp_path / "x.tar"
    path.write_bytes(good + bytes(-len(good) % 512) + block + bytes(4096))
    view = open_tar(str(path), OPTIONS)
    assert len(view) == 1
    assert view.warnings


def test_chained_long_names_do_not_recurse(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4
    one = info.tobuf(tarfile.GNU_FORMAT) + b"z.b\0".ljust(512, b"\0")
    path = tmp_path / "x.tar"
    path.write_bytes(one * 5000 + faults.tar_bytes(faults.pair("a")))
    assert len(open_tar(str(path), OPTIONS)) == 2


def test_sparse_members_are_unsafe(tmp_path):
    sparse = tarfile.TarInfo("s.png")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 0
    path = faults.write_tar(tmp_path / "x.tar", [(sparse, b""), *faults.pair("a")])
    assert [rows_of(path)[key].status for key in ("s", "a")] == ["unsafe_member", "ok"]


def read_all(path: Path) -> list | None:
    """All rows, None for a refused shard; anything else than `ShardError` fails the test."""
    try:
        view = open_tar(str(path), OPTIONS)
    except ShardError:
        return None
    return [view[index] for index in range(len(view))]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=3000))
def test_random_bytes_never_raise(tmp_path, data):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    read_all(path)


MUTATED = bytearray(
    faults.tar_bytes(faults.faulty_members()[0])[:20_000]
    + faults.tar_bytes(faults.faulty_members()[0][:4], tarfile.PAX_FORMAT)
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(MUTATED) - 1), st.integers(0, 255)), min_size=1, max_size=8
    ),
    cut=st.integers(0, len(MUTATED)),
    fix=st.booleans(),
)
def test_mutated_tars_never_raise(tmp_path, edits, cut, fix):
    data = bytearray(MUTATED)
    for position, value in edits:
        data[position] = value
        if fix:  # make the header's checksum right again, so that the mutation is believed
            header = position // 512 * 512
            block = data[header : header + 512]
            if len(block) == 512:
                block[148:156] = b" " * 8
                data[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(data[: max(cut, 512)]))
    rows = read_all(path)
    if rows is not None:
        assert {pair.status for pair in rows} <= STATUSES.keys()
        for pair in rows:
            (pair.key + (pair.caption or "") + pair.message).encode()


def test_copied_members_are_the_same_bytes(tmp_path):
    members, _ = faults.faulty_members()
    path = faults.write_tar(tmp_path / "00000.tar", members)
    view = open_tar(str(path), OPTIONS)
    kept = [index for index in range(len(view)) if view[index].status == "ok"]
    assert copy_members(view, reversed(kept), tmp_path / "out" / "00000.tar") == len(kept)
    copied = open_tar(str(tmp_path / "out" / "00000.tar"), OPTIONS)
    assert [copied[i] for i in range(len(copied))] == [view[i] for i in kept]
    assert copied.warnings == ()
    with tarfile.open(path) as before, tarfile.open(tmp_path / "out" / "00000.tar") as after:
        wanted = [i for i in before if i.name.split(".")[0] in {view[k].key for k in kept}]
        assert all(info.mtime == 1_700_000_000 for info in after)
        assert [i.name for i in after] == list(dict.fromkeys(i.name for i in wanted))


def test_all_rows_copied_is_the_same_file(tmp_path):
    path = faults.write_tar(
        tmp_path / "00000.tar",
        [m for i in range(3) for m in faults.pair("n" * 150 + str(i), i)],
        tarfile.PAX_FORMAT,
    )
    copy_members(open_tar(str(path), OPTIONS), range(3), tmp_path / "copy.tar")
    assert (tmp_path / "copy.tar").read_bytes() == path.read_bytes()


def test_file_descriptors_are_closed(tmp_path):
    path = faults.write_tar(tmp_path / "x.tar", faults.pair("a"))
    open_tar(str(path), OPTIONS)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        open_tar(str(path), OPTIONS)[0]
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = faults.write_tar(tmp_path / "x.tar", [*faults.pair("a"), *faults.pair("b", 1)])
    view = open_tar(str(path), OPTIONS)
    os.truncate(path, 600)
    statuses = Counter(view[i].status for i in range(len(view)))
    assert statuses["truncated_image"] >= 1
    assert statuses["ok"] == 0
