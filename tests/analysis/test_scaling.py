"""The hyperbola through points that are known."""

import math

import numpy as np
import pytest
import scipy.optimize

from bsgap.analysis.scaling import Hyperbola, exponent, hyperbola, lowest_point

NAN, INF = math.nan, math.inf
BATCH_SIZE_P = np.array([2, 8, 32, 128, 512, 2048])
S_MIN, B_CRIT = 150.0, 200.0
E_MIN = S_MIN * B_CRIT


def curve(noise: float = 0, seed: int = 0, s_min: float = S_MIN, b_crit: float = B_CRIT, draws: int = 0) -> np.ndarray:
    """log updates on a known hyperbola, log-normal noise on the data, and the same again on each draw of them."""
    rng = np.random.default_rng(seed)
    data_P = np.log(s_min * (1 + b_crit / BATCH_SIZE_P)) + noise * rng.normal(size=len(BATCH_SIZE_P))
    return data_P + np.vstack([np.zeros(len(data_P)), noise * rng.normal(size=(draws, len(data_P)))])


def fitted(log_updates_RxP: np.ndarray, made: float = INF) -> Hyperbola:
    """The fit where no batch size is trained for longer than `made` updates."""
    found = hyperbola(
        BATCH_SIZE_P, np.minimum(log_updates_RxP, math.log(made)), (log_updates_RxP > math.log(made)).astype(int)
    )
    assert found
    return found


def values(found: Hyperbola) -> list[float]:
    return [estimate.value for estimate in found]


@pytest.mark.parametrize(
    ('b_crit', 'made'), [(0.5, INF), (5, INF), (200, INF), (3e4, INF), (5, 1e4), (200, 1e4), (3e4, 1e4)]
)
def test_exact_points_give_the_curve_back(b_crit: float, made: float) -> None:
    """Points that ask for more than was trained lie on the right side of it, and take no part."""
    s_min = 1.5 * made / (1 + b_crit / BATCH_SIZE_P[0]) if made < INF else S_MIN
    found = fitted(curve(s_min=s_min, b_crit=b_crit), made)
    np.testing.assert_allclose(values(found), [s_min, s_min * b_crit, b_crit], rtol=2e-3)
    assert np.isnan([end for estimate in found for end in estimate[1:]]).all()  # no draws


@pytest.mark.parametrize('made', [INF, 5000])
@pytest.mark.parametrize('seed', range(5))
def test_the_fit_is_at_the_least_squares(made: float, seed: int) -> None:
    """Against a general optimizer; a censored point counts where the curve is below it."""
    log_s_P = curve(0.3, seed)[0]
    made_P, is_above_P = np.minimum(log_s_P, math.log(made)), log_s_P > math.log(made)

    def loss(log_s_min: float, log_b_crit: float) -> float:
        rest_P = made_P - log_s_min - np.logaddexp(0, log_b_crit - np.log(BATCH_SIZE_P))
        return float((np.where(is_above_P, np.maximum(rest_P, 0), rest_P) ** 2).sum())

    found = fitted(log_s_P[None], made)
    start = np.log([found.s_min.value, found.b_crit.value])
    best = scipy.optimize.minimize(lambda x_2: loss(*x_2), start, method='Nelder-Mead', options={'xatol': 1e-7})
    assert loss(*start) == pytest.approx(best.fun, rel=1e-3, abs=1e-8)
    np.testing.assert_allclose(start, best.x, atol=0.02)


def test_rows_do_not_see_one_another() -> None:
    rows_RxP = np.vstack([curve(0.2, seed) for seed in range(8)])
    made, is_above_RxP = np.minimum(rows_RxP, 9), (rows_RxP > 9).astype(int)
    alone = [hyperbola(BATCH_SIZE_P, made[[i]], is_above_RxP[[i]]) for i in range(8)]
    for i in range(8):
        order = np.roll(np.arange(8), -i)
        together = hyperbola(BATCH_SIZE_P, made[order], is_above_RxP[order])
        assert together
        assert values(together) == pytest.approx(values(alone[i]), rel=1e-12)


