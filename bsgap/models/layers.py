"""Layers as XLA computes them fast."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_vjp
def product(x_BxI: jax.Array, w_IxO: jax.Array) -> jax.Array:
    """The matrix product of a dense layer, `y_BxO`.

    JAX's own rule makes the weight gradient as `(y′ᵀx)ᵀ`; under `vmap` XLA's CPU backend really transposes it, which
    costs more than the product where the batch is small. This rule makes it as `xᵀy′`, in the weights' own layout.
    Like every `custom_vjp` it has no forward mode: take second derivatives in reverse over reverse.
    """
    return x_BxI @ w_IxO


def _product_forward(x_BxI: jax.Array, w_IxO: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x_BxI @ w_IxO, (x_BxI, w_IxO)


def _product_backward(residuals: tuple[jax.Array, jax.Array], dy_BxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BxI, w_IxO = residuals
    return dy_BxO @ w_IxO.T, x_BxI.T @ dy_BxO


product.defvjp(_product_forward, _product_backward)


def dot_general(x: jax.Array, w: jax.Array, dimension_numbers: Any, precision: Any = None, **_: Any) -> jax.Array:
    """`product` as `nnx.Linear` takes it; the precision is the study's (`jax_default_matmul_precision`)."""
    return product(x, w)


def convolution(x_BxHxWxI: jax.Array, w_3x3xIxO: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """The 3×3 convolution with stride 1 and padding `SAME`, as `nnx.Conv` takes it: `y_BxHxWxO`.

    XLA's CPU backend makes convolutions inside a loop, which all training here is, 2 to 40 times slower than outside
    (36 ms an example's gradient at 32 and 64 channels and batch size 512); as the matrix product of each pixel's nine
    neighbours it takes 0.9. Elsewhere XLA's own is used.
    """
    if jax.default_backend() != 'cpu':
        layout = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(x_BxHxWxI, w_3x3xIxO, (1, 1), 'SAME', dimension_numbers=layout)
    height, width = x_BxHxWxI.shape[1:3]
    padded = jnp.pad(x_BxHxWxI, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbours = [padded[:, i : i + height, j : j + width] for i, j in itertools.product(range(3), repeat=2)]
    return jnp.concatenate(neighbours, -1) @ w_3x3xIxO.reshape(-1, w_3x3xIxO.shape[-1])


def max_pool(x_BxHxWxC: jax.Array) -> jax.Array:
    """2×2 max pool.

    By selection: the scatter in the gradient of `nnx.max_pool` makes the CNN 3 times slower on a CPU, and the gradients
    of `max` and `maximum` compare each value with the maximum, which goes wrong if XLA computes the value anew with
    another rounding (seen with `max` after batch normalization).
    """
    height, width = x_BxHxWxC.shape[1] // 2 * 2, x_BxHxWxC.shape[2] // 2 * 2
    upper, lower = x_BxHxWxC[:, 0:height:2, :width], x_BxHxWxC[:, 1:height:2, :width]
    x_BxHxWxC = jnp.where(upper < lower, lower, upper)
    left, right = x_BxHxWxC[:, :, 0::2], x_BxHxWxC[:, :, 1::2]
    return jnp.where(left < right, right, left)
