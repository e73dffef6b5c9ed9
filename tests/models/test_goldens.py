"""Equality with torch's open_clip and transformers, on stored outputs (make_goldens.py)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.models.clip import build
from mmjax.models.foreign import open_clip_config
from mmjax.models.layouts import origin, shapes
from mmjax.models.weights import load_weights
from tests.models.tiny import (
    PRESETS,
    direction,
    fill_values,
    images_of,
    tokens_of,
    transformers_config,
)

GOLDENS = Path(__file__).parent / "goldens"
SEED = 7


def write_folder(folder, preset, layout) -> str:
    """Writes the tiny model as its own library would and returns the weights' spec."""
    origins = [origin(path, shape, layout) for path, shape in shapes(preset).items()]
    values = fill_values({n: source.shape for source in origins for n in source.names}, SEED)
    if layout == "open_clip":
        config = {"model_cfg": open_clip_config(preset)}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        save_file(values, folder / "open_clip_model.safetensors")
        return f"open_clip-dir:{folder}"
    (folder / "config.json").write_text(json.dumps(transformers_config(preset)))
    save_file(values, folder / "model.safetensors")
    return f"hf-dir:{folder}"


CASES = [
    (name, layout)
    for name, preset in PRESETS.items()
    for layout in ("open_clip", "transformers")
    if layout == "open_clip" or preset.vision.kind == "vit"
]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_loaded_towers_equal_torchs(name, layout, tmp_path):
    preset = PRESETS[name]
    golden = np.load(GOLDENS / f"{name}.npz")
    weights = load_weights(write_folder(tmp_path, preset, layout))
    assert weights.preset.activation == preset.activation
    towers = build(weights.preset)
    images, tokens = images_of(preset), tokens_of(preset)

    @jax.jit
    def run(variables, pixels):
        def score(pixels):
            image = towers.encode_pixels(variables, pixels)
            return jnp.sum(image * direction(preset, len(images))), image

        gradient, image = jax.grad(score, has_aux=True)(pixels)
        return image, towers.encode_text(variables, tokens), gradient

    image, text, gradient = run(weights.variables, images.astype(np.float32))
    np.testing.assert_allclose(image, golden[f"{layout}_image"], atol=1e-5)
    np.testing.assert_allclose(text, golden[f"{layout}_text"], atol=1e-5)
    wanted = golden[f"{layout}_gradient"]
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert float(towers.logit_scale(weights.variables)) == pytest.approx(20, rel=1e-5)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_goldens_tell_different_images_and_captions_apart(name):
    golden = np.load(GOLDENS / f"{name}.npz")
    for side in ("image", "text"):
        embeddings = golden[f"open_clip_{side}"]
        assert np.abs(embeddings[0] - embeddings[1]).max() > 0.05
