"""Layers and their gradients are those of XLA's own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bsgap.models import layers


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def with_slopes(function: Any, dy: jax.Array, *arguments: jax.Array) -> Any:
    y, pull = jax.vjp(function, *arguments)
    return y, pull(dy)


def test_product_and_its_gradients_are_those_of_a_matrix_product() -> None:
    arguments = normal(5, 3), normal(5, 7), normal(7, 3)
    y, slopes = with_slopes(lambda x, w: layers.product(x, w, jnp.zeros(0)), *arguments)
    expected, expected_slopes = with_slopes(jnp.matmul, *arguments)
    np.testing.assert_array_equal(y, expected)
    for slope, wanted in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(slope, wanted, rtol=1e-5, atol=1e-6)


def test_convolution_and_its_gradients_are_those_of_xla() -> None:
    def expected(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    arguments = normal(3, 5, 4, 6), normal(3, 5, 4, 2), normal(3, 3, 2, 6)
    jax.tree.map(
        lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5),
        with_slopes(layers.convolution, *arguments),
        with_slopes(expected, *arguments),
    )


def test_max_pool_and_its_gradient_are_those_of_flax() -> None:
    """Of an odd size the last row and column are left out; of values that are all different the largest has it all."""
    arguments = normal(2, 2, 3, 3), normal(2, 5, 7, 3)
    expected = with_slopes(lambda x: nnx.max_pool(x, (2, 2), (2, 2)), *arguments)
    jax.tree.map(np.testing.assert_array_equal, with_slopes(layers.max_pool, *arguments), expected)
