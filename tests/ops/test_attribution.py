"""Grad-CAM against loops; Integrated Gradients against an integral that can be written down."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.ops.attribution import grad_cam, integrated_gradients

RNG = np.random.default_rng(0)
FEATURES, GRADIENT = RNG.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)


def test_grad_cam_is_its_equation_in_loops():
    found = np.asarray(grad_cam(FEATURES, GRADIENT))
    for b in range(3):
        heat = np.zeros((4, 5))
        for c in range(6):
            heat += np.mean(np.float64(GRADIENT[b, :, :, c])) * FEATURES[b, :, :, c]
        heat = np.maximum(heat, 0)
        np.testing.assert_allclose(found[b], heat / heat.max(), atol=1e-5)


def test_the_other_sign_shows_other_places():
    here, there = (
        np.asarray(grad_cam(FEATURES, GRADIENT)),
        np.asarray(grad_cam(FEATURES, -GRADIENT)),
    )
    assert not np.any((here > 0) & (there > 0))


def test_a_picture_that_speaks_against_is_all_zero():
    ones = np.ones((1, 2, 2, 3), np.float32)
    np.testing.assert_array_equal(grad_cam(ones, -ones), np.zeros((1, 2, 2)))


def cubic(x, weights):
    return jnp.sum(weights * x**3, axis=1) + x[:, 0] * x[:, 1]


def test_integrated_gradients_of_a_polynomial():
    x, start, weights = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    found = integrated_gradients(cubic, x, start, steps=200, args=(weights,))
    x, start, weights = (np.float64(each) for each in (x, start, weights))
    wanted = weights * (x**3 - start**3)
    # of x0 x1 along the straight way: each gets half of both changes
    for i, j in ((0, 1), (1, 0)):
        wanted[:, i] += (x[:, i] - start[:, i]) * (x[:, j] + start[:, j]) / 2
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_the_error_falls_with_the_square_of_the_steps():
    x, start, weights = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    whole = np.asarray(cubic(x, weights) - cubic(start, weights))
    gaps = [
        np.abs(
            np.asarray(integrated_gradients(cubic, x, start, steps=n, args=(weights,))).sum(1)
            - whole
        ).max()
        for n in (2, 8)
    ]
    assert 12 < gaps[0] / gaps[1] < 20


def test_rows_do_not_mix():
    x, start, weights = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    whole = integrated_gradients(cubic, x, start, steps=4, args=(weights,))
    one = integrated_gradients(cubic, x[:1], start[:1], steps=4, args=(weights[:1],))
    np.testing.assert_allclose(whole[:1], one, rtol=1e-5)
    assert jax.tree.leaves(one)[0].shape == (1, 5)
