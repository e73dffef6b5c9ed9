"""Training is open_clip's: same weights, same batches, torch in float64, ours in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.learn.config import OptimizerConfig
from mmjax.learn.loop import fit
from mmjax.learn.state import create, make_optimizer
from mmjax.learn.step import make_step
from mmjax.models.clip import build, clamp_scale
from mmjax.models.layouts import read
from mmjax.train.config import TrainConfig
from mmjax.train.objectives import OBJECTIVES
from tests.models import tiny

pytestmark = pytest.mark.parity
STEPS, ROWS = 5, 8
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-3, warmup=0.0, schedule="constant", weight_decay=0.2, b2=0.98, eps=1e-6
)


def batch_of(preset, step):
    return tiny.images_of(preset, ROWS, seed=step), tiny.tokens_of(preset, ROWS, seed=step)


def torch_trained(preset):
    """(initial state, losses, first gradients, last state), all under open_clip's names."""
    import torch

    from mmjax.measure.torch_clip import open_clip_model
    from tests.models.torch_clip import fill

    model = open_clip_model(preset)
    from open_clip.loss import ClipLoss

    initial = fill(model, 7)
    model = model.double().train()
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": 0.2},
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.b1, OPTIMIZER.b2),
        eps=OPTIMIZER.eps,
    )
    mean, std = (torch.tensor(each, dtype=torch.float64) for each in (preset.mean, preset.std))
    losses, gradients = [], {}
    for step in range(STEPS):
        images, tokens = batch_of(preset, step)
        normal = (torch.from_numpy(images.astype(np.float64)) / 255 - mean) / std
        image, text, scale = model(normal.permute(0, 3, 1, 2), torch.from_numpy(tokens).long())
        loss = ClipLoss()(image, text, scale)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {name: p.grad.numpy().copy() for name, p in named}
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(100)))
        losses.append(loss.item())
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return initial, losses, {**initial, **gradients}, state


def ours(preset, state):
    """Our variables from tensors under open_clip's names."""
    floats = {name: value for name, value in state.items() if value.dtype.kind == "f"}
    available = {name: value.shape for name, value in floats.items()}
    return read(preset, "open_clip", available, floats.__getitem__)


def furthest(found, wanted):
    """The largest difference of two trees, key biases left out.

    Softmax does not see a key's bias: its gradient is 0, and Adam takes float32's rounding errors
    for one.
    """

    def apart(path, a, b):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("key/bias"):
            return 0.0
        if name.endswith("qkv/bias"):
            a, b = (np.delete(each.reshape(3, -1), 1, axis=0) for each in (a, b))
        return float(np.abs(a - b).max())

    return max(jax.tree.leaves(jax.tree_util.tree_map_with_path(apart, found, wanted)), default=0.0)


def means(statistics):
    """Running means; torch keeps the unbiased variance, n / (n - 1) of what flax keeps."""
    leaves = jax.tree_util.tree_leaves_with_path(statistics)
    return [leaf for path, leaf in leaves if path[-1].key == "mean"]


@pytest.mark.parametrize("preset", [tiny.VIT, tiny.RESNET], ids=lambda preset: preset.name)
def test_loss_gradients_and_five_steps_of_adamw_are_open_clips(preset):
    state, losses, gradients, last = torch_trained(preset)
    variables = ours(preset, state)
    mesh, optimizer = make_mesh(MeshConfig(data=1)), make_optimizer(OPTIMIZER, STEPS)
    step = make_step(OBJECTIVES["clip"](build(preset), TrainConfig(), mesh), optimizer, clamp_scale)

    def batch_at(number):
        images, tokens = batch_of(preset, number)
        return {"images": images, "tokens": tokens[:, None]}

    found = []

    def run(steps):
        found.clear()
        return fit(
            create(variables["params"], variables["batch_stats"], optimizer),
            step,
            batch_at,
            steps=steps,
            key=jax.random.key(0),
            mesh=mesh,
            on_metrics=lambda done, metrics: found.append(metrics["loss"]),
        )

    moments = run(1).opt_state[0].mu
    wanted = ours(preset, gradients)["params"]
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(
        lambda moment, leaf: np.testing.assert_allclose(
            moment / (1 - OPTIMIZER.b1), leaf, rtol=1e-4, atol=1e-4 * largest
        ),
        moments,
        wanted,
    )
    after = run(STEPS)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    wanted = ours(preset, last)
    assert furthest(after.params, wanted["params"]) < 1e-4
    assert furthest(means(after.model_state), means(wanted["batch_stats"])) < 1e-4
    assert float(jnp.abs(after.params["log_scale"] - variables["params"]["log_scale"])) > 1e-3
