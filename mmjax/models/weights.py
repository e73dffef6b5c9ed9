"""Model weights from folders: transformers', open_clip's and our own; nothing is ever unpickled."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from mmjax.core.errors import ConfigError, WeightsError
from mmjax.core.files import atomic_path, write_json
from mmjax.models.clip import Variables
from mmjax.models.foreign import from_open_clip, from_transformers
from mmjax.models.layouts import Layout, read
from mmjax.models.presets import Preset, TextPreset, VisionPreset
from mmjax.models.tensors import fingerprint, open_tensors, refuse_pickle

CONFIG_FILE, WEIGHTS_FILE = "mmjax_config.json", "model.safetensors"
_CLIP_MERGES = "bpe_simple_vocab_16e6.txt.gz"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", _CLIP_MERGES)
_DEMO = Path(__file__).parent.parent / "assets" / "demo"
_FORMAT = 1
_STORED = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class Weights(NamedTuple):
    """A model ready to build: float32 variables on the default device.

    `tokenizer_path` is what `load_tokenizer` reads beside the weights, None if there is nothing.
    `fingerprint` is the sha256 of configuration and weights, in hex.
    """

    preset: Preset
    variables: Variables
    tokenizer_path: Path | None
    fingerprint: str
    name: str


def load_weights(spec: str) -> Weights:
    """Loads `KIND:FOLDER` or `demo`, the small model that comes with mmjax.

    Kinds: `hf-dir` (a CLIPModel's `config.json` and `model.safetensors`), `open_clip-dir`
    (`open_clip_config.json` and `open_clip_model.safetensors`), `mmjax-dir` (`mmjax_config.json`
    and `model.safetensors`), `orbax` (a finished run folder of `mmjax train`).

    Raises:
      WeightsError: unknown kind, missing file, pickled or truncated weights, or tensors that are
        missing, left over or of another shape than the configuration says.
    """
    if spec == "demo":
        return load_mmjax(_DEMO)._replace(name="demo")
    kind, colon, location = spec.partition(":")
    if not colon or kind not in LOADERS:
        refuse_pickle(Path(spec))
        kinds = ", ".join(f"{kind}:FOLDER" for kind in LOADERS)
        raise WeightsError(f"weights {spec!r} are of no known kind; wanted demo, {kinds}")
    folder = Path(location).expanduser()
    refuse_pickle(folder)
    if not folder.is_dir():
        raise WeightsError(f"weights {spec}: no such folder")
    return LOADERS[kind](folder)


def load_transformers(folder: Path) -> Weights:
    """Loads a folder as transformers' `CLIPModel.save_pretrained` writes it (ViT only)."""
    config = folder / "config.json"
    preprocessor = folder / "preprocessor_config.json"
    settings = read_json(preprocessor) if preprocessor.is_file() else {}
    preset = from_transformers(read_json(config), settings, folder.name)
    return _load(folder, preset, "transformers", config, folder / WEIGHTS_FILE)


def load_open_clip(folder: Path) -> Weights:
    """Loads a folder as open_clip's `push_to_hf_hub` writes it (ResNet and ViT)."""
    config = folder / "open_clip_config.json"
    preset = from_open_clip(read_json(config), folder.name)
    return _load(folder, preset, "open_clip", config, folder / "open_clip_model.safetensors")


def load_mmjax(folder: Path) -> Weights:
    """Loads a folder that `save_weights` wrote."""
    config = folder / CONFIG_FILE
    if not config.is_file() and (folder / "model" / CONFIG_FILE).is_file():
        raise WeightsError(f"{folder} is a run of `mmjax train`; name it --weights=orbax:{folder}")
    preset = _preset_from(read_json(config), config)
    return _load(folder, preset, "mmjax", config, folder / WEIGHTS_FILE)


def load_run(folder: Path) -> Weights:
    """Loads what a run of `mmjax train` exported: the folder `model` inside it, or that folder."""
    for model in (folder / "model", folder):
        if (model / CONFIG_FILE).is_file():
            return load_mmjax(model)
    raise WeightsError(
        f"{folder} holds no model/{CONFIG_FILE}: it is no run of `mmjax train`, or the run is not "
        "finished (the same command again resumes it)"
    )


LOADERS: dict[str, Callable[[Path], Weights]] = {
    "hf-dir": load_transformers,
    "open_clip-dir": load_open_clip,
    "mmjax-dir": load_mmjax,
    "orbax": load_run,
}


def save_weights(
    folder: Path,
    preset: Preset,
    variables: Variables,
    tokenizer_path: Path | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Writes an `mmjax-dir`: `model.safetensors`, the tokenizer's files, `mmjax_config.json` last.

    Args:
      folder: made if absent; the files in it are replaced one by one.
      preset: the model's shape.
      variables: of `build(preset)`, not frozen.
      tokenizer_path: the file or folder that `load_tokenizer` reads; copied.
      dtype: how the numbers are stored; they are float32 again when loaded.

    Raises:
      WeightsError: a value is not finite, or becomes so in `dtype`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        name = "/".join(key.key for key in path)
        with np.errstate(over="ignore"):
            value = np.asarray(leaf).astype(_STORED[dtype])
        if not np.isfinite(value).all():
            raise WeightsError(f"{name} has values that are not finite as {dtype}; not saved")
        tensors[name] = np.array(value, order="C")
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary)
    if tokenizer_path is not None:
        copy_tokenizer(tokenizer_path, folder)
    write_json(folder / CONFIG_FILE, {"format": _FORMAT, "preset": dataclasses.asdict(preset)})


def _load(folder: Path, preset: Preset, layout: Layout, config: Path, weights: Path) -> Weights:
    with open_tensors(weights) as tensors:
        variables = read(preset, layout, tensors.shapes, tensors.read)
    return Weights(
        preset=preset,
        variables=jax.tree.map(jnp.asarray, variables),
        tokenizer_path=_tokenizer_in(folder),
        fingerprint=fingerprint(config, weights),
        name=folder.name,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; raises WeightsError if it is none."""
    if not path.is_file():
        raise WeightsError(f"no {path.name} in {path.parent}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _preset_from(config: Mapping[str, Any], path: Path) -> Preset:
    if config.get("format") != _FORMAT:
        raise WeightsError(f"{path} has format {config.get('format')!r}; wanted {_FORMAT}")
    try:
        fields = dict(config["preset"])
        vision = dict(fields.pop("vision"))
        if isinstance(vision["layers"], list):
            vision["layers"] = tuple(vision["layers"])
        return Preset(
            vision=VisionPreset(**vision),
            text=TextPreset(**fields.pop("text")),
            mean=tuple(fields.pop("mean")),
            std=tuple(fields.pop("std")),
            **fields,
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise WeightsError(f"{path} does not describe a model: {error}") from error


def _tokenizer_in(folder: Path) -> Path | None:
    return folder if any((folder / name).is_file() for name in TOKENIZER_FILES) else None


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copies a tokenizer, given as one of its files or their folder, under its usual names."""
    names = TOKENIZER_FILES
    if source.is_file():
        names = (source.name, "merges.txt") if source.name == "vocab.json" else (source.name,)
        source = source.parent
    for name in names:
        usual = _CLIP_MERGES if name.endswith(".gz") else name
        target = folder / usual
        if (source / name).is_file() and (source / name).resolve() != target.resolve():
            shutil.copyfile(source / name, target)
