"""The noise scale against linear regressions whose G and Σ are known, and critical batches from known progress."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny
from jax.tree_util import Partial

from bsgap import config, data, model, noise_scale

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
    of_batch = jax.jit(jax.vmap(noise_scale.from_parts, (None, 0, 0, None)))
    *found, measured_T = of_batch(jnp.asarray(count_P), jnp.float32(square_TxP), jnp.float32(square_T), n)
    assert (measured_T == 1).all()
    return np.stack(found, -1).astype(float)


@pytest.mark.parametrize('counts', [(4, 4), (1, 7), (3, 5, 2, 1), (11, 11), (8, 8, 7), (0, 5, 0, 4)])
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
    found = noise_scale.from_parts(jnp.array([small, small]), jnp.asarray(square_2), jnp.float32(square), 10**9)
    assert np.asarray(found) == pytest.approx([gradient_square, variance, 1], rel=1e-5)


@pytest.mark.parametrize('counts', [(0, 0), (5, 0, 0), (0, 3)])
def test_fewer_than_two_parts_with_examples_measure_nothing(counts: tuple[int, ...]) -> None:
    square_P = jnp.where(jnp.array(counts) > 0, 2.0, jnp.nan)
    assert np.asarray(noise_scale.from_parts(jnp.array(counts), square_P, jnp.float32(2), N)).tolist() == [0, 0, 0]


def test_an_empty_part_changes_nothing() -> None:
    with_one = noise_scale.from_parts(jnp.float32([4, 0, 3]), jnp.float32([2, jnp.nan, 3]), jnp.float32(1.5), N)
    without = noise_scale.from_parts(jnp.array([4, 3]), jnp.float32([2, 3]), jnp.float32(1.5), N)
    assert np.asarray(with_one) == pytest.approx(np.asarray(without))


def test_a_ratio_is_of_means_and_its_interval_covers() -> None:
    """Noise as large as ‖G‖² itself: the mean of the ratios would be far off."""
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        square_P, variance_P = 1 + rng.normal(size=60), 40 + 4 * rng.normal(size=60)
        found = noise_scale.ratio(square_P, variance_P, resamples=300, seed=trial)
        assert found.value == pytest.approx(variance_P.mean() / square_P.mean())
        assert found.low < found.value < found.high
        covered += found.low < 40 < found.high
    assert 0.9 < covered / 200 < 0.99


def test_a_ratio_is_reproducible_and_unbounded_where_the_gradient_may_be_zero() -> None:
    square_P, variance_P = np.array([-1.0, 2.0, 0.5, -0.5, 1.0]), np.full(5, 3.0)
    found = noise_scale.ratio(square_P, variance_P)
    assert found == noise_scale.ratio(square_P, variance_P)
    assert found.value == pytest.approx(7.5)
    assert 3 / 2 <= found.low < 7.5
    assert found.high == math.inf
    beyond = noise_scale.ratio(-square_P, variance_P)
    assert (beyond.value, beyond.high) == (math.inf, math.inf)
    assert 0 < beyond.low < math.inf


def test_a_ratio_of_one_measurement_has_no_interval_and_of_none_no_value() -> None:
    assert noise_scale.ratio(np.array([2.0]), np.array([6.0])) == (3, 0, math.inf)
    assert np.isnan(noise_scale.ratio(np.array([]), np.array([]))).all()


def squares(x_NxI: jax.Array, y_N: jax.Array, params: Any, index_B: jax.Array) -> jax.Array:
    return (((x_NxI @ params['w'])[index_B] - y_N[index_B]) ** 2).mean() / 2


@pytest.mark.parametrize(('sample', 'chunk'), [(N, 1), (N, 7), (100, N), (100, 100)])
def test_all_examples_give_the_closed_form(sample: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_scale, 'WHOLE_BATCH', 5)
    loss_of = Partial(squares, jnp.asarray(X_NxI), jnp.asarray(Y_N))
    found = noise_scale.exact(loss_of, {'w': W_I}, np.arange(N)[::-1], sample, chunk)
    assert found.gradient_square == pytest.approx(SQUARE, rel=1e-5)
    assert found.gradient_variance == pytest.approx(VARIANCE, rel=1e-5)
    assert found.noise_scale.value == pytest.approx(VARIANCE / SQUARE, rel=1e-5)
    assert found.noise_scale.low == found.noise_scale.high == found.noise_scale.value


def test_a_sample_is_unbiased_and_its_interval_covers() -> None:
    n, rng = 2000, np.random.default_rng(5)
    x_NxI = rng.normal(size=(n, 5)).astype(np.float32)
    y_N = (x_NxI @ rng.normal(size=5) + rng.normal(size=n)).astype(np.float32)
    gradient_NxI = x_NxI.astype(float) * (x_NxI.astype(float) @ W_I - y_N)[:, None]
    square, variance = np.sum(gradient_NxI.mean(0) ** 2), gradient_NxI.var(0, ddof=1).sum()
    loss_of = Partial(squares, jnp.asarray(x_NxI), jnp.asarray(y_N))
    found = [noise_scale.exact(loss_of, {'w': W_I}, rng.permutation(n), 1500, 700) for _ in range(200)]
    assert found[0].gradient_square == pytest.approx(square, rel=1e-4)
    variances = [one.gradient_variance for one in found]
    assert abs(np.mean(variances) - variance) < 4 * np.std(variances) / math.sqrt(200)
    covered = np.mean([one.noise_scale.low < variance / square < one.noise_scale.high for one in found])
    assert 0.9 < covered < 0.99  # 0.9999 without the finite population


def test_a_zero_gradient_has_an_unbounded_noise_scale() -> None:
    x_NxI, y_N = jnp.float32([[1.0], [-1.0]]), jnp.float32([1.0, 1.0])
    loss_of = Partial(squares, x_NxI, y_N)
    found = noise_scale.exact(loss_of, {'w': jnp.zeros(1)}, np.arange(2), 2, 2)
    assert (found.gradient_square, found.gradient_variance) == (0, 2)
    assert found.noise_scale == (math.inf, math.inf, math.inf)
    one = noise_scale.exact(loss_of, {'w': jnp.zeros(1)}, np.arange(1), 2, 2)
    assert one.gradient_square == 1
    assert np.isnan([*one.noise_scale, one.gradient_variance]).all()


def test_both_estimators_agree_on_a_network() -> None:
    """The mean of `from_parts` over 300 batches of MNIST, with `model.product`'s own gradient."""
    study = config.resolve(tiny())
    (dataset,) = data.load(study.data, [study.recipes[0].variant]).values()
    x_NxI = jnp.asarray((dataset.train.images_NxHxWxC / 255).reshape(dataset.n, -1), jnp.float32)
    labels_N = jnp.asarray(dataset.train.labels_N)
    first, second = (jax.random.normal(jax.random.key(i), s) / 8 for i, s in enumerate([(784, 16), (16, 10)]))
    loss_of = Partial(cross_entropy, x_NxI, labels_N)
    params, n = {'first': first, 'second': second}, dataset.n
    found = noise_scale.exact(loss_of, params, np.arange(n), n, 64)

    @jax.jit
    def of_batch(order_N: jax.Array) -> Any:
        grads = [jax.grad(loss_of)(params, index_B) for index_B in (order_N[:20], order_N[20:60], order_N[:60])]
        *square_P, square = (sum(jnp.vdot(g, g) for g in jax.tree.leaves(grad)) for grad in grads)
        return noise_scale.from_parts(jnp.array([20, 40]), jnp.stack(square_P), square, n)

    rng = np.random.default_rng(0)
    measured_Tx3 = np.asarray([of_batch(rng.permutation(n)) for _ in range(300)], float)
    error_3 = measured_Tx3.std(0) / math.sqrt(300)
    assert abs(measured_Tx3[:, 0].mean() - found.gradient_square) < 4 * error_3[0]
    assert abs(measured_Tx3[:, 1].mean() - found.gradient_variance) < 4 * error_3[1]
    estimate = noise_scale.ratio(measured_Tx3[:, 0], measured_Tx3[:, 1])
    assert estimate.low < found.noise_scale.value < estimate.high
    assert estimate.high < 1.5 * estimate.low


