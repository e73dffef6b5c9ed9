"""open_clip's own torch models without torchvision, which cannot be imported beside this torch.

open_clip's model files need one name of torchvision (FrozenBatchNorm2d, for frozen training). It is
stubbed while they are imported, and the package's `__init__`, which imports the transforms, is
left out. Only peers of `mmjax bench` and parity tests come here: it needs the extra `parity`.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]
import transformers  # noqa: F401  which open_clip imports; it must look for torchvision before

from mmjax.models.clip import Variables
from mmjax.models.foreign import open_clip_config
from mmjax.models.layouts import write
from mmjax.models.presets import Preset

_STUBS = ("torchvision", "torchvision.ops", "torchvision.ops.misc")


def _import_open_clip() -> types.ModuleType:
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("open_clip: pip install --no-deps open-clip-torch")
    package = types.ModuleType("open_clip")
    package.__path__ = [str(Path(spec.origin).parent)]
    package.__spec__ = importlib.machinery.ModuleSpec("open_clip", None, is_package=True)
    stubs = {name: types.ModuleType(name) for name in _STUBS}
    for name in _STUBS[:-1]:
        stubs[name].__path__ = []
    frozen = type("FrozenBatchNorm2d", (torch.nn.Module,), {})
    vars(stubs[_STUBS[-1]])["FrozenBatchNorm2d"] = frozen
    sys.modules.update({"open_clip": package, **stubs})
    try:
        return importlib.import_module("open_clip.model")
    finally:
        for name in _STUBS:
            del sys.modules[name]


_MODEL = _import_open_clip()


def open_clip_model(preset: Preset, variables: Variables | None = None) -> torch.nn.Module:
    """Returns open_clip's model of `preset` in inference mode.

    Args:
      preset: the model's shape.
      variables: our weights, for the torch model to have too; without them its own random ones.
    """
    model = _MODEL.CLIP(**open_clip_config(preset)).eval()
    if variables is not None:
        state = model.state_dict()
        with torch.no_grad():
            for name, value in write(preset, "open_clip", variables).items():
                state[name].copy_(torch.from_numpy(value))
    return model


def fold_norms(model: torch.nn.Module) -> torch.nn.Module:
    """Returns the model with every BatchNorm folded into the convolution before it, in place."""
    for block in list(model.modules()):
        names = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
        if isinstance(block, torch.nn.Sequential):
            names = [("0", "1")]
        for conv, norm in names:
            before, after = getattr(block, conv, None), getattr(block, norm, None)
            if isinstance(before, torch.nn.Conv2d) and isinstance(after, torch.nn.BatchNorm2d):
                setattr(block, conv, torch.nn.utils.fuse_conv_bn_eval(before, after))
                setattr(block, norm, torch.nn.Identity())
    return model
