"""The noise scale from measurements that are made by hand."""

import math

import numpy as np
import pytest

from bsgap.analysis import noise_scale


@pytest.mark.parametrize('number', [3, 6, 60])
def test_a_ratio_is_of_means_and_its_interval_covers(number: int) -> None:
    """Noise a third of ‖G‖²: the mean of the ratios would be too large. 95 % in expectation, of 400 trials."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(400):
        square_P, variance_P = 1 + 0.3 * rng.normal(size=number), 40 + 4 * rng.normal(size=number)
        found = noise_scale.ratio(square_P, variance_P)
        assert found.value == pytest.approx(variance_P.mean() / square_P.mean())
        assert found.low < found.value < found.high
        covered += found.low < 40 < found.high
    assert 0.92 < covered / 400 < 0.99


def test_a_ratio_is_unbounded_where_the_gradient_may_be_zero() -> None:
    square_P, variance_P = np.array([-1.0, 2.0, 0.5, -0.5, 1.0]), np.full(5, 3.0)
    found = noise_scale.ratio(square_P, variance_P)
    assert found.value == pytest.approx(7.5)
    assert 0 < found.low < 7.5
    assert found.high == math.inf
    assert noise_scale.ratio(-square_P, variance_P) == (math.inf, 0, math.inf)


def test_a_ratio_of_one_measurement_has_no_interval_and_of_none_no_value() -> None:
    assert noise_scale.ratio(np.array([2.0]), np.array([6.0])) == (3, 0, math.inf)
    assert np.isnan(noise_scale.ratio(np.array([]), np.array([]))).all()
