"""The fitted mapping network F: fitting it, applying it, keeping it in a folder.

A mapping folder holds `mapping.json` (kind, sizes, the fingerprint of the weights whose embeddings
it maps, what it was fitted on, how well it does on held-out images), `model.safetensors` and
`calibration.safetensors`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmjax.core.config import digest, to_dict
from mmjax.core.errors import InputError, WeightsError
from mmjax.core.files import atomic_path, write_json
from mmjax.models.mapping import MappingNetwork, unit
from mmjax.ops.consistency import consistency
from mmjax.scan.calibration import Calibration, calibrate
from mmjax.scan.fitting import Groups, Reference, fit_network, group
from mmjax.scan.options import Kind, MappingConfig
from mmjax.scan.ridge import fit_ridge

PyTree = Any
MINIMUM_IMAGES = 10
FORMAT = 2
NUMBERS = ("model.safetensors", "calibration.safetensors")
"""The files of a mapping folder that hold its numbers."""


Form = int | Literal["ridge"]
"""Hidden width of a network, or the linear map."""


class Mapping(NamedTuple):
    """A fitted F and what is known about it.

    `weights_fingerprint` names the CLIP weights whose embeddings it maps; `reference` counts what
    it was fitted on; `diagnostics` are measured on images that it was not fitted on
    (`held_out_*`, facts/cfbd.md 0.8) or come from its fitting. `calibration` tells right
    pairs from wrong ones as the reference shows them.
    """

    kind: Kind
    dim: int
    width: int
    params: PyTree
    weights_fingerprint: str
    reference: dict[str, int]
    diagnostics: dict[str, float]
    config: dict[str, Any]
    calibration: Calibration | None = None


def fit_mapping(
    reference: Reference,
    config: MappingConfig,
    *,
    weights_fingerprint: str,
    key: jax.Array,
    mesh: Mesh,
    folder: Path | None = None,
) -> Mapping:
    """Fit F of the configured kind on a clean captioned set, disjoint from what is scanned.

    Args:
        reference: embeddings of the set, made by the weights that scan.
        config: kind and training.
        weights_fingerprint: of those weights.
        key: the same key gives the same mapping.
        mesh: batches are split over its axis `data`.
        folder: for what the same call on the same reference goes on from; None keeps nothing.

    Raises:
        InputError: fewer than 10 captioned images, or `lm` without tokens.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint64).tolist())
    captioned = rng.permutation(np.unique(reference.image_of)).astype(np.int64)
    if captioned.size < MINIMUM_IMAGES:
        raise InputError(
            f"a mapping wants at least {MINIMUM_IMAGES} captioned images to be fitted on, "
            f"got {captioned.size}; give a larger clean reference set"
        )
    kept_out = max(2, round(config.held_out * captioned.size))
    train, held_out = group(reference, captioned[kept_out:]), group(reference, captioned[:kept_out])
    if config.kind == "ridge":
        params, found = fit_ridge(reference, train, held_out)
    else:
        if folder is not None:
            folder /= _digest(reference, config, key)
        params, found = fit_network(reference, train, config, key=key, mesh=mesh, folder=folder)
    mapping = Mapping(
        kind=config.kind,
        dim=reference.image.shape[1],
        width=config.width,
        params=params,
        weights_fingerprint=weights_fingerprint,
        reference={
            "images": int(train.images.size),
            "captions": int(train.order.size),
            "held_out_images": int(held_out.images.size),
            "held_out_captions": int(held_out.order.size),
        },
        diagnostics=found,
        config=to_dict(config),
    )
    return mapping._replace(
        diagnostics=found | diagnose(mapping, reference, held_out),
        calibration=calibrate(
            reference.image,
            reference.text,
            reference.image_of,
            generated_similarity(mapping, reference.image),
            rng,
        ),
    )


def _digest(reference: Reference, config: MappingConfig, key: jax.Array) -> str:
    """What a fit depends on."""
    content = hashlib.sha256(digest(config).encode())
    for array in (*reference, jax.random.key_data(key)):
        if array is not None:
            content.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return content.hexdigest()[:16]


