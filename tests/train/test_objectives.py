import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.learn.sharding import put_batch, put_state
from mmjax.models.clip import Towers, clamp_scale
from mmjax.models.policy import Policy
from mmjax.models.presets import preset
from mmjax.train.config import TrainConfig
from mmjax.train.defence import AdversarialConfig, CleanClipConfig, DefenceConfig
from mmjax.train.objectives import OBJECTIVES
from mmjax.train.pool import POOL_RULES, Pooled
from tests.oracles import pool as oracle_pool
from tests.oracles.contrastive import info_nce
from tests.oracles.pair_losses import pair_losses

RNG = np.random.default_rng(0)
BATCH = {
    "images": RNG.integers(0, 256, (8, 2, 2, 3)).astype(np.uint8),
    "tokens": RNG.integers(0, 20, (8, 3, 4)).astype(np.int32),
    "image_views": RNG.integers(0, 256, (8, 2, 2, 3)).astype(np.uint8),
    "token_views": RNG.integers(0, 20, (8, 3, 4)).astype(np.int32),
    "pooled": np.ones((8, 3), bool),
}
PLAIN = {name: BATCH[name] for name in ("images", "tokens")}
PARAMS = {
    "image": np.float32(RNG.normal(size=(12, 5)) / 100),
    "text": np.float32(RNG.normal(size=(4, 5))),
    "log_scale": np.float32(2.0),
}
SCALE = float(np.exp(2.0))
POOL = np.float32(RNG.normal(size=(2, 8, 3, 5)))
POOL /= np.linalg.norm(POOL, axis=-1, keepdims=True)
STATES = {"roclip": Pooled({"seen": np.zeros(())}, POOL, np.int32(0))}


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def linear_towers() -> Towers:
    """Both towers are one matrix: the loss can be written down."""

    def encode_image(variables, images):
        flat = images.reshape(len(images), -1).astype(jnp.float32)
        return unit(flat @ variables["params"]["image"])

    def encode_text(variables, tokens):
        return unit(tokens.astype(jnp.float32) @ variables["params"]["text"])

    def scale(variables):
        return jnp.exp(variables["params"]["log_scale"])

    def train_forward(variables, images, tokens):
        zi, zt = encode_image(variables, images), encode_text(variables, tokens)
        return zi, zt, scale(variables), {"seen": jnp.ones(())}

    return Towers(
        init=lambda key: {},
        encode_image=encode_image,
        encode_pixels=encode_image,
        encode_text=encode_text,
        encode_embedded=lambda variables, embedded, tokens: encode_text(variables, tokens),
        token_table=lambda variables: variables["params"]["text"],
        logit_scale=scale,
        train_forward=train_forward,
        preset=preset("demo"),
        policy=Policy(),
    )


SAFE = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
ONE = {name: array[:, :1] if name.startswith("token") else array for name, array in BATCH.items()}
"""One caption an image."""
ISOLATED = np.array([0, 0, 1, 0, 0, 1, 0, 0], bool)
ABL = {"images": ONE["images"], "tokens": ONE["tokens"]} | {
    "isolated": ISOLATED[:, None],
    "floor": np.full((8, 1), 1.5, np.float32),
}


def batch_of(name):
    """There are no views where the objective takes none."""
    if name == "safeclip":
        return ONE | {"safe": SAFE[:, None]}
    if name.startswith("abl"):
        return ABL
    return BATCH if name in ("cleanclip", "unimodal") else PLAIN | {"pooled": BATCH["pooled"]}


def value_and_gradient(name, devices, batch=None, **options):
    batch = batch or batch_of(name)
    mesh = make_mesh(MeshConfig(data=devices))
    loss_fn = OBJECTIVES[name](linear_towers(), TrainConfig(**options), mesh)
    run = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    state = put_state(STATES.get(name, {"seen": np.zeros(())}), mesh, POOL_RULES)
    return run(put_state(PARAMS, mesh), state, put_batch(batch, mesh), jax.random.key(0))


def embeddings(images="images", tokens="tokens", batch=BATCH):
    """The images' and their captions' embeddings, in float64."""
    towers = linear_towers()
    image = np.float64(towers.encode_image({"params": PARAMS}, batch[images]))
    texts = [
        np.float64(towers.encode_text({"params": PARAMS}, batch[tokens][:, k])) for k in range(3)
    ]
    return image, texts


