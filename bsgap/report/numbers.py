"""Estimates in words: each with its interval, with as many digits as that leaves, and with one kind of minus.

An estimate is {'value', 'low', 'high'}; an end that is not known is None. Shares are fractions.
"""

import math
from collections.abc import Mapping
from typing import Any


def decimals(*ends: float | None) -> int:
    """After the point of a number whose interval has these ends: two digits of its half width, none below 0.01."""
    known = [end for end in ends if end is not None]
    half_width = (max(known) - min(known)) / 2 if known else 0
    return min(2, max(0, 1 - math.floor(math.log10(half_width)))) if half_width > 0 else 2


def fixed(value: float, digits: int) -> str:
    """With so many digits after the point, a true minus sign, and 0 without a sign."""
    text = f'{value:,.{digits}f}'.replace('-', '−')
    return text.replace('−', '') if not text.strip('−0.,') else text


def share(estimate: Mapping[str, Any], of: str, noun: str = '') -> str:
    """A share as per cent, with its interval and what it is a mean of: '95.93 % (95.56 to 96.26; 3 seeds)'."""
    low, high = ((None if end is None else min(100.0, max(0.0, 100 * end))) for end in _ends(estimate))
    digits = decimals(low, high)
    value = f'{fixed(100 * estimate["value"], digits)} %{noun and " "}{noun}'
    if low is None or high is None:
        return f'{value} ({of}, no interval)'
    return f'{value} ({fixed(low, digits)} to {fixed(high, digits)}; {of})'


def points(estimate: Mapping[str, Any], of: str) -> str:
    """A difference of shares in points, likewise: '2.9 points (2.4 to 3.5; 3 seeds)'."""
    low, high = ((None if end is None else 100 * end) for end in _ends(estimate))
    digits = decimals(low, high)
    ends = 'no interval' if low is None or high is None else f'{fixed(low, digits)} to {fixed(high, digits)}'
    return f'{fixed(100 * estimate["value"], digits)} points ({ends}; {of})'


def lower(difference: Mapping[str, Any]) -> str:
    """How far a share lies below another: '1.88 points lower (1.07 to 2.70)'; both ends are named where they differ
    in side."""
    low, high = ((None if end is None else 100 * end) for end in _ends(difference))
    digits = decimals(low, high)

    def sided(value: float) -> str:
        text = fixed(abs(value), digits)
        return f'{text} {"lower" if value <= 0 else "higher"}' if text.strip('0.') else 'level'

    value = sided(100 * difference['value'])
    value = value.replace(' ', ' points ') if ' ' in value else value
    if low is None or high is None:
        return f'{value} (no interval)'
    if high <= 0 and difference['value'] < 0:
        return f'{value} ({fixed(-high, digits)} to {fixed(-low, digits)})'
    return f'{value} ({sided(low)} to {sided(high)})'


def between(estimate: Mapping[str, Any]) -> str:
    """A positive number with two significant digits, and its interval as far as that is known: '59 (35 to 94)'."""
    low, high = _ends(estimate)
    if low is not None and high is not None:
        ends = f'{number(low)} to {number(high)}'
    elif low is not None:
        ends = f'at least {number(low)}'
    else:
        ends = 'no interval' if high is None else f'at most {number(high)}'
    return f'{number(estimate["value"])} ({ends})'


def number(value: float, digits: int = 2) -> str:
    """With so many significant digits, thousands apart."""
    return f'{float(f"{value:.{digits}g}"):,.12g}'


def duration(seconds: float) -> str:
    size, unit = next(((s, u) for s, u in ((3600, 'h'), (60, 'min')) if seconds >= 2 * s), (1, 's'))
    return f'{number(seconds / size)} {unit}'


def _ends(estimate: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return estimate['low'], estimate['high']
