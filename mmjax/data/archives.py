"""The members of a tar file, read from its headers alone; junk gives a `ShardError` or a warning.

The standard library's `tarfile` parses single header blocks; following the archive is done here,
because `TarFile.next` ends in silence at a damaged header, recurses over chained long names and
follows negative sizes backwards. Nothing is extracted, no path but the shard's own is opened.
"""

import gzip
import os
import re
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Callable
from typing import NamedTuple

from mmjax.core.errors import ShardError

BLOCK = tarfile.BLOCKSIZE
END_OF_ARCHIVE = bytes(2 * BLOCK)
_HEADER_LIMIT = 2**20  # bytes in a long name or a pax header; real ones have a few hundred
_GZIP_LIMIT = 8 * 2**30  # bytes that a gzipped shard may unpack to
_GZIP_RATIO = 200  # deflate reaches 1032 on zeros; photos and their captions stay below 3
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_MAGIC = (
    (b"PAR1", "Parquet; use --input_format=parquet"),
    (b"\x93NUMPY", "a NumPy array; give the folder that holds img_emb/ and text_emb/"),
    (b"\xff\xd8\xff", "a JPEG image; give the folder of images or a list of them"),
    (b"\x89PNG", "a PNG image; give the folder of images or a list of them"),
    (b"PK\x03\x04", "a zip file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; run unzstd first"),
    (b"\xfd7zXZ", "compressed by xz; run unxz first"),
    (b"BZh", "compressed by bzip2; run bunzip2 first"),
)


_PAX = re.compile(rb"(\d{1,7}) ([^=\n]+)=")


class Member(NamedTuple):
    """An entry of a tar: its (extended) header begins at `start`, its `size` bytes at `data`.

    `unsafe` says why it must not be read as a file, "" for a plain one.
    """

    name: str
    start: int
    data: int
    size: int
    unsafe: str = ""

    @property
    def stop(self) -> int:
        """Where the entry's padded data end."""
        return self.data + _padded(self.size)


class Archive(NamedTuple):
    """An open tar: `read(size, offset)`, its entries in order, `size` in bytes, its defects."""

    read: Callable[[int, int], bytes]
    members: tuple[Member, ...]
    size: int
    warnings: tuple[str, ...]


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def looks_like(head: bytes) -> str:
    """What a file's first bytes are if they are not a tar's: its format and what to do, or ""."""
    for magic, meaning in _MAGIC:
        if head.startswith(magic):
            return meaning
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        return "an HTML or XML page (a failed download?); download the shard again"
    if text[:1] in (b"{", b"["):
        return "JSON; use --input_format=jsonl, coco or karpathy"
    line = text.split(b"\n")[0]
    if 0 not in head and (b"\t" in line or b"," in line):
        return "CSV or TSV; use --input_format=csv"
    return ""


def is_gzip(head: bytes) -> bool:
    """Whether the bytes begin a gzip stream."""
    return head[:3] == b"\x1f\x8b\x08"


