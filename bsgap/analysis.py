"""Statistics over a study's runs: means and intervals over seeds, curves, and what they say about the batch size."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from bsgap.metrics import Record


class Interval(NamedTuple):
    """A mean over n values with its 95 % interval, which is NaN for n = 1."""

    mean: float
    half_width: float
    n: int
    ends: tuple[float, float] | None = None  # of an interval that is not symmetric; the half width is then NaN

    @property
    def low(self) -> float:
        return self.ends[0] if self.ends else self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.ends[1] if self.ends else self.mean + self.half_width


def interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval of independent values."""
    array = np.asarray(list(values), float)
    if array.size < 2:
        return Interval(float(array.mean()) if array.size else math.nan, math.nan, array.size)
    standard_error = array.std(ddof=1) / math.sqrt(array.size)
    return Interval(float(array.mean()), standard_errors(array.size) * float(standard_error), array.size)


def standard_errors(n: int) -> float:
    """To each side of the mean of n values, in its 95 % interval: Student's t with n − 1 degrees of freedom."""
    return float(scipy.special.stdtrit(n - 1, 0.975))


class Group(NamedTuple):
    """The runs of one recipe."""

    recipe: str
    runs: list[Record]  # those that did not diverge and have at least one row
    diverged: int
    unfinished: int

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Of its stages."""
        return tuple(stage['batch_size'] for stage in self.runs[0].about['stages'])

    @property
    def fields(self) -> dict[str, Any]:
        """The recipe's fields, as they were given; a table of stages has none of a schedule."""
        return self.runs[0].about['fields']

    @property
    def setting(self) -> tuple[tuple[str, str], ...] | None:
        """All fields but the batch size; None if that changes, or if the recipe is a table of stages."""
        if len(set(self.batch_sizes)) > 1 or 'schedule' not in self.fields:
            return None
        return tuple((field, str(value)) for field, value in self.fields.items() if field != 'batch_size')

    def last(self, column: str) -> Interval:
        """A column of the runs' last rows; all runs of a recipe that is done have made the same updates."""
        return interval(run.rows[-1][column] for run in self.runs)


def groups(records: Iterable[Record]) -> list[Group]:
    """Groups runs by recipe, in their order, with those rows for which all splits were evaluated."""
    by_recipe: dict[str, list[Record]] = {}
    for record in records:
        by_recipe.setdefault(record.about['recipe'], []).append(record)
    return [
        Group(
            recipe,
            [run.full for run in runs if run.full.rows and run.status != 'diverged'],
            sum(run.status == 'diverged' for run in runs),
            sum(run.status == 'running' for run in runs),
        )
        for recipe, runs in by_recipe.items()
    ]


class Curve(NamedTuple):
    """A recipe's rows that all its runs have: P points, each the mean and the half width of its 95 % interval."""

    x_P: np.ndarray
    mean_P: np.ndarray
    half_width_P: np.ndarray


def curve(group: Group, column: str, against: str = 'epoch') -> Curve:
    """A column over training, `against` another one."""
    shared = min(len(run.rows) for run in group.runs)
    points = [interval(run.rows[p][column] for run in group.runs) for p in range(shared)]
    x = [interval(run.rows[p][against] for run in group.runs).mean for p in range(shared)]
    return Curve(np.asarray(x), np.asarray([p.mean for p in points]), np.asarray([p.half_width for p in points]))


def paired(first: Group, second: Group, column: str) -> Interval:
    """The difference first − second of a column of the last rows, paired by seed."""
    values = {run.about['seed']: run.rows[-1][column] for run in second.runs}
    return interval(
        run.rows[-1][column] - values[run.about['seed']] for run in first.runs if run.about['seed'] in values
    )


def at_common_x(curves: Sequence[tuple[Any, Any]]) -> tuple[float, np.ndarray] | None:
    """The largest x that all curves (x, y) reached, and their y there, linear between points.

    None if a curve has no second point by then.
    """
    common = min(x[-1] for x, _ in curves)
    # metrics.csv has nine digits.
    if any(len(x) < 2 or (x[1] > common and not math.isclose(x[1], common, rel_tol=1e-8)) for x, _ in curves):
        return None
    return common, np.asarray([np.interp(common, x, y) for x, y in curves])


