import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.clip import MAX_SCALE, Policy, build
from mmjax.models.presets import preset
from tests.models.tiny import RESNET, images_of, tokens_of
from tests.oracles import convolution as oracle


def test_embeddings_are_unit_norm_float32_of_the_right_width(model, tiny):
    towers, variables = model
    image = jax.jit(towers.encode_image)(variables, images_of(tiny))
    text = jax.jit(towers.encode_text)(variables, tokens_of(tiny))
    for embedding in (image, text):
        assert embedding.shape == (3, tiny.embed_dim)
        assert embedding.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)


def test_uint8_images_are_their_float_pixels(model, tiny):
    towers, variables = model
    images = images_of(tiny)
    np.testing.assert_array_equal(
        jax.jit(towers.encode_image)(variables, images),
        jax.jit(towers.encode_pixels)(variables, images.astype(np.float32)),
    )


def test_any_length_that_holds_the_end_gives_the_same_text_embedding(model, tiny):
    towers, variables = model
    tokens = tokens_of(tiny)
    encode = jax.jit(towers.encode_text)
    whole = encode(variables, tokens)
    for length in (8, 12):
        np.testing.assert_allclose(encode(variables, tokens[:, :length]), whole, atol=1e-6)


def test_embeddings_may_stand_for_tokens(model, tiny):
    """Their gradient reaches the end of the text and nothing after it."""
    towers, variables = model
    tokens = tokens_of(tiny)
    embedded = towers.token_table(variables)[tokens]
    encode = jax.jit(towers.encode_embedded)
    np.testing.assert_allclose(
        encode(variables, embedded, tokens),
        jax.jit(towers.encode_text)(variables, tokens),
        atol=1e-6,
    )
    slope = jax.grad(lambda x: jnp.sum(encode(variables, x, tokens)[:, 0]))(embedded)
    ends = np.argmax(tokens, axis=1)
    reached = np.any(slope != 0, axis=2)
    np.testing.assert_array_equal(reached, np.arange(tokens.shape[1]) <= ends[:, None])


def test_scale_starts_at_one_over_0_07_and_is_clamped(model):
    towers, variables = model
    start = jax.jit(lambda key: towers.logit_scale(towers.init(key)))(jax.random.key(1))
    assert float(start) == pytest.approx(1 / 0.07, rel=1e-5)
    params = {**variables["params"], "log_scale": jnp.asarray(9.0)}
    assert float(towers.logit_scale({**variables, "params": params})) == MAX_SCALE


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def trained(request, model, tiny):
    """Parameter gradients, image embeddings and new statistics of one contrastive step."""
    towers, variables = build(tiny, Policy(request.param)), model[1]
    images, tokens = images_of(tiny), tokens_of(tiny)

    def loss(params):
        image, text, scale, stats = towers.train_forward(
            {**variables, "params": params}, images, tokens
        )
        return -jnp.trace(jax.nn.log_softmax(scale * image @ text.T)), (image, stats)

    gradient, (image, stats) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    return gradient, image, stats


def test_training_gives_finite_float32_gradients_everywhere(trained):
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained[0]):
        assert np.isfinite(leaf).all(), path
        assert leaf.dtype == jnp.float32
        assert np.abs(leaf).max() > 0, path


def test_training_uses_the_batchs_statistics_and_moves_the_running_ones(trained, model, tiny):
    _, image, stats = trained
    towers, variables = model
    before = variables["batch_stats"]
    assert jax.tree.structure(stats) == jax.tree.structure(before)
    if tiny is not RESNET:
        assert stats == {}
        return
    inference = jax.jit(towers.encode_image)(variables, images_of(tiny))
    assert np.abs(image - inference).max() > 1e-3
    batch = jax.tree.map(lambda old, new: (new - 0.9 * old) / 0.1, before, stats)
    stem = batch["visual"]["stem_1"]["norm"]  # of the first convolution, computed here directly
    mean, std = np.asarray(tiny.mean), np.asarray(tiny.std)
    pixels = (images_of(tiny) / 255 - mean) / std
    kernel = variables["params"]["visual"]["stem_1"]["kernel"]
    wanted = oracle.convolve(pixels, kernel, 2)
    np.testing.assert_allclose(stem["mean"], wanted.mean((0, 1, 2)), atol=2e-2)
    np.testing.assert_allclose(stem["var"], wanted.var((0, 1, 2)), rtol=2e-2)


def test_bfloat16_is_close_to_float32(model, tiny):
    towers, variables = model
    rounded = build(tiny, Policy("bfloat16"))
    images, tokens = images_of(tiny), tokens_of(tiny)
    for name, data in (("encode_image", images), ("encode_text", tokens)):
        exact = jax.jit(getattr(towers, name))(variables, data)
        near = jax.jit(getattr(rounded, name))(variables, data)
        np.testing.assert_allclose(near, exact, atol=2e-2)


def test_wrong_shapes_are_told_before_tracing(model, tiny):
    towers, variables = model
    with pytest.raises(ValueError, match="reads images of shape"):
        towers.encode_image(variables, np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="at most 20 tokens"):
        towers.encode_text(variables, np.zeros((1, 21), np.int32))


@pytest.mark.parametrize(("name", "millions"), [("RN50", 102.0), ("ViT-B-32", 151.3)])
def test_parameter_counts_are_the_published_ones(name, millions):
    shapes = jax.eval_shape(build(preset(name)).init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_demo_fits_four_megabytes_in_half_precision():
    shapes = jax.eval_shape(build(preset("demo")).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) * 2 <= 4_000_000
