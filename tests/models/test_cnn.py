"""The convolutional network, written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bsgap.models import CNN


def test_logits_are_those_of_the_written_out_network() -> None:
    """With an odd size, so that a pool leaves out a row: 5×6 → 2×3 → 1×1."""
    make = functools.partial(CNN, (5, 6, 1), 3, channels=(2, 3), hidden=(4,))
    graph, state = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    cnn = nnx.merge(graph, jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), state))
    images = rng.normal(size=(2, 5, 6, 1))
    x = images
    for layer in cnn.convolutions:
        kernel = np.asarray(layer.kernel[...], np.float64)
        around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        x = layer.bias[...] + sum(
            around[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        )
        x = np.maximum(x, 0)
        x = np.array([
            [[image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(width // 2)]
             for i in range(height // 2)] for image in x
        ])  # fmt: skip
    assert x.shape == (2, 1, 1, 3)
    first, last = cnn.head.layers
    x = np.maximum(x.reshape(2, 3) @ first.kernel[...] + first.bias[...], 0) @ last.kernel[...] + last.bias[...]
    np.testing.assert_allclose(nnx.jit(lambda module, x: module(x))(cnn, jnp.float32(images)), x, rtol=1e-4, atol=1e-5)


def test_convolutions_are_he_normal() -> None:
    (layer,) = CNN((4, 4, 5), 2, channels=(64,), hidden=(), rngs=nnx.Rngs(0)).convolutions
    kernel = np.asarray(layer.kernel[...])
    assert kernel.shape == (3, 3, 5, 64)
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 5)) ** 0.5, rtol=0.05)
    assert abs(kernel.mean()) < 0.02
    assert not np.asarray(layer.bias[...]).any()
