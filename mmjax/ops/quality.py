"""How far a changed image is from the original: PSNR and SSIM; pixels in [0, 1].

    PSNR = -10 log10 mean((x - y)^2)                                       (dB)
    SSIM = mean of (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2))

with means m, variances s^2 and the covariance s_xy under a Gaussian window of 11 px, deviation
1.5 px, c1 = .01^2 and c2 = .03^2, over all places where the whole window fits and all channels
(Wang et al. 2004, IEEE TIP 13(4), equation 13). scikit-image has the same with
`gaussian_weights=True, use_sample_covariance=False, data_range=1`.
Cost: O(pixels) and O(110 pixels); peak memory five float32 copies of the images.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WINDOW = 11
_DEVIATION = 1.5
_C1, _C2 = 0.01**2, 0.03**2


@jax.jit
def psnr(x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """Peak signal-to-noise ratio of each image in dB; infinite where nothing differs."""
    return -10 * jnp.log10(jnp.mean((x - y) ** 2, axis=(1, 2, 3)))


@jax.jit
def ssim(x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """Structural similarity of each image, in [-1, 1]; 1 where nothing differs.

    Raises:
        ValueError: the images are smaller than the window of 11 px.
    """
    height, width = x.shape[1:3]
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM wants images of {WINDOW} px or more, got {height}x{width}")
    # second moments about the images' own level: about 0 they would cancel to 1e-7 of its square
    level = jnp.mean((x + y) / 2, axis=(1, 2), keepdims=True)
    x, y = x - level, y - level
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x = _smooth(x * x) - mean_x**2
    variance_y = _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    light_x, light_y = mean_x + level, mean_y + level
    light = (2 * light_x * light_y + _C1) / (light_x**2 + light_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return jnp.mean(light * structure, axis=(1, 2, 3))


def _smooth(images: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
    """Means under the window, where it fits: as two products with banded matrices."""
    down, across = (jnp.asarray(_band(side), images.dtype) for side in images.shape[1:3])
    return jnp.einsum("ph,bhwc,qw->bpqc", down, images, across, precision=jax.lax.Precision.HIGHEST)


def _band(side: int) -> Float[np.ndarray, "p side"]:
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / _DEVIATION) ** 2)
    band = np.zeros((side - WINDOW + 1, side))
    for row in range(len(band)):
        band[row, row : row + WINDOW] = weights / weights.sum()
    return band
