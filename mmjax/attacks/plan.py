"""Who is poisoned by what: one reading of the clean set, then a choice by seed, keys, captions."""

import contextlib
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from mmjax.attacks.captions import CAPTIONS, Write
from mmjax.attacks.config import LARGEST_UNASKED_RATE, AttackConfig, PartConfig
from mmjax.attacks.pictures import IMAGES
from mmjax.attacks.shards import Place, Victim, read_rows, try_decode
from mmjax.attacks.victims import Candidate, choose, identity, lot, names_target, victim_count
from mmjax.core.errors import ConfigError, ImageError
from mmjax.core.progress import meter
from mmjax.core.types import Pair
from mmjax.data.shards import Source


class PartPlan(NamedTuple):
    """One attack of the set, worked out."""

    write: Write
    candidates: int
    """Usable pairs that it may poison: they do not name the target yet, or must name it."""
    poisoned: int
    donors: int
    """Different images that its victims get in place of their own."""


class Plan(NamedTuple):
    """Which rows become victims, by shard and ordinal; and the counts that led there."""

    victims: tuple[Mapping[int, Victim], ...]
    parts: tuple[PartPlan, ...]
    pairs: int
    usable: int
    """Pairs that the source calls ok."""
    candidates: int
    """Usable pairs that some attack may poison."""

    @property
    def poisoned(self) -> int:
        """How many pairs are poisoned, by any attack."""
        return sum(part.poisoned for part in self.parts)


def make_plan(source: Source, config: AttackConfig, pool: Executor) -> Plan:
    """Choose the victims, their captions and their images.

    Reads the set once, and decodes no image but those of the pairs whose turn it is. All attacks
    of a mixture draw from one order of the pairs, each in turn what the earlier ones left.

    Raises:
        ConfigError: too few candidates, no donor image, no natural caption, or more than 10 %
            poison without `i_understand`.
    """
    seen = _survey(source, config, pool)
    counts = [sum(one.attacks >> i & 1 for one in seen.candidates) for i in range(len(seen.parts))]
    wanted = [
        _wanted(part.config, seen.usable, count)
        for part, count in zip(seen.parts, counts, strict=True)
    ]
    if sum(wanted) > LARGEST_UNASKED_RATE * seen.usable and not config.i_understand:
        raise ConfigError(
            f"{sum(wanted)} of {seen.usable} usable pairs are more than 10 %, which no published "
            "attack needs; add --i_understand if that is what you want"
        )

    def can_be_poisoned(asked: Sequence[Candidate]) -> list[bool]:
        views = {n: source.open_shard(source.shards[n]) for n in {one.shard for one in asked}}

        def decodes(one: Candidate) -> bool:
            data = views[one.shard][one.ordinal].image or b""
            return not isinstance(try_decode(data, config), ImageError)

        return list(pool.map(decodes, asked))

    victims: list[dict[int, Victim]] = [{} for _ in source.shards]
    plans: list[PartPlan] = []
    for i, part in enumerate(seen.parts):
        free = [
            one
            for one in seen.candidates
            if one.attacks >> i & 1 and one.ordinal not in victims[one.shard]
        ]
        taken, donors = _take(part, free, wanted[i], can_be_poisoned)
        for rank, one in enumerate(taken):
            donor = donors[rank % len(donors)] if donors else None
            place = Place(donor.shard, donor.ordinal) if donor else None
            victims[one.shard][one.ordinal] = Victim(i, place)
        # an attack without victims needs no captions, and may find none
        kind = CAPTIONS[part.config.captions if taken else "keep"]
        write = kind.writer(part.config, config.seed, list(part.natural))
        plans.append(PartPlan(write, counts[i], len(taken), len(donors)))
    return Plan(tuple(victims), tuple(plans), seen.pairs, seen.usable, len(seen.candidates))


