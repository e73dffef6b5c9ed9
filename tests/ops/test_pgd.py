"""PGD in a box against a loop of its own."""

import jax.numpy as jnp
import numpy as np

from mmjax.ops.pgd import descend, pixel_box


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
