"""Where each of our parameters stands in the state dicts of open_clip and of transformers."""

import functools
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mmjax.core.errors import WeightsError
from mmjax.models.clip import build
from mmjax.models.presets import Preset

Layout = Literal["open_clip", "transformers", "mmjax"]
Path = tuple[str, ...]
Shape = tuple[int, ...]

_SHOWN = 5


class Origin(NamedTuple):
    """Where one parameter comes from: tensor names, the shape of each, and how they are read."""

    names: tuple[str, ...]
    shape: Shape
    read: Callable[[list[np.ndarray]], np.ndarray]


_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

_OPEN_CLIP = (
    (r"^log_scale$", "logit_scale"),
    (r"^text/token_embedding$", "token_embedding.weight"),
    (r"^text/position$", "positional_embedding"),
    (r"^text/projection$", "text_projection"),
    (r"^text/norm_after/", "ln_final."),
    (r"^text/blocks/block_", "transformer.resblocks."),
    (r"^visual/blocks/block_", "visual.transformer.resblocks."),
    (r"^visual/(class_embedding)$", r"visual.\1"),
    (r"^visual/position$", "visual.positional_embedding"),
    (r"^visual/projection$", "visual.proj"),
    (r"^visual/patch/", "visual.conv1."),
    (r"^visual/norm_before/", "visual.ln_pre."),
    (r"^visual/norm_after/", "visual.ln_post."),
    (r"^visual/pool/position$", "visual.attnpool.positional_embedding"),
    (r"^visual/pool/out/", "visual.attnpool.c_proj."),
    (r"^visual/pool/(query|key|value)/", r"visual.attnpool.\1_proj."),
    (r"^visual/stem_(\d)/kernel", r"visual.conv\1.weight"),
    (r"^visual/stem_(\d)/norm/", r"visual.bn\1."),
    (r"^visual/stage_(\d+)_block_(\d+)/", r"visual.layer\1.\2."),
    (r"\.conv_(\d)/kernel$", r".conv\1.weight"),
    (r"\.conv_(\d)/norm/", r".bn\1."),
    (r"\.shortcut/kernel$", ".downsample.0.weight"),
    (r"\.shortcut/norm/", ".downsample.1."),
    (r"/attention/qkv/kernel$", ".attn.in_proj_weight"),
    (r"/attention/qkv/bias$", ".attn.in_proj_bias"),
    (r"/attention/out/", ".attn.out_proj."),
    (r"/norm_(\d)/", r".ln_\1."),
    (r"/expand/", ".mlp.c_fc."),
    (r"/contract/", ".mlp.c_proj."),
    (r"\.query_proj\.", ".q_proj."),
    (r"\.key_proj\.", ".k_proj."),
    (r"\.value_proj\.", ".v_proj."),
)

_TRANSFORMERS = (
    (r"^log_scale$", "logit_scale"),
    (r"^visual/projection$", "visual_projection.weight"),
    (r"^text/projection$", "text_projection.weight"),
    (r"^visual/", "vision_model."),
    (r"^text/", "text_model."),
    (r"\.token_embedding$", ".embeddings.token_embedding.weight"),
    (r"\.position$", ".embeddings.position_embedding.weight"),
    (r"\.class_embedding$", ".embeddings.class_embedding"),
    (r"\.patch/", ".embeddings.patch_embedding."),
    (r"\.norm_before/", ".pre_layrnorm."),
    (r"^vision_model\.norm_after/", "vision_model.post_layernorm."),
    (r"^text_model\.norm_after/", "text_model.final_layer_norm."),
    (r"\.blocks/block_(\d+)/", r".encoder.layers.\1."),
    (r"\.attention/qkv/", r".self_attn.QKV_proj."),
    (r"\.attention/out/", ".self_attn.out_proj."),
    (r"\.norm_(\d)/", r".layer_norm\1."),
    (r"\.expand/", ".mlp.fc1."),
    (r"\.contract/", ".mlp.fc2."),
)

_IGNORED = {
    "open_clip": r"(\.num_batches_tracked|^attn_mask)$",
    "transformers": r"\.embeddings\.position_ids$",
    "mmjax": r"$^",
}


@functools.lru_cache(maxsize=16)
def shapes(preset: Preset) -> Mapping[Path, Shape]:
    """Returns the shape of every parameter and statistic of `preset` by its path."""
    tree = jax.eval_shape(build(preset).init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}


