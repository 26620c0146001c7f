"""The noise scale of batches against a linear regression whose G and Σ are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsgap.training.noise import from_parts

N = 24
RNG = np.random.default_rng(3)
X_NxI = RNG.normal(size=(N, 5)).astype(np.float32)
Y_N = (X_NxI @ RNG.normal(size=5) + 0.5 * RNG.normal(size=N)).astype(np.float32)
W_I = np.float32([0.2, -0.1, 0.3, 0.0, 0.5])
# Of ½(xᵀw − y)², one row an example.
GRADIENT_NxI = X_NxI.astype(float) * (X_NxI.astype(float) @ W_I - Y_N)[:, None]
SQUARE = float(np.sum(GRADIENT_NxI.mean(0) ** 2))
VARIANCE = float(GRADIENT_NxI.var(0, ddof=1).sum())


def estimates(counts: tuple[int, ...], trials: int, n: int = N) -> np.ndarray:
    """‖G‖²̂ and tr Σ̂, a row for each of `trials` random batches without replacement, in parts of `counts` examples."""
    count_P = np.asarray(counts)
    rng = np.random.default_rng(0)
    order_TxB = np.stack([rng.permutation(N)[: count_P.sum()] for _ in range(trials)])
    part_TxPxI = np.stack(
        [
            GRADIENT_NxI[order_TxM].mean(1) if order_TxM.size else np.full((trials, 5), np.nan)
            for order_TxM in np.split(order_TxB, np.cumsum(count_P)[:-1], 1)
        ],
        1,
    )
    square_TxP = np.sum(part_TxPxI**2, -1)
    square_T = np.sum(GRADIENT_NxI[order_TxB].mean(1) ** 2, -1)
    of_batch = jax.jit(jax.vmap(from_parts, (None, 0, 0, None)))
    *found, measured_T = of_batch(jnp.asarray(count_P), jnp.float32(square_TxP), jnp.float32(square_T), n)
    assert (measured_T == 1).all()
    return np.stack(found, -1).astype(float)


@pytest.mark.parametrize('counts', [(1,) * 8, (4, 4), (1, 7), (3, 5, 2, 1), (11, 11), (8, 8, 7), (0, 5, 0, 4)])
def test_batches_in_parts_are_unbiased(counts: tuple[int, ...]) -> None:
    found_Tx2 = estimates(counts, 20_000)
    error_2 = found_Tx2.std(0) / math.sqrt(len(found_Tx2))
    assert (error_2 < 0.05 * np.array([SQUARE, VARIANCE])).all()
    assert (np.abs(found_Tx2.mean(0) - [SQUARE, VARIANCE]) < 4 * error_2).all()


def test_a_batch_near_n_would_be_biased_without_the_finite_population() -> None:
    """Then ‖G‖²̂ would be short by tr Σ / n."""
    found_Tx2 = estimates((11, 11), 20_000, n=10**9)
    error = found_Tx2[:, 0].std() / math.sqrt(len(found_Tx2))
    assert abs(found_Tx2[:, 0].mean() - (SQUARE - VARIANCE / N)) < 4 * error
    assert 20 * error < VARIANCE / N


def test_two_equal_parts_give_the_published_estimators() -> None:
    """McCandlish et al. 2018, appendix A.1, with the mean of ‖g‖² over the two halves as the small batch's."""
    small, big, square_2, square = 8, 16, np.float32([3.0, 2.2]), 1.9
    gradient_square = (big * square - small * square_2.mean()) / (big - small)
    variance = (square_2.mean() - square) / (1 / small - 1 / big)
    found = from_parts(jnp.array([small, small]), jnp.asarray(square_2), jnp.float32(square), 10**9)
    assert np.asarray(found) == pytest.approx([gradient_square, variance, 1], rel=1e-5)


@pytest.mark.parametrize('counts', [(0, 0), (5, 0, 0), (0, 3)])
def test_fewer_than_two_parts_with_examples_measure_nothing(counts: tuple[int, ...]) -> None:
    square_P = jnp.where(jnp.array(counts) > 0, 2.0, jnp.nan)
    assert np.asarray(from_parts(jnp.array(counts), square_P, jnp.float32(2), N)).tolist() == [0, 0, 0]


def test_an_empty_part_changes_nothing() -> None:
    with_one = from_parts(jnp.float32([4, 0, 3]), jnp.float32([2, jnp.nan, 3]), jnp.float32(1.5), N)
    without = from_parts(jnp.array([4, 3]), jnp.float32([2, 3]), jnp.float32(1.5), N)
    assert np.asarray(with_one) == pytest.approx(np.asarray(without))
