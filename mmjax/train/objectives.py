"""What a CLIP training run minimises: a table of makers of loss functions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from mmjax.learn.step import LossFn, Metrics
from mmjax.models.clip import Towers
from mmjax.ops.contrastive import info_nce, sharded_info_nce
from mmjax.ops.pair_losses import sharded_pair_losses
from mmjax.ops.pgd import add_noise, descend, lattice_box
from mmjax.ops.pool import put, sharded_nearest_entries
from mmjax.train.config import TrainConfig
from mmjax.train.embedding import Batch, Embedded, make_embed
from mmjax.train.pool import Pooled

PyTree = Any
Objective = Callable[[Towers, TrainConfig, Mesh], LossFn]
Loss = Callable[[Embedded, Batch], tuple[Float[Array, ""], Metrics]]


def clip(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """CLIP's loss: symmetric InfoNCE over the global batch, however many parts embed it.

    A batch holds `images` (uint8 [b, s, s, 3]) and `tokens` (int32 [b, k, l]): k captions of every
    image. The loss is the mean of k InfoNCE terms that share the image embeddings, which cost much
    more than captions do.
    """

    def loss(embedded: Embedded, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        return _cross_modal(embedded, batch["tokens"].shape[1], config, mesh), {}

    return _loss_fn(loss, towers, config, mesh)


def cleanclip(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """CleanCLIP: CLIP's loss, and every image and caption told by its own augmentation.

        loss = clip + weight (H(image, its view) + H(caption, its rewording)) / 2

    H is the mean cross-entropy of finding the augmentation of a sample among those of the batch:
    one direction, at CLIP's own temperature. A batch holds `image_views` and `token_views` too.

    Source: Bansal et al. 2023 (arXiv:2303.03323), equation 4; CleanCLIP src/train.py `get_loss`.
    """

    def loss(embedded: Embedded, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        captions = batch["tokens"].shape[1]
        cross_modal = _cross_modal(embedded, captions, config, mesh)
        in_modal = jnp.mean(_in_modal(embedded, captions, config, mesh))
        total = cross_modal + config.defence.cleanclip.weight * in_modal
        return total, {"cross_modal": cross_modal, "in_modal": in_modal}

    return _loss_fn(loss, towers, config, mesh)


def roclip(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """RoCLIP: where `pooled` says so, an image is matched with the nearest caption of a pool.

    The loss stays CLIP's. The pool holds the embeddings of captions as they were when their batch
    came, so that on such steps the gradient reaches the text tower through the scale alone. A
    batch is looked up before its own captions enter the pool. The model's state is a `Pooled`; a
    batch holds `pooled` (bool [b, k]), the same for all rows.

    Source: Yang et al. 2023 (arXiv:2303.06854), section 4; BigML-CS-UCLA/RoCLIP model/src/train.py
    `get_loss`, which looks up by the image too.
    """
    embed = make_embed(towers, config, mesh)

    def loss_fn(
        params: PyTree, state: Pooled, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Pooled, Metrics]]:
        batch_stats, embedded = embed(params, state.batch_stats, batch, key)
        fixed = jax.lax.stop_gradient(embedded)
        found = sharded_nearest_entries(fixed.image[:, 0], state.captions, mesh=mesh)
        pooled = batch["pooled"][..., None]
        texts = jnp.where(pooled, found[:, None], embedded.texts)
        loss = _cross_modal(embedded._replace(texts=texts), texts.shape[1], config, mesh)
        oldest = state.captions[state.turn % len(state.captions)]
        captions = put(state.captions, jnp.where(pooled, fixed.texts, oldest), state.turn)
        turn = state.turn + jnp.any(pooled)
        similarity = jnp.mean(jnp.sum(fixed.image[:, 0] * found, axis=1))
        told = {"scale": embedded.scale, "pooled": jnp.any(pooled), "nearest_cosine": similarity}
        return loss, (Pooled(batch_stats, captions, turn), told)

    return loss_fn


def unimodal(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """Images and captions each told by their own augmentations; nothing brings them together.

    The in-modal terms of `cleanclip` alone. A batch holds `image_views` and `token_views` too.
    """

    def loss(embedded: Embedded, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        return jnp.mean(_in_modal(embedded, batch["tokens"].shape[1], config, mesh)), {}

    return _loss_fn(loss, towers, config, mesh)


def safeclip(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """SafeCLIP: safe pairs under CLIP's loss among themselves, the others each side for itself.

        loss = mean over safe pairs of InfoNCE among the safe + mean over the others of `unimodal`

    A batch holds `safe` (bool [b, 1]), `image_views` and `token_views`. Both kinds come from one
    random batch, where the reference draws a batch of each; its bank of nearest neighbours, which
    takes the augmentation's place in the unimodal loss, is left out.

    Source: Yang et al. 2024 (arXiv:2310.05862), section 4.
    """

    def loss(embedded: Embedded, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        safe = batch["safe"][:, 0]
        cross_modal = _mean_where(safe, _symmetric(embedded, safe, config, mesh))
        in_modal = _mean_where(~safe, _in_modal(embedded, 1, config, mesh))
        told = {"cross_modal": cross_modal, "in_modal": in_modal, "safe": jnp.mean(safe)}
        return cross_modal + in_modal, told

    return _loss_fn(loss, towers, config, mesh)


def abl_gather(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """ABL's local gradient ascent: pairs whose loss is under a floor are driven back up to it.

        loss = mean_i sign(l_i - floor) l_i,   l_i the pair's own InfoNCE

    Poisoned pairs, learned fast, fall under the floor again and again; honest ones stay about it. A
    batch holds `floor` (float32 [b, 1], nats): InfoNCE grows with ln b, so that ABL's own .5 would
    mean something else in every batch size.

    Source: Li et al. 2021 (arXiv:2110.11571), equation 3.
    """

    def loss(embedded: Embedded, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        floor = batch["floor"][:, 0]
        losses = _symmetric(embedded, jnp.ones(len(floor), bool), config, mesh)
        under = jnp.mean(losses < floor)
        return jnp.mean(jnp.sign(losses - floor) * losses), {"under_floor": under}

    return _loss_fn(loss, towers, config, mesh)


def _abl(towers: Towers, config: TrainConfig, mesh: Mesh, *, unlearns: bool) -> LossFn:
    """CLIP's loss over the pairs that are kept; `unlearns` raises that of the isolated ones.

        loss = mean over kept of l_i - mean over isolated of min(l_i, ln b)

    Every l_i tells a pair from the kept ones of its batch, so that isolated pairs of one target,
    which are each other's match, do not hide behind one another. At ln b, chance, the ascent ends.
    A batch holds `isolated` (bool [b, 1]). The reference unlearns on batches of isolated images
    alone; here an epoch goes over everything, and each isolated pair comes once as there.

    Source: Li et al. 2021 (arXiv:2110.11571), section 3.3.
    """

    def loss(embedded: Embedded, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        isolated = batch["isolated"][:, 0]
        losses = _symmetric(embedded, ~isolated, config, mesh)
        kept = _mean_where(~isolated, losses)
        told = {"kept": kept, "isolated": _mean_where(isolated, losses)}
        if not unlearns:
            return kept, told
        chance = math.log(len(isolated))
        return kept - _mean_where(isolated, jnp.minimum(losses, chance)), told

    return _loss_fn(loss, towers, config, mesh)


def adversarial(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """Adversarial training: CLIP's loss on images that have first been changed to raise it.

        loss = InfoNCE(f(x + d*), g(t)),   d* = argmax over |d| <= e of InfoNCE(f(x + d), g(t))

    The change is sought by signed steps in whole grey levels, with the first caption of each image
    and the running statistics of BatchNorm; then images are augmented. What noise within the budget
    does to training is lost on it; a patch is no such noise.

    Source: Madry et al. 2018 (arXiv:1706.06083), equation 2.1.
    """
    embed, options = make_embed(towers, config, mesh), config.defence.adversarial

    def raised(
        noise: Array, step: Array, variables: PyTree, images: Array, text: Array
    ) -> Float[Array, ""]:
        image = towers.encode_pixels(variables, images.astype(jnp.float32) + noise)
        return info_nce(image, text, towers.logit_scale(variables))

    def loss_fn(
        params: PyTree, batch_stats: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        images, tokens = batch["images"], batch["tokens"]
        fixed = jax.lax.stop_gradient({"params": params, "batch_stats": batch_stats})
        args = (fixed, images, towers.encode_text(fixed, tokens[:, 0]))
        low, high = lattice_box(images, options.epsilon)
        start, size = jnp.zeros_like(low), -options.step_size
        noise = descend(raised, start, low, high, size, steps=options.steps, args=args)
        changed = {**batch, "images": add_noise(images, noise)}
        batch_stats, embedded = embed(params, batch_stats, changed, key)
        loss = _cross_modal(embedded, tokens.shape[1], config, mesh)
        return loss, (batch_stats, {"scale": embedded.scale})

    return loss_fn


OBJECTIVES: dict[str, Objective] = {
    "clip": clip,
    "adversarial": adversarial,
    "cleanclip": cleanclip,
    "roclip": roclip,
    "unimodal": unimodal,
    "safeclip": safeclip,
    "abl_gather": abl_gather,
    "abl_kept": partial(_abl, unlearns=False),
    "abl_unlearn": partial(_abl, unlearns=True),
}
"""Makers of loss functions by name."""


def _loss_fn(loss: Loss, towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """The loss function of a model whose state are its batch statistics."""
    embed = make_embed(towers, config, mesh)

    def loss_fn(
        params: PyTree, batch_stats: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        batch_stats, embedded = embed(params, batch_stats, batch, key)
        value, told = loss(embedded, batch)
        return value, (batch_stats, {"scale": embedded.scale, **told})

    return loss_fn


def _cross_modal(
    embedded: Embedded, captions: int, config: TrainConfig, mesh: Mesh
) -> Float[Array, ""]:
    """The mean InfoNCE of the images with each of their captions."""
    image = embedded.image[:, 0]
    losses = [
        sharded_info_nce(image, text, embedded.scale, mesh=mesh, chunk=config.loss_chunk)
        for text in jnp.unstack(embedded.texts[:, :captions], axis=1)
    ]
    return jnp.mean(jnp.stack(losses))


def _in_modal(
    embedded: Embedded, captions: int, config: TrainConfig, mesh: Mesh
) -> Float[Array, " b"]:
    """Each sample's mean cross-entropy with its augmentation, of image and captions alike."""
    everyone: Bool[Array, " b"] = jnp.ones(len(embedded.image), bool)

    def told(own: Float[Array, "b d"], view: Float[Array, "b d"]) -> Float[Array, " b"]:
        return sharded_pair_losses(
            own, view, embedded.scale, everyone, mesh=mesh, chunk=config.loss_chunk
        )

    of_image = told(embedded.image[:, 0], embedded.image[:, 1])
    texts = jnp.unstack(embedded.texts, axis=1)
    of_texts = [told(*pair) for pair in zip(texts[:captions], texts[captions:], strict=True)]
    return (of_image + jnp.mean(jnp.stack(of_texts), axis=0)) / 2


def _symmetric(
    embedded: Embedded, among: Bool[Array, " b"], config: TrainConfig, mesh: Mesh
) -> Float[Array, " b"]:
    """Each pair's InfoNCE against the pairs of `among`, the mean of both directions."""
    image, text = embedded.image[:, 0], embedded.texts[:, 0]
    there, back = (
        sharded_pair_losses(*pair, embedded.scale, among, mesh=mesh, chunk=config.loss_chunk)
        for pair in ((image, text), (text, image))
    )
    return (there + back) / 2


def _mean_where(chosen: Bool[Array, " b"], losses: Float[Array, " b"]) -> Float[Array, ""]:
    """The mean over the chosen rows, 0 where there are none."""
    return jnp.sum(jnp.where(chosen, losses, 0)) / jnp.maximum(jnp.sum(chosen), 1)