def test_clip_is_the_mean_over_an_images_captions():
    (loss, (stats, metrics)), _ = value_and_gradient("clip", 1, PLAIN)
    image, texts = embeddings()
    wanted = np.mean([info_nce(image, text, SCALE) for text in texts])
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["scale"], np.exp(2.0), rtol=1e-6)
    assert set(stats) == {"seen"}


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_cleanclip_adds_what_tells_a_sample_by_its_augmentation(weight):
    defence = DefenceConfig("cleanclip", CleanClipConfig(weight))
    (loss, (_, metrics)), _ = value_and_gradient("cleanclip", 1, defence=defence)
    image, texts = embeddings()
    image_view, text_views = embeddings("image_views", "token_views")
    everyone = np.ones(8, bool)
    of_image = np.mean(pair_losses(image, image_view, SCALE, everyone))
    of_texts = np.mean(
        [pair_losses(*pair, SCALE, everyone) for pair in zip(texts, text_views, strict=True)]
    )
    cross_modal = np.mean([info_nce(image, text, SCALE) for text in texts])
    np.testing.assert_allclose(metrics["in_modal"], (of_image + of_texts) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["cross_modal"], cross_modal, rtol=1e-5)
    wanted = cross_modal + weight * (of_image + of_texts) / 2
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_unimodal_is_what_cleanclip_adds():
    (loss, _), _ = value_and_gradient("unimodal", 1)
    (_, (_, metrics)), _ = value_and_gradient("cleanclip", 1)
    np.testing.assert_allclose(loss, metrics["in_modal"], rtol=1e-6)


@pytest.mark.parametrize("safe", [SAFE, np.ones(8, bool), np.zeros(8, bool)])
def test_safeclip_lets_safe_pairs_alone_teach_what_captions_mean(safe):
    (loss, (_, metrics)), _ = value_and_gradient("safeclip", 1, ONE | {"safe": safe[:, None]})
    image, (text, *_) = embeddings()
    image_view, (text_view, *_) = embeddings("image_views", "token_views")
    everyone = np.ones(8, bool)
    cross_modal = info_nce(image[safe], text[safe], SCALE) if safe.any() else 0.0
    of_image = np.array(pair_losses(image, image_view, SCALE, everyone))
    of_text = np.array(pair_losses(text, text_view, SCALE, everyone))
    in_modal = np.mean((of_image + of_text)[~safe] / 2) if not safe.all() else 0.0
    np.testing.assert_allclose(metrics["cross_modal"], cross_modal, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, cross_modal + in_modal, rtol=1e-5)
    np.testing.assert_allclose(metrics["safe"], safe.mean())


def own_losses(among):
    """Each pair's InfoNCE against the pairs of `among`."""
    image, (text, *_) = embeddings()
    there, back = (pair_losses(*pair, SCALE, among) for pair in ((image, text), (text, image)))
    return (np.array(there) + back) / 2


def test_local_gradient_ascent_turns_the_low_losses_round():
    losses = own_losses(np.ones(8, bool))
    floor = np.median(losses)
    (loss, (_, told)), _ = value_and_gradient(
        "abl_gather", 1, ABL | {"floor": np.full((8, 1), floor, np.float32)}
    )
    np.testing.assert_allclose(loss, np.mean(np.sign(losses - floor) * losses), rtol=1e-5)
    assert told["under_floor"] == 0.5


@pytest.mark.parametrize("isolated", [ISOLATED, np.zeros(8, bool)])
def test_isolated_pairs_are_left_out_or_unlearned_up_to_chance(isolated):
    losses = own_losses(~isolated)
    batch = ABL | {"isolated": isolated[:, None]}
    (kept, _), _ = value_and_gradient("abl_kept", 1, batch)
    np.testing.assert_allclose(kept, losses[~isolated].mean(), rtol=1e-5)
    (loss, (_, told)), _ = value_and_gradient("abl_unlearn", 1, batch)
    raised = np.minimum(losses[isolated], np.log(8)).mean() if isolated.any() else 0.0
    np.testing.assert_allclose(loss, losses[~isolated].mean() - raised, rtol=1e-5)
    if isolated.any():
        np.testing.assert_allclose(told["isolated"], losses[isolated].mean(), rtol=1e-5)
        assert losses[isolated].min() < np.log(8) < losses[isolated].max()


