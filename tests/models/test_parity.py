"""Equality with open_clip and transformers at full size, on random weights (needs torch)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.models.clip import build
from mmjax.models.foreign import open_clip_config
from mmjax.models.presets import preset
from mmjax.models.weights import load_weights
from tests.models.tiny import direction, images_of, tokens_of

pytestmark = pytest.mark.parity


def captions_of(shape):
    """Captions that end at 3, 4, ... and at the last position."""
    tokens = tokens_of(shape, 4)
    tokens[-1] = tokens_of(shape, 1, seed=1)[0]
    tokens[-1, :-1] = np.arange(1, 77)
    tokens[-1, -1] = shape.text.vocab_size - 1
    return tokens


def ours(weights, images, tokens):
    """Embeddings and pixel gradient as torch_clip.outputs gives them."""
    towers = build(weights.preset)

    @jax.jit
    def run(variables, pixels):
        def score(pixels):
            image = towers.encode_pixels(variables, pixels)
            return jnp.sum(image * direction(weights.preset, len(images))), image

        gradient, image = jax.grad(score, has_aux=True)(pixels)
        return image, towers.encode_text(variables, tokens), gradient

    image, text, gradient = run(weights.variables, images.astype(np.float32))
    return {"image": image, "text": text, "gradient": gradient}


def distances(found, wanted):
    """Largest differences of embeddings; of the gradient, the norm of its error over its norm.

    A ReLU whose input is within rounding of 0 passes the gradient in one arithmetic and not in
    the other (torch's float32 does the same), which one pixel may feel: hence the norm.
    """
    far = {side: float(np.abs(found[side] - wanted[side]).max()) for side in ("image", "text")}
    error = np.linalg.norm(found["gradient"] - wanted["gradient"])
    return {**far, "gradient": float(error / np.linalg.norm(wanted["gradient"]))}


def check(weights, images, tokens, wanted):
    for side in ("image", "text"):  # the inputs are told apart
        assert np.abs(wanted[side][0] - wanted[side][1]).max() > 1e-2
    far = distances(ours(weights, images, tokens), wanted)
    assert far["image"] <= 1e-4
    assert far["text"] <= 1e-4
    assert far["gradient"] <= 1e-3


@pytest.mark.parametrize("name", ["RN50", "RN101", "ViT-B-32"])
def test_towers_equal_open_clips(name, tmp_path):
    from tests.models.torch_clip import open_clip_outputs

    shape = preset(name)
    images, tokens = images_of(shape, 2), captions_of(shape)
    state, wanted = open_clip_outputs(shape, images, tokens, seed=7)
    config = {"model_cfg": open_clip_config(shape)}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "open_clip_model.safetensors")
    check(load_weights(f"open_clip-dir:{tmp_path}"), images, tokens, wanted)


def test_towers_equal_transformers(tmp_path):
    from tests.models.torch_clip import transformers_outputs

    shape = preset("ViT-B-32")
    images, tokens = images_of(shape, 2), captions_of(shape)
    state, wanted, config = transformers_outputs(shape, images, tokens, seed=7)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "model.safetensors")
    check(load_weights(f"hf-dir:{tmp_path}"), images, tokens, wanted)


@pytest.mark.parametrize("length", [16, 24, 32, 48])
def test_text_cut_to_a_bucket_equals_all_77_tokens(length):
    shape = preset("ViT-B-32")
    towers = build(shape)
    variables = towers.init(jax.random.key(0))
    tokens = tokens_of(shape, 12)
    encode = jax.jit(towers.encode_text)
    whole = encode(variables, tokens)
    np.testing.assert_allclose(encode(variables, tokens[:, :length]), whole, atol=1e-6)
