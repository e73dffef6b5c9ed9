"""The names that cross layers: a pair, the statuses a row can have, the verdicts it can get."""

from typing import Literal, NamedTuple

Verdict = Literal["benign", "poisoned", "mismatched", "skipped", "undetermined"]

STATUSES: dict[str, str] = {
    "ok": "read and scored",
    "truncated_image": "the image file ends before the image does",
    "undecodable_image": "not an image, or a damaged one",
    "unsupported_image": "an image format that is not read (JPEG, PNG, WebP, GIF and BMP are)",
    "oversized_image": "more pixels than --max_image_pixels",
    "missing_image": "a caption without an image",
    "missing_caption": "an image without a caption, or an empty one",
    "duplicate_key": "a key that this shard has already used",
    "unsafe_member": "no plain file in a tar, or a name that leaves the folder; never read",
    "oversized_member": "a tar member larger than --max_member_bytes",
    "nonfinite_embedding": "the model's embedding holds NaN, infinity or only zeros",
}
"""Every status that a row can have. Each row has exactly one; all but `ok` are skipped."""

FLAGS: dict[str, str] = {
    "caption_encoding": "the caption was not UTF-8; undecodable bytes were replaced",
    "caption_truncated": "the caption is longer than the text tower reads",
}
"""Remarks on rows that are scored all the same."""


class Pair(NamedTuple):
    """One row of a source.

    `image` is the encoded file (JPEG, PNG, ...), None when absent; `status` is a key of
    `STATUSES`: a row that its reader already knows to be unusable has its reason there and in
    `message`. `flags` are keys of `FLAGS`.
    """

    key: str
    image: bytes | None
    caption: str | None
    status: str = "ok"
    message: str = ""
    flags: tuple[str, ...] = ()
