"""Batch normalization, whole and ghost, against its definition written out in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bsgap.models import BatchNorm

normalise = nnx.jit(lambda layer, *arguments: layer(*arguments))


def written_out(
    x: np.ndarray, mask: np.ndarray, ghost_batch: int, running: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Batch normalization without scale and shift, one group after the other; what is not valid stays NaN."""
    y, (mean, var) = np.full(x.shape, np.nan), running
    size = ghost_batch or len(x)
    for start in range(0, len(x), size):
        group = np.flatnonzero(mask[start : start + size]) + start
        if len(group):
            values = x[group].reshape(-1, x.shape[-1])
            y[group] = (x[group] - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
            unbiased = values.var(0, ddof=1) if len(values) > 1 else 0
            mean, var = 0.9 * mean + 0.1 * values.mean(0), 0.9 * var + 0.1 * unbiased
    return y, (mean, var)


@pytest.mark.parametrize('positions', [(), (3, 2)])
@pytest.mark.parametrize(
    ('batch', 'ghost_batch', 'valid'),
    [
        (8, 0, 8),
        (8, 0, 5),
        (1, 0, 1),
        (8, 4, 8),  # whole groups
        (10, 4, 10),  # the last group smaller
        (10, 4, 9),  # and of one example
        (10, 4, 6),  # an empty group
        (10, 4, 1),
        (10, 1, 7),
        (4, 16, 3),  # one group, smaller than asked for
    ],
)
def test_batch_normalization_is_that_written_out(
    batch: int, ghost_batch: int, valid: int, positions: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    layer = BatchNorm(3, ghost_batch)
    scale, bias = rng.normal(size=3), rng.normal(size=3)
    layer.scale[...], layer.bias[...] = jnp.float32(scale), jnp.float32(bias)
    running = (np.zeros(3), np.ones(3))
    mask = np.arange(batch) < valid
    for _ in range(3):
        x = rng.normal(2, 3, (batch, *positions, 3))
        expected, running = written_out(x, mask, ghost_batch, running)
        y = normalise(layer, jnp.float32(x), jnp.array(mask))
        assert y.shape == x.shape
        np.testing.assert_allclose(y[:valid], (expected * scale + bias)[:valid], rtol=1e-4, atol=1e-4)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(layer.mean[...], running[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var[...], running[1], rtol=1e-5, atol=1e-6)
    layer.eval()
    expected = (x - running[0]) / np.sqrt(running[1] + 1e-5) * scale + bias
    np.testing.assert_allclose(layer(jnp.float32(x)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.mean[...], running[0], rtol=1e-5, atol=1e-6)


def test_valid_examples_can_stand_anywhere() -> None:
    """Groups 0 and 2 of four are empty; no mask counts every example."""
    x = np.random.default_rng(0).normal(size=(8, 3))
    mask = np.array([0, 0, 1, 1, 0, 0, 0, 1], bool)
    for given, meant in ((jnp.array(mask), mask), (None, np.ones(8, bool))):
        layer = BatchNorm(3, 2)
        expected, (mean, var) = written_out(x, meant, 2, (np.zeros(3), np.ones(3)))
        np.testing.assert_allclose(
            normalise(layer, jnp.float32(x), given)[meant], expected[meant], rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(layer.mean[...], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var[...], var, rtol=1e-5, atol=1e-6)
