"""Crossings by hand, and the fit on curves that are known."""

import math

import numpy as np
import pytest

from bsgap.analysis import scaling

NAN, INF = math.nan, math.inf
BATCH_SIZE_P = np.repeat([2, 8, 32, 128, 512, 2048], 5)
S_MIN, B_CRIT = 150.0, 200.0
E_MIN = S_MIN * B_CRIT


def curve(noise: float, seed: int, s_min: float = S_MIN, b_crit: float = B_CRIT) -> np.ndarray:
    """Updates on a known hyperbola with log-normal noise."""
    noise_P = noise * np.random.default_rng(seed).normal(size=len(BATCH_SIZE_P))
    return s_min * (1 + b_crit / BATCH_SIZE_P) * np.exp(noise_P)


def fitted(updates_P: np.ndarray, made: float = INF, resamples: int = 0) -> scaling.Fit:
    """The fit where runs are stopped after `made` updates."""
    found = scaling.fit(BATCH_SIZE_P, np.minimum(updates_P, made), updates_P > made, resamples)
    assert found
    return found


@pytest.mark.parametrize(
    ('updates', 'errors', 'expected'),
    [
        ([100, 200, 400], [0.4, 0.2, 0.1], 200),
        ([100, 400], [0.4, 0.1], 200),  # half-way on both logarithms
        ([10, 1000, 2000], [0.8, 0.1, 0.05], 10 * 100 ** (2 / 3)),
        ([0, 100], [0.9, 0.1], 100 * math.log(0.9 / 0.2) / math.log(9)),  # update 0 has no logarithm
        ([100, 400], [0.3, 0.0], 100 * 4 ** (1 / 3)),  # nor has error 0
        ([0, 100], [0.4, 0.0], 50),
        ([100, 200], [0.2, 0.1], 100),
        ([100, 200], [0.1, 0.3], 100),
        ([0, 200], [0.1, 0.1], 0),
        ([100, 200, 300], [0.4, 0.3, 0.25], INF),
        ([], [], INF),
        ([100, 400, 500, 600], [0.4, 0.1, 0.4, 0.1], 200),  # the first of two
        ([100, 200, 200], [0.4, 0.3, 0.1], 200),
    ],
)
def test_crossing(updates: list[float], errors: list[float], expected: float) -> None:
    assert scaling.crossing(list(zip(updates, errors, strict=True)), 0.2) == pytest.approx(expected, rel=1e-12)


def test_crossing_of_a_target_of_zero() -> None:
    assert scaling.crossing([(100, 0.1), (200, 0.0), (300, 0.0)], 0.0) == pytest.approx(200)


@pytest.mark.parametrize('b_crit', [0.5, 5, 200, 3e4])
def test_exact_points_give_the_curve_back(b_crit: float) -> None:
    updates_P = curve(0, 0, b_crit=b_crit)
    found = fitted(updates_P)
    values = [estimate.value for estimate in found[:3]]
    np.testing.assert_allclose(values, [S_MIN, S_MIN * b_crit, b_crit], rtol=1e-3)


@pytest.mark.parametrize('made', [INF, 5000, 2000])
@pytest.mark.parametrize('seed', range(5))
def test_noisy_points_with_and_without_censoring(made: float, seed: int) -> None:
    found = fitted(curve(0.1, seed), made)
    for estimate, truth in zip(found[:3], (S_MIN, E_MIN, B_CRIT), strict=True):
        assert estimate.value == pytest.approx(truth, rel=0.25)
    assert found.b_crit.value == pytest.approx(found.e_min.value / found.s_min.value)
    assert 0.05 < found.noise < 0.15


def test_censored_runs_tell_what_neither_dropping_them_nor_their_last_update_does() -> None:
    """Half of the small batches' runs are stopped, so those that reach the target are the fast ones."""
    batch_size_P = np.repeat([2, 8, 32, 128, 512, 2048], 40)
    errors = {}
    for name in ('censored', 'dropped', 'as reached'):
        log_ratios = []
        for seed in range(5):
            noise_P = 0.5 * np.random.default_rng(seed).normal(size=len(batch_size_P))
            updates_P = S_MIN * (1 + B_CRIT / batch_size_P) * np.exp(noise_P)
            stopped_P = (updates_P > 1000) & (batch_size_P < 128)
            updates_P = np.where(stopped_P, 1000, updates_P)
            kept_P = ~stopped_P if name == 'dropped' else np.full(len(updates_P), True)
            found = scaling.fit(
                batch_size_P[kept_P], updates_P[kept_P], stopped_P[kept_P] & (name == 'censored'), resamples=0
            )
            assert found
            log_ratios.append(abs(math.log(found.b_crit.value / B_CRIT)))
        errors[name] = np.mean(log_ratios)
    assert errors['censored'] < 0.2
    assert min(errors['dropped'], errors['as reached']) > 2 * errors['censored']


