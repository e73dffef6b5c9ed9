"""Fetches from the source the few pictures that the report shows or averages."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from mmjax.core.errors import InputError
from mmjax.data.sources import Source
from mmjax.scan.report_images import MeanImages, mean_images, squash, thumbnail

_SIDE = 128
_MOST = 256  # pictures in each mean
_SHARDS = 8  # shards opened for each mean: opening one reads its whole index


def thumbnails(
    places: Iterable[tuple[str, int]], source: Source
) -> dict[tuple[str, int], bytes | None]:
    """Returns a thumbnail for each (shard, ordinal), None where the picture cannot be shown."""
    wanted: dict[str, list[int]] = {}
    for shard, ordinal in sorted(set(places)):
        wanted.setdefault(shard, []).append(ordinal)
    found: dict[tuple[str, int], bytes | None] = {}
    for shard, ordinals in wanted.items():
        for ordinal, data in _images(source, shard, ordinals):
            found[shard, ordinal] = thumbnail(data)
    return found


def compare_means(
    flagged: Mapping[str, np.ndarray], benign: Mapping[str, np.ndarray], source: Source
) -> MeanImages | None:
    """Returns mean flagged and mean benign picture, each of at most 256 different pictures.

    Args:
        flagged: Ordinals of the flagged rows by shard.
        benign: Ordinals of the benign rows by shard.
        source: What was scanned.
    """
    return mean_images(_sample(flagged, source), _sample(benign, source))


def _sample(rows: Mapping[str, np.ndarray], source: Source) -> UInt8[np.ndarray, "n side side 3"]:
    """Different pictures of rows spread evenly over the eight shards that have most of them."""
    fullest = sorted(rows, key=lambda shard: (-len(rows[shard]), shard))[:_SHARDS]
    total = sum(len(rows[shard]) for shard in fullest)
    pictures: dict[bytes, np.ndarray] = {}
    for shard in sorted(fullest):
        ordinals = rows[shard]
        share = min(len(ordinals), -(-_MOST * len(ordinals) // max(total, 1)))
        chosen = ordinals[np.linspace(0, len(ordinals) - 1, share).astype(int)]
        for _, data in _images(source, shard, chosen.tolist()):
            picture = squash(data, _SIDE)
            if picture is not None:
                pictures.setdefault(hashlib.sha256(data).digest(), picture)
    different = list(pictures.values())[:_MOST]
    return np.stack(different) if different else np.zeros((0, _SIDE, _SIDE, 3), np.uint8)


def _images(source: Source, name: str, ordinals: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yields the encoded picture of each row that has one; a shard that is gone has none."""
    shard = next((shard for shard in source.shards if shard.name == name), None)
    if shard is None or not ordinals:
        return
    try:
        view = source.open_shard(shard)
    except (InputError, OSError):
        return
    for ordinal in ordinals:
        pair = view[ordinal] if ordinal < len(view) else None
        if pair is not None and pair.image:
            yield ordinal, pair.image
