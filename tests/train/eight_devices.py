"""The CLIP objective on 1 and on 8 simulated devices; prints how far apart they are, as JSON.

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python -m tests.train.eight_devices
"""

import dataclasses
import json
import sys

import jax
import numpy as np

from mmjax.core.mesh import DATA, MeshConfig, make_mesh
from mmjax.learn.config import OptimizerConfig
from mmjax.learn.loop import fit
from mmjax.learn.sharding import gather, put_state, without
from mmjax.learn.state import create, make_optimizer
from mmjax.learn.step import make_step
from mmjax.models.clip import build, clamp_scale
from mmjax.models.partition import RULES
from mmjax.models.policy import Policy
from mmjax.models.presets import VisionPreset
from mmjax.train.config import TrainConfig
from mmjax.train.objectives import OBJECTIVES
from tests.models import tiny

STEPS, ROWS = 20, 16
TEXT = dataclasses.replace(tiny.VIT.text, layers=1)
VIT = dataclasses.replace(
    tiny.VIT, name="vit", text=TEXT, vision=dataclasses.replace(tiny.VIT.vision, layers=1)
)
RESNET = dataclasses.replace(
    tiny.RESNET, name="resnet", text=TEXT, vision=VisionPreset(32, 4, (1, 1), head_width=32)
)
OPTIMIZER = OptimizerConfig(learning_rate=5e-4)  # RN50's in CleanCLIP's and MEM's code
CASES = {
    "data": (MeshConfig(data=8), without(RULES, DATA)),
    "fsdp": (MeshConfig(data=8), RULES),
    "tensor": (MeshConfig(data=4, model=2), without(RULES, DATA)),
    "fsdp and tensor": (MeshConfig(data=4, model=2), RULES),
}
"""Shape of the mesh and rules, by the name of what is split."""


def batch_at(preset, step):
    images = tiny.images_of(preset, ROWS, seed=step)
    tokens = np.stack([tiny.tokens_of(preset, ROWS, seed=2 * step + k) for k in (0, 1)], axis=1)
    return {"images": images, "tokens": tokens}


def trained(preset, initial, mesh_config, rules):
    """(loss, gradients of the first step), parameters, statistics after STEPS, bytes a device."""
    mesh = make_mesh(mesh_config)
    towers = build(preset, Policy("float32"))
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    state = create(initial["params"], initial["batch_stats"], optimizer)
    step = make_step(OBJECTIVES["clip"](towers, TrainConfig(), mesh), optimizer, clamp_scale)

    def run(steps):
        losses = []
        after = fit(
            state,
            step,
            lambda step: batch_at(preset, step),
            steps=steps,
            key=jax.random.key(1),
            mesh=mesh,
            rules=rules,
            on_metrics=lambda done, metrics: losses.append(metrics["loss"]),
        )
        return after, losses

    first, losses = run(1)
    moments = gather(first.opt_state[0].mu, mesh)  # (1 - b1) times the gradients
    gradients = jax.tree.map(lambda moment: moment / (1 - OPTIMIZER.b1), moments)
    last, _ = run(STEPS)
    placed = put_state(state, mesh, rules)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed))
    return {
        "loss": losses[0],
        "gradients": gradients,
        "params": gather(last.params, mesh),
        "statistics": gather(last.model_state, mesh),
        "bytes": held,
    }


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))


def relative(one, other):
    """The norm of the difference of two trees over the norm of the second."""
    return norm(jax.tree.map(np.subtract, one, other)) / norm(other) if other else 0.0


def furthest(one, other):
    """The largest difference of two trees."""
    return max(
        float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def main():
    found = {}
    for preset, cases in ((VIT, tuple(CASES)), (RESNET, ("data", "fsdp and tensor"))):
        initial = build(preset).init(jax.random.key(0))
        alone = trained(preset, initial, MeshConfig(data=1), ())
        for name in cases:
            mesh_config, rules = CASES[name]
            split = trained(preset, initial, mesh_config, rules)
            found[f"{preset.name}: {name}"] = {
                "loss": abs(split["loss"] - alone["loss"]) / alone["loss"],
                "gradients": relative(split["gradients"], alone["gradients"]),
                "params": furthest(split["params"], alone["params"]),
                "statistics": relative(split["statistics"], alone["statistics"]),
                "bytes": split["bytes"] / alone["bytes"],
            }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
