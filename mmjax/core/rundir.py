"""The run folder: what was asked, what was done, and how to go on after an interruption.

Layout: `run.json` (command, configuration, versions, fingerprints), `log.jsonl`,
`journal/<unit>.json` (one per finished unit of work, written after its outputs), `lock`.
A unit counts as done only when its journal entry says so and its outputs still have the sizes
and hashes that the entry recorded.

Several hosts may work in one folder, each on a part of the units: every one of them holds `lock`
shared and writes `parts/PART.jsonl` in the place of `log.jsonl`.
"""

import contextlib
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mmjax.core.config import command_line, digest, to_dict
from mmjax.core.errors import RunError
from mmjax.core.files import file_sha256, plain, write_json, writing_error
from mmjax.core.progress import notice


def is_unclaimed(folder: Path, claim: str) -> bool:
    """Whether a folder is free: not there, empty, or left by a process killed while it claimed it.

    Args:
        folder: an output folder.
        claim: name of the file that makes it somebody's, written first.
    """
    if not folder.is_dir():
        return not folder.exists()
    ours = ("lock", "parts")
    return all(p.name in ours or p.name.startswith(f"{claim}.tmp-") for p in folder.iterdir())


class RunDir:
    """An opened run folder; use as a context manager so that its lock is released."""

    def __init__(
        self,
        path: Path,
        held: contextlib.ExitStack,
        log: TextIO | None,
        run: dict[str, Any],
        *,
        resumed: bool,
    ) -> None:
        self.path = path
        self.run = run
        self.resumed = resumed
        self._held = held
        self._log = log

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        verb: str,
        config: Any,
        facts: Mapping[str, Any] | None = None,
        overwrite: bool | None = None,
        part: str = "",
    ) -> "RunDir":
        """Create the folder, or resume it when the same verb and configuration made it.

        Args:
            path: the folder (`--out`).
            verb: the verb that works in it.
            config: its configuration (a frozen dataclass); its digest decides about resuming.
            facts: what else must be equal to resume (input and weights fingerprints) or is worth
                recording.
            overwrite: empty the folder first, if it is a run of this verb; None for verbs that
                cannot be told to.
            part: name of the part of the run's units that this process does while others do
                theirs; what it has not finished is left to whoever does the part next, and
                versions must be those of the other parts too.

        Raises:
            RunError: in use by another process, made by another configuration, not a run folder,
                or not writable.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                log = path / "log.jsonl"
                _lock(held, path / "lock", what=str(path), shared=bool(part))
                if part:
                    log = path / "parts" / f"{part}.jsonl"
                    log.parent.mkdir(exist_ok=True)
                    _lock(held, log.with_suffix(".lock"), what=f"part {part} of {path}")
                with contextlib.ExitStack() as opening:
                    if part:  # one after the other, so that the first one's run.json is whole
                        _lock(opening, log.with_name("opening.lock"), what=str(path), wait=True)
                    run, resumed = _begin(path, verb, config, facts or {}, overwrite, bool(part))
                opened = held.enter_context(open(log, "a", encoding="utf-8"))
                return cls(path, held.pop_all(), opened, run, resumed=resumed)
        except OSError as error:
            raise writing_error(error, path) from error

    @classmethod
    def follow(cls, path: Path) -> "RunDir":
        """A folder that another process of the same run has opened: it is read, never written."""
        run = json.loads((path / "run.json").read_text(encoding="utf-8"))
        return cls(path, contextlib.ExitStack(), None, run, resumed=True)

    @classmethod
    def read(cls, path: Path) -> "RunDir":
        """A run of earlier, read and never written; until it is closed no process works in it.

        Raises:
            RunError: in use by a process that works in it, or not a folder that a run left.
        """
        try:
            with contextlib.ExitStack() as held:
                # parts share `lock`; each has one of its own
                for file in (path / "lock", *sorted((path / "parts").glob("*-of-*.lock"))):
                    _lock(held, file, what=str(path), mode="r", shared=True)
                run = json.loads((path / "run.json").read_text(encoding="utf-8"))
                return cls(path, held.pop_all(), None, run, resumed=True)
        except OSError as error:
            raise RunError(f"{path} cannot be read as a run of mmjax: {error}") from error

    def log(self, event: str, **values: Any) -> None:
        """Append one line to the log."""
        if self._log is None:
            return
        line = {"time": time.time(), "event": event, **values}
        try:
            self._log.write(json.dumps(line, default=plain) + "\n")
            self._log.flush()
        except OSError as error:
            raise writing_error(error, Path(self._log.name)) from error

    def finish(self, unit: str, outputs: Mapping[str, Path], **values: Any) -> None:
        """Journal a unit as done: call it after all its outputs are in place."""
        if self._log is None:
            return
        entry = {
            "unit": unit,
            "outputs": {
                name: {
                    "path": str(p.relative_to(self.path)),
                    "size": p.stat().st_size,
                    "sha256": file_sha256(p),
                }
                for name, p in outputs.items()
            },
            **values,
        }
        write_json(self.path / "journal" / f"{unit}.json", entry)

    def forget(self, unit: str) -> None:
        """Take a unit out of the journal: call it before its outputs are removed."""
        (self.path / "journal" / f"{unit}.json").unlink(missing_ok=True)

    def finished(self, unit: str) -> dict[str, Any] | None:
        """The journal entry of a unit, or None when it is not done or its outputs changed."""
        try:
            entry = self.journal(unit)
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        for output in entry["outputs"].values():
            file = self.path / output["path"]
            if not file.is_file() or file.stat().st_size != output["size"]:
                return None
            if file_sha256(file) != output["sha256"]:
                return None
        return entry

    def journal(self, unit: str) -> dict[str, Any]:
        """The journal entry of a finished unit, as it was written."""
        return json.loads((self.path / "journal" / f"{unit}.json").read_text())

    def disown(self) -> None:
        """Nothing came of it: unless it was there before, the folder is free for another run."""
        if not self.resumed:
            (self.path / "run.json").unlink()
            for child in self.path.iterdir():
                if child.is_file() and child.name != "lock":
                    child.unlink()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other part of the run is in such a block, or opens the folder, at the same time."""
        with contextlib.ExitStack() as held:
            file = self.path / "parts" / "opening.lock"
            _lock(held, file, what=str(self.path), wait=True)
            yield

    def close(self) -> None:
        """Close the log and release the locks."""
        self._held.close()

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _lock(
    held: contextlib.ExitStack,
    file: Path,
    *,
    what: str,
    mode: str = "a+",
    shared: bool = False,
    wait: bool = False,
) -> None:
    """Lock a file until `held` is closed; RunError when another process has it."""
    lock = held.enter_context(open(file, mode, encoding="utf-8"))  # noqa: SIM115
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(lock, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(
            f"{what} is in use by another mmjax process; wait for it or choose another --out"
        ) from error


def _begin(
    path: Path, verb: str, config: Any, facts: Mapping[str, Any], overwrite: bool | None, part: bool
) -> tuple[dict[str, Any], bool]:
    """What `run.json` holds, written if it was not there; and whether it was."""
    known = path / "run.json"
    if not (is_unclaimed(path, "run.json") or known.exists() or (path / "log.jsonl").exists()):
        raise RunError(f"{path} holds files and is not a run of mmjax; choose an empty --out")
    if not part:  # other parts may be writing theirs
        for leftover in path.rglob("*.tmp-*"):
            if leftover.is_file():
                leftover.unlink()
    earlier = json.loads(known.read_text()) if known.exists() else None
    if earlier is not None and overwrite and earlier["verb"] == verb:
        for child in path.iterdir():
            if child.is_dir():
                shutil.rmtree(child)
            elif child.name not in ("lock", "run.json"):
                child.unlink()
        known.unlink()  # last: if this is interrupted, the folder is still a run's
        earlier = None
    run = {
        "verb": verb,
        "config": to_dict(config),
        "config_digest": digest(config),
        "facts": dict(facts),
        "versions": versions(),
    }
    if earlier is not None:
        keys = ("verb", "config", "facts", *(("versions",) if part else ()))
        if different := _different(earlier, json.loads(json.dumps(run, default=plain)), keys):
            told = "choose another --out" + ("" if overwrite is None else " or add --overwrite")
            raise RunError(f"{path} holds another run ({different}); {told}")
        others = list(_differences(earlier, run, ("versions",)))
        if others:
            name, before, now = others[0]
            notice(f"{path}: {name} was {before}, is now {now}; what was done before is kept")
        return earlier, True
    typed = Path(sys.argv[0]).name == "mmjax" and not part
    run["command"] = ["mmjax", *sys.argv[1:]] if typed else command_line(verb, config, path)
    write_json(known, run)
    return run, False


def versions() -> dict[str, str]:
    """Versions of mmjax and of the packages that its results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("mmjax", "jax", "jaxlib", "flax", "optax", "numpy", "pillow", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _different(earlier: dict[str, Any], wanted: dict[str, Any], keys: Sequence[str]) -> str:
    """The first differences of two runs, which must not be mixed in one folder; empty if none."""
    differences = [
        f"{key} was {before!r}, is now {after!r}"
        for key, before, after in _differences(earlier, wanted, keys)
    ]
    return "; ".join(differences[:3])


def _differences(
    earlier: dict[str, Any], wanted: dict[str, Any], keys: Sequence[str]
) -> Iterator[tuple[str, Any, Any]]:
    def flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
        else:
            yield prefix, value

    before = dict(flat({k: earlier.get(k) for k in keys}, ""))
    after = dict(flat({k: wanted.get(k) for k in keys}, ""))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)
