"""Estimates in words: digits, signs, and what is not known."""

import pytest

from bsgap.report.numbers import between, duration, fixed, lower, number, points, share


def estimate(value: float, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {'value': value, 'low': low, 'high': high}


def test_a_share_has_the_digits_that_its_interval_leaves_and_stays_a_share() -> None:
    assert share(estimate(0.95927, 0.95562, 0.96263), '3 seeds') == '95.93 % (95.56 to 96.26; 3 seeds)'
    assert share(estimate(0.9, 0.82, 1.01), '2 seeds', 'accuracy') == '90.0 % accuracy (82.0 to 100.0; 2 seeds)'
    assert share(estimate(0.5, -0.3, 1.3), '2 seeds') == '50 % (0 to 100; 2 seeds)'
    assert share(estimate(1.0, 1.0, 1.0), '2 seeds') == '100.00 % (100.00 to 100.00; 2 seeds)'
    assert share(estimate(0.884), '1 seed') == '88.40 % (1 seed, no interval)'


def test_points_have_a_true_minus_and_no_negative_zero() -> None:
    assert points(estimate(-0.0041, -0.0097, 0.0015), '3 seeds') == '−0.41 points (−0.97 to 0.15; 3 seeds)'
    assert points(estimate(-0.00001), '1 seed') == '0.00 points (no interval; 1 seed)'
    assert fixed(-0.004, 2) == '0.00'
    assert fixed(-1234.5, 0) == '−1,234'


@pytest.mark.parametrize(
    ('difference', 'words'),
    [
        ((-0.0188, -0.027, -0.0107), '1.88 points lower (1.07 to 2.70)'),
        ((-0.0037, -0.0132, 0.0059), '0.37 points lower (1.32 lower to 0.59 higher)'),
        ((0.002, -0.001, 0.005), '0.20 points higher (0.10 lower to 0.50 higher)'),
        ((0.0, -0.001, 0.001), 'level (0.10 lower to 0.10 higher)'),
        ((-0.001, -0.002, 0.0), '0.10 points lower (0.00 to 0.20)'),
        ((-0.0008, None, None), '0.08 points lower (no interval)'),
    ],
)
def test_a_difference_is_lower_or_higher(difference: tuple[float, float | None, float | None], words: str) -> None:
    assert lower(estimate(*difference)) == words


def test_a_positive_number_has_two_digits_and_the_ends_that_are_known() -> None:
    assert between(estimate(59.05, 34.84, 94.28)) == '59 (35 to 94)'
    assert between(estimate(59.05, 34.84)) == '59 (at least 35)'
    assert between(estimate(59.05, None, 94.28)) == '59 (at most 94)'
    assert between(estimate(0.0857)) == '0.086 (no interval)'
    assert number(2_789_256) == '2,800,000'
    assert number(0.00025) == '0.00025'


def test_a_duration_has_a_unit_that_fits() -> None:
    assert [duration(seconds) for seconds in (0.219, 24.4, 119, 240, 8000)] == [
        '0.22 s',
        '24 s',
        '120 s',
        '4 min',
        '2.2 h',
    ]
