"""The layers that both towers are made of: products with float32 sums, norms, attention.

Products. `einsum(a, b)` rounds its operands to the compute type and sums in float32. On XLA:CPU
asking for a float32 result is what makes bfloat16 use AMX at all (3x), and a cotangent rounded
to bfloat16 before the two products of the backward pass is worth 2.6x of training.
Cost: of `b` tokens of width `w`, a block takes 24 b w^2 + 4 b l w FLOPs (l: sequence length).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mmjax.models import initial
from mmjax.models.policy import Policy
from mmjax.models.presets import Activation

F32 = jnp.float32


def product(
    subscripts: str, a: Float[Array, "..."], b: Float[Array, "..."], compute: str
) -> Float[Array, "..."]:
    """Einstein sum of two arrays in `compute` with float32 sums and result.

    Every index of an operand must be in the other one or in the result, and no index may occur
    twice in one operand: that is what the backward products of bfloat16 are built on.
    """
    if compute == "float32":
        return jnp.einsum(
            subscripts,
            a.astype(F32),
            b.astype(F32),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=F32,
        )
    return _bfloat16_product(subscripts, a, b)


def lax_convolution(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c o"], stride: int, compute: str
) -> Float[Array, "b p q o"]:
    """The compiler's own convolution in `compute`, with zero padding of k // 2."""
    margin = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x.astype(compute),
        kernel.astype(compute),
        (stride, stride),
        [(margin, margin)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST if compute == "float32" else None,
    )


def _rounded_product(subscripts: str, a: Array, b: Array) -> Array:
    operands, out = subscripts.split("->")
    left, right = operands.split(",")
    if out[-1] not in right:  # a transposed result has no bfloat16 kernel on XLA:CPU and fails
        subscripts, a, b = f"{right},{left}->{out}", b, a
    return jnp.einsum(
        subscripts,
        a.astype(jnp.bfloat16),
        b.astype(jnp.bfloat16),
        preferred_element_type=F32,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bfloat16_product(subscripts: str, a: Array, b: Array) -> Array:
    return _rounded_product(subscripts, a, b)


def _product_forward(subscripts: str, a: Array, b: Array):
    return _rounded_product(subscripts, a, b), (a, b)


def _product_backward(subscripts: str, saved: tuple[Array, Array], cotangent: Array):
    a, b = saved
    operands, out = subscripts.split("->")
    left, right = operands.split(",")
    da = _rounded_product(f"{out},{right}->{left}", cotangent, b)
    db = _rounded_product(f"{left},{out}->{right}", a, cotangent)
    return da.astype(a.dtype), db.astype(b.dtype)


_bfloat16_product.defvjp(_product_forward, _product_backward)


def along_last(vector: Float[Array, " c"], like: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """Returns `vector` with the leading axes of length 1 that adding it to `like` needs."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes x sigmoid(1.702 x): OpenAI's stand-in for GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes x Phi(x), exact."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


def unit_norm(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Returns float32 rows of length 1; a row of zeros stays zeros."""
    x = x.astype(F32)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


class Dense(nn.Module):
    """x W + b, with float32 sums and a float32 result."""

    features: int
    policy: Policy
    stddev: float
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """Applies the layer to the last axis."""
        kernel = self.param("kernel", initial.normal(self.stddev), (x.shape[-1], self.features))
        flat = product("ni,io->no", x.reshape(-1, x.shape[-1]), kernel, self.policy.compute)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            flat = flat + bias[None]
        return flat.reshape(*x.shape[:-1], self.features)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + 1e-5) * scale + bias over the last axis, in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Applies the norm; the result is float32 whatever came in."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(F32)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + 1e-5)
        return normal * along_last(scale, normal) + along_last(bias, normal)


def attend(
    query: Float[Array, "b q h d"],
    key: Float[Array, "b k h d"],
    value: Float[Array, "b k h d"],
    mask: Bool[Array, "q k"] | None,
    compute: str,
) -> Float[Array, "b q h d"]:
    """softmax(Q K^T / sqrt(d)) V for each head; `mask` says which keys a query may see."""
    query = query * query.shape[-1] ** -0.5
    scores = product("bqhd,bkhd->bhqk", query, key, compute)
    if mask is not None:
        scores = jnp.where(mask[None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    return product("bhqk,bkhd->bqhd", weights, value, compute)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    heads: int
    depth: int
    policy: Policy

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l w"], mask: Bool[Array, "l l"] | None
    ) -> Float[Array, "b l w"]:
        """Applies attention inside each sequence."""
        batch, length, width = x.shape
        fused = Dense(3 * width, self.policy, width**-0.5, name="qkv")(x)
        fused = fused.reshape(batch, length, 3, self.heads, width // self.heads)
        mixed = attend(fused[:, :, 0], fused[:, :, 1], fused[:, :, 2], mask, self.policy.compute)
        stddev = (width * 2 * self.depth) ** -0.5
        return Dense(width, self.policy, stddev, name="out")(mixed.reshape(x.shape))


class Block(nn.Module):
    """A pre-norm Transformer block: attention, then an MLP, each added to its input."""

    heads: int
    depth: int
    mlp_ratio: float
    activation: Activation
    policy: Policy

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l w"], mask: Bool[Array, "l l"] | None
    ) -> Float[Array, "b l w"]:
        """Applies the block."""
        width = x.shape[-1]
        x = x + Attention(self.heads, self.depth, self.policy, name="attention")(
            LayerNorm(name="norm_1")(x), mask
        )
        hidden = Dense(
            math.floor(width * self.mlp_ratio), self.policy, (2 * width) ** -0.5, name="expand"
        )(LayerNorm(name="norm_2")(x))
        hidden = ACTIVATIONS[self.activation](hidden)
        stddev = (width * 2 * self.depth) ** -0.5
        return x + Dense(width, self.policy, stddev, name="contract")(hidden)


class Transformer(nn.Module):
    """A stack of blocks of one width."""

    layers: int
    heads: int
    mlp_ratio: float
    activation: Activation
    policy: Policy

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l w"], mask: Bool[Array, "l l"] | None = None
    ) -> Float[Array, "b l w"]:
        """Applies the blocks in order."""
        block = nn.remat(Block) if self.policy.remat else Block
        for layer in range(self.layers):
            x = block(
                self.heads,
                self.layers,
                self.mlp_ratio,
                self.activation,
                self.policy,
                name=f"block_{layer}",
            )(x, mask)
        return x
