"""Whether a finished run is still what it was: its journal against its files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmjax.core.config import digest
from mmjax.core.errors import RunError
from mmjax.core.files import file_sha256


def read_run(path: Path) -> dict[str, Any]:
    """The `run.json` of a run folder.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        run = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is not a run of mmjax; name the --out of one") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path / 'run.json'} cannot be read: {error}") from error
    if not isinstance(run, dict) or not {"verb", "config", "config_digest", "facts"} <= set(run):
        raise RunError(f"{path / 'run.json'} is not what mmjax writes")
    return run


def journal_entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The units of a run and their entries, in the order of their names."""
    journal = path / "journal"
    for file in sorted(journal.rglob("*.json")):
        unit = str(file.relative_to(journal).with_suffix(""))
        yield unit, json.loads(file.read_text(encoding="utf-8"))


def damages(path: Path) -> tuple[int, list[str]]:
    """Compare the files of a run with what its journal says of them.

    Returns:
        How many files were compared, and one line for every one that is not as it was; another
        for a configuration that was changed.

    Raises:
        RunError: no run, or its `run.json` or an entry of its journal cannot be read.
    """
    run = read_run(path)
    found = []
    if digest(run["config"]) != run["config_digest"]:
        found.append("run.json: the configuration is not the one of its digest")
    files = 0
    try:
        for _, entry in journal_entries(path):
            for output in entry["outputs"].values():
                files += 1
                file = path / output["path"]
                if not file.is_file():
                    found.append(f"{output['path']}: is gone")
                elif file.stat().st_size != output["size"]:
                    size = file.stat().st_size
                    found.append(f"{output['path']}: {size} bytes, {output['size']} were written")
                elif file_sha256(file) != output["sha256"]:
                    found.append(f"{output['path']}: its content has changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"the journal of {path} cannot be read: {error}") from error
    return files, found
