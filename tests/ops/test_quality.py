"""PSNR and SSIM against loops, and on images where the answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops.quality import psnr, ssim
from tests.oracles import quality

RNG = np.random.default_rng(0)
SMOOTH = np.linspace(0.1, 0.9, 15 * 13 * 3).reshape(15, 13, 3)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_equal_to_the_oracle(noise: float) -> None:
    x = np.stack([SMOOTH, RNG.random(SMOOTH.shape)]).astype(np.float32)
    y = np.clip(x + noise * RNG.normal(size=x.shape), 0, 1).astype(np.float32)
    told = np.asarray(psnr(x, y)), np.asarray(ssim(x, y))
    for row in range(2):
        assert told[0][row] == pytest.approx(quality.psnr(x[row], y[row]), rel=1e-5)
        assert told[1][row] == pytest.approx(quality.ssim(x[row], y[row]), abs=1e-5)


def test_known_answers() -> None:
    x = jnp.full((1, 16, 16, 3), 0.5)
    assert float(psnr(x, x + 0.1)[0]) == pytest.approx(20, abs=1e-4)
    assert float(psnr(x, x)[0]) == np.inf
    assert float(ssim(x, x)[0]) == pytest.approx(1, abs=1e-6)
    # flat images differ in light only: (2·.5·.6 + c1) / (.25 + .36 + c1)
    assert float(ssim(x, x + 0.1)[0]) == pytest.approx(0.6001 / 0.6101, abs=1e-5)


def test_an_image_below_the_window_is_refused() -> None:
    x = jnp.zeros((1, 10, 16, 3))
    with pytest.raises(ValueError, match="11 px or more, got 10x16"):
        ssim(x, x)
