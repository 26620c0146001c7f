"""The MLP and its product, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np

from bsgap import model

MEAN, STD = np.float32([0.25]), np.float32([0.5])


def test_product_and_its_gradients_are_those_of_a_matrix_product() -> None:
    x_BxI = jax.random.normal(jax.random.key(0), (5, 7))
    w_IxO = jax.random.normal(jax.random.key(1), (7, 3))
    dy_BxO = jax.random.normal(jax.random.key(2), (5, 3))
    y, pull = jax.vjp(model.product, x_BxI, w_IxO)
    expected, expected_pull = jax.vjp(jnp.matmul, x_BxI, w_IxO)
    np.testing.assert_array_equal(y, expected)
    for got, want in zip(pull(dy_BxO), expected_pull(dy_BxO), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_logits_are_those_of_the_written_out_network() -> None:
    mlp = model.define((6, 5), (2, 2, 1), 3, MEAN, STD)
    params = mlp.init(jax.random.key(0))
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1) * 30
    x = ((images / 255 - 0.25) / 0.5).reshape(2, 4)
    for i in range(3):
        x = x @ np.asarray(params['layers'][i]['kernel'], np.float64) + params['layers'][i]['bias']
        x = np.maximum(x, 0) if i < 2 else x
    np.testing.assert_allclose(mlp.apply(params, images), x, rtol=1e-5)


def test_weights_are_xavier_normal_and_biases_zero() -> None:
    layers = model.define((1024, 1024), (28, 28, 1), 10, MEAN, STD).init(jax.random.key(0))['layers']
    for layer, (i, o) in zip(layers.values(), ((784, 1024), (1024, 1024), (1024, 10)), strict=True):
        assert layer['kernel'].shape == (i, o)
        np.testing.assert_allclose(layer['kernel'].std(), (2 / (i + o)) ** 0.5, rtol=0.02)
        assert abs(float(layer['kernel'].mean())) < 5 * (2 / (i + o)) ** 0.5 / (i * o) ** 0.5
        assert not layer['bias'].any()


def test_the_input_width_comes_from_the_images() -> None:
    params = model.define((8,), (4, 5, 3), 7, np.zeros(3, np.float32), np.ones(3, np.float32)).init(jax.random.key(0))
    assert params['layers'][0]['kernel'].shape == (60, 8)
    assert params['layers'][1]['kernel'].shape == (8, 7)
