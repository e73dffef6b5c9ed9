"""The steps of a run as functions of shapes alone, ready to be compiled for any mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mmjax.core.mesh import DATA, batch_sharding, replicated
from mmjax.learn.sharding import shardings, without
from mmjax.learn.state import create, make_optimizer
from mmjax.learn.step import make_step
from mmjax.measure.plan_config import PlanConfig
from mmjax.models.clip import MAX_SCALE, Towers, build, clamp_scale, freeze
from mmjax.models.partition import RULES
from mmjax.models.policy import Backend, Policy
from mmjax.models.presets import preset
from mmjax.ops.contrastive import sharded_info_nce
from mmjax.ops.pgd import descend, lattice_box
from mmjax.train.objectives import OBJECTIVES

PyTree = Any


class AbstractStep(NamedTuple):
    """A jitted step and the shapes of its arguments; nothing of them exists.

    Fields:
        function: from `jax.jit`.
        arguments: of the function.
        sent: what a host sends to the devices for every row, in bytes.
        repeats: how often the loop runs that holds collectives, if there is one.
    """

    function: Any
    arguments: tuple[PyTree, ...]
    sent: int
    repeats: int = 1


def make_abstract_step(config: PlanConfig, mesh: Mesh) -> AbstractStep:
    """The step of a plan on a mesh."""
    return _STEPS[config.step](config, mesh)


def _backend(config: PlanConfig) -> Backend:
    return "cpu" if config.platform == "cpu" else "accelerator"


def _placed(tree: PyTree, places: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        places,
    )


def _rows(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))


def _frozen(config: PlanConfig, mesh: Mesh) -> tuple[Towers, PyTree]:
    """Towers for inference, and the shapes of their variables, whole on every device."""
    towers = build(preset(config.preset), Policy("bfloat16", _backend(config)))
    variables = jax.eval_shape(towers.init, jax.random.key(0))
    made: list[Towers] = []

    def fold(variables: PyTree) -> PyTree:
        frozen, folded = freeze(towers, variables, "bfloat16")
        made.append(frozen)
        return folded

    folded = jax.eval_shape(fold, variables)
    return made[0], _placed(folded, jax.tree.map(lambda _: replicated(mesh), folded))


def _encode(config: PlanConfig, mesh: Mesh) -> AbstractStep:
    towers, variables = _frozen(config, mesh)
    size = towers.preset.vision.image_size
    images = _rows((config.batch_size, size, size, 3), jnp.uint8, mesh)
    function = jax.jit(towers.encode_image, out_shardings=batch_sharding(mesh))
    return AbstractStep(function, (variables, images), 3 * size * size)


def _text(config: PlanConfig, mesh: Mesh) -> AbstractStep:
    towers, variables = _frozen(config, mesh)
    tokens = _rows((config.batch_size, config.tokens), jnp.int32, mesh)
    function = jax.jit(towers.encode_text, out_shardings=batch_sharding(mesh))
    return AbstractStep(function, (variables, tokens), 4 * config.tokens)


def _train(config: PlanConfig, mesh: Mesh) -> AbstractStep:
    """As `train.pipeline` builds it, without a defence."""
    train = dataclasses.replace(config.train, batch_size=config.batch_size)
    policy = Policy(train.model.compute, _backend(config), train.model.remat)
    towers = build(preset(config.preset), policy)
    optimizer = make_optimizer(train.optimizer, train.steps)
    loss_fn = OBJECTIVES["clip"](towers, train, mesh)
    step = make_step(
        loss_fn,
        optimizer,
        clamp_scale,
        average_decay=train.average,
        max_skipped=train.max_skipped,
    )

    def initial(key: jax.Array) -> PyTree:
        variables = towers.init(key)
        averaged = train.average > 0
        return create(variables["params"], variables["batch_stats"], optimizer, averaged=averaged)

    state = jax.eval_shape(initial, jax.random.key(0))
    places = shardings(state, mesh, RULES if train.fsdp else without(RULES, DATA))
    size = towers.preset.vision.image_size
    batch = {
        "images": _rows((config.batch_size, size, size, 3), jnp.uint8, mesh),
        "tokens": _rows(
            (config.batch_size, train.captions_per_image, config.tokens), jnp.int32, mesh
        ),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))
    function = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
    sent = 3 * size * size + 4 * config.tokens * train.captions_per_image
    return AbstractStep(
        function, (_placed(state, places), batch, key), sent, repeats=train.accumulate
    )


def _pgd(config: PlanConfig, mesh: Mesh) -> AbstractStep:
    """MEM's image phase: a batch's noise against its captions, whose features are given."""
    towers, variables = _frozen(config, mesh)
    size = towers.preset.vision.image_size
    shape = (config.batch_size, size, size, 3)

    def loss(
        noise: jax.Array, step: jax.Array, variables: PyTree, images: jax.Array, text: jax.Array
    ) -> jax.Array:
        image = towers.encode_pixels(variables, images.astype(jnp.float32) + noise)
        scale = jnp.float32(MAX_SCALE)
        return sharded_info_nce(image, text, scale, mesh=mesh, chunk=config.train.loss_chunk)

    def improve(
        variables: PyTree, images: jax.Array, noise: jax.Array, text: jax.Array
    ) -> jax.Array:
        low, high = lattice_box(images, 8)
        given = (variables, images, text)
        return descend(loss, noise, low, high, 1, steps=config.pgd_steps, args=given)

    arguments = (
        variables,
        _rows(shape, jnp.uint8, mesh),
        _rows(shape, jnp.int8, mesh),
        _rows((config.batch_size, towers.preset.embed_dim), jnp.float32, mesh),
    )
    function = jax.jit(improve, out_shardings=batch_sharding(mesh), donate_argnums=2)
    return AbstractStep(function, arguments, 2 * 3 * size * size, repeats=config.pgd_steps)


_STEPS: dict[str, Callable[[PlanConfig, Mesh], AbstractStep]] = {
    "encode": _encode,
    "text": _text,
    "train": _train,
    "pgd": _pgd,
}
