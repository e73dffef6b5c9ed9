"""A batch's noise and triggers against the published algorithm written out, step by step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.keys import stream
from mmjax.models.clip import build
from mmjax.models.policy import Policy
from mmjax.ops.contrastive import info_nce
from mmjax.protect.config import NoiseConfig, ProtectConfig, TriggerConfig, ViewConfig
from mmjax.protect.kernels import OnDevice, make_kernels
from tests.models.tiny import VIT, images_of, uniform

BATCH, PLACES, VOCAB = 5, 2, VIT.text.vocab_size
END = VOCAB - 1
CONFIG = ProtectConfig(
    inputs=("x",),
    output="shards",
    noise=NoiseConfig(scope="pair", steps=3),
    trigger=TriggerConfig(length=PLACES, candidates=4, selection="joint", vocabulary="all"),
    views=ViewConfig(),
)


@pytest.fixture(scope="module")
def model():
    towers = build(VIT, Policy("float32"))
    return towers, towers.init(jax.random.key(3))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    ids = np.zeros((BATCH, 12), np.int32)
    plain = np.zeros_like(ids)
    for row in range(BATCH):
        caption = rng.integers(1, VOCAB - 2, 3 + row)
        plain[row, : len(caption) + 2] = [VOCAB - 2, *caption, END]
        ids[row, : len(caption) + 2 + PLACES] = [VOCAB - 2, *[0] * PLACES, *caption, END]
    images = images_of(VIT, BATCH)
    return OnDevice(images, ids, plain, None, np.arange(BATCH, dtype=np.int32))


@pytest.fixture(scope="module")
def start(batch):
    """A noise and triggers to begin from."""
    drawn = np.round(3 * uniform(batch.images.shape, 9)).astype(int)
    pixels = batch.images.astype(int)
    noise = (np.clip(pixels + drawn, 0, 255) - pixels).astype(np.int8)
    triggers = np.random.default_rng(1).integers(1, VOCAB - 2, (BATCH, PLACES)).astype(np.int32)
    return noise, triggers


def written(ids, triggers):
    made = np.array(ids)
    made[:, 1 : 1 + PLACES] = triggers
    return made


def test_noise_follows_the_published_steps(model, batch, start):
    towers, variables = model
    noise, triggers = start
    key = jax.random.key(7)
    made, left = make_kernels(towers, CONFIG).descend(variables, batch, noise, triggers, key)

    @jax.jit
    def loss(pixels, variables, tokens):
        image, text = towers.encode_pixels(variables, pixels), towers.encode_text(variables, tokens)
        return info_nce(image, text, towers.logit_scale(variables))

    wanted = noise.astype(int)
    pixels = batch.images.astype(int)
    for step in range(CONFIG.noise.steps):
        order = jax.random.permutation(stream(jax.random.fold_in(key, step), "shuffle"), BATCH)
        tokens = written(batch.ids[np.asarray(order)], triggers)
        slope = jax.grad(loss)(jnp.float32(pixels + wanted), variables, tokens)
        wanted = np.clip(wanted - np.sign(np.asarray(slope)).astype(int), -8, 8)
        wanted = np.clip(pixels + wanted, 0, 255) - pixels
    # where the gradient all but vanishes its sign hangs on the order of additions
    assert np.mean(np.asarray(made) == wanted) > 0.9999
    order = jax.random.permutation(stream(jax.random.fold_in(key, 3), "shuffle"), BATCH)
    tokens = written(batch.ids[np.asarray(order)], triggers)
    final = loss(jnp.float32(pixels + wanted), variables, tokens)
    assert float(left) == pytest.approx(float(final), rel=1e-4)


def test_triggers_follow_the_published_search(model, batch, start):
    """One gradient a batch; from left to right; the rank of lowest batch loss wins for all."""
    towers, variables = model
    noise, triggers = start
    allowed = np.ones(VOCAB, bool)
    allowed[[0, VOCAB - 2, END]] = False
    kernels = make_kernels(towers, CONFIG, jnp.asarray(allowed))
    found = np.asarray(kernels.search(variables, batch, noise, triggers))

    table = np.asarray(towers.token_table(variables))
    pixels = jnp.float32(batch.images.astype(int) + noise)
    image = jax.jit(towers.encode_pixels)(variables, pixels)
    scale = towers.logit_scale(variables)
    encode = jax.jit(towers.encode_text)

    def loss(tokens):
        return info_nce(image, encode(variables, tokens), scale)

    def of_embedded(embedded, variables):
        tokens = written(batch.ids, triggers)
        whole = jnp.asarray(table)[tokens].at[:, 1 : 1 + PLACES].set(embedded)
        return info_nce(image, towers.encode_embedded(variables, whole, tokens), scale)

    slope = jax.jit(jax.grad(of_embedded))(jnp.asarray(table)[triggers], variables)
    slope = np.asarray(slope, np.float64)
    wanted = triggers.copy()
    for place in range(PLACES):
        score = np.where(allowed, -(slope[:, place] @ table.T.astype(np.float64)), -np.inf)
        ranked = np.argsort(-score, axis=1, kind="stable")[:, : CONFIG.trigger.candidates]
        options = [wanted]
        for rank in range(CONFIG.trigger.candidates):
            option = wanted.copy()
            option[:, place] = ranked[:, rank]
            options.append(option)
        losses = [float(loss(written(batch.ids, option))) for option in options]
        wanted = options[int(np.argmin(losses))]
    np.testing.assert_array_equal(found, wanted)
    assert allowed[found].all()
    assert float(loss(written(batch.ids, found))) < float(loss(written(batch.ids, triggers)))


@pytest.mark.slow
def test_a_shared_noise_sums_its_pairs_and_is_cut_when_added(model, batch, start):
    towers, variables = model
    _, triggers = start
    config = dataclasses.replace(
        CONFIG, noise=dataclasses.replace(CONFIG.noise, scope="user", steps=12, shuffle=False)
    )
    shared = batch._replace(noise_of=np.zeros(BATCH, np.int32))
    noise = np.zeros((1, *batch.images.shape[1:]), np.int8)
    kernels = make_kernels(towers, config)
    made, left = kernels.descend(variables, shared, noise, triggers, jax.random.key(0))
    assert made.shape == noise.shape
    assert np.abs(np.asarray(made).astype(int)).max() == 8
    still = dataclasses.replace(config, noise=dataclasses.replace(config.noise, steps=0))
    _, before = make_kernels(towers, still).descend(
        variables, shared, noise, triggers, jax.random.key(0)
    )
    assert float(left) < float(before)


@pytest.mark.slow
def test_dropout_takes_triggers_away(model, batch, start):
    """With all triggers dropped the noise does not depend on them."""
    towers, variables = model
    noise, triggers = start
    trigger = dataclasses.replace(CONFIG.trigger, dropout=1.0)
    config = dataclasses.replace(CONFIG, trigger=trigger)
    kernels = make_kernels(towers, config)
    key = jax.random.key(1)
    one, _ = kernels.descend(variables, batch, noise, triggers, key)
    other, _ = kernels.descend(variables, batch, noise, triggers[::-1].copy(), key)
    np.testing.assert_array_equal(one, other)
    # and each pair is its own: nothing is exchanged without a trigger to follow
    still = dataclasses.replace(config.noise, shuffle=False)
    unshuffled = make_kernels(towers, dataclasses.replace(config, noise=still))
    other, _ = unshuffled.descend(variables, batch, noise, triggers, key)
    np.testing.assert_array_equal(one, other)
    kept = make_kernels(towers, CONFIG)
    one, _ = kept.descend(variables, batch, noise, triggers, key)
    other, _ = kept.descend(variables, batch, noise, triggers[::-1].copy(), key)
    assert np.any(np.asarray(one) != np.asarray(other))