def cross_entropy(x_NxI: jax.Array, labels_N: jax.Array, params: Any, index_B: jax.Array) -> jax.Array:
    hidden_BxJ = jax.nn.relu(model.product(x_NxI[index_B], params['first']))
    log_p_BxK = jax.nn.log_softmax(model.product(hidden_BxJ, params['second']))
    return -jnp.take_along_axis(log_p_BxK, labels_N[index_B][:, None], 1).mean()


SIZES = [8, 32, 128, 512, 2048]


def progress(critical: float, sizes: list[int] = SIZES) -> np.ndarray:
    """McCandlish et al. 2018, §2.2: over a fixed number of examples."""
    return 7 / (np.array(sizes) + critical)


@pytest.mark.parametrize('critical', [3.0, 20.0, 200.0, 3000.0])
def test_branches_recover_a_known_critical_batch(critical: float) -> None:
    assert noise_scale.branched(SIZES, progress(critical)) == pytest.approx(critical, rel=1e-3)
    assert noise_scale.branched(SIZES[::-1], progress(critical)[::-1]) == pytest.approx(critical, rel=1e-3)


def test_branches_with_noise_recover_it_within_their_interval() -> None:
    rng, covered, off = np.random.default_rng(2), 0, []
    for _ in range(100):
        noisy = [progress(60.0) * np.exp(0.1 * rng.normal(size=len(SIZES))) for _ in range(4)]
        found = noise_scale.branched_interval([noise_scale.branched(SIZES, one) for one in noisy])
        covered += found.low < 60 < found.high
        off.append(math.log(found.value / 60))
    assert abs(np.mean(off)) < 0.05
    assert 88 <= covered <= 99


def test_branches_at_the_ends_and_too_few() -> None:
    assert noise_scale.branched(SIZES, np.ones(5)) == math.inf
    assert noise_scale.branched(SIZES, np.arange(1.0, 6.0)) == math.inf
    assert noise_scale.branched(SIZES, progress(0.0)) == 0
    assert noise_scale.branched(SIZES, 1 / np.array(SIZES, float) ** 2) == 0
    dropped = progress(20.0)
    dropped[-1] = -0.1
    assert noise_scale.branched(SIZES, dropped) == pytest.approx(20, rel=1e-3)
    dropped[1] = math.nan  # a branch that diverged
    assert noise_scale.branched(SIZES, dropped) == pytest.approx(20, rel=1e-3)
    dropped[0] = 0.0
    assert math.isnan(noise_scale.branched(SIZES, dropped))


def test_an_interval_over_branched_estimates() -> None:
    found = noise_scale.branched_interval([10.0, 40.0, math.nan])
    assert found.value == pytest.approx(20)
    assert found.low * found.high == pytest.approx(20**2)
    assert found.high / found.value == pytest.approx(2**12.706, rel=1e-3)  # t with one degree of freedom
    assert noise_scale.branched_interval([10.0, 40.0, math.inf]) == (40, 0, math.inf)
    assert noise_scale.branched_interval([10.0]) == (10, 0, math.inf)
    assert np.isnan(noise_scale.branched_interval([math.nan])).all()
