"""Sharpness, curvature, lines and gradient norms against closed forms, and against NumPy where there is none."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from bsgap.measure import landscape
from bsgap.models.layers import product

A = np.float32([0.5, 3.0, 1.0, 2.0])
M = np.float32([1.0, -2.0, 0.0, 0.25])


def quadratic(a_4: jax.Array, params: Any) -> jax.Array:
    """½ Σ a_i (x_i − m_i)², over two leaves."""
    x_4 = jnp.concatenate([params['first'], params['second'].ravel()])
    return jnp.vdot(a_4, (x_4 - M) ** 2) / 2


def parameters(x_4: np.ndarray) -> dict[str, jax.Array]:
    return {'first': jnp.asarray(x_4[:1]), 'second': jnp.asarray(x_4[1:].reshape(1, 3))}


OFF = np.float32([0.5, 0.5, -0.1, -3.0])


@pytest.mark.parametrize('factor', [1.0, 1e-6])
@pytest.mark.parametrize('x_4', [M, OFF])
@pytest.mark.parametrize('box', [0.1, 1e-3])
def test_sharpness_of_a_bowl_is_at_a_corner_of_its_box(box: float, x_4: np.ndarray, factor: float) -> None:
    """Also at its minimum, where the gradient is 0, and where the slopes are far below L-BFGS-B's own tolerance."""
    here = np.sum(factor * A * (x_4 - M) ** 2, dtype=float) / 2
    corner = np.sum(factor * A * (np.abs(x_4 - M) + box * (np.abs(x_4) + 1)) ** 2, dtype=float) / 2
    got = landscape.sharpness(Partial(quadratic, factor * A), parameters(x_4), box)
    # What is left of float32 in the difference of two values of about `here`.
    rounding = 1e-7 * here / (corner - here)
    assert got == pytest.approx(100 * (corner - here) / (1 + here), rel=1e-5 + 10 * rounding, abs=0)


def test_the_lowest_loss_of_a_bowl_is_that_at_its_bottom() -> None:
    raised = Partial(lambda a_4, params: 7 + quadratic(a_4, params), A)
    assert landscape.lowest(raised, parameters(OFF)) == pytest.approx(7, rel=1e-6)
    assert landscape.lowest(raised, parameters(OFF), iterations=1) > 7.1


def test_sharpness_finds_a_maximum_inside_the_box() -> None:
    top_2, curvature_2 = np.float32([0.03, -0.02]), np.float32([1, 5])
    height = 0.03**2 + 5 * 0.02**2

    @Partial
    def hill(x_2: jax.Array) -> jax.Array:
        return 2 - jnp.vdot(curvature_2, (x_2 - top_2) ** 2)

    expected = 100 * height / (3 - height)
    assert landscape.sharpness(hill, jnp.zeros(2), 0.1) == pytest.approx(expected, rel=1e-3)
    assert landscape.sharpness(hill, jnp.zeros(2), 0.1, iterations=1) < 0.99 * expected


@pytest.mark.parametrize('box', [1e-6, 0.1])
def test_sharpness_of_a_slope_grows_with_the_box(box: float) -> None:
    assert landscape.sharpness(Partial(jnp.sum), jnp.zeros(3), box) == pytest.approx(100 * 3 * box, rel=1e-6, abs=0)


@pytest.mark.parametrize('curvature', [(1.0, 100.0), (0.0, 0.0)])
@pytest.mark.parametrize('iterations', [1, 10])
def test_sharpness_is_zero_where_nothing_in_the_box_is_higher(curvature: tuple[float, ...], iterations: int) -> None:
    @Partial
    def hill(x_2: jax.Array) -> jax.Array:
        return -jnp.vdot(jnp.float32(curvature), x_2**2)

    assert landscape.sharpness(hill, jnp.zeros(2), 0.1, iterations) == 0.0


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_sharpness_of_a_diverged_run_is_nan(value: float) -> None:
    assert math.isnan(landscape.sharpness(Partial(jnp.sum), jnp.float32([1.0, value]), 0.1))