def collapse(chosen: Sequence[Group]) -> tuple[float, float] | None:
    """The largest η·t that all recipes reached, and how far apart their mean test accuracies are there.

    None if some recipe had not been evaluated once by then.
    """
    curves = [curve(group, 'test_accuracy', 'learning_rate_sum') for group in chosen]
    found = at_common_x([(c.x_P, c.mean_P) for c in curves])
    return found and (float(found[0]), float(np.ptp(found[1])))


def comparable(all_groups: Iterable[Group]) -> list[list[Group]]:
    """The sets of finished recipes that differ in nothing but their batch size, at least two each."""
    sets: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in all_groups:
        if group.runs and not group.unfinished and group.setting:
            sets.setdefault(group.setting, []).append(group)
    return [sorted(members, key=lambda g: g.batch_sizes) for members in sets.values() if len(members) > 1]


def answer(all_groups: Sequence[Group]) -> list[str]:
    """A few sentences on what the batch size did in these runs, each from the numbers."""
    sentences = []
    for members in comparable(all_groups):
        tests = '; '.join(f'{g.batch_sizes[0]}: {percent(g.last("test_accuracy"))}' for g in members)
        sentences.append(f'With {setting_text(members[0], all_groups)}, test accuracy by batch size is {tests}.')
        small, large = members[0], members[-1]
        difference = paired(small, large, 'test_accuracy')
        if difference.n > 1:
            if difference.low > 0:
                verdict = 'the smaller batch ends higher'
            elif difference.high < 0:
                verdict = 'the larger batch ends higher'
            else:
                verdict = 'the interval holds zero, so these runs do not tell them apart'
            sentences.append(
                f'From batch size {small.batch_sizes[0]} to {large.batch_sizes[0]} that is a difference of'
                f' {points(difference)} points (paired by seed, n = {difference.n}): {verdict}.'
            )
        gaps = '; '.join(f'{g.batch_sizes[0]}: {points(g.last("gap"))}' for g in members)
        sentences.append(f'The generalization gap (train − test accuracy) by batch size is {gaps} points.')
        finals = [group.last('test_accuracy').mean for group in members]
        by_epochs, together = max(finals) - min(finals), collapse(members)
        if together is None:
            sentences.append(
                'The runs have not made the same number of updates, and the evaluations are too far apart to compare'
                ' them where learning rate × updates is the same.'
            )
            continue
        sentences.append(
            f'But the runs have not made the same number of updates. Where learning rate × updates is the same'
            f' ({together[0]:.3g}, the most that all have made), the batch sizes are {100 * together[1]:.2f} points of'
            f' test accuracy apart; at the end they are {100 * by_epochs:.2f}.'
        )
        if together[1] < by_epochs and not difference.low <= 0 <= difference.high:
            share = 1 - together[1] / by_epochs
            sentences.append(
                f'So {share:.0%} of the difference goes with the length of training, not with the batch size.'
            )
    diverged = [f'{group.recipe} ({group.diverged})' for group in all_groups if group.diverged]
    if diverged:
        sentences.append(f'Runs that diverged, which no mean includes: {", ".join(diverged)}.')
    unfinished = sum(group.unfinished for group in all_groups)
    if unfinished:
        sentences.append(f'{unfinished} runs are not finished.')
    if not sentences:
        sentences.append('There is nothing to compare: give at least two batch sizes.')
    return sentences


def setting_text(group: Group, among: Sequence[Group]) -> str:
    """A group's learning rate, and the fields in which groups differ besides the batch size, in words."""
    settings = [dict(other.setting) for other in among if other.runs and other.setting]
    fields = dict(group.setting or ())
    shown = [
        field
        for field, value in fields.items()
        if field == 'learning_rate' or any(other.get(field) != value for other in settings)
    ]
    return ', '.join(f'{field.replace("_", " ")} {fields[field]}' for field in shown)


def percent(value: Interval) -> str:
    """A fraction as per cent, with its interval if there is one."""
    return _plus_minus(value, '.2f') + ' %'


def points(value: Interval) -> str:
    """A difference of fractions in percentage points, with its interval if there is one."""
    return _plus_minus(value, '+.2f')


def _plus_minus(value: Interval, form: str) -> str:
    text = f'{100 * value.mean:{form}}'
    return text if math.isnan(value.half_width) else f'{text} ± {100 * value.half_width:.2f}'
