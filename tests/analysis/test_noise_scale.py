"""The noise scale from measurements that are made by hand."""

import math

import numpy as np
import pytest
from answers import answer, measured, power_law

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


def test_noise_scale_in_training_pools_near_rows_and_is_read_at_the_batch_size_nearest_to_b_crit() -> None:
    """Batch size 128 has rows at 1, 10, 25, 90, 100 and 200: only 90 and 100 are near each other."""
    groups = power_law()
    found = answer(*(measured(runs, runs[0].about['fields']['batch_size']) for runs in groups))
    lines, numbers = found['noise_scale'], found['numbers']
    assert [line['batch_size'] for line in lines] == [8, 32, 128]
    points = {point['update']: point for point in lines[2]['points']}
    assert points[25]['examples'] == 25 * 128
    assert points[25]['noise_scale']['value'] == pytest.approx(128 * 25, rel=0.02)
    assert points[90]['noise_scale']['value'] == pytest.approx(128 * 95, rel=0.02)
    # At batch size 32 the runs cross at 22.5, after the rows at 1 and 10.
    assert numbers['noise_scale']['value'] == pytest.approx(32 * (1 * 1 + 9 * 10) / 10, rel=0.1)  # by updates
    b_crit = found['curve']['b_crit']['value']
    for end in ('value', 'low', 'high'):
        assert numbers['noise_over_b_crit'][end] == pytest.approx(numbers['noise_scale'][end] / b_crit)


def test_a_noise_scale_without_a_value_is_left_out() -> None:
    groups = power_law()
    for row in (row for runs in groups for run in runs for row in run.rows):
        row.update(gradient_square=-1.0, gradient_variance=1.0)
    found = answer(*groups)
    assert found['noise_scale'] == []
    assert not {'noise_scale', 'noise_over_b_crit', 'noise_growth'} & found['numbers'].keys()
