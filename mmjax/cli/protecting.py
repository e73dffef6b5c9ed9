"""`mmjax protect`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmjax.core.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from mmjax.protect.config import ProtectConfig


def protect(config: "ProtectConfig", flags: argparse.Namespace) -> int:
    """Protect a folder of photos, or a set of pairs, and say what was done and what was not."""
    if not flags.out:
        raise ConfigError("where to? add --out=FOLDER, apart from the photos")
    out = Path(flags.out)
    if config.output == "shards":
        from mmjax.core import distributed
        from mmjax.protect.pipeline import protect_pairs

        distributed.initialize(flags.coordinator, flags.processes, flags.process)
        if not distributed.is_primary():
            protect_pairs(config, out)
            return ExitCode.DONE
        return _told_shards(protect_pairs(config, out, say=print), out)
    if flags.coordinator:
        raise ConfigError("--coordinator joins processes that protect a set (output=shards)")
    from mmjax.protect.export import protect_photos

    return _told_photos(protect_photos(config, out, say=print), out)


def _told_shards(manifest: dict[str, Any], out: Path) -> int:
    counts = manifest["counts"]
    print(f"protected {counts['pairs']:,} pairs of {counts['images']:,} images")
    print(f"changed   at most {manifest['largest_change']} of 255 grey levels")
    if counts["triggers"]:
        print(f"captions  {counts['captions_read_back']:,} are read as they were optimised")
    for status, count in sorted(counts["skipped"].items()):
        print(f"left out  {count:,} x {status}")
    print(f"shards    {out / 'shards'}")
    return ExitCode.DONE


def _told_photos(manifest: dict[str, Any], out: Path) -> int:
    total, done = len(manifest["photos"]), manifest["counts"].get("ok", 0)
    print(f"protected {done:,} of {total:,} photos in {out / 'photos'}")
    if manifest["other_files"]:
        print(f"left out  {manifest['other_files']:,} x no photo by name and content")
    print(f"captions  {out / 'captions.csv'}\nsheet     {out / 'sheet.html'}")
    print("What this cannot promise:")
    for sentence in manifest["not_promised"]:
        print(f"- {sentence}")
    return ExitCode.DONE if done == total else ExitCode.DEGRADED
