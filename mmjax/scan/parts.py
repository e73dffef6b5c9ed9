"""One host's part of a scan: shards that it encodes, with no word to the other hosts.

Every host runs the command of the scan with `--part=I/N` on one folder that all of them see; each
encodes every N-th shard and writes its own files. The same command without `--part` encodes what
is left, if a host was lost, and decides. N may change on the way.
"""

import json
from pathlib import Path
from typing import NamedTuple

from mmjax.core.errors import ConfigError, RunError
from mmjax.core.files import write_json
from mmjax.core.mesh import make_mesh
from mmjax.core.rundir import RunDir
from mmjax.data.embeddings import EmbeddingSource
from mmjax.data.shards import Source
from mmjax.scan.config import ScanConfig
from mmjax.scan.inputs import encode_shards
from mmjax.scan.prepare import prepare_scan


class Part(NamedTuple):
    """Part `number` (from 0) of `parts` parts."""

    number: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read I/N; ConfigError unless 0 <= I < N."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise ConfigError(f"--part wants I/N with I from 0 to N-1, as 0/8, got {text!r}")
        return cls(int(number), int(count))

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.number}-of-{self.parts}"


class PartResult(NamedTuple):
    """Shards of the part, all of them stored now; and of all shards, how many are stored."""

    shards: int
    stored: int
    total: int


def encode_part(config: ScanConfig, out: Path | str, part: Part) -> PartResult:
    """Encode one part of the shards of a scan and of its reference.

    Args:
        config: the scan's, the same on every host.
        out: the run folder, which every host sees.
        part: which shards.

    Raises:
        ConfigError: embeddings, of which there is nothing to encode.
        InputError, WeightsError, TokenizerError, RunError: as `run_scan`; RunError too where
            configuration, weights or versions are not those of the part that came first.
    """
    mesh = make_mesh(config.mesh)
    given = prepare_scan(config)
    if isinstance(given.opened, EmbeddingSource):
        raise ConfigError("--part divides the encoding of images; embeddings need no part")
    sets: list[tuple[Source, str]] = [(given.opened, "")]
    if isinstance(given.reference, Source):
        sets.append((given.reference, "reference/"))
    mine = 0
    with RunDir.open(out, verb="scan", config=config, facts=given.facts, part=part.name) as run:
        _check_shards(run, sets)
        for source, prefix in sets:
            shards = source.shards[part.number :: part.parts]
            what = f"part {part.number}/{part.parts}"
            encode_shards(
                run, source, shards, given.model, config.encode, what=what, prefix=prefix, mesh=mesh
            )
            mine += len(shards)
        stored = sum(
            (run.path / "journal" / f"{prefix}{shard.name}.json").exists()
            for source, prefix in sets
            for shard in source.shards
        )
    return PartResult(mine, stored, sum(len(source.shards) for source, _ in sets))


def _check_shards(run: RunDir, sets: list[tuple[Source, str]]) -> None:
    """Raise RunError unless this host sees the shards that the first one saw."""
    seen = [prefix + shard.name for source, prefix in sets for shard in source.shards]
    file = run.path / "parts" / "shards.json"
    with run.alone():
        if not file.exists():
            write_json(file, seen)
    first = json.loads(file.read_text(encoding="utf-8"))
    if seen != first:
        other = sorted(set(seen) ^ set(first))
        raise RunError(
            f"this host sees {len(seen)} shards, the first one saw {len(first)} "
            f"({', '.join(other[:3])}); let all see the same files, or choose another --out"
        )
