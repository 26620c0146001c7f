"""Estimates in words: each with its interval, with as many digits as that leaves, and with one kind of minus.

An estimate is {'value', 'low', 'high'}; an end that is not known is None. Shares are fractions.
"""

import math
from collections.abc import Mapping

Estimate = Mapping[str, float | None]
ENDS = ('value', 'low', 'high')


def share(estimate: Estimate, of: str) -> str:
    """A share as per cent, with its interval and what it is a mean of: '95.93 % (95.56 to 96.26; 3 seeds)'."""
    within = {end: None if value is None else min(1.0, max(0.0, value)) for end, value in estimate.items()}
    return _hundredfold(within, ' %', f'; {of}')


def points(estimate: Estimate) -> str:
    """A difference of shares in points: '−1.88 points (−2.70 to −1.07)'."""
    return _hundredfold(estimate, ' points')


def between(estimate: Estimate) -> str:
    """A positive number with two significant digits, and its interval as far as that is known: '59 (35 to 94)'."""
    value, low, high = (end and number(end) for end in map(estimate.get, ENDS))
    if low and high:
        return f'{value} ({low} to {high})'
    return f'{value} ({f"at least {low}" if low else f"at most {high}" if high else "no interval"})'


def number(value: float, digits: int = 2) -> str:
    """With so many significant digits, thousands apart."""
    return f'{float(f"{value:.{digits}g}"):,.12g}'


def _hundredfold(estimate: Estimate, unit: str, of: str = '') -> str:
    value, low, high = (math.nan if end is None else 100 * end for end in map(estimate.get, ENDS))
    half_width, digits = (high - low) / 2, 2
    if half_width > 0:  # two digits of it, none below 0.01
        digits = min(2, max(0, 1 - math.floor(math.log10(half_width))))
    # No sign before a 0.
    value_text, *ends = (f'{round(end, digits) + 0.0:,.{digits}f}'.replace('-', '−') for end in (value, low, high))
    return f'{value_text}{unit} ({"no interval" if math.isnan(half_width) else " to ".join(ends)}{of})'
