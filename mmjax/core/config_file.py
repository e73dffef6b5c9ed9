"""Configuration files: Python files whose `get_config()` returns a `ConfigDict`."""

import difflib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from mmjax.core.errors import ConfigError


def from_file(name: str) -> dict[str, Any]:
    """The values that a configuration file's `get_config()` returns.

    `name` is looked up as a path, then in the checkout's `configs/`, then in the package's copy.

    Raises:
        ConfigError: it is nowhere, or has no `get_config`.
    """
    package = Path(__file__).resolve().parent.parent
    roots = [Path(), package.parent / "configs", package / "_configs"]
    tried = [root / f for root in roots for f in (name, name + ".py")]
    path = next((p for p in tried if p.is_file()), None)
    if path is None:
        known = sorted(
            str(p.relative_to(root).with_suffix(""))
            for root in roots[1:]
            for p in root.glob("*/*.py")
        )
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        group = [one for one in known if one.split("/")[0] == name.split("/")[0]]
        known = dict.fromkeys(group or known)
        raise ConfigError(f"no configuration {name!r}; {meant}known: {', '.join(known)}")
    spec = importlib.util.spec_from_file_location(f"mmjax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} has no get_config()")
    made = module.get_config()
    return made.to_dict() if hasattr(made, "to_dict") else dict(made)
