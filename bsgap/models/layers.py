"""Layers as XLA computes them fast."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

OUTER_PRODUCTS = 8  # up to so many examples a weight gradient is their sum, made while the weights are updated


class Probe(nnx.Variable[Any]):
    """A dummy input of a dense layer, which its output does not depend on: the backward pass returns squared norms of
    the layer's gradients as this input's "gradient".

    float32, [1 + B], [1] or [0]: the squared norm of the kernel's gradient, and of each example's own, bias included.
    """


class Dense(nnx.Linear):
    """A dense layer, y = xW + b, with Xavier-normal weights (variance 2/(in + out), Glorot & Bengio 2010)."""

    def __init__(self, inputs: int, outputs: int, *, use_bias: bool, rngs: nnx.Rngs) -> None:
        super().__init__(inputs, outputs, use_bias=use_bias, kernel_init=nnx.initializers.glorot_normal(), rngs=rngs)
        self.probe = Probe(jnp.zeros(0))

    def __call__(self, x_BxI: jax.Array) -> jax.Array:  # type: ignore[override]
        y_BxO = product(x_BxI, self.kernel[...], self.probe[...], self.use_bias)
        return y_BxO + self.bias[...] if self.bias is not None else y_BxO


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def product(x_BxI: jax.Array, w_IxO: jax.Array, probe: jax.Array, bias: bool = False) -> jax.Array:
    """The matrix product of a dense layer, `y_BxO`; `bias` says whether one is added to it.

    The weight gradient is made as `xᵀy′`, in the weights' own layout: JAX's rule makes `(y′ᵀx)ᵀ`, whose transposition
    costs more than the product on a CPU where the batch is small. There is no forward mode: take second derivatives in
    reverse over reverse.

    The cotangent of `probe` is as `Probe` says. ‖xᵀy′‖² = Σ (xxᵀ)∘(y′y′ᵀ), and an example's own gradient x_b y′_bᵀ has
    the norm ‖x_b‖ ‖y′_b‖ (Goodfellow 2015, 1510.01799): neither needs the gradient, for which an update would wait.
    """
    return x_BxI @ w_IxO


def _product_forward(x_BxI: jax.Array, w_IxO: jax.Array, probe: jax.Array, bias: bool) -> tuple[jax.Array, Any]:
    return x_BxI @ w_IxO, (x_BxI, w_IxO, probe)


def _product_backward(bias: bool, residuals: tuple[jax.Array, ...], dy_BxO: jax.Array) -> tuple[jax.Array, ...]:
    x_BxI, w_IxO, probe = residuals
    batch = len(x_BxI)
    if batch <= OUTER_PRODUCTS:
        dw_IxO = functools.reduce(jnp.add, (x_BxI[b, :, None] * dy_BxO[b, None, :] for b in range(batch)))
    else:
        dw_IxO = x_BxI.T @ dy_BxO
    told: list[jax.Array] = []
    if len(probe) and batch <= OUTER_PRODUCTS:
        told.append(jnp.vdot(*(jnp.matmul(rows, rows.T, precision='highest') for rows in (x_BxI, dy_BxO)))[None])
    elif len(probe):
        told.append(jnp.square(dw_IxO).sum()[None])
    if len(probe) > 1:
        told.append((jnp.square(x_BxI).sum(-1) + bias) * jnp.square(dy_BxO).sum(-1))
    return dy_BxO @ w_IxO.T, dw_IxO, jnp.concatenate([*told, probe[:0]])


product.defvjp(_product_forward, _product_backward)


def convolution(x_BxHxWxI: jax.Array, w_3x3xIxO: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """The 3×3 convolution with stride 1 and padding `SAME`, as `nnx.Conv` takes it: `y_BxHxWxO`.

    On a CPU as the matrix product of each pixel's nine neighbours: XLA's own is 2 to 40 times slower inside a loop,
    which all training here is, than outside.
    """
    if jax.default_backend() != 'cpu':
        layout = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(x_BxHxWxI, w_3x3xIxO, (1, 1), 'SAME', dimension_numbers=layout)
    height, width = x_BxHxWxI.shape[1:3]
    padded = jnp.pad(x_BxHxWxI, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbours = [padded[:, i : i + height, j : j + width] for i, j in itertools.product(range(3), repeat=2)]
    return jnp.concatenate(neighbours, -1) @ w_3x3xIxO.reshape(-1, w_3x3xIxO.shape[-1])


def max_pool(x_BxHxWxC: jax.Array) -> jax.Array:
    """2×2 max pool, by selection.

    The gradient of `nnx.max_pool` makes the CNN 3 times slower on a CPU; those of `max` and `maximum` compare each
    value with the maximum, which goes wrong if XLA computes the value anew with another rounding.
    """
    height, width = x_BxHxWxC.shape[1] // 2 * 2, x_BxHxWxC.shape[2] // 2 * 2
    upper, lower = x_BxHxWxC[:, 0:height:2, :width], x_BxHxWxC[:, 1:height:2, :width]
    x_BxHxWxC = jnp.where(upper < lower, lower, upper)
    left, right = x_BxHxWxC[:, :, 0::2], x_BxHxWxC[:, :, 1::2]
    return jnp.where(left < right, right, left)
