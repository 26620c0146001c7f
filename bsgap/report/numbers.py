"""Estimates in words: each with its interval, with as many digits as that leaves, and with one kind of minus.

An estimate is {'value', 'low', 'high'}; an end that is not known is None. Shares are fractions.
"""

import math
from collections.abc import Mapping, Sequence

from bsgap.config import Task

Estimate = Mapping[str, float | None]
ENDS = ('value', 'low', 'high')


def level(estimate: Estimate, task: Task, of: str) -> str:
    """A score with its interval and what it is a mean of: '95.93 % (95.56 to 96.26; 3 seeds)', of a share."""
    if not task.is_share:
        return _scaled(estimate, 1, '', f'; {of}')
    within = {end: None if value is None else min(1.0, max(0.0, value)) for end, value in estimate.items()}
    return _scaled(within, 100, ' %', f'; {of}')


def difference(estimate: Estimate, task: Task) -> str:
    """Of two scores: '−1.88 points (−2.70 to −1.07)', of shares."""
    return _scaled(estimate, task.scale, ' points' * task.is_share)


def between(estimate: Estimate) -> str:
    """A positive number with two significant digits, and its interval as far as that is known: '59 (35 to 94)'."""
    value, low, high = (end and number(end) for end in map(estimate.get, ENDS))
    within = f'{low} to {high}' if low and high else f'at least {low}' if low else f'at most {high}' if high else ''
    return f'{value} ({within or "no interval"})'


def bounds(critical: Estimate, sizes: Sequence[int]) -> str:
    """A critical batch size; beyond the ascending ones that were tried, no more than that it is there."""
    value, low, high = map(critical.get, ENDS)
    if value and sizes[0] <= value <= sizes[-1]:
        return between(critical)
    if low and (not value or value > sizes[-1]):
        return f'above {number(min(low, sizes[-1]))}'
    if high and (not value or value < sizes[0]):
        return f'below {number(max(high, sizes[0]))}'
    return 'not bounded by what was tried'


def number(value: float, digits: int = 2) -> str:
    """With so many significant digits, thousands apart."""
    return f'{float(f"{value:.{digits}g}"):,.12g}'


def _scaled(estimate: Estimate, scale: int, unit: str, of: str = '') -> str:
    value, low, high = (math.nan if end is None else scale * end for end in map(estimate.get, ENDS))
    half_width, digits = (high - low) / 2, 2 if scale > 1 else 4
    if half_width > 0:  # two digits of it, none below a hundredth of a point
        digits = min(digits, max(0, 1 - math.floor(math.log10(half_width))))
    # No sign before a 0.
    value_text, *ends = (f'{round(end, digits) + 0.0:,.{digits}f}'.replace('-', '−') for end in (value, low, high))
    return f'{value_text}{unit} ({"no interval" if math.isnan(half_width) else " to ".join(ends)}{of})'