@pytest.mark.parametrize('made', [INF, 5000])
def test_the_likelihood_is_at_its_maximum(made: float) -> None:
    """Against differences, at a point beside it too; the censored points' share is their probability to exceed."""
    updates_P = curve(0.3, 0)
    data = np.log(BATCH_SIZE_P), np.log(np.minimum(updates_P, made)), updates_P > made, np.full(30, 1 / 30)
    for params_3 in np.array([[7.0, 4.0, -1.0], [6.0, 9.0, 0.5], [8.0, -2.0, -2.0]]):
        loss, slope_3 = scaling._loss_and_slope(params_3, *data)
        for i in range(3):
            step_3 = 1e-6 * np.eye(3)[i]
            higher, lower = (scaling._loss_and_slope(params_3 + s * step_3, *data)[0] for s in (1, -1))
            assert slope_3[i] == pytest.approx((higher - lower) / 2e-6, rel=1e-4, abs=1e-6)
    found = fitted(updates_P, made)
    level = math.log(found.s_min.value) + np.mean(np.logaddexp(0, math.log(found.b_crit.value) - data[0]))
    loss, slope_3 = scaling._loss_and_slope([level, math.log(found.b_crit.value), math.log(found.noise)], *data)
    np.testing.assert_allclose(slope_3, 0, atol=1e-4)
    starts = np.random.default_rng(1).uniform([4, -3, -3], [9, 12, 1], (1000, 3))
    assert loss < min(scaling._loss_and_slope(start, *data)[0] for start in starts)


def test_intervals_cover_the_truth_as_often_as_they_should() -> None:
    covered_Dx3 = []
    for seed in range(40):
        found = fitted(curve(0.2, seed), 10_000, resamples=60)
        assert all(0 < estimate.low <= estimate.value <= estimate.high < INF for estimate in found[:3])
        covered_Dx3.append(
            [e.low <= truth <= e.high for e, truth in zip(found[:3], (S_MIN, E_MIN, B_CRIT), strict=True)]
        )
    assert (np.mean(covered_Dx3, axis=0) >= 0.8).all()
    # Intervals that always hold the truth would be too wide.
    assert found.b_crit.high < 2 * found.b_crit.low


def test_interval_is_a_function_of_the_seed() -> None:
    data = BATCH_SIZE_P, curve(0.2, 0), np.zeros(30, bool)
    assert scaling.fit(*data, resamples=20, seed=3) == scaling.fit(*data, resamples=20, seed=3)
    assert scaling.fit(*data, resamples=20, seed=3) != scaling.fit(*data, resamples=20, seed=4)


def test_resamples_that_cannot_tell_the_curve_are_drawn_again() -> None:
    """Two points reached the target, and two lie below the curve through them: with both, it is always that curve."""
    found = scaling.fit([2, 8, 32, 64], [1000, 300, 100, 60], [False, False, True, True], resamples=50)
    assert found
    ends = [end for estimate in found[:3] for end in estimate]
    np.testing.assert_allclose(ends, np.repeat([200 / 3, 5600 / 3, 28], 3), rtol=0.01)


def test_interval_holds_the_value() -> None:
    """Also where the few resamples do not."""
    found = fitted(curve(0.2, 0), resamples=1)
    for estimate in found[:3]:
        assert estimate.low <= estimate.value <= estimate.high
        assert (estimate.low == estimate.value) != (estimate.high == estimate.value)


def test_all_in_perfect_scaling() -> None:
    found = fitted(curve(0.1, 0, s_min=1e-3, b_crit=1e7), resamples=60)
    assert found.b_crit.high == INF
    assert found.b_crit.low > 2048
    assert found.s_min.low == 0
    assert found.e_min.low < 1e4 < found.e_min.high < 2e4


def test_all_flat() -> None:
    found = fitted(curve(0.1, 0, s_min=100, b_crit=1e-4), resamples=60)
    assert found.b_crit.low == found.e_min.low == 0
    assert found.b_crit.high < 2
    assert 80 < found.s_min.low < 100 < found.s_min.high < 120


def test_no_resamples_no_bounds() -> None:
    found = fitted(curve(0.1, 0))
    assert [(estimate.low, estimate.high) for estimate in found[:3]] == 3 * [(0, INF)]


@pytest.mark.parametrize(
    ('batch_size', 'censored'),
    [([2, 2, 8, 8], [False] * 4), ([2, 8, 32, 2], [False, True, True, False]), ([2, 8, 32, 64], [True] * 4), ([], [])],
)
def test_too_little_for_a_fit(batch_size: list[int], censored: list[bool]) -> None:
    assert scaling.fit(batch_size, [100.0] * len(batch_size), censored) is None


@pytest.mark.parametrize(
    ('batch_size', 'updates'),
    [([2, 8, 32], [100, INF, 1]), ([0, 8, 32], [9, 5, 2])],
)
def test_fit_refuses(batch_size: list[float], updates: list[float]) -> None:
    with pytest.raises(ValueError, match='positive'):
        scaling.fit(batch_size, updates, [False] * 3)


@pytest.mark.parametrize('power', [-1, 0, 0.5, 1])
def test_exponent(power: float) -> None:
    batch_size_P = np.array([2.0, 8, 8, 512])
    assert scaling.exponent(batch_size_P, 3 * batch_size_P**power) == pytest.approx(power, abs=1e-12)
    assert scaling.exponent([1, 10, 100], [1, 10, 10]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ('batch_size', 'value', 'message'),
    [
        ([8, 8], [1, 2], 'two batch sizes'),
        ([8, 64], [0, 1], 'positive'),
        ([8, 64], [NAN, 1], 'positive'),
        ([], [], 'two'),
    ],
)
def test_exponent_refuses(batch_size: list[float], value: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scaling.exponent(batch_size, value)
