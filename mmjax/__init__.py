"""mmjax guards the data that multimodal contrastive models (CLIP) learn from.

`mmjax.scan(...)` finds poisoned image-caption pairs. Subpackages are imported when they are used.
"""

import importlib
from typing import Any

__all__ = ["scan"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"mmjax.{name}")
    raise AttributeError(f"module 'mmjax' has no attribute {name!r}")