def generated_similarity(
    mapping: Mapping, image: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """s_g of every image, in one piece: the reference is small."""
    embedded = jnp.asarray(image, jnp.float32)
    return np.asarray(jnp.maximum(jnp.sum(embedded * apply_mapping(mapping, embedded), axis=1), 0))


def apply_mapping(mapping: Mapping, image: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """F(I), unit-norm, of unit-norm image embeddings.

    Raises:
        WeightsError: the embeddings have another width than those it was fitted on.
    """
    return predict(mapping.params, image, form_of(mapping, image.shape[1]))


def form_of(mapping: Mapping, width: int) -> Form:
    """What `predict` must know of a mapping besides its parameters, for embeddings of a width.

    Raises:
        WeightsError: it was fitted on embeddings of another width.
    """
    if width != mapping.dim:
        raise WeightsError(
            f"the mapping was fitted on embeddings of width {mapping.dim}, got {width}; "
            "fit one for these weights with `mmjax fit-mapping`"
        )
    return "ridge" if mapping.kind == "ridge" else mapping.width


@jax.jit(static_argnames="form")
def predict(params: PyTree, image: Float[Array, "n d"], form: Form) -> Float[Array, "n d"]:
    """F(I) by its parameters, unit-norm; `form` is that of `form_of`."""
    if form == "ridge":
        shifted = image.astype(jnp.float32) - params["before"][None, :]
        return unit(shifted @ params["kernel"] + params["after"][None, :])
    generated: Any = MappingNetwork(int(form)).apply({"params": params}, image.astype(jnp.float32))
    return generated


def diagnose(mapping: Mapping, reference: Reference, held_out: Groups) -> dict[str, float]:
    """How F does on images that it has not seen (facts/cfbd.md 0.8).

    `held_out_correlation` = corr(s_g, s_o) over clean pairs: near 0, s_g is a constant and c ranks
    no better than -s_o. `held_out_cosine` = mean <F(I), T>.
    """
    counts = np.diff(held_out.offsets)
    image = reference.image[np.repeat(held_out.images, counts)].astype(np.float32)
    text = reference.text[held_out.order].astype(np.float32)
    generated = apply_mapping(mapping, jnp.asarray(image))
    scores = consistency(
        jnp.asarray(image), jnp.asarray(text), generated, jnp.ones(image.shape[0], bool)
    )
    original, synthetic = np.asarray(scores.sim_original), np.asarray(scores.sim_generated)
    spread = float(np.std(original) * np.std(synthetic))
    shared = float(np.mean((original - original.mean()) * (synthetic - synthetic.mean())))
    return {
        "held_out_cosine": float(np.mean(np.sum(np.asarray(generated) * text, axis=1))),
        "held_out_correlation": shared / spread if spread > 1e-12 else 0.0,
        "held_out_sim_original": float(original.mean()),
        "held_out_sim_generated": float(synthetic.mean()),
        "held_out_consistency": float(np.mean(np.asarray(scores.absolute))),
    }


def save_mapping(folder: Path | str, mapping: Mapping) -> None:
    """Write a mapping folder; the JSON file comes last, so a folder that has it is whole."""
    folder = Path(folder)
    flat = {
        "/".join(name): np.ascontiguousarray(np.asarray(value, np.float32))
        for name, value in flatten_dict(mapping.params).items()
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(flat, str(temporary))
    if mapping.calibration is not None:
        with atomic_path(folder / "calibration.safetensors") as temporary:
            save_file(mapping.calibration._asdict(), str(temporary))
    facts = mapping._asdict()
    del facts["params"], facts["calibration"]
    write_json(folder / "mapping.json", {"format": FORMAT, **facts})


def load_mapping(folder: Path | str, *, weights_fingerprint: str | None = None) -> Mapping:
    """Read a mapping folder.

    Args:
        folder: made by `save_mapping`.
        weights_fingerprint: of the weights that are used with it; None skips the comparison.

    Raises:
        WeightsError: not a mapping folder, damaged, or fitted on other weights.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / "mapping.json").read_text(encoding="utf-8"))
        flat = load_file(str(folder / "model.safetensors"))
        sample = folder / "calibration.safetensors"
        calibration = Calibration(**load_file(str(sample))) if sample.is_file() else None
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"{folder} is not a mapping folder (mapping.json and model.safetensors): {error}; "
            "make one with `mmjax fit-mapping`"
        ) from error
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
        raise WeightsError(
            f"{folder / 'mapping.json'} is not of format {FORMAT}; fit the mapping again"
        )
    params = unflatten_dict({tuple(name.split("/")): value for name, value in flat.items()})
    try:
        mapping = Mapping(params=params, calibration=calibration, **facts)
    except TypeError as error:
        raise WeightsError(f"{folder / 'mapping.json'} is not a mapping's: {error}") from error
    if mapping.kind not in get_args(Kind):
        raise WeightsError(f"{folder / 'mapping.json'} names an unknown kind {mapping.kind!r}")
    _check_shapes(folder, mapping)
    if weights_fingerprint is not None and mapping.weights_fingerprint != weights_fingerprint:
        raise WeightsError(
            f"the mapping in {folder} was fitted on other weights "
            f"({mapping.weights_fingerprint}, these are {weights_fingerprint}); "
            "fit one for these weights with `mmjax fit-mapping`"
        )
    return mapping


def _check_shapes(folder: Path, mapping: Mapping) -> None:
    """Raises WeightsError unless the tensors are those that kind, dim and width call for."""
    d = mapping.dim
    if mapping.kind == "ridge":
        wanted: dict[tuple[str, ...], Any] = {
            ("kernel",): (d, d),
            ("before",): (d,),
            ("after",): (d,),
        }
    else:
        shapes = jax.eval_shape(
            MappingNetwork(mapping.width).init, jax.random.key(0), jnp.zeros((1, d))
        )
        named: Any = flatten_dict(shapes["params"])
        wanted = {name: leaf.shape for name, leaf in named.items()}
    found: Any = flatten_dict(mapping.params)
    got = {name: value.shape for name, value in found.items()}
    if got != wanted:
        different = sorted("/".join(n) for n in wanted.keys() ^ got.keys()) or sorted(
            "/".join(n) for n in wanted if wanted[n] != got[n]
        )
        raise WeightsError(
            f"{folder / 'model.safetensors'} does not fit a {mapping.kind} mapping of width "
            f"{mapping.width} over {d} dimensions: {', '.join(different[:5])}"
        )
