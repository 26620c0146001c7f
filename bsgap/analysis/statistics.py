"""Means over seeds with their 95 % intervals."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # which loads scipy.special when it is used

if TYPE_CHECKING:  # pandas takes a fifth of a second to load, which training need not wait for
    import pandas as pd


LEVEL = 0.05  # of all tests
TAIL = LEVEL / 2  # of a 95 % interval, on each side
MOST_SEEDS = 10_000  # more count as no number of seeds


class Estimate(NamedTuple):
    """A value with its 95 % interval; an end is NaN where it is not known, 0 or infinite where nothing bounds it."""

    value: float
    low: float
    high: float


def standard_errors(n: Any, tail: float = TAIL) -> Any:
    """To each side of the mean of n values (a number or an array), in its interval: Student's t with n − 1 degrees of
    freedom; NaN where n is below 2. `tail` is the share that is left out on each side."""
    return scipy.special.stdtrit(np.subtract(n, 1), 1 - tail)


def interval(values: Iterable[float], tail: float = TAIL) -> Estimate:
    """The mean of n independent values and its interval (Student's t), which is NaN for n = 1; all NaN for n = 0, or
    where a value is NaN. `tail` as in `standard_errors`."""
    array = np.asarray(list(values), float)
    mean = float(array.mean()) if array.size else math.nan
    if array.size < 2:
        return Estimate(mean, math.nan, math.nan)
    half_width = float(standard_errors(array.size, tail) * array.std(ddof=1) / math.sqrt(array.size))
    return Estimate(mean, mean - half_width, mean + half_width)


def intervals(grouped: Any) -> 'pd.DataFrame':
    """`interval` of each group of a pandas SeriesGroupBy, such as `runs.groupby(['recipe', 'update'])['gap']`.

    Returns:
      A row a group, with the groups' index: `value` (the mean), `low`, `high`: float64, in the unit of the values,
      `low` and `high` NaN for one value; `n`: int64, how many values that are not NaN, as the others are left out.
    """
    mean, n = grouped.mean(), grouped.count()
    half_width = standard_errors(n) * grouped.std(ddof=1) / np.sqrt(n)
    return mean.to_frame('value').assign(low=mean - half_width, high=mean + half_width, n=n)


def of_draws(value_R: Any, low_R: Any = None) -> Estimate:
    """The first of R values, of the data themselves, with the 2.5 and 97.5 % percentiles of the others, its draws.

    Widened to hold the value; NaN without draws. `value_R` may be known from one side only: then infinite where nothing
    bounds it above, and `low_R`, which is `value_R` if not given, −infinite where nothing bounds it below.
    """
    value_R = np.asarray(value_R, float)
    low_R = value_R if low_R is None else np.asarray(low_R, float)
    value = float(value_R[0])
    if len(value_R) < 2:
        return Estimate(value, math.nan, math.nan)
    # A quantile between a finite and an infinite value would be NaN.
    low = float(np.quantile(low_R[1:], 0.025, method='lower'))
    high = float(np.quantile(value_R[1:], 0.975, method='higher'))
    return Estimate(value, min(low, value), max(high, value))


def at_common_x(curves: Sequence[tuple[Any, Any]]) -> tuple[float, np.ndarray] | None:
    """The largest x that all curves (x, y) reached, and their y there, linear between points; None if a curve has no
    second point by then."""
    curves = [(np.asarray(x, float), np.asarray(y, float)) for x, y in curves]
    common = min(x[-1] for x, _ in curves)
    # metrics.csv has nine digits.
    if any(len(x) < 2 or (x[1] > common and not math.isclose(x[1], common, rel_tol=1e-8)) for x, _ in curves):
        return None
    return float(common), np.asarray([np.interp(common, x, y) for x, y in curves])


def plain(estimate: Estimate) -> dict[str, Any]:
    """An estimate as plain data: what is NaN or infinite is None."""
    return {key: float(value) if math.isfinite(value) else None for key, value in estimate._asdict().items()}


def bounded(estimate: Estimate) -> dict[str, Any]:
    """Likewise of something positive: a low end of 0 is None too."""
    return {key: value or None for key, value in plain(estimate).items()}


def level(estimate: Estimate, is_share: bool) -> str:
    """A score with its interval: '97.50 ± 0.60 %', or, of one that is no share, '0.512 ± 0.010'."""
    return _plus_minus(estimate, '.2f', 100) + ' %' if is_share else _plus_minus(estimate, '.3f', 1)


def difference(estimate: Estimate, is_share: bool) -> str:
    """Of two scores, likewise: '+0.40 ± 0.20 points', or '+0.012 ± 0.010'."""
    return _plus_minus(estimate, '+.2f', 100) + ' points' if is_share else _plus_minus(estimate, '+.3f', 1)


def _plus_minus(estimate: Estimate, form: str, scale: int) -> str:
    value, _, high = estimate
    half_width = '' if math.isnan(high) else f' ± {scale * (high - value):{form.lstrip("+")}}'
    return f'{scale * value:{form}}{half_width}'.replace('-', '−')


def plural(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'
