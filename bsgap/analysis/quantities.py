"""What claims are made of: numbers of the runs of each seed.

Each function takes the table of runs (see `bsgap.runs`) and a recipe: its name, a pattern such as 'bs*', or a tuple of
them. It returns a Series with a value for each seed, so that `value(runs, 'a', 'gap') - value(runs, 'b', 'gap')` is
paired by seed. All of it comes from that seed's runs alone, what is selected included: each seed is a replication of
the whole study. A run that diverged is never selected; where just that run is needed, or a run is not finished, the
seed's value is NaN. What there is to know of it besides is kept, see `reading`.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import difflib
import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bsgap.analysis import scaling
from bsgap.analysis.statistics import Estimate, at_common_x

if TYPE_CHECKING:  # pandas takes a fifth of a second to load, which training need not wait for
    import pandas as pd

Recipe = str | tuple[str, ...]
At = float | str
OfSeed = Callable[['pd.DataFrame'], float]


@dataclasses.dataclass
class Reading:
    """What there is to know of a value besides: of which recipes it is, what to note, what it may not have."""

    recipes: set[str] = dataclasses.field(default_factory=set)
    notes: list[str] = dataclasses.field(default_factory=list)
    has_interval: bool = True
    conclusive: bool = True


class UnreadableError(LookupError):
    """Why a quantity can't be read from the runs."""


class AbsentError(UnreadableError):
    """A run that the quantity is about is not part of this study."""


_reading: contextvars.ContextVar[Reading] = contextvars.ContextVar('reading')


@contextlib.contextmanager
def reading() -> Iterator[Reading]:
    """What there is to know of all that is measured within."""
    token = _reading.set(Reading())
    try:
        yield _reading.get()
    finally:
        _reading.reset(token)


def value(
    runs: pd.DataFrame, recipe: Recipe, column: str, at: At = 'end', by: str | None = None, without: str = ''
) -> pd.Series:
    """A column of the table, in its unit, in the row that `at` says: 'end' | 'best', by `by` | the number of an epoch.

    Of several recipes, `without` those of a pattern, the run with the highest value of column `by` in that row is
    taken, of equal ones that with the lowest loss; by default with `at` 'best' validation_accuracy.
    """
    by = by or ('validation_accuracy' if at == 'best' else None)

    def of_seed(rows: pd.DataFrame) -> float:
        rows = _rows(_done(rows), at, by)
        return rows[column].loc[_best(rows, by) if by else _only(rows).index[0]]

    kept = runs[~runs['recipe'].str.fullmatch(fnmatch.translate(without))] if without else runs
    return _by_seed(kept, recipe, of_seed, column, by=by, every=not by)


def growth(runs: pd.DataFrame, recipe: str, y: str, x: str) -> pd.Series:
    """The exponent p of y ∝ x^p over the rows of a run in which both columns are above 0."""

    def of_seed(rows: pd.DataFrame) -> float:
        rows = _only(rows)
        return _power(rows[(rows[x] > 0) & (rows[y] > 0)], y, x)

    return _by_seed(runs, recipe, of_seed, y, x)


def lowest(tried: pd.DataFrame, y: str, by: str) -> float:
    """`y` where the parabola of log (1 − score) in log y is lowest, through the best of the rows that were `tried` and
    those with the next y on either side; `by` is a score that is 1 at best."""
    tried = tried.dropna(subset=by)
    if (tried[by] > 1).any():
        raise UnreadableError(f'{by} has values above 1, and is no score')
    best = tried.loc[_best(tried, by)]
    same = tried.sort_values(by).drop_duplicates(y, keep='last').sort_values(y, ignore_index=True)
    middle = min(max(1, same.index[same[y] == best[y]][0]), max(1, len(same) - 2))
    near = same[middle - 1 : middle + 2]
    log_error_P = np.log(np.maximum(1 - near[by].to_numpy(), scaling.FLOOR))
    return float(np.exp(scaling.lowest_point(scaling.log_of(near[y]), log_error_P[None])[0][0]))


def exponent(runs: pd.DataFrame, recipe: Recipe, y: str, x: str, by: str | None = None, at: At = 'end') -> pd.Series:
    """The exponent p of y ∝ x^p with one point a run, or, with `by`, one for each x: the `lowest` y. A best run at an
    end of the y that were tried may have a better one beyond it: it is noted, and not conclusive."""
    at_an_end: list[bool] = []

    def of_seed(rows: pd.DataFrame) -> float:
        if not by:
            return _power(_rows(rows, at, by), y, x)
        done, ends = _done(rows), rows.groupby('run').tail(1)
        if set(done.groupby('run').tail(1)[x].dropna()) != set(ends[x].dropna()):
            return math.nan
        groups = list(_rows(done, at, by).groupby(x))
        best, tried = [group.loc[_best(group, by), y] for _, group in groups], ends.groupby(x)[y].agg(['min', 'max'])
        at_an_end.extend((tried.loc[[of for of, _ in groups]].to_numpy() == np.array(best)[:, None]).any(1))
        return _power({x: [of for of, _ in groups], y: [lowest(group, y, by) for _, group in groups]}, y, x)

    values, known = _by_seed(runs, recipe, of_seed, y, x, by=by, every=not by), _reading.get(Reading())
    if any(at_an_end):
        known.notes.append(f'the best is at an end of the range in {sum(at_an_end)} of {len(at_an_end)} choices')
        known.conclusive = False
    return values


