"""The noise scale from measurements that are made by hand."""

import math

import numpy as np
import pytest

from bsgap.analysis import noise_scale


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
