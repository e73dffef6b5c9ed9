"""Small inputs with faults in them, made by code: tars of every damage, tables, folders."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def image_bytes(number: int = 0, kind: str = "PNG", size: int = 8) -> bytes:
    """A small picture that differs from number to number."""
    buffer = io.BytesIO()
    colour = (number * 37 % 256, number * 11 % 256, number * 5 % 256)
    picture = Image.new("RGB", (size, size), colour)
    picture.save(buffer, kind)
    return buffer.getvalue()


def truncated_jpeg() -> bytes:
    """The first half of a JPEG."""
    data = image_bytes(3, "JPEG", 64)
    return data[: len(data) // 2]


def plain(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """A plain member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = 1_700_000_000
    return info, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A member that is a link, a device or a pipe."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info, b""


def pair(key: str, number: int = 0, caption: bytes | None = None) -> list:
    """The two members of a pair."""
    return [
        plain(f"{key}.png", image_bytes(number)),
        plain(f"{key}.txt", b"caption %d" % number if caption is None else caption),
    ]


def tar_bytes(members: Iterable, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of (TarInfo, bytes) members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable, tar_format: int = tarfile.GNU_FORMAT) -> Path:
    """Writes a tar of (TarInfo, bytes) members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members, tar_format))
    return path


def faulty_members() -> tuple[list, dict[str, str]]:
    """Members with every fault that a row can have, and the status that each key must get.

    A key that appears twice has the status of its second row under "KEY/2".
    """
    members = [
        *pair("good", 1),
        plain("noimage.txt", b"a caption"),
        plain("nocaption.png", image_bytes(2)),
        *pair("empty", 3, b""),
        *pair("blank", 4, b" \n\t "),
        *pair("latin", 5, b"caf\xe9"),
        *pair("bom", 6, b"\xef\xbb\xbfwith a mark"),
        *pair("utf16", 7, "grüße".encode("utf-16")),
        *pair("nul", 8, b"a\0b"),
        *pair("twice", 9),
        *pair("twice", 10),
        special("link.png", tarfile.SYMTYPE, "/etc/passwd"),
        plain("link.txt", b"symbolic"),
        special("hard.png", tarfile.LNKTYPE, "good.png"),
        plain("hard.txt", b"hard"),
        special("pipe.png", tarfile.FIFOTYPE),
        special("device.png", tarfile.CHRTYPE),
        *pair("../evil", 11),
        *pair("/absolute", 12),
        *pair("pipe:touch hacked", 13),
        plain("big.png", b"\x89PNG" + bytes(100_000)),
        plain("big.txt", b"too big"),
        plain("far.txt", b"far from its image"),
        plain("json.png", image_bytes(14)),
        plain("json.json", json.dumps({"caption": "from the sidecar"}).encode()),
        plain("badjson.png", image_bytes(15)),
        plain("badjson.json", b"{" * 5000),
        plain("surrogate.png", image_bytes(16)),
        plain("surrogate.json", b'{"caption": "a\\ud800b"}'),
        *pair("dir with space/ünïcode\n.v1", 17),
        plain("pickle.pkl", b"cos\nsystem\n(S'touch hacked'\ntR."),
        plain("other.cls", b"3"),
        plain("far.png", image_bytes(18)),
    ]
    statuses = {
        "good": "ok", "noimage": "missing_image", "nocaption": "missing_caption",
        "empty": "missing_caption", "blank": "missing_caption", "latin": "ok", "bom": "ok",
        "utf16": "ok", "nul": "ok", "twice": "ok", "twice/2": "duplicate_key",
        "link": "unsafe_member", "hard": "unsafe_member", "pipe": "unsafe_member",
        "device": "unsafe_member", "../evil": "unsafe_member", "/absolute": "unsafe_member",
        "pipe:touch hacked": "unsafe_member", "big": "oversized_member", "far": "ok",
        "json": "ok", "badjson": "missing_caption", "surrogate": "ok",
        "dir with space/ünïcode\n": "missing_image", "pickle": "missing_image",
        "other": "missing_image",
    }  # fmt: skip
    return members, statuses


def not_tars() -> dict[str, bytes]:
    """Files that are given as tars and are none, by what the error must name."""
    return {
        "Parquet": b"PAR1" + bytes(600),
        "CSV": b"filepath\ttitle\na.jpg\tb\n" * 40,
        "HTML": b"<!DOCTYPE html><html>" + b" " * 600,
        "JPEG": b"\xff\xd8\xff\xe0" + bytes(600),
        "zip": b"PK\x03\x04" + bytes(600),
        "JSON": b'{"images": []}' + b" " * 600,
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(600),
        "no tar header": bytes(range(256)) * 4,
    }


def gzip_bomb(size: int = 2**24) -> bytes:
    """A gzip stream of zeros that unpacks to a thousand times its length."""
    return gzip.compress(bytes(size), 9)


def write_photo_folder(folder: Path, count: int = 4) -> Path:
    """Photos `0.png` ... and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(image_bytes(number))
    return folder