def test_roclip_matches_images_with_the_nearest_captions_of_the_last_batches():
    """Five steps: out of the pool, out of it, into it, out of it, into it."""
    mesh = make_mesh(MeshConfig(data=2))
    loss_fn = jax.jit(OBJECTIVES["roclip"](linear_towers(), TrainConfig(), mesh))
    state = put_state(STATES["roclip"], mesh, POOL_RULES)
    pool = list(POOL)
    rng = np.random.default_rng(1)
    for turn, pooled in enumerate([True, True, False, True, False]):
        step = {
            "images": rng.integers(0, 256, (8, 2, 2, 3)).astype(np.uint8),
            "tokens": rng.integers(0, 20, (8, 3, 4)).astype(np.int32),
            "pooled": np.full((8, 3), pooled),
        }
        loss, (state, told) = loss_fn(
            put_state(PARAMS, mesh), state, put_batch(step, mesh), jax.random.key(turn)
        )
        image, texts = embeddings(batch=step)
        if pooled:
            nearest = oracle_pool.nearest(image, pool)
            wanted = info_nce(image, nearest, SCALE)
            pool = oracle_pool.put(pool, np.stack(texts, axis=1))
            np.testing.assert_allclose(
                told["nearest_cosine"], np.mean(np.sum(image * nearest, axis=1)), rtol=1e-5
            )
        else:
            wanted = np.mean([info_nce(image, text, SCALE) for text in texts])
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert int(state.turn) == 3
    assert state.captions.sharding.shard_shape(POOL.shape) == (2, 4, 3, 5)
    np.testing.assert_allclose(np.roll(state.captions, -1, axis=0), pool, atol=1e-6)


def test_views_in_two_parts_have_the_same_loss():
    (whole, _), _ = value_and_gradient("cleanclip", 2)
    (parts, _), _ = value_and_gradient("cleanclip", 2, accumulate=2)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_adversarial_training_minimises_what_a_signed_step_has_raised():
    options = AdversarialConfig(epsilon=3, step_size=3, steps=1)
    batch = {"images": BATCH["images"], "tokens": BATCH["tokens"][:, :1]}
    (loss, _), _ = value_and_gradient(
        "adversarial", 1, batch, defence=DefenceConfig("adversarial", adversarial=options)
    )
    pixels = np.float64(batch["images"]).reshape(8, 12)
    text = embeddings()[1][0]

    def oracle(pixels):
        image = pixels @ np.float64(PARAMS["image"])
        return info_nce(image / np.linalg.norm(image, axis=1, keepdims=True), text, SCALE)

    changed = pixels.copy()
    for i, j in np.ndindex(pixels.shape):
        above, below = pixels.copy(), pixels.copy()
        above[i, j] += 0.01
        below[i, j] -= 0.01
        changed[i, j] += 3 * np.sign(oracle(above) - oracle(below))
    np.testing.assert_allclose(loss, oracle(np.clip(changed, 0, 255)), rtol=1e-5)
    assert loss > oracle(pixels)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("devices", [2, 4])
def test_every_objective_is_the_same_on_more_devices(name, devices):
    (loss, _), gradient = value_and_gradient(name, devices)
    (wanted, _), wanted_gradient = value_and_gradient(name, 1)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    for key, value in gradient.items():
        largest = np.abs(wanted_gradient[key]).max()
        np.testing.assert_allclose(value, wanted_gradient[key], atol=1e-5 * largest)


@pytest.mark.parametrize(("before", "after"), [(-1.0, 0.0), (2.0, 2.0), (9.0, np.log(100))])
def test_the_scale_stays_between_1_and_100(before, after):
    kernel = jnp.full((2, 2), 7.0)
    clamped = clamp_scale({"log_scale": jnp.float32(before), "kernel": kernel})
    np.testing.assert_allclose(clamped["log_scale"], after, rtol=1e-6)
    np.testing.assert_array_equal(clamped["kernel"], kernel)