def origin(path: Path, shape: Shape, layout: Layout) -> Origin:
    """Returns where the parameter at `path`, of our `shape`, comes from in `layout`."""
    if layout == "mmjax":
        return Origin(("/".join(path),), shape, lambda tensors: tensors[0])
    name = "/".join(path[1:])
    for pattern, replacement in _OPEN_CLIP if layout == "open_clip" else _TRANSFORMERS:
        name = re.sub(pattern, replacement, name)
    head, dot, leaf = name.rpartition(".")
    leaf = "weight" if leaf == "kernel" else _NORM.get(leaf, leaf)
    name = f"{head}{dot}{leaf}"
    names = tuple(name.replace("QKV", one) for one in "qkv") if "QKV" in name else (name,)
    if len(shape) == 4:
        kernel = (shape[3], shape[2], shape[0], shape[1])
        return Origin(names, kernel, lambda tensors: tensors[0].transpose(2, 3, 1, 0))
    if path[-2:] == ("patch", "kernel"):
        side = int((shape[0] // 3) ** 0.5)
        return Origin(names, (shape[1], 3, side, side), _read_patch)
    if path[-1] == "kernel" or (path[-1] == "projection" and layout == "transformers"):
        kernel = (shape[1] // len(names), shape[0])
        return Origin(names, kernel, lambda tensors: np.concatenate(tensors).T)
    if len(names) > 1:
        return Origin(names, (shape[0] // len(names),), np.concatenate)
    return Origin(names, shape, lambda tensors: tensors[0])


def _read_patch(tensors: list[np.ndarray]) -> np.ndarray:
    kernel = tensors[0].transpose(2, 3, 1, 0)
    return kernel.reshape(-1, kernel.shape[-1])


def read(
    preset: Preset,
    layout: Layout,
    available: Mapping[str, Shape],
    tensor: Callable[[str], np.ndarray],
) -> dict[str, Any]:
    """Returns float32 variables of `preset` from tensors named and shaped as `layout` says.

    Args:
      preset: the model's shape.
      layout: whose names and axis orders the tensors have.
      available: the shape of every tensor there is.
      tensor: reads one by its name.

    Raises:
      WeightsError: tensors are missing, left over or of another shape (the first few are named).
    """
    origins = {path: origin(path, shape, layout) for path, shape in shapes(preset).items()}
    wanted = {name: source.shape for source in origins.values() for name in source.names}
    missing = [name for name in wanted if name not in available]
    if missing:
        raise WeightsError(f"{preset.name}: {len(missing)} tensors are missing: {_some(missing)}")
    unused = [n for n in available if n not in wanted and not re.search(_IGNORED[layout], n)]
    if unused:
        raise WeightsError(
            f"{preset.name}: {len(unused)} tensors have no place in this model: {_some(unused)}"
        )
    wrong = [
        f"{name} (wanted {list(shape)}, got {list(available[name])})"
        for name, shape in wanted.items()
        if tuple(available[name]) != shape
    ]
    if wrong:
        raise WeightsError(
            f"{preset.name}: {len(wrong)} tensors have another shape: {_some(wrong)}"
        )
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for path, source in origins.items():
        value = source.read([tensor(name) for name in source.names])
        if not np.isfinite(value.astype(np.float32)).all():
            raise WeightsError(f"{preset.name}: {source.names[0]} has values that are not finite")
        branch = variables
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = np.array(value, np.float32, order="C")
    return variables


def write(preset: Preset, layout: Layout, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the float32 tensors, named and shaped as `layout` says, that `read` takes these from.

    Args:
      preset: the model's shape.
      layout: whose names and axis orders the tensors are given.
      variables: of `preset`, not frozen.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, shape in shapes(preset).items():
        source = origin(path, shape, layout)
        # reading the numbers of the places tells where each value comes from
        places = np.arange(math.prod(shape)).reshape(len(source.names), *source.shape)
        flat = np.empty(math.prod(shape), np.float32)
        value: Any = functools.reduce(operator.getitem, path, variables)
        flat[source.read(list(places))] = value
        values = flat.reshape(places.shape)
        tensors |= {name: values[i, ...] for i, name in enumerate(source.names)}
    return tensors


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
