"""F17-F26: what shards, and the names of inputs, can have wrong."""

import gzip
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.faults import gzip_bomb, image_bytes, pair, plain, special, tar_bytes, write_tar
from tests.faults.case import GOOD, Case, fault, good


@fault(
    "F17",
    "a key twice in one shard, or in two shards",
    "the second in one shard is `duplicate_key`; in two shards both are rows of their own",
    slow=True,
)
def twice(case: Case) -> None:
    write_tar(case.inputs / "00001.tar", pair("same", 3))
    members = [*pair("same", 1), *pair("same", 2)]
    write_tar(case.inputs / "00000.tar", [*members, *good()])
    found = case.scan(case.inputs, "--config.max_bad_fraction=1", rows=GOOD + 3)
    rows = [(r["shard"], r["status"]) for r in found["rows"] if r["key"] == "same"]
    assert rows == [("00000", "ok"), ("00000", "duplicate_key"), ("00001", "ok")]


@fault("F18", "members of a pair that do not lie side by side", "one row")
def apart(case: Case) -> None:
    far = [plain("far.txt", b"words"), *pair("near", 1), plain("far.png", image_bytes(2))]
    rows = case.scan_members(far, rows=2)
    assert rows["far"]["status"] == "ok"


@fault(
    "F19",
    "keys with dots, spaces, letters of all scripts, 300 characters, line breaks",
    "kept as they are; no file is named after a key",
)
def keys(case: Case) -> None:
    names = ["a b", "ünï/cödé", "x" * 300, "two\nlines"]
    rows = case.scan_members([m for i, n in enumerate(names) for m in pair(n, i)], rows=len(names))
    assert {rows[name]["status"] for name in names} == {"ok"}
    written = [str(file.relative_to(case.out)) for file in case.out.rglob("*")]
    assert not [f for f in written if any(part in f for part in ("a b", "ünï", "xxxx", "lines"))]


@fault(
    "F20",
    "members that leave the folder, links, devices, pipes",
    "`unsafe_member`; nothing is ever extracted, cleaned shards hold plain files only",
)
def unsafe(case: Case) -> None:
    members = [
        *pair("../executed", 1),
        *pair("/executed", 2),
        special("soft.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.png", tarfile.LNKTYPE, "good100.png"),
        special("pipe.png", tarfile.FIFOTYPE),
        special("device.png", tarfile.CHRTYPE),
    ]
    rows = case.scan_members(members, "--write_clean", rows=6)
    assert sum(row["status"] == "unsafe_member" for row in rows.values()) == 6
    with tarfile.open(case.out / "clean" / "00000.tar") as tar:
        assert all(member.isreg() for member in tar)
        assert len(tar.getmembers()) == 2 * GOOD


@fault(
    "F21",
    "a tar that ends in the middle of a member, or without its end mark",
    "rows up to the cut, a warning, exit 3; `--accept_partial`: exit 0",
)
def cut(case: Case) -> None:
    whole = tar_bytes(good(GOOD + 6))
    case.inputs.mkdir(exist_ok=True)
    tar = case.inputs / "00000.tar"
    tar.write_bytes(whole[: (GOOD + 5) * 4 * 512 + 512 + 40])
    found = case.scan(tar, "--config.max_bad_fraction=1", code=3, rows=GOOD + 6)
    assert "ends inside member" in found["degraded"][0]
    shutil.rmtree(case.out)
    allowed = ("--config.max_bad_fraction=1", "--accept_partial")
    assert case.scan(tar, *allowed, rows=GOOD + 6)["degraded"] == []


@fault(
    "F22",
    "tar.gz under a tar's name, a gzip bomb, tars without members or bytes",
    "read; refused as a whole by its size; no rows",
)
def compressed(case: Case) -> None:
    case.inputs.mkdir(exist_ok=True)
    tar = case.inputs / "00000.tar"
    tar.write_bytes(gzip.compress(tar_bytes(good())))
    case.scan(tar, rows=GOOD)
    shutil.rmtree(case.out)
    tar.write_bytes(gzip_bomb())
    bomb = case.run("scan", tar, *case.world.flags, f"--out={case.out}")
    assert bomb.code == 2
    assert len(bomb.err.splitlines()) == 1
    shutil.rmtree(case.out, ignore_errors=True)
    write_tar(tar, [])
    case.refuse("scan", tar, *case.world.flags, f"--out={case.out}", says="holds no pairs")
    shutil.rmtree(case.out, ignore_errors=True)
    tar.write_bytes(b"")
    empty = case.run("scan", tar, *case.world.flags, f"--out={case.out}")
    assert empty.code == 2
    assert len(empty.err.splitlines()) == 1


@fault("F23", "Parquet, CSV or a zip given as a tar", "exit 2; the line names what it is")
def other_kind(case: Case) -> None:
    case.inputs.mkdir(exist_ok=True)
    files = {
        "Parquet": b"PAR1" + bytes(600),
        "a zip file": b"PK\x03\x04" + bytes(600),
        "CSV": b"url,caption\n" * 50,
    }
    for name, data in files.items():
        tar = case.inputs / "a.tar"
        tar.write_bytes(data)
        case.refuse("scan", tar, *case.world.flags, f"--out={case.out}", says=f"looks like {name}")


@fault(
    "F24",
    "img2dataset's sidecar Parquet disagrees with its tar",
    "the tar counts; pairs that only the sidecar has are told, exit 3",
)
def sidecar(case: Case) -> None:
    write_tar(case.inputs / "00000.tar", good())
    rows = {
        "key": ["good100", "unknown"],
        "status": ["success", "success"],
        "caption": ["of another picture", "of none"],
    }
    pq.write_table(pa.table(rows), case.inputs / "00000.parquet")
    (case.inputs / "00000_stats.json").write_text('{"successes": 2, "count": 2}')
    found = case.scan(case.inputs, code=3, rows=GOOD)
    assert found["rows"][0]["caption"] == "a 100"
    assert "lists 1 downloaded pairs that 00000.tar does not hold" in found["degraded"][0]


@fault(
    "F25",
    "commands and addresses as inputs or in metadata",
    "exit 2 before anything is loaded: no shell, no network; addresses in metadata are text",
)
def commands(case: Case) -> None:
    case.inputs.mkdir(exist_ok=True)
    for location in (f"pipe:touch {case.canary}", "http://169.254.169.254/a.tar", "s3://b/a.tar"):
        arguments = ["scan", location, *case.world.flags, f"--out={case.out}"]
        case.refuse(*arguments, says="is not a local path")
    assert not case.out.exists()
    member = plain("good.json", b'{"url": "http://169.254.169.254/", "caption": "http://x.org/"}')
    rows = case.scan_members([member, plain("good.png", image_bytes(1))], rows=1)
    assert rows["good"]["caption"] == "http://x.org/"


@fault(
    "F26",
    "a pattern that matches nothing, open braces, a missing shard, an empty folder",
    "exit 2 before any model is loaded, with what was looked for",
)
def nothing(case: Case) -> None:
    write_tar(case.inputs / "00000.tar", good())
    tried = {
        "*.tarr": "nothing matches",
        "{00000..00003}.tar": "do not exist, the first is",
        "{00000..00003.tar": "Unbalanced braces",
        "nowhere.tar": "no such file",
    }
    for pattern, says in tried.items():
        arguments = ["scan", case.inputs / pattern, "--weights=hf-dir:nowhere", "--mapping=nowhere"]
        case.refuse(*arguments, f"--out={case.out}", says=says)
    assert not case.out.exists()