@pytest.mark.parametrize('a_4', [np.float32([1, 2, 3, 5]), np.float32([1, 2, 3, -5]), np.float32([0, 0, 0, 0])])
def test_top_eigenvalue_of_a_quadratic_is_its_largest_coefficient(a_4: np.ndarray) -> None:
    got = landscape.top_eigenvalue(Partial(quadratic, a_4), parameters(OFF), jax.random.key(0), tolerance=1e-6)
    assert got == pytest.approx(a_4[3], rel=1e-4)


@pytest.mark.parametrize('sign', [1, -1])
def test_top_eigenvalue_stops_by_tolerance_and_by_iterations(sign: int) -> None:
    """After i iterations the Rayleigh quotient is Σ v² a^(2i−1) / Σ v² a^(2i−2)."""
    a_4, key = sign * np.array([0.8, 0.9, 0.98, 1.0]), jax.random.key(1)
    v_4 = np.asarray(jax.random.normal(key, 4), float)
    expected = [np.sum(v_4**2 * a_4 ** (2.0 * i - 1)) / np.sum(v_4**2 * a_4 ** (2.0 * i - 2)) for i in range(1, 60)]
    changes = np.abs(np.diff(expected) / expected[1:])
    settled = 1 + int(np.argmax(changes <= 1e-3))
    loss, params = Partial(quadratic, a_4.astype(np.float32)), parameters(OFF)
    assert 3 < settled < 40
    assert landscape.top_eigenvalue(loss, params, key) == pytest.approx(expected[settled], rel=1e-5)
    for i in (1, 3):
        assert landscape.top_eigenvalue(loss, params, key, iterations=i) == pytest.approx(expected[i - 1], rel=1e-5)


def test_top_eigenvalue_of_a_network_is_that_of_its_dense_hessian() -> None:
    x_BxI, labels_B = jax.random.normal(jax.random.key(0), (20, 4)), jnp.arange(20) % 3
    params = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(4, 5), (5, 3)])]

    @Partial
    def loss(params: Any) -> jax.Array:
        nothing = jnp.zeros(0)
        logits_BxK = product(jax.nn.relu(product(x_BxI, params[0], nothing)), params[1], nothing)
        return -jax.nn.log_softmax(logits_BxK)[jnp.arange(20), labels_B].mean()

    x_P, unravel = ravel_pytree(params)
    hessian_PxP = jax.jit(jax.jacrev(jax.grad(lambda x_P: loss(unravel(x_P)))))(x_P)
    eigenvalues = np.linalg.eigvalsh(np.asarray(hessian_PxP, float))
    got = landscape.top_eigenvalue(loss, params, jax.random.key(2), iterations=200, tolerance=1e-6)
    assert got == pytest.approx(max(eigenvalues, key=abs), rel=1e-3)


def test_a_line_goes_through_both_ends_and_follows_its_closed_form() -> None:
    first, second = parameters(OFF), parameters(np.float32([2.0, 0.1, -0.7, 0.3]))
    alphas = np.float32([-1, 0, 0.3, 1, 2])

    def both(params: Any) -> dict[str, jax.Array]:
        return {'x': params['second'][0, 0], 'all': quadratic(A, params)}

    got = landscape.line(Partial(both), first, second, alphas)
    assert got['x'][1] == first['second'][0, 0]
    assert got['x'][3] == second['second'][0, 0]
    np.testing.assert_allclose(got['x'], [0.5 + alpha * (0.1 - 0.5) for alpha in alphas], rtol=1e-6)
    for alpha, value in zip(alphas, got['all'], strict=True):
        x_4 = OFF + alpha * (np.array([2.0, 0.1, -0.7, 0.3]) - OFF)
        assert value == pytest.approx(np.sum(A * (x_4 - M) ** 2) / 2, rel=1e-5)


N = 8
RNG = np.random.default_rng(0)
X_NxI, Y_N = RNG.normal(size=(N, 3)).astype(np.float32), RNG.normal(size=N).astype(np.float32)
W = {'w': jnp.float32([0.3, -0.2, 0.9]), 'b': jnp.float32(0.1)}


