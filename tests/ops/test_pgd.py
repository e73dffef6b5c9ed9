"""PGD in a box against a loop of its own, and on the lattice of bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.ops.pgd import add_noise, descend, lattice_box, pixel_box
from tests.oracles import pgd as oracle


def _loss(value, step, goal, weight):
    return jnp.sum(weight * (value - goal) ** 2) * (1 + step)


def test_descend_is_the_loop() -> None:
    rng = np.random.default_rng(0)
    start, goal = rng.random((2, 5, 4))
    weight = rng.random((5, 4))
    weight[0, 0] = 0  # no gradient: stays
    low, high = start - 0.3, start + 0.2
    value = start.copy()
    for _ in range(7):
        for i in range(5):
            for j in range(4):
                slope = 2 * weight[i, j] * (value[i, j] - goal[i, j])
                moved = value[i, j] - 0.07 * np.sign(slope)
                value[i, j] = min(max(moved, low[i, j]), high[i, j])
    single = [jnp.asarray(a, jnp.float32) for a in (start, low, high, goal, weight)]
    found = descend(_loss, *single[:3], 0.07, steps=7, args=tuple(single[3:]))
    np.testing.assert_allclose(found, value, atol=1e-5)
    assert found[0, 0] == single[0][0, 0]
    np.testing.assert_array_equal(
        descend(_loss, *single[:3], 0.07, steps=0, args=tuple(single[3:])), single[0]
    )


def test_the_step_is_told() -> None:
    """A loss that turns round after three steps ends where it was after two of six."""

    def turning(value, step):
        return jnp.where(step < 3, -1, 1) * jnp.sum(value)

    zero = jnp.zeros(2)
    np.testing.assert_allclose(descend(turning, zero, zero - 9, zero + 9, 1.0, steps=4), [2, 2])


def test_the_box_of_an_image() -> None:
    low, high = pixel_box(jnp.asarray([[[0.0, 0.5, 1.0]]]), 0.1)
    np.testing.assert_allclose(low, [[[0, 0.4, 0.9]]], atol=1e-7)
    np.testing.assert_allclose(high, [[[0.1, 0.6, 1]]], atol=1e-7)


def _squares(noise, step, image, goal, weight):
    return jnp.sum(weight * (image + noise - goal) ** 2)


def _pictures(seed: int, shape: tuple[int, ...] = (3, 4, 2)) -> tuple[np.ndarray, ...]:
    """Bytes with many at the ends of the range, a goal anywhere, weights of which some are 0."""
    rng = np.random.default_rng(seed)
    image = rng.choice(np.r_[0:4, 120:136, 252:256], shape).astype(np.uint8)
    weight = rng.integers(0, 3, shape).astype(np.float32)
    return image, rng.uniform(-60, 315, shape).astype(np.float32), weight


@pytest.mark.parametrize(("step_size", "steps"), [(1, 6), (3, 4), (-2, 5), (100, 3), (1, 0)])
def test_the_lattice_is_the_loop(step_size: int, steps: int) -> None:
    image, goal, weight = _pictures(0)
    low, high = lattice_box(jnp.asarray(image), 8)
    args = (image.astype(np.float32), goal, weight)
    found = descend(
        _squares, jnp.zeros(image.shape, jnp.int8), low, high, step_size, steps=steps, args=args
    )
    wanted = oracle.lattice(
        image, np.zeros(image.shape), goal, weight, epsilon=8, step_size=step_size, steps=steps
    )
    assert found.dtype == jnp.int8
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(wanted).max() == min(8, abs(step_size) * steps)


def test_candidates_by_vmap() -> None:
    """Several starts at once (the restarts of error-maximising noise) are each one alone."""
    image, goal, weight = _pictures(1)
    low, high = lattice_box(jnp.asarray(image), 8)
    args = (image.astype(np.float32), goal, weight)
    starts = jnp.stack([jnp.zeros_like(low), low, high])

    def one(start):
        return descend(_squares, start, low, high, -1, steps=4, args=args)

    together = jax.vmap(one)(starts)
    for start, found in zip(starts, together, strict=True):
        np.testing.assert_array_equal(found, one(start))
    assert len(np.unique(np.asarray(together).reshape(3, -1), axis=0)) == 3


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    epsilon=st.sampled_from([0, 1, 8, 127]),
    step_size=st.integers(-300, 300),
)
def test_budget_and_range(seed: int, epsilon: int, step_size: int) -> None:
    image, goal, weight = _pictures(seed)
    low, high = lattice_box(jnp.asarray(image), epsilon)
    args = (image.astype(np.float32), goal, weight)
    start = jnp.zeros(image.shape, jnp.int8)
    noise = descend(_squares, start, low, high, step_size, steps=3, args=args)
    assert np.abs(np.asarray(noise, int)).max() <= epsilon
    # nothing was clipped: the bytes are the very sum
    published = add_noise(jnp.asarray(image), noise)
    assert published.dtype == jnp.uint8
    np.testing.assert_array_equal(np.asarray(published, int), image.astype(int) + np.asarray(noise))


def test_the_lattice_is_the_largest() -> None:
    image = np.asarray([0, 3, 8, 128, 250, 255], np.uint8).reshape(1, 2, 3)
    low, high = lattice_box(jnp.asarray(image), 8)
    np.testing.assert_array_equal(np.ravel(low), [0, -3, -8, -8, -8, -8])
    np.testing.assert_array_equal(np.ravel(high), [8, 8, 8, 8, 5, 0])


def test_what_is_refused() -> None:
    zero = jnp.zeros((1, 1, 3), jnp.int8)
    with pytest.raises(TypeError, match="steps on a lattice are whole"):
        descend(_loss, zero, zero, zero, 0.5, steps=1)
    with pytest.raises(TypeError, match="one type, got int8 in"):
        descend(_loss, zero, zero.astype(jnp.int32), zero, 1, steps=1)
    with pytest.raises(ValueError, match="0 to 127 grey levels, got 128"):
        lattice_box(jnp.zeros((1, 1, 3), jnp.uint8), 128)
