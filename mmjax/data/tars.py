"""WebDataset shards: members grouped to pairs by key, read at random, copied as raw bytes.

The key is a member's path up to the first dot of its base name, the extension the rest (as in
webdataset:tariterators.py). The index covers the whole shard, so members of a key need not be
adjacent. A second member of a kind that the key already has begins a row `duplicate_key`; of
several kinds of image the one that comes first in `image_key` is the pair's (of captions, in
`text_key`), wherever it lies.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from mmjax.core.files import atomic_path
from mmjax.core.types import Pair
from mmjax.data.archives import END_OF_ARCHIVE, Archive, Member, open_archive
from mmjax.data.records import clean_caption, clean_text
from mmjax.data.shards import SourceOptions

_NAME = re.compile(r"^((?:.*/|)[^./][^./]*)\.([^/]*)$", re.DOTALL)
_COPY_BYTES = 2**20


class Group:
    """The members of one row: at most one image, one caption and one JSON, and any others."""

    __slots__ = ("key", "members", "repeated")

    def __init__(self, key: str, repeated: str = ""):
        self.key = key
        self.members: dict[str, Member] = {}
        self.repeated = repeated


def split_name(name: str) -> tuple[str, str] | None:
    """Splits a member's name into (key, lower-case extension); None for names without a key."""
    match = _NAME.match(name.removeprefix("./"))
    return (match[1], match[2].lower()) if match else None


def _extension(member: Member) -> str:
    return (split_name(member.name) or ("", ""))[1]


class TarView:
    """A `ShardView` of a tar. Thread-safe: every read names its own offset."""

    def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
        self.path = path
        self.name = Path(path).name
        self.options = options
        self.archive = open_archive(path)
        self._images = options.image_key.lower().split(";")
        self._texts = options.text_key.lower().split(";")
        self.groups, self.notes = self._group(self.archive)
        cut = [m for m in self.archive.members[-1:] if m.data + m.size > self.archive.size]
        self.warnings = (*self.archive.warnings, *(self._ends_inside(m) for m in cut))

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Pair:
        group = self.groups[index]
        image, image_status, image_message = self._image(group)
        caption, flags, caption_status, caption_message = self._caption(group)
        status, message = image_status, image_message
        if group.repeated:
            status = "duplicate_key"
            message = f"{group.repeated} appears a second time in {self.name}"
        elif status == "ok":
            status, message = caption_status, caption_message
        return Pair(clean_text(group.key), image, caption, status, clean_text(message), flags)

    def members(self, index: int) -> list[Member]:
        """All members of a row in file order."""
        return sorted(self.groups[index].members.values(), key=lambda member: member.start)

    def _group(self, archive: Archive) -> tuple[list[Group], tuple[str, ...]]:
        order: list[Group] = []
        ranks = {name: rank for rank, name in enumerate([*self._images, *self._texts])}
        by_key: dict[str, list[Group]] = {}
        ignored: list[str] = []
        for member in archive.members:
            parts = split_name(member.name)
            if parts is None and member.unsafe:
                parts = member.name, ""
            if parts is None:
                ignored.append(member.name)
                continue
            key, extension = parts
            kind = self._kind(extension)
            groups = by_key.setdefault(key, [])
            first = groups[0].members.get(kind) if groups else None
            if first is not None and ranks.get(extension, 0) < ranks.get(_extension(first), 0):
                groups[0].members[kind], member = member, first
            group = next((g for g in groups if kind not in g.members), None)
            if group is None:
                group = Group(key, member.name if groups else "")
                groups.append(group)
                order.append(group)
            group.members[kind] = member
        notes = (
            (
                f"{self.name} has {len(ignored)} members without a key, ignored as WebDataset "
                f"readers do: {', '.join(repr(clean_text(n)) for n in ignored[:3])}",
            )
            if ignored
            else ()
        )
        return order, notes

    def _kind(self, extension: str) -> str:
        if extension in self._images:
            return "image"
        if extension in self._texts:
            return "text"
        return f".{extension}"

    def _image(self, group: Group) -> tuple[bytes | None, str, str]:
        for other in group.members.values():
            if other.unsafe:
                return None, "unsafe_member", f"{other.name} is {other.unsafe}"
        member = group.members.get("image")
        if member is None:
            found = ", ".join(sorted(Path(m.name).name for m in group.members.values()))
            wanted = self.options.image_key.replace(";", ", ")
            return None, "missing_image", f"the key has only {found[:200]}; images are {wanted}"
        status, message = self._refusal(member)
        if status == "ok":
            data = self.archive.read(member.size, member.data)
            if data and len(data) == member.size:
                return data, "ok", ""
            if not member.size:
                return None, "undecodable_image", f"{member.name} is empty"
            status, message = "truncated_image", self._ends_inside(member)
        return None, status, message

    def _caption(self, group: Group) -> tuple[str | None, tuple[str, ...], str, str]:
        """Returns (caption, flags, status, message) from the text member or else the JSON."""
        member = group.members.get("text") or group.members.get(".json")
        if member is None:
            return None, (), "missing_caption", "the key has no caption"
        status, message = self._refusal(member)
        if status != "ok":
            return None, (), status, message
        data = self.archive.read(member.size, member.data)
        if len(data) < member.size:
            return None, (), "missing_caption", self._ends_inside(member)
        if "text" not in group.members:
            value, message = json_caption(data, self.options.json_text_key)
            caption, flags = clean_caption(value)
        else:
            caption, flags = clean_caption(data)
        if caption is None:
            return None, flags, "missing_caption", message or f"{member.name} is empty"
        return caption, flags, "ok", ""

    def _refusal(self, member: Member) -> tuple[str, str]:
        if member.unsafe:
            return "unsafe_member", f"{member.name} is {member.unsafe}"
        if member.size > self.options.max_member_bytes:
            limit = self.options.max_member_bytes
            message = f"{member.name} has {member.size} bytes, --max_member_bytes is {limit}"
            return "oversized_member", message
        return "ok", ""

    def _ends_inside(self, member: Member) -> str:
        got = max(0, self.archive.size - member.data)
        return clean_text(
            f"{self.name} ends inside member {member.name} (wanted {member.size} bytes, "
            f"got {got}); download it again"
        )


def json_caption(data: bytes, key: str) -> tuple[str | None, str]:
    """The caption of a JSON member, or None and why there is none."""
    try:
        value = json.loads(data.decode("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError) as error:
        return None, f"the key's JSON cannot be read ({str(error)[:100]})"
    caption = value.get(key) if isinstance(value, dict) else None
    return (caption, "") if isinstance(caption, str) else (None, f"the JSON has no text {key!r}")


def copy_raw(view: TarView, rows: Iterable[int], out_path: str | Path) -> int:
    """Copies all members of some rows, headers and data byte for byte and in file order.

    A member that the shard cuts off is left out. Returns the number of rows copied.
    """
    kept = set(rows)
    members = sorted(
        (member for row in kept for member in view.members(row)), key=lambda member: member.start
    )
    with atomic_path(out_path) as temporary, open(temporary, "wb") as out:
        for member in members:
            if member.data + member.size <= view.archive.size:
                for offset in range(member.start, member.stop, _COPY_BYTES):
                    count = min(_COPY_BYTES, member.stop - offset)
                    out.write(view.archive.read(count, offset).ljust(count, b"\0"))
        out.write(END_OF_ARCHIVE)
        out.write(bytes(-out.tell() % (20 * 512)))
    return len(kept)


def open_tar(path: str, options: SourceOptions) -> TarView:
    """Opens one shard.

    Raises:
        ShardError: it is no tar.
    """
    return TarView(path, options)