class _Part(NamedTuple):
    """One attack, and what the survey finds for it."""

    config: PartConfig
    names_target: re.Pattern[str]
    names_donor: re.Pattern[str] | None
    natural: set[str]
    donors: dict[str, Candidate]
    """One place of every image of the donor class, by the image's hash."""


class _Survey(NamedTuple):
    parts: list[_Part]
    candidates: list[Candidate]
    pairs: int
    usable: int


def _survey(source: Source, config: AttackConfig, pool: Executor) -> _Survey:
    parts = [
        _Part(
            part,
            names_target(part.target),
            names_target(part.donor) if part.donor.strip() else None,
            set(),
            {},
        )
        for part in config.parts
    ]
    pairs = usable = 0
    candidates: list[Candidate] = []
    total = sum(source.sizes.values()) if len(source.sizes) == len(source.shards) else None
    with contextlib.closing(meter(total, "choosing victims", unit="pairs")) as done:
        for number, shard in enumerate(source.shards):
            for ordinals, rows in read_rows(source.open_shard(shard), pool):
                for ordinal, pair in zip(ordinals, rows, strict=True):
                    if pair.status != "ok":
                        continue
                    usable += 1
                    place = Place(number, ordinal)
                    attacks = sum(
                        _look(part, pair, place, config) << i for i, part in enumerate(parts)
                    )
                    if attacks:
                        name = identity(pair.key, pair.caption or "")
                        drawn = lot(config.seed, "victims", name)
                        candidates.append(Candidate(drawn, number, ordinal, attacks))
                pairs += len(rows)
                done.update(len(rows))
    return _Survey(parts, candidates, pairs, usable)


def _take(
    part: _Part,
    free: Sequence[Candidate],
    wanted: int,
    usable: Callable[[Sequence[Candidate]], Sequence[bool]],
) -> tuple[list[Candidate], list[Candidate]]:
    """An attack's victims and the places of the images that they get, in the order of the draw.

    Raises:
        ConfigError: fewer victims than wanted can be poisoned, or no donor's image can be read.
    """
    taken = choose(free, wanted, usable)
    if len(taken) < wanted and not part.config.share:
        raise ConfigError(
            f"{wanted} pairs were to be poisoned with {part.config.label} and {len(taken)} "
            f"of {len(free)} candidates can be; lower --rate or --config.count"
        )
    limit = IMAGES[part.config.images].donors(len(taken))
    donors = choose(part.donors.values(), limit, usable)
    if limit and not donors:
        raise ConfigError(
            f"no image can be read whose caption names {part.config.donor!r} and not "
            f"{part.config.target!r}; choose another --config.donor"
        )
    return taken, donors


def _look(part: _Part, pair: Pair, place: Place, config: AttackConfig) -> bool:
    """Whether the attack may poison a pair; notes its caption and image where they are wanted."""
    caption, kind = pair.caption or "", CAPTIONS[part.config.captions]
    named = bool(part.names_target.search(caption))
    if named and kind.collects:
        part.natural.add(caption.strip())
    shows_donor = bool(part.names_donor and part.names_donor.search(caption))
    if shows_donor and not named and pair.image:
        sha = hashlib.sha256(pair.image).hexdigest()
        drawn = Candidate(lot(config.seed, "donors", sha), *place)
        part.donors[sha] = min(drawn, part.donors.get(sha, drawn))
    # a pair that names both would fit its new image, or has it already
    return named == kind.victims_name_target and not shows_donor


def _wanted(part: PartConfig, usable: int, candidates: int) -> int:
    """How many pairs an attack is to poison.

    Raises:
        ConfigError: its rate or share asks for less than one pair.
    """
    if not part.share:
        return victim_count(usable, part.rate, part.count)
    wanted = math.floor(part.share * candidates + 0.5)
    if not wanted:
        raise ConfigError(
            f"share={part.share} of the {candidates} pairs that {part.label} can poison is less "
            f"than one; raise config.share, or choose a target that captions name (now "
            f"{part.target!r})"
        )
    return wanted
