"""Figures of a scan that no threshold moves, kept so that another decision takes seconds.

Scores, signals and neighbours follow from embeddings and mapping alone. A scan leaves them in
`stage/` of its folder; `rescore` reads them there and computes only what is not.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from safetensors.numpy import load_file, save_file

from mmjax.core.code import code_hash
from mmjax.core.config import digest
from mmjax.core.files import atomic_path
from mmjax.core.rundir import RunDir

T = TypeVar("T")
FOLDER = "stage"
CODE = ("ops", "scan")
"""Packages that figures are made by: those of other code are made anew."""


@runtime_checkable
class Recall(Protocol):
    """Gives what is known under a name, a NamedTuple of arrays and numbers, or has it made."""

    def __call__(self, name: str, kind: Callable[..., T], make: Callable[[], T]) -> T:
        """What `name` stands for, of type `kind`."""
        ...


def anew(name: str, kind: Callable[..., T], make: Callable[[], T]) -> T:
    """A `Recall` that knows nothing."""
    del name, kind
    return make()


class Memory:
    """A `Recall` that remembers what it had made, for as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def __call__(self, name: str, kind: Callable[..., T], make: Callable[[], T]) -> T:
        """What `name` stands for: made the first time."""
        del kind
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]


class Kept:
    """A `Recall` of a run folder.

    Args:
        run: the scan's folder.
        units: of its journal: what all figures follow from.
        write: whether to keep what is made.
    """

    def __init__(self, run: RunDir, units: list[str], *, write: bool) -> None:
        self._run = run
        self._write = write
        made_of = {unit: _identity(run.journal(unit)) for unit in units}
        self._of = digest({"units": made_of, "code": code_hash(CODE)})

    def __call__(self, name: str, kind: Callable[..., T], make: Callable[[], T]) -> T:
        """What `name` stands for: read if the same code made it of the same input, else made."""
        unit, file = f"{FOLDER}/{name}", self._run.path / FOLDER / f"{name}.safetensors"
        entry = self._run.finished(unit)
        if entry is not None and entry["of"] == self._of:
            return kind(**{key: _plain(value) for key, value in load_file(str(file)).items()})
        made: Any = make()
        if self._write:
            arrays = {key: np.asarray(value, order="C") for key, value in made._asdict().items()}
            with atomic_path(file) as temporary:
                save_file(arrays, str(temporary))
            self._run.finish(unit, {"figures": file}, of=self._of)
        return made


def _plain(value: np.ndarray) -> Any:
    """A number that was kept as an array without axes is a number again."""
    return value.item() if value.ndim == 0 else value


def _identity(entry: dict[str, Any]) -> list[str]:
    """What an entry says of its unit's content."""
    hashes = [entry["outputs"][name]["sha256"] for name in sorted(entry["outputs"])]
    return [str(entry.get("fingerprint", "")), *hashes]
