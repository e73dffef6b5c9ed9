"""Heat maps and words of tiny models, against finite differences and by what must hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import ConfigError
from mmjax.evaluate.attribution import heat_maps, project, word_attributions
from mmjax.models.clip import build, freeze
from mmjax.models.feature_maps import encode_features
from mmjax.models.policy import Policy
from mmjax.models.presets import Preset, TextPreset, VisionPreset

TEXT = TextPreset(width=16, heads=1, layers=1, vocab_size=32, context_length=8)
VISIONS = {
    "vit": VisionPreset(16, 16, 2, patch_size=8, head_width=16),
    "resnet": VisionPreset(64, 2, (1, 1, 1, 1), head_width=64),
}
RNG = np.random.default_rng(1)
TOKENS = np.array([[30, 3, 4, 5, 31, 0], [30, 7, 31, 9, 9, 9]], np.int32)


@pytest.fixture(scope="module", params=["vit", pytest.param("resnet", marks=pytest.mark.slow)])
def model(request):
    """Frozen towers with weights large enough for gradients, their variables, two pictures."""
    vision = VISIONS[request.param]
    towers = build(Preset("small", 8, vision, TEXT), Policy("float32"))
    variables = towers.init(jax.random.key(0))
    noise = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: leaf + 0.2 * noise.normal(size=leaf.shape).astype(np.float32),
        variables["params"],
    )
    images = RNG.integers(0, 256, (2, vision.image_size, vision.image_size, 3), np.uint8)
    return (*freeze(towers, {**variables, "params": params}, "float32"), images)


def test_nothing_added_changes_nothing(model):
    towers, variables, images = model
    seen = encode_features(towers, variables, images.astype(np.float32))
    wanted = towers.encode_image(variables, images)
    np.testing.assert_allclose(seen.embedding, wanted, atol=1e-6)
    grid = towers.preset.vision.grid
    assert seen.features.shape[:3] == (2, grid, grid)


@pytest.mark.slow
def test_heat_maps_are_grad_cam_by_finite_differences(model):
    towers, variables, images = model
    pixels = images.astype(np.float32)
    text = np.float64(towers.encode_text(variables, TOKENS))
    features = np.float64(encode_features(towers, variables, pixels).features)
    encode = jax.jit(lambda change: encode_features(towers, variables, pixels, change).embedding)

    def cosines(change):
        return np.sum(np.float64(encode(jnp.float32(change))) * text, axis=1)

    # the mean gradient over places of a channel is the slope along a constant change, over hw
    weights = np.zeros((2, features.shape[-1]))
    places = features.shape[1] * features.shape[2]
    for channel in range(features.shape[-1]):
        change = np.zeros(features.shape)
        change[..., channel] = 0.02
        weights[:, channel] = (cosines(change) - cosines(-change)) / 0.04 / places
    heat = np.maximum(np.einsum("bc,bhwc->bhw", weights, features), 0)
    wanted = heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)
    found = heat_maps(towers, variables, images, TOKENS)
    np.testing.assert_allclose(found, wanted, atol=2e-2)  # float32 differences
    assert found.max() == 1


def test_words_add_up_to_the_cosine(model):
    towers, variables, images = model
    found = word_attributions(towers, variables, images, TOKENS, steps=128)
    image = np.float64(towers.encode_image(variables, images))
    text = np.float64(towers.encode_text(variables, TOKENS))
    np.testing.assert_allclose(found.cosine, np.sum(image * text, axis=1), atol=1e-5)
    assert np.all(np.abs(found.cosine - found.empty) > 1e-3)
    assert found.gap < 1e-3 * np.abs(found.cosine - found.empty).min() + 1e-4
    is_word = np.array([[0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(found.values != 0, is_word)


def test_features_under_remat_are_refused():
    towers = build(Preset("small", 8, VISIONS["vit"], TEXT), Policy("float32", remat=True))
    with pytest.raises(ConfigError, match="not kept under remat"):
        encode_features(towers, {}, np.zeros((1, 16, 16, 3), np.float32))


def test_the_plane_keeps_groups_together():
    centres = RNG.normal(size=(4, 8))
    rows = np.repeat(centres, 10, axis=0) + 0.05 * RNG.normal(size=(40, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    plane = project(rows, perplexity=8.0)
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert np.array_equal(distance.argmin(axis=1) // 10, np.arange(40) // 10)
    np.testing.assert_array_equal(plane, project(rows, perplexity=8.0))
    with pytest.raises(ConfigError, match="wants more rows than that, got 8"):
        project(rows[:8], perplexity=8.0)
