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
from mmjax.models.clip import build
from mmjax.models.partition import RULES
from mmjax.models.policy import Policy
from mmjax.models.presets import VisionPreset
from mmjax.train.config import TrainConfig
from mmjax.train.objectives import OBJECTIVES, clamp_scale
from tests.models import tiny

STEPS, ROWS = 20, 16
TEXT = dataclasses.replace(tiny.VIT.text, layers=1)
VIT = dataclasses.replace(
    tiny.VIT, name="vit", text=TEXT, vision=dataclasses.replace(tiny.VIT.vision, layers=1)
)
RESNET = dataclasses.replace(
    tiny.RESNET, name="resnet", text=TEXT, vision=VisionPreset(32, 4, (1, 1), head_width=32)
)
OPTIMIZER = OptimizerConfig(learning_rate=1e-3)
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


def trained(preset, mesh_config, rules):
    """(loss, gradients of the first step), parameters, statistics after STEPS, bytes a device."""
    mesh = make_mesh(mesh_config)
    towers = build(preset, Policy("float32"))
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    initial = towers.init(jax.random.key(0))
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


def furthest(one, other, *, relative):
    """The largest difference of two trees; relative to each array's largest value, if wanted."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(other))

    def apart(a, b):
        # an array whose true gradient is 0 (a key's bias) holds rounding errors alone
        unit = max(np.abs(b).max(), 1e-3 * largest) if relative else 1
        return float(np.abs(a - b).max() / unit)

    return max(jax.tree.leaves(jax.tree.map(apart, one, other)), default=0.0)


def main():
    found = {}
    for preset, cases in ((VIT, tuple(CASES)), (RESNET, ("data", "fsdp and tensor"))):
        alone = trained(preset, MeshConfig(data=1), ())
        for name in cases:
            mesh_config, rules = CASES[name]
            split = trained(preset, mesh_config, rules)
            found[f"{preset.name}: {name}"] = {
                "loss": abs(split["loss"] - alone["loss"]) / alone["loss"],
                "gradients": furthest(split["gradients"], alone["gradients"], relative=True),
                "params": furthest(split["params"], alone["params"], relative=False),
                "statistics": furthest(split["statistics"], alone["statistics"], relative=True)
                if split["statistics"]
                else 0.0,
                "bytes": split["bytes"] / alone["bytes"],
            }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
