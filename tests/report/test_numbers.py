"""Estimates in words: digits, signs, and what is not known."""

from typing import Any

import pytest

from bsgap.report.numbers import between, points, share


@pytest.mark.parametrize(
    ('told', 'ends', 'words'),
    [
        (share, (0.95927, 0.95562, 0.96263), '95.93 % (95.56 to 96.26; 3 seeds)'),
        (share, (0.9, 0.82, 1.01), '90.0 % (82.0 to 100.0; 3 seeds)'),
        (share, (0.5, -0.3, 1.3), '50 % (0 to 100; 3 seeds)'),
        (share, (1.0, 1.0, 1.0), '100.00 % (100.00 to 100.00; 3 seeds)'),
        (share, (0.884, None, None), '88.40 % (no interval; 3 seeds)'),
        (points, (-0.0188, -0.027, -0.0107), '−1.88 points (−2.70 to −1.07)'),
        (points, (0.002, -0.00001, 0.005), '0.20 points (0.00 to 0.50)'),
        (points, (-0.00001, None, None), '0.00 points (no interval)'),
        (between, (59.05, 34.84, 94.28), '59 (35 to 94)'),
        (between, (2_789_256, 0.00025, None), '2,800,000 (at least 0.00025)'),
        (between, (59.05, None, 94.28), '59 (at most 94)'),
        (between, (0.0857, None, None), '0.086 (no interval)'),
    ],
)
def test_an_estimate_has_the_digits_that_its_interval_leaves(told: Any, ends: tuple[Any, ...], words: str) -> None:
    estimate = dict(zip(('value', 'low', 'high'), ends, strict=True))
    assert told(estimate, *['3 seeds'] * (told is share)) == words