def test_points_known_from_one_side_count_on_that_side_alone() -> None:
    """The smallest batch size needs more than 1000 updates, or fewer; the truth is 15150."""
    log_s_P, side_P = curve()[0].copy(), np.zeros(6, int)
    truth = values(fitted(log_s_P[None]))
    log_s_P[0] = math.log(1000)
    found = {}
    for side_P[0] in (1, 0, -1):
        told = hyperbola(BATCH_SIZE_P, log_s_P[None], side_P[None])
        assert told
        found[int(side_P[0])] = told.b_crit.value
    assert found[1] == pytest.approx(truth[2], rel=1e-3)
    assert found[0] == pytest.approx(found[-1])
    assert found[0] < 0.8 * truth[2]


def test_intervals_cover_the_truth_as_often_as_they_should() -> None:
    """Draws with the noise of the data about the data."""
    covered_Dx3 = []
    for seed in range(200):
        found = fitted(curve(0.1, seed, draws=200), 10_000)
        assert all(0 < estimate.low <= estimate.value <= estimate.high < INF for estimate in found)
        covered_Dx3.append([e.low <= truth <= e.high for e, truth in zip(found, (S_MIN, E_MIN, B_CRIT), strict=True)])
    assert (np.mean(covered_Dx3, axis=0) > 0.9).all()
    assert (np.mean(covered_Dx3, axis=0) < 0.985).all()


def test_interval_holds_the_value_also_where_the_draws_do_not() -> None:
    log_s_RxP = np.vstack([curve(), curve(s_min=2 * S_MIN), curve(s_min=3 * S_MIN)])
    found = fitted(log_s_RxP)
    assert found.s_min == pytest.approx((S_MIN, S_MIN, 3 * S_MIN), rel=2e-3)


def test_all_in_perfect_scaling() -> None:
    found = fitted(curve(0.1, 0, s_min=1e-4, b_crit=1e8, draws=100))
    assert found.b_crit.high == INF
    assert found.b_crit.low > 2048
    assert found.s_min.low == 0
    assert found.e_min.low < 1e4 < found.e_min.high < 2e4


def test_all_flat() -> None:
    found = fitted(curve(0.1, 0, s_min=100, b_crit=1e-4, draws=100))
    assert found.b_crit.low == found.e_min.low == 0
    assert found.b_crit.high < 2
    assert 80 < found.s_min.low < 100 < found.s_min.high < 120


def test_draws_that_know_too_little_bound_nothing() -> None:
    side_RxP = np.zeros((40, 6), int)
    log_s_RxP = curve(0.01, draws=39)
    assert hyperbola(BATCH_SIZE_P, log_s_RxP, side_RxP)[2].high < INF  # type: ignore[index]
    side_RxP[5:9, 1:] = 1
    found = hyperbola(BATCH_SIZE_P, log_s_RxP, side_RxP)
    assert found
    assert [(estimate.low, estimate.high) for estimate in found] == 3 * [(0, INF)]
    assert found.b_crit.value == pytest.approx(B_CRIT, rel=0.1)


@pytest.mark.parametrize(
    ('batch_size', 'censored'),
    [([2, 2, 8, 8], [0] * 4), ([2, 8, 32], [0, 1, 1]), ([2, 8, 32, 64], [-1] * 4), ([2, 8, 32], [True] * 3)],
)
def test_too_little_for_a_fit(batch_size: list[int], censored: list[int]) -> None:
    assert hyperbola(batch_size, np.full((3, len(batch_size)), 5.0), np.tile(censored, (3, 1))) is None


def test_refuses_what_has_no_logarithm() -> None:
    with pytest.raises(ValueError, match='positive'):
        hyperbola([0, 8, 32], np.ones((1, 3)), np.zeros((1, 3)))


@pytest.mark.parametrize('error', [0.017, 0.3, 1.0])
def test_the_lowest_of_equal_errors_is_the_first_and_no_rounding_decides(error: float) -> None:
    log_x_P, log_error_RxP = np.log([0.0025, 0.01, 0.04]), np.log(np.full((1, 3), error))
    assert lowest_point(log_x_P, log_error_RxP)[0] == [log_x_P[0]]


@pytest.mark.parametrize('power', [-1, 0, 0.5, 1])
def test_exponent(power: float) -> None:
    batch_size_P = np.array([2.0, 8, 8, 512])
    assert exponent(batch_size_P, 3 * batch_size_P**power) == pytest.approx(power, abs=1e-12)
    assert exponent([1, 10, 100], [1, 10, 10]) == pytest.approx(0.5)


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
        exponent(batch_size, value)
