"""The mapping network F of CFBD (section 2.2, Eq. 1): image embedding to caption embedding."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class MappingNetwork(nn.Module):
    """Residual MLP d -> width -> width -> d between the two halves of CLIP's unit sphere.

    The last layer starts at zero, so an untrained F is the identity: captions are sought near the
    image's own place in the joint space. The paper says only "MLP"; shape from facts/cfbd.md 4.3.
    """

    width: int = 2048

    @nn.compact
    def __call__(self, image: Float[Array, "b d"]) -> Float[Array, "b d"]:
        """Maps unit-norm image embeddings to unit-norm caption embeddings."""
        hidden = nn.LayerNorm(name="norm")(nn.gelu(nn.Dense(self.width, name="up")(image)))
        hidden = nn.gelu(nn.Dense(self.width, name="middle")(hidden))
        down = nn.Dense(image.shape[-1], kernel_init=nn.initializers.zeros_init(), name="down")
        return unit(image + down(hidden))


def unit(rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Rows divided by their length; a zero row stays zero."""
    square = jnp.sum(rows * rows, axis=-1, keepdims=True)
    return rows / jnp.sqrt(jnp.maximum(square, 1e-24))