@Partial
def squares(params: Any, index_B: jax.Array) -> jax.Array:
    error_B = jnp.asarray(X_NxI)[index_B] @ params['w'] + params['b'] - jnp.asarray(Y_N)[index_B]
    return (error_B**2).mean() / 2


def bias(grads: Any) -> Any:
    return grads['b']


def by_hand(order: list[int], batch_size: int, rate: float, leaves: slice) -> tuple[np.ndarray, float]:
    """The norms for `squares`, whose gradient is the mean of error × (x, 1), and that of the mean gradient."""
    x_NxJ = np.column_stack([X_NxI, np.ones(N)]).astype(float)
    w_J = np.append(np.asarray(W['w'], float), float(W['b']))
    slopes = []
    for i in range(0, len(order) // batch_size * batch_size, batch_size):
        batch = order[i : i + batch_size]
        slope_J = x_NxJ[batch].T @ (x_NxJ[batch] @ w_J - Y_N[batch]) / batch_size
        slopes.append(slope_J[leaves])
        w_J = w_J - rate * slope_J
    return np.linalg.norm(slopes, axis=1), float(np.linalg.norm(np.mean(slopes, 0)))


ORDER = [5, 2, 7, 0, 1, 6, 3]


@pytest.mark.parametrize('batch_size', [1, 2, 3, 7])
@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_gradient_norms_of_linear_regression(batch_size: int, rate: float) -> None:
    for chosen, leaves in (([], slice(None)), ([bias], slice(3, 4))):
        got = landscape.gradient_norms(squares, W, jnp.int32(ORDER), batch_size, rate, *chosen)
        for norms, expected in zip(got, by_hand(ORDER, batch_size, rate, leaves), strict=True):
            np.testing.assert_allclose(norms, expected, rtol=1e-5)


def test_mean_squared_norm_over_all_batches_is_that_of_the_gradient_and_its_noise() -> None:
    """‖G‖² + (tr Σ / B) (N − B)/(N − 1) without replacement: three orders show each pair of four examples once."""
    orders = [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]]
    assert len({frozenset(order[i : i + 2]) for order in orders for i in (0, 2)}) == math.comb(4, 2)
    norms, means = zip(*(landscape.gradient_norms(squares, W, jnp.int32(order), 2) for order in orders), strict=True)
    (whole,), of_mean = landscape.gradient_norms(squares, W, jnp.arange(4), 4)
    singles, _ = landscape.gradient_norms(squares, W, jnp.arange(4), 1)
    np.testing.assert_allclose([of_mean, *means], whole, rtol=1e-5)
    trace = np.mean(singles**2) - whole**2
    np.testing.assert_allclose(np.mean(np.square(norms)), whole**2 + trace / 2 * 2 / 3, rtol=1e-5)


@pytest.mark.parametrize('batch_size', [0, N + 1])
def test_no_full_batch_is_an_error(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f'no batch of {batch_size} in {N} examples'):
        landscape.gradient_norms(squares, W, jnp.arange(N), batch_size)


def test_runs_share_a_program() -> None:
    """Other weights and other arrays in the Partial trace nothing anew."""
    traces = itertools.count()

    def counted(a_4: jax.Array, params: Any) -> jax.Array:
        next(traces)
        return quadratic(a_4, params)

    def measure(loss: Partial, x_4: np.ndarray, key: int, step: float) -> int:
        landscape.sharpness(loss, parameters(x_4), step, iterations=2)
        landscape.top_eigenvalue(loss, parameters(x_4), jax.random.key(key), tolerance=step)
        landscape.line(loss, parameters(x_4), parameters(M), np.float32([0, step]))
        return next(traces)

    first = measure(Partial(counted, jnp.asarray(A)), OFF, 0, 0.1)
    assert first >= 3
    assert measure(Partial(counted, jnp.asarray(A) + 1), -OFF, 1, 0.2) == first + 1