def is_tar_header(block: bytes) -> bool:
    """Whether 512 bytes are a tar header with a right checksum, or the end of an empty archive."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(block) == BLOCK and not any(block)
    return True


def check_head(name: str, head: bytes) -> None:
    """Refuses a file whose first 512 bytes cannot begin a tar or a gzipped one; empty ones pass.

    Raises:
        ShardError: what it looks like instead and the way on.
    """
    if not head or is_gzip(head) or is_tar_header(head):
        return
    if len(head) < BLOCK and not (looks_like(head) or head.strip(b"\x00")):
        return
    meaning = looks_like(head)
    raise ShardError(
        f"{name} is no tar: it looks like {meaning}"
        if meaning
        else f"{name} is no tar (no tar header at its start); download it again or leave it out"
    )


def open_archive(path: str) -> Archive:
    """Opens a shard and indexes it. Costs one small read per member.

    Raises:
        ShardError: the file cannot be read or is no tar.
    """
    name = os.path.basename(path)
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 (kept open by the archive)
    except OSError as error:
        raise ShardError(f"{path} cannot be read ({error.strerror})") from error
    warnings: list[str] = []
    with file:
        head = file.read(BLOCK)
        check_head(name, head)
        descriptor = _unpack(path, name, warnings) if is_gzip(head) else os.dup(file.fileno())
    size = os.fstat(descriptor).st_size

    def read(count: int, offset: int) -> bytes:
        return os.pread(descriptor, count, offset)

    weakref.finalize(read, os.close, descriptor)
    members = _index(read, size, name, warnings)
    return Archive(read, tuple(members), size, tuple(warnings))


def _unpack(path: str, name: str, warnings: list[str]) -> int:
    """Unpacks a gzipped tar into a nameless temporary file, because gzip has no random access."""
    limit = min(_GZIP_LIMIT, max(2**20, os.path.getsize(path) * _GZIP_RATIO))
    with tempfile.TemporaryFile(prefix="mmjax-") as plain, gzip.open(path) as packed:
        try:
            while data := packed.read(2**20):
                plain.write(data)
                if plain.tell() > limit:
                    raise ShardError(
                        f"{name} is gzipped and unpacks to more than {limit} bytes; "
                        "if you trust it, run gunzip on it first"
                    )
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            warnings.append(f"{name} is a damaged gzip file ({error}); the rows before it are read")
        plain.flush()
        return os.dup(plain.fileno())


def _index(
    read: Callable[[int, int], bytes], end: int, name: str, warnings: list[str]
) -> list[Member]:
    """Follows the headers from the first block to the end of the archive, the cut or the damage."""
    members: list[Member] = []
    offset = start = 0
    pax: dict[bytes, bytes] = {}
    shared: dict[bytes, bytes] = {}
    while True:
        block = read(BLOCK, offset)
        if len(block) < BLOCK:
            last = f" after member {members[-1].name!r}" if members else ""
            cut = "it is empty" if not end else f"it ends without the end-of-archive mark{last}"
            if not (members and members[-1].data + members[-1].size > end):  # its row says so
                warnings.append(f"{name} may be incomplete: {cut}; download or pack it again")
            return members
        if not any(block):
            _check_tail(read, offset, end, name, warnings)
            return members
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if not offset:
                raise ShardError(f"{name} is no tar ({error}); download it again") from error
            warnings.append(_damaged(name, offset, end))
            return members
        data = offset + BLOCK
        if info.type in _EXTENDED:
            if not 0 <= info.size <= _HEADER_LIMIT:
                warnings.append(_damaged(name, offset, end))
                return members
            body = read(info.size, data)
            if info.type == tarfile.XGLTYPE:
                shared.update(_pax(body))
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                pax[b"path"] = body.rstrip(b"\0")
            elif info.type != tarfile.GNUTYPE_LONGLINK:
                pax.update(_pax(body))
            offset = data + _padded(info.size)
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            extended = block[482]
            while extended and len(block := read(BLOCK, data)) == BLOCK:
                data, extended = data + BLOCK, block[504]
        member = _member(info, start, data, shared | pax)
        if member is None or member.stop <= offset:
            warnings.append(_damaged(name, offset, end))
            return members
        if info.type != tarfile.DIRTYPE:
            members.append(member)
        offset = start = member.stop
        pax = {}


def _damaged(name: str, offset: int, end: int) -> str:
    return (
        f"{name} has a damaged header at byte {offset}; the {end - offset} bytes from there on are "
        "not read; download it again"
    )


def _check_tail(
    read: Callable[[int, int], bytes], offset: int, end: int, name: str, warnings: list[str]
) -> None:
    """Warns about anything but zeros after the end-of-archive mark, e.g. a second tar."""
    while tail := read(2**20, offset):
        if any(tail):
            warnings.append(
                f"{name} goes on after its end-of-archive mark ({end - offset} bytes that tar "
                "readers ignore are not read); if tars were concatenated, split them"
            )
            return
        offset += len(tail)


def _pax(body: bytes) -> dict[bytes, bytes]:
    """The records "LENGTH KEY=VALUE" of a pax header; stops at the first malformed one."""
    records: dict[bytes, bytes] = {}
    position = 0
    while match := _PAX.match(body, position):
        length = int(match[1])
        stop = position + length
        if stop > len(body) or stop <= match.end():
            break
        records[match[2]] = body[match.end() : stop - 1]
        position = stop
    return records


def _member(info: tarfile.TarInfo, start: int, data: int, pax: dict[bytes, bytes]) -> Member | None:
    """Applies the extended headers to a header; None where its size makes no sense."""
    name = pax[b"path"].decode("utf-8", "surrogateescape") if b"path" in pax else info.name
    size = info.size
    if b"size" in pax:
        if not pax[b"size"].isdigit() or len(pax[b"size"]) > 19:
            return None
        size = int(pax[b"size"])
    if size < 0:
        return None
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
    unsafe = "" if plain else _KINDS.get(info.type, f"of unknown type {info.type!r}")
    if any(key.startswith(b"GNU.sparse") for key in pax):
        unsafe = _KINDS[tarfile.GNUTYPE_SPARSE]
    elif info.type in tarfile.SUPPORTED_TYPES and not info.isreg():
        size = 0  # links, devices, pipes and folders have no data, whatever their header says
    return Member(name, start, data, size, unsafe or _leaves(name))


def _leaves(name: str) -> str:
    """Why a name is not one of a file inside the dataset's folder, or ""."""
    if name.startswith("pipe:") or "|" in (name[:1], name[-1:]):
        return "named like a shell pipe"
    if re.match(r"^[/\\]|^[A-Za-z]:[/\\]", name):
        return "an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "a path that leaves the folder"
    return ""
