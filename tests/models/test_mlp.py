"""The multilayer perceptron, written out in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bsgap.models import MLP

KEY = jax.random.key(0)


def some(**fields: Any) -> MLP:
    """A small one with some weights; to draw those that it begins with takes a second to compile."""
    graph, state = nnx.split(nnx.eval_shape(lambda: MLP((2, 2, 1), 3, hidden=(6, 5), rngs=nnx.Rngs(0), **fields)))
    rng = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), state))


@nnx.jit
def called(module: MLP, *arguments: jax.Array) -> jax.Array:
    return module(*arguments)


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, 2, 2, 1))


def test_logits_are_those_of_the_written_out_network() -> None:
    mlp = some()
    x = images(2).reshape(2, 4)
    for i, layer in enumerate(mlp.layers):
        x = x @ np.asarray(layer.kernel[...], np.float64) + layer.bias[...]
        x = np.maximum(x, 0) if i < 2 else x
    np.testing.assert_allclose(called(mlp, jnp.float32(images(2))), x, rtol=1e-5, atol=1e-5)


def test_hidden_layers_are_normalised_before_the_relu() -> None:
    mlp = some(batch_norm=True, ghost_batch=4)
    *hidden, last = mlp.layers
    x = images(8).reshape(8, 4)
    for layer, norm in zip(hidden, mlp.norms, strict=True):
        assert layer.bias is None
        groups = (x @ np.asarray(layer.kernel[...], np.float64)).reshape(2, 4, -1)
        groups = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-5)
        x = np.maximum(groups.reshape(8, -1) * norm.scale[...] + norm.bias[...], 0)
    x = x @ last.kernel[...] + last.bias[...]
    np.testing.assert_allclose(called(mlp, jnp.float32(images(8)), np.ones(8, bool)), x, rtol=1e-4, atol=1e-4)


def test_weights_are_xavier_normal_and_biases_zero() -> None:
    """A run's weights are a function of its key that may not change: each takes the next number of its stream."""
    layers = MLP((16, 16, 1), 10, hidden=(256, 256), rngs=nnx.Rngs(KEY)).layers
    for n, (layer, (i, o)) in enumerate(zip(layers, ((256, 256), (256, 256), (256, 10)), strict=True)):
        kernel = np.asarray(layer.kernel[...])
        assert kernel.shape == (i, o)
        np.testing.assert_allclose(kernel.std(), (2 / (i + o)) ** 0.5, rtol=0.05)
        assert abs(float(kernel.mean())) < 5 * (2 / (i + o)) ** 0.5 / (i * o) ** 0.5
        # The odd numbers are the biases'.
        expected = nnx.initializers.glorot_normal()(jax.random.fold_in(KEY, 2 * n), (i, o))
        np.testing.assert_array_equal(kernel, expected)
        assert not np.asarray(layer.bias[...]).any()


def test_the_input_width_comes_from_the_images() -> None:
    mlp = nnx.eval_shape(lambda: MLP((4, 5, 3), 7, hidden=(8,), rngs=nnx.Rngs(0)))
    shapes = [(layer.kernel.shape, layer.bias.shape) for layer in mlp.layers]
    assert shapes == [((60, 8), (8,)), ((8, 7), (7,))]
