"""Estimates in words: digits, signs, and what is not known."""

from typing import Any

import pytest

from bsgap.config import task
from bsgap.report.numbers import between, difference, level


@pytest.mark.parametrize(
    ('of', 'ends', 'words'),
    [
        ('classification', (0.95927, 0.95562, 0.96263), '95.93 % (95.56 to 96.26; 3 seeds)'),
        ('classification', (0.9, 0.82, 1.01), '90.0 % (82.0 to 100.0; 3 seeds)'),
        ('classification', (0.5, -0.3, 1.3), '50 % (0 to 100; 3 seeds)'),
        ('classification', (1.0, 1.0, 1.0), '100.00 % (100.00 to 100.00; 3 seeds)'),
        ('classification', (0.884, None, None), '88.40 % (no interval; 3 seeds)'),
        ('regression', (0.51234, 0.4321, 0.5921), '0.512 (0.432 to 0.592; 3 seeds)'),
        ('regression', (-0.2, -0.9, 0.5), '−0.20 (−0.90 to 0.50; 3 seeds)'),
        ('module:function', (12.345678, 12.34567, 12.34568), '12.3457 (12.3457 to 12.3457; 3 seeds)'),
    ],
)
def test_a_score_has_the_digits_that_its_interval_leaves(of: str, ends: tuple[Any, ...], words: str) -> None:
    assert level(dict(zip(('value', 'low', 'high'), ends, strict=True)), task(of), '3 seeds') == words


@pytest.mark.parametrize(
    ('of', 'ends', 'words'),
    [
        ('classification', (-0.0188, -0.027, -0.0107), '−1.88 points (−2.70 to −1.07)'),
        ('classification', (0.002, -0.00001, 0.005), '0.20 points (0.00 to 0.50)'),
        ('classification', (-0.00001, None, None), '0.00 points (no interval)'),
        ('regression', (-0.0188, -0.027, -0.0107), '−0.0188 (−0.0270 to −0.0107)'),
    ],
)
def test_a_difference_has_a_sign(of: str, ends: tuple[Any, ...], words: str) -> None:
    assert difference(dict(zip(('value', 'low', 'high'), ends, strict=True)), task(of)) == words


@pytest.mark.parametrize(
    ('ends', 'words'),
    [
        ((59.05, 34.84, 94.28), '59 (35 to 94)'),
        ((2_789_256, 0.00025, None), '2,800,000 (at least 0.00025)'),
        ((59.05, None, 94.28), '59 (at most 94)'),
        ((0.0857, None, None), '0.086 (no interval)'),
    ],
)
def test_a_positive_number_has_two_digits(ends: tuple[Any, ...], words: str) -> None:
    assert between(dict(zip(('value', 'low', 'high'), ends, strict=True))) == words
