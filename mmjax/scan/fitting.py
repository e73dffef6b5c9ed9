"""How the mapping network F is fitted on clean captioned images: three kinds (facts/cfbd.md 4.3-4).

`lm`          the paper's: a captioner first learns to write captions from noisy *text* embeddings,
              is frozen, and F is trained through it with the language-modelling loss, plus
              a (1 - cosine) and an InfoNCE term that pin F(I) to its caption;
`regression`  the last two terms alone, the InfoNCE temperature learned: no tokens needed;
`ridge`       closed form, in `scan/ridge.py`: the baseline to beat.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, Int32, Int64

from mmjax.core import keys
from mmjax.core.errors import InputError
from mmjax.learn.config import OptimizerConfig
from mmjax.models.captioner import Captioner, caption_loss
from mmjax.models.mapping import MappingNetwork, unit
from mmjax.ops.contrastive import info_nce
from mmjax.scan.options import CaptionerConfig, MappingConfig
from mmjax.scan.phases import train_phase

PyTree = Any


class Reference(NamedTuple):
    """A clean captioned set, embedded; caption j belongs to image `image_of[j]`.

    `tokens` and `lengths` (tokenizer ids with start and end) are needed by the kind `lm` only.
    Embeddings are unit-norm.
    """

    image: Float[np.ndarray, "n d"]
    text: Float[np.ndarray, "m d"]
    image_of: Int[np.ndarray, " m"]
    tokens: Int[np.ndarray, "m l"] | None = None
    lengths: Int[np.ndarray, " m"] | None = None


class Groups(NamedTuple):
    """Captions by image: those of the i-th image are order[offsets[i]:offsets[i + 1]]."""

    images: Int64[np.ndarray, " n"]
    order: Int64[np.ndarray, " m"]
    offsets: Int64[np.ndarray, " n_plus_1"]


def group(reference: Reference, images: Int64[np.ndarray, " k"]) -> Groups:
    """The captions of the given images; images without a caption are left out."""
    rows = np.flatnonzero(np.isin(reference.image_of, images))
    order = rows[np.argsort(reference.image_of[rows], kind="stable")].astype(np.int64)
    found, counts = np.unique(reference.image_of[order], return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Groups(found.astype(np.int64), order, offsets)


def fit_network(
    reference: Reference,
    train: Groups,
    config: MappingConfig,
    *,
    key: jax.Array,
    mesh: Mesh,
    folder: Path | None = None,
) -> tuple[PyTree, dict[str, float]]:
    """Train the MLP for the kinds `lm` and `regression`; returns (parameters, last metrics).

    Args:
        reference: the clean captioned set.
        train: the images to learn from.
        config: see `MappingConfig`; `config.kind` chooses the loss.
        key: of initialisation, sampling and noise.
        mesh: batches are split over its axis `data`.
        folder: for checkpoints, from which the same call goes on; None keeps none.

    Raises:
        InputError: the kind `lm` without tokens.
    """
    network = MappingNetwork(config.width)
    d = reference.image.shape[1]
    params: dict[str, PyTree] = {
        "mapping": network.init(keys.stream(key, "mapping"), jnp.zeros((1, d)))["params"]
    }
    model_state: PyTree = {}
    captioner, tokens, lengths = None, None, None
    if config.kind == "lm":
        if reference.tokens is None or reference.lengths is None:
            raise InputError(
                "a mapping of kind lm wants the captions' tokens, got none; "
                "give captions, or choose --mapping.kind=regression or ridge"
            )
        tokens, lengths, vocabulary = compact(
            reference.tokens, reference.lengths, config.captioner.max_length
        )
        captioner = _captioner(config.captioner, vocabulary)
        model_state = _fit_captioner(
            captioner,
            reference,
            train,
            tokens,
            lengths,
            config.captioner,
            key,
            mesh,
            folder,
        )
    else:
        params["log_scale"] = jnp.log(1.0 / config.temperature)
    batch = _batch_size(config.batch_size, train.images.size)
    seed = _seed(keys.stream(key, "pairs"))

    def batch_at(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, step])
        chosen = _sample(rng, train.images.size, batch)
        count = np.diff(train.offsets)[chosen]
        rows = train.order[train.offsets[chosen] + (rng.random(batch) * count).astype(np.int64)]
        made = {
            "image": reference.image[train.images[chosen]].astype(np.float32),
            "text": reference.text[rows].astype(np.float32),
        }
        if tokens is not None and lengths is not None:
            made |= {"tokens": tokens[rows], "lengths": lengths[rows]}
        return made

    def loss_fn(
        params: PyTree, model_state: PyTree, batch: PyTree, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        del key
        generated = network.apply({"params": params["mapping"]}, batch["image"])
        cosine = jnp.mean(jnp.sum(generated * batch["text"], axis=-1))
        if captioner is None:
            scale = jnp.minimum(jnp.exp(params["log_scale"]), 100.0)
            contrast = info_nce(generated, batch["text"], scale)
            loss = 1.0 - cosine + 0.5 * contrast
            return loss, (model_state, {"cosine": cosine, "contrast": contrast})
        contrast = info_nce(generated, batch["text"], jnp.float32(1.0 / config.temperature))
        logits: Any = captioner.apply({"params": model_state}, generated, batch["tokens"])
        language = caption_loss(
            logits, batch["tokens"], batch["lengths"], config.captioner.label_smoothing
        )
        loss = language + config.cosine_weight * (1.0 - cosine) + config.contrast_weight * contrast
        metrics = {"cosine": cosine, "contrast": contrast, "language": language}
        return loss, (model_state, metrics)

    steps = max(1, round(config.epochs * train.images.size / batch))
    optimizer = OptimizerConfig(
        learning_rate=config.learning_rate,
        warmup=_warmup(config.warmup, steps),
        weight_decay=config.weight_decay,
    )
    params, last = train_phase(
        "mapping",
        params,
        model_state,
        loss_fn,
        batch_at,
        rows=batch,
        steps=steps,
        optimizer=optimizer,
        key=key,
        mesh=mesh,
        folder=folder,
    )
    return params["mapping"], {f"train_{name}": value for name, value in last.items()}


def compact(
    tokens: Int[np.ndarray, "m l"], lengths: Int[np.ndarray, " m"], max_length: int
) -> tuple[Int32[np.ndarray, "m k"], Int32[np.ndarray, " m"], int]:
    """Captions in the vocabulary that occurs: (ids, lengths, vocabulary size).

    The start token is dropped (the embedding takes its place) and captions are cut to
    `max_length`. Ids that no caption uses would only cost memory in the softmax.
    """
    longest = min(max(int(lengths.max()) - 1, 1), max_length)
    cut = tokens[:, 1 : 1 + longest]
    short = np.minimum(lengths - 1, longest).astype(np.int32)
    inside = np.arange(cut.shape[1])[None, :] < short[:, None]
    used = np.unique(cut[inside])
    ids = np.where(inside, np.searchsorted(used, cut), 0)
    return ids.astype(np.int32), short, used.size


def _captioner(config: CaptionerConfig, vocabulary: int) -> Captioner:
    return Captioner(vocabulary, config.width, config.layers, config.heads, config.max_length)


def _fit_captioner(
    captioner: Captioner,
    reference: Reference,
    train: Groups,
    tokens: np.ndarray,
    lengths: np.ndarray,
    config: CaptionerConfig,
    key: jax.Array,
    mesh: Mesh,
    folder: Path | None,
) -> PyTree:
    """Phase A: captions from noisy caption embeddings (text only); returns the parameters."""
    d = reference.text.shape[1]
    batch = _batch_size(config.batch_size, train.order.size)
    seed = _seed(keys.stream(key, "captions"))
    params = captioner.init(
        keys.stream(key, "captioner"), jnp.zeros((1, d)), jnp.zeros((1, tokens.shape[1]), jnp.int32)
    )["params"]

    def batch_at(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, step])
        rows = train.order[_sample(rng, train.order.size, batch)]
        text = reference.text[rows].astype(np.float32)
        return {"text": text, "tokens": tokens[rows], "lengths": lengths[rows]}

    def loss_fn(
        params: PyTree, model_state: PyTree, batch: PyTree, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        noise = jax.random.normal(key, batch["text"].shape) * config.noise_variance**0.5
        logits: Any = captioner.apply(
            {"params": params}, unit(batch["text"] + noise), batch["tokens"]
        )
        loss = caption_loss(logits, batch["tokens"], batch["lengths"], config.label_smoothing)
        return loss, (model_state, {})

    steps = max(1, round(config.epochs * train.order.size / batch))
    optimizer = OptimizerConfig(
        learning_rate=config.learning_rate, warmup=_warmup(0.05, steps), weight_decay=0.05
    )
    params, _ = train_phase(
        "captioner",
        params,
        {},
        loss_fn,
        batch_at,
        rows=batch,
        steps=steps,
        optimizer=optimizer,
        key=key,
        mesh=mesh,
        folder=folder,
    )
    return params


def _batch_size(wanted: int, rows: int) -> int:
    """`wanted`, or less so that an epoch has eight steps."""
    return min(wanted, max(rows // 8, 32))


def _sample(rng: np.random.Generator, rows: int, size: int) -> Int64[np.ndarray, " b"]:
    """Row numbers, all different where there are enough."""
    return rng.choice(rows, size, replace=size > rows)


def _warmup(warmup: float, steps: int) -> float:
    """The warm-up, at most a fifth of a run that is too short for it."""
    return warmup if warmup < 1 or warmup <= steps / 5 else 0.2


def _seed(key: jax.Array) -> int:
    """A host seed that depends on the key."""
    return int(np.asarray(jax.random.key_data(key)).astype(np.uint64).sum())
