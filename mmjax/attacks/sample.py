"""The pairs of the clean set that an attack is optimised on: few, drawn by the images' hashes."""

import hashlib
import heapq
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from mmjax.attacks.captions import natural_pool
from mmjax.attacks.config import AttackConfig, PartConfig
from mmjax.attacks.optimisation import Sample
from mmjax.attacks.shards import Place, read_rows, try_decode
from mmjax.attacks.victims import lot, names_target
from mmjax.core.errors import ImageError
from mmjax.data.shards import ShardView, Source


def draw_sample(
    source: Source, part: PartConfig, config: AttackConfig, size: int, pool: Executor
) -> Sample:
    """Read the set and draw up to `size` images of either kind.

    The draw depends on the seed and the images alone, not on the set's order or sharding.
    """
    names = names_target(part.target)
    others, targets = _Draw(size), _Draw(size)
    captions: set[str] = set()
    for number, shard in enumerate(source.shards):
        for ordinals, rows in read_rows(source.open_shard(shard), pool):
            for ordinal, pair in zip(ordinals, rows, strict=True):
                if pair.status != "ok" or not pair.image:
                    continue
                named = bool(names.search(pair.caption or ""))
                if named:
                    captions.add((pair.caption or "").strip())
                sha = hashlib.sha256(pair.image).hexdigest()
                drawn = targets if named else others
                drawn.offer(lot(config.seed, "sample", sha), Place(number, ordinal))

    def decoded(places: Sequence[Place]) -> np.ndarray:
        images: dict[Place, np.ndarray | ImageError] = {}
        for number in sorted({place.shard for place in places}):
            view = source.open_shard(source.shards[number])  # opening reads all its heads
            here = [place for place in places if place.shard == number]

            def one(place: Place, view: ShardView = view) -> np.ndarray | ImageError:
                return try_decode(view[place.ordinal].image or b"", config)

            images |= zip(here, pool.map(one, here), strict=True)
        found = [image for place in places if isinstance(image := images[place], np.ndarray)]
        side = config.image_size
        return np.stack(found) if found else np.empty((0, side, side, 3), np.uint8)

    used = natural_pool(list(captions), config.seed, part.pool)
    return Sample(decoded(others.places), decoded(targets.places), used)


class _Draw:
    """The `size` places with the smallest lots; of equal lots, which are one image, the first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, Place]] = []
        self._known: set[int] = set()

    def offer(self, drawn: int, place: Place) -> None:
        """Take a place, if its lot is among the smallest."""
        full = len(self._heap) >= self._size
        if drawn in self._known or (full and -drawn < self._heap[0][0]):
            return
        heapq.heappush(self._heap, (-drawn, place))
        self._known.add(drawn)
        if full:
            self._known.discard(-heapq.heappop(self._heap)[0])

    @property
    def places(self) -> list[Place]:
        """The places in ascending order of their lots."""
        return [place for _, place in sorted(self._heap, reverse=True)]
