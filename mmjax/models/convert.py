"""Turning pickled torch checkpoints into safetensors folders; the only place that imports torch."""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  only to catch it: torch raises it
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from mmjax.core.errors import WeightsError
from mmjax.core.files import atomic_path, write_json
from mmjax.models.foreign import from_open_clip, from_transformers
from mmjax.models.layouts import read
from mmjax.models.presets import Activation
from mmjax.models.tensors import is_pickle
from mmjax.models.weights import copy_tokenizer, read_json

State = dict[str, np.ndarray]

# what torch's reader raises on a damaged file or on one that holds more than tensors
_UNREADABLE = (
    RuntimeError,
    UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    struct.error,
)

# what OpenAI's own state dicts hold beside tensors; open_clip's do not
_OPENAI_EXTRAS = {"input_resolution", "context_length", "vocab_size"}


class Conversion(NamedTuple):
    """What `load_weights` reads, and what had to be assumed to write it (maybe nothing)."""

    weights: str
    assumed: str

    def __str__(self) -> str:
        return "\n".join(part for part in (f"--weights={self.weights}", self.assumed) if part)


def convert(source: Path, out_dir: Path, activation: Activation | None = None) -> Conversion:
    """Converts a state dict of open_clip, OpenAI or transformers' CLIPModel.

    Only tensors are read (`torch.load(weights_only=True)`); code in the file is never run. A
    configuration beside the file (`open_clip_config.json`, `config.json`) decides the shape;
    without one it is inferred from the tensors, with 64 values to an attention head.

    Args:
      source: a `.pt`, `.bin` or other file that `torch.save` wrote.
      out_dir: becomes an open_clip-dir, or an hf-dir for transformers' names.
      activation: of the towers, when no configuration says it. By default QuickGELU for OpenAI's
        own files and GELU for others, as open_clip does.

    Raises:
      WeightsError: torch is missing, the file cannot be read safely, or is no CLIP model.
    """
    state, names = _load(source)
    if any(name.startswith("text_model.") for name in state):
        return _convert_transformers(source, state, out_dir)
    return _convert_open_clip(source, state, out_dir, activation, bool(names & _OPENAI_EXTRAS))


def _load(source: Path) -> tuple[State, set[str]]:
    """Returns the floating tensors of a checkpoint, and all its names."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise WeightsError(
            "converting needs torch, which mmjax itself does not; pip install 'mmjax[parity]'"
        ) from error
    if not source.is_file():
        raise WeightsError(f"no such file: {source}")
    if not is_pickle(source):
        raise WeightsError(f"{source} is no torch checkpoint: neither a zip archive nor a pickle")
    try:
        found: Any = torch.load(source, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{source} is a TorchScript program, which cannot be read without running it; if "
                "you trust it, save its tensors with torch.save(torch.jit.load(FILE, "
                "map_location='cpu').state_dict(), NEW) and convert NEW"
            ) from error
        raise WeightsError(
            f"{source} is damaged, or holds more than tensors: {str(error).splitlines()[0]}"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise WeightsError(f"{source} holds a {type(found).__name__}; wanted a state dict")
    tensors = {}
    for name, value in found.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            stored = value if value.dtype == torch.float16 else value.float()
            array = np.array(stored.detach().numpy(), order="C")
            tensors[re.sub(r"^module\.", "", str(name))] = array
    return tensors, {str(name) for name in found}


def _convert_transformers(source: Path, state: State, out_dir: Path) -> Conversion:
    config = _beside(source, "config.json")
    if config is None:
        raise WeightsError(f"{source} needs the config.json of its CLIPModel beside it")
    preprocessor = _beside(source, "preprocessor_config.json")
    preset = from_transformers(config, preprocessor or {}, source.stem)
    read(preset, "transformers", _shapes(state), state.__getitem__)  # raises if it does not fit
    _write(source, state, out_dir / "model.safetensors")
    if preprocessor is not None:
        write_json(out_dir / "preprocessor_config.json", preprocessor)
    write_json(out_dir / "config.json", config)
    return Conversion(f"hf-dir:{out_dir}", "")


def _convert_open_clip(
    source: Path, state: State, out_dir: Path, activation: Activation | None, openai: bool
) -> Conversion:
    if "text.positional_embedding" in state:  # open_clip's CustomTextCLIP
        state = {re.sub(r"^text\.", "", name): value for name, value in state.items()}
    config, assumed = _beside(source, "open_clip_config.json"), ""
    if config is None:
        named = activation or ("quick_gelu" if openai else "gelu")
        config = {"model_cfg": infer_open_clip(_shapes(state), named)}
        if activation is None and not openai:
            assumed = (
                "assumed: GELU, as open_clip does without a configuration; if the model was "
                f"trained with QuickGELU, set quick_gelu in {out_dir / 'open_clip_config.json'}"
            )
    preset = from_open_clip(config, source.stem)
    read(preset, "open_clip", _shapes(state), state.__getitem__)  # raises if it does not fit
    _write(source, state, out_dir / "open_clip_model.safetensors")
    write_json(out_dir / "open_clip_config.json", config)
    return Conversion(f"open_clip-dir:{out_dir}", assumed)


def infer_open_clip(
    shapes: Mapping[str, tuple[int, ...]], activation: Activation
) -> dict[str, Any]:
    """Returns the `model_cfg` of the CLIP model whose tensors have these shapes.

    As openai/CLIP:clip/model.py build_model does; heads are taken to be 64 wide.

    Raises:
      WeightsError: the tensors are not a CLIP model's.
    """

    def count(pattern: str) -> int:
        return len({m.group(1) for name in shapes if (m := re.match(pattern, name))})

    try:
        if "visual.proj" in shapes:
            width, _, _, patch = shapes["visual.conv1.weight"]
            hidden = shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0]
            grid = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
            vision: dict[str, Any] = {
                "image_size": grid * patch,
                "layers": count(r"visual\.transformer\.resblocks\.(\d+)\."),
                "width": width,
                "patch_size": patch,
                "mlp_ratio": hidden / width,
            }
        else:
            grid = round((shapes["visual.attnpool.positional_embedding"][0] - 1) ** 0.5)
            vision = {
                "image_size": 32 * grid,
                "layers": [count(rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
                "width": shapes["visual.layer1.0.conv1.weight"][0],
            }
        text_width, embed_dim = shapes["text_projection"]
        text = {
            "context_length": shapes["positional_embedding"][0],
            "vocab_size": shapes["token_embedding.weight"][0],
            "width": text_width,
            "heads": max(text_width // 64, 1),
            "layers": count(r"transformer\.resblocks\.(\d+)\."),
            "mlp_ratio": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0] / text_width,
        }
    except (KeyError, ValueError) as error:
        first = ", ".join(list(shapes)[:5]) or "none"
        raise WeightsError(
            f"the tensors are not a CLIP model's ({error} is missing or odd; first names: {first})"
        ) from error
    return {
        "embed_dim": embed_dim,
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": vision,
        "text_cfg": text,
    }


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in state.items()}


def _beside(source: Path, name: str) -> dict[str, Any] | None:
    path = source.parent / name
    return read_json(path) if path.is_file() else None


def _write(source: Path, state: State, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(state, temporary)
    copy_tokenizer(source.parent, path.parent)