def until(
    runs: pd.DataFrame, recipe: Recipe, column: str, reaches: str, target: float, falling: bool = False
) -> pd.Series:
    """A column, such as 'update', where column `reaches` first rises, or falls, to a value, in the run that needs
    least: linear between rows, infinite where it is not reached. Runs that diverged are passed over."""
    sign = -1 if falling else 1

    def of_run(run: pd.DataFrame) -> float:
        x_P, y_P = sign * run[reaches].to_numpy(), run[column].to_numpy()
        crossed_P = (x_P[:-1] < sign * target) & (sign * target <= x_P[1:])
        if not crossed_P.any():
            return math.inf
        p = int(crossed_P.argmax())
        return y_P[p] + (sign * target - x_P[p]) / (x_P[p + 1] - x_P[p]) * (y_P[p + 1] - y_P[p])

    def of_seed(rows: pd.DataFrame) -> float:
        return min(of_run(run) for _, run in _done(rows).groupby('run'))

    return _by_seed(runs, recipe, of_seed, column, reaches, every=False)


def rises(runs: pd.DataFrame, recipe: str, column: str) -> pd.Series:
    """In which share of a run's evaluations a column is above the evaluation before."""

    def of_seed(rows: pd.DataFrame) -> float:
        return float((np.diff(_only(rows)[column]) > 0).mean())

    return _by_seed(runs, recipe, of_seed, column)


def spread(runs: pd.DataFrame, recipe: Recipe, column: str, relative: bool = False) -> pd.Series:
    """How far apart runs are, largest − smallest, at the largest η·t (`learning_rate_sum`) that all of them reached,
    linear between rows; `relative` divides by their mean there."""

    def of_seed(rows: pd.DataFrame) -> float:
        curves = [(run['learning_rate_sum'], run[column]) for _, run in rows.groupby('run')]
        if len(curves) < 2:
            raise UnreadableError('a spread needs two recipes')
        if (found := at_common_x(curves)) is None:
            raise UnreadableError('evaluated too seldom to compare at the same learning rate × updates')
        apart, mean = float(np.ptp(found[1])), float(found[1].mean())
        return (apart / mean if mean else math.nan) if relative else apart

    return _by_seed(runs, recipe, of_seed, column, 'learning_rate_sum')


def found(runs: pd.DataFrame, name: str) -> Estimate:
    """A number of a search's answer with its own interval; an end that is not known, or not bounded, is infinite."""
    if not (known := runs.attrs.get('answer', {}).get(name)):
        raise UnreadableError(f'{name} is not known')
    low, high = known['low'], known['high']
    return Estimate(known['value'], -math.inf if low is None else low, math.inf if high is None else high)


def _by_seed(
    runs: pd.DataFrame, recipe: Recipe, of_seed: OfSeed, *columns: str, by: str | None = None, every: bool = True
) -> pd.Series:
    """`of_seed` of each seed's rows, if no run is missing or still running, and `every` one is done, or any."""
    patterns, recipes = (recipe,) if isinstance(recipe, str) else recipe, set(runs['recipe'])
    if unmatched := [pattern for pattern in patterns if not fnmatch.filter(recipes, pattern)]:
        raise UnreadableError(f'no run matches {", ".join(unmatched)}')
    matched = {name for pattern in patterns for name in fnmatch.filter(recipes, pattern)}
    ours = runs[runs['recipe'].isin(matched)]
    if absent := set(ours.loc[ours['status'] == 'absent', 'recipe']):
        raise AbsentError(f'{", ".join(sorted(absent))} is not part of this study')
    for column in (*columns, *([by] if by else [])):
        if column not in runs:
            near = ''.join(f', but {name}' for name in difflib.get_close_matches(column, runs.columns, n=1))
            raise UnreadableError(f'the runs have no {column}{near}')
    import pandas as pd

    values = pd.Series(math.nan, index=sorted(ours['seed'].unique()))
    usable = [{'done'}] if every else [{'done'}, {'done', 'diverged'}]
    for seed, rows in ours.groupby('seed'):
        if set(rows['recipe']) == matched and set(rows['status']) in usable:
            values[seed] = of_seed(rows)
    known = _reading.get(Reading())
    known.recipes |= matched
    if (by or '').startswith('test_'):
        known.notes.append('selected on the test split')
    if any(column.endswith('seconds') for column in columns):
        known.notes.append('time is measured once for all seeds')
        known.has_interval = False
    return values


def _done(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows['status'] == 'done']


def _only(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows, which must be of one run."""
    if len(names := list(rows['recipe'].unique())) > 1:
        raise UnreadableError(f'by must choose one of {", ".join(names)}')
    return rows


def _rows(rows: pd.DataFrame, at: At, by: str | None) -> pd.DataFrame:
    """The row of each run that `at` says."""
    by_run = rows.groupby('run', sort=False)
    if at == 'end':
        return by_run.tail(1)
    if at == 'best' and by:
        return rows.loc[[_best(run, by) for _, run in by_run]]
    there = rows[np.isclose(rows['epoch'], at, rtol=1e-9, atol=0)].drop_duplicates('run')
    if len(there) < by_run.ngroups:
        raise UnreadableError(f'not evaluated at epoch {at:g}')
    return there


def _best(rows: pd.DataFrame, by: str) -> Any:
    """The label of the row with the highest score, and of equal ones of the first with the lowest loss."""
    loss = f'{by.partition("_")[0]}_loss'
    scores = rows[by].fillna(-math.inf)
    best = rows[scores == scores.max()]
    return best[loss].fillna(math.inf).idxmin() if loss in rows else best.index[0]


def _power(points: Mapping[str, Any], y: str, x: str) -> float:
    try:
        return scaling.exponent(points[x], points[y])
    except ValueError:
        raise UnreadableError('an exponent needs two points and all values above 0') from None
