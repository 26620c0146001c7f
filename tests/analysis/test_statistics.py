"""Means and intervals, against printed tables and SciPy."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from bsgap.analysis.statistics import (
    Estimate,
    at_common_x,
    difference,
    interval,
    intervals,
    level,
    of_draws,
    standard_errors,
)


def test_interval_is_students() -> None:
    """1, 2, 3, 4, 5: mean 3, standard error √(2.5 / 5), t(0.975; 4) = 2.776 from the printed table."""
    found = interval([1, 2, 3, 4, 5])
    half_width = 2.776 * math.sqrt(0.5)
    assert found == pytest.approx((3, 3 - half_width, 3 + half_width), rel=1e-3)
    assert interval([7])[0] == 7
    assert np.isnan([*interval([7])[1:], *interval([])]).all()
    assert math.isnan(interval([1, math.nan, 3]).value)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    trials = [interval(rng.normal(size=3)) for _ in range(4000)]
    covered = np.mean([trial.low < 0 < trial.high for trial in trials])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_standard_errors_are_those_of_the_printed_table() -> None:
    assert standard_errors(3) == pytest.approx(4.303, rel=1e-3)
    np.testing.assert_allclose(standard_errors(np.array([2, 5])), [12.706, 2.776], rtol=1e-3)
    assert np.isnan(standard_errors([1, 0])).all()


def test_intervals_are_those_of_each_group() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({'recipe': list('bbbaac'), 'gap': rng.normal(size=6)})
    found = intervals(table.groupby('recipe')['gap'])
    assert list(found.index) == ['a', 'b', 'c']
    assert list(found.columns) == ['value', 'low', 'high', 'n']
    for recipe, row in found.iterrows():
        values = table.loc[table['recipe'] == recipe, 'gap']
        np.testing.assert_allclose(row[['value', 'low', 'high']], interval(values), rtol=1e-12)
        assert row['n'] == len(values)
    low, high = scipy.stats.t.interval(0.95, 2, *(f(table['gap'][:3]) for f in (np.mean, scipy.stats.sem)))
    assert (found.loc['b', 'low'], found.loc['b', 'high']) == pytest.approx((low, high))


def test_intervals_leave_out_what_was_not_measured() -> None:
    table = pd.DataFrame({'recipe': list('aaab'), 'gap': [1.0, math.nan, 3.0, math.nan]})
    found = intervals(table.groupby('recipe')['gap'])
    assert list(found['n']) == [2, 0]
    assert found.loc['a', 'value'] == 2
    assert found.loc['b', ['value', 'low', 'high']].isna().all()


def test_draws_give_percentiles_that_hold_the_value() -> None:
    draws = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert of_draws([500, *draws]) == (500, 25, 975)
    assert of_draws([-1, *draws]) == (-1, -1, 975)
    assert of_draws([2000, *draws]) == (2000, 25, 2000)
    assert of_draws([5]) == pytest.approx((5, math.nan, math.nan), nan_ok=True)
    unbounded = np.where(draws < 50, -np.inf, draws), np.where(draws > 950, np.inf, draws)
    assert of_draws([500, *unbounded[1]], [500, *unbounded[0]]) == (500, -math.inf, math.inf)


def test_curves_are_read_at_the_largest_x_that_all_reached() -> None:
    """The second ends at 2, where the first, which has 0.2 at 1 and 0.6 at 3, is at 0.4."""
    first, second = ([0, 1, 3, 9], [0, 0.2, 0.6, 0.9]), ([0, 2], [0, 0.5])
    x, values = at_common_x([first, second])
    assert x == 2
    assert values == pytest.approx([0.4, 0.5])
    assert at_common_x([first, ([0, 2 - 4e-9], [0, 0.5])])  # what is 2 but for the nine digits of metrics.csv
    assert at_common_x([([0, 3], [0, 0.8]), second]) is None  # the first was evaluated for the first time at 3
    assert at_common_x([first, ([0], [0])]) is None


def test_numbers_are_written_for_people() -> None:
    assert level(Estimate(0.975, 0.969, 0.981), True) == '97.50 ± 0.60 %'
    assert level(Estimate(0.975, math.nan, math.nan), True) == '97.50 %'
    assert level(Estimate(0.512, 0.502, 0.522), False) == '0.512 ± 0.010'
    assert difference(Estimate(0.004, 0.002, 0.006), True) == '+0.40 ± 0.20 points'
    assert difference(Estimate(-0.004, math.nan, math.nan), True) == '−0.40 points'
