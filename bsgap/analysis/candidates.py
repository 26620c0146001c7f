"""The settings that a search tried, with their runs, and how far these are from a target.

An estimate is plain data, {'value', 'low', 'high'}: a 95 % interval's ends are None where not known or not bounded.
"""

import decimal
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bsgap.analysis import scaling, statistics
from bsgap.training.rows import Record, Row, status

Json = dict[str, Any]


class Candidate(NamedTuple):
    """A batch size, learning rate and momentum, with its runs by seed."""

    batch_size: int
    learning_rate: float
    momentum: float
    runs: list[Record]

    @property
    def about(self) -> Json:
        """What the rows of an answer say of it."""
        return {'batch_size': self.batch_size, 'learning_rate': self.learning_rate, 'momentum': self.momentum}


Needed = Sequence[tuple[Candidate, list[float]]]  # with the updates that each seed needs to the target


def candidates(records: Iterable[Record]) -> list[Candidate]:
    """Groups runs by batch size, learning rate and momentum, all ascending."""

    def setting(record: Record) -> tuple[int, float, float]:
        fields = record.about['fields']
        return fields['batch_size'], fields['learning_rate'], fields['momentum']

    ordered = sorted(records, key=lambda record: (*setting(record), record.about['seed']))
    return [Candidate(*about, list(runs)) for about, runs in itertools.groupby(ordered, setting)]


def complete(tried: Iterable[Candidate], seeds: int, about: Mapping[str, Any]) -> list[Candidate]:
    """Those of which every seed was evaluated before it diverged, if it did, and that learned something.

    That is, they end more than two standard errors above what an untrained network gets on validation data, and what
    always answering with the most frequent class does, which `about`, study.json, says.
    """
    known = (about.get('training_sets') or [{}])[0]
    share, n = (known.get(field, {}).get('validation', 0) for field in ('most_frequent', 'sizes'))

    def learned(each: Candidate) -> bool:
        first, last = (1 - np.mean([errors(run)[i][1] for run in each.runs]) for i in (0, -1))
        chance = max(share, first if errors(each.runs[0])[0][0] == 0 else 0)
        return bool(last > chance + (2 * math.sqrt(chance * (1 - chance) / n) if n else 0))

    return [each for each in tried if len(each.runs) == seeds and all(map(errors, each.runs)) and learned(each)]


def runs_of(tried: Iterable[Candidate], row: Mapping[str, Any]) -> list[Record]:
    """The runs of the candidate that a row of the answer is about; none if it is not there."""
    return next((each.runs for each in tried if each.about.items() <= row.items()), [])


def nearest(entries: Iterable[Mapping[str, Any]], batch_size: float) -> Mapping[str, Any]:
    """The entry whose batch size is nearest, by its logarithm."""
    return min(entries, key=lambda entry: abs(math.log(entry['batch_size'] / batch_size)))


def errors(run: Record) -> list[tuple[float, float]]:
    """A run's updates and validation errors, as long as it had not diverged."""
    return [(row['update'], 1 - row['validation_accuracy']) for row in run.rows if status([row], 0) != 'diverged']


def rows_at(runs: Iterable[Record], update: int) -> list[Row]:
    """The full rows of runs at an update, of those that have one and had not diverged there."""
    there = (row for run in runs for row in run.rows if row['update'] == update and 'test_accuracy' in row)
    return [row for row in there if status([row], 0) != 'diverged']


def common_target(sound: Iterable[Candidate]) -> float | None:
    """The validation error, rounded up to two digits, that each batch size's best candidate reaches with all seeds."""
    lowest: dict[int, float] = {}
    for each in sound:
        reached = max(min(error for _, error in errors(run)) for run in each.runs)
        lowest[each.batch_size] = min(lowest.get(each.batch_size, reached), reached)
    # By its shortest digits: the float next to 0.05 is a little more, and would become 0.051.
    up = decimal.Context(2, decimal.ROUND_CEILING)
    return float(up.create_decimal(repr(float(max(lowest.values()))))) if lowest else None


def needed(sound: Iterable[Candidate], target: float | None) -> Needed:
    """The updates at which each run's validation error reaches the target; infinite if it never does."""
    if target is None:
        return []
    # At least 1: a network that starts at the target has no logarithm otherwise.
    return [(each, [max(1.0, scaling.crossing(errors(run), target)) for run in each.runs]) for each in sound]


def to_target(known: Needed) -> list[Json]:
    """How far each batch size is from the target with the candidate that needs the fewest updates.

    That is by the geometric mean over the seeds, of all with which every seed reached the target; without any, by the
    error at the end. A run that did not reach it has `updates` None: it needs more than it has `made`.
    """

    def rank(pair: tuple[Candidate, list[float]]) -> tuple[bool, float]:
        candidate, updates = pair
        if math.isfinite(max(updates)):
            return False, geometric(updates)['value']
        return True, float(np.mean([errors(run)[-1][1] for run in candidate.runs]))

    reached = []
    for _, alike in itertools.groupby(known, lambda pair: pair[0].batch_size):
        best, updates = min(alike, key=rank)
        runs = [
            {'seed': run.about['seed'], 'made': run.rows[-1]['update'], 'updates': u if math.isfinite(u) else None}
            for run, u in zip(best.runs, updates, strict=True)
        ]
        reached.append({**best.about, 'runs': runs})
    return reached


def fit(reached: Iterable[Mapping[str, Any]]) -> Json | None:
    """The hyperbola through all runs of `to_target`; None where it can't be told."""
    runs = [(entry['batch_size'], run) for entry in reached for run in entry['runs']]
    updates = [run['updates'] or max(1, run['made']) for _, run in runs]
    found = scaling.fit([size for size, _ in runs], updates, [run['updates'] is None for _, run in runs])
    return found and {name: bounded(*getattr(found, name)) for name in ('s_min', 'e_min', 'b_crit')}


def learning_rate_exponent(known: Needed) -> Json | None:
    """p of best ε ∝ B^p: for each seed the slope through the ε that need the fewest updates to the target.

    Where momenta differ, ε is the effective one, ε/(1 − m) (Shallue et al. 2019, 1811.03600). The interval is that over
    seeds, and at least what the grid of ε leaves open: half a step at either end of the batch sizes.
    """
    slopes, sizes = [], set[int]()
    for seed in range(len(known[0][1]) if known else 0):
        fewest: dict[int, tuple[float, float]] = {}
        for each, updates in known:
            here = updates[seed], each.learning_rate / (1 - each.momentum)
            fewest[each.batch_size] = min(fewest.get(each.batch_size, here), here)
        rates = {size: rate for size, (updates, rate) in fewest.items() if math.isfinite(updates)}
        sizes |= rates.keys()
        if len(rates) > 1:
            slopes.append(scaling.exponent(list(rates), list(rates.values())))
    if not slopes:
        return None
    found = over_seeds(slopes)
    tried = sorted({each.learning_rate for each, _ in known})
    if found['low'] is not None and len(tried) > 1:
        untold = float(np.median(np.diff(np.log(tried)))) / math.log(max(sizes) / min(sizes))
        found['low'] = min(found['low'], found['value'] - untold)
        found['high'] = max(found['high'], found['value'] + untold)
    return found


def over_seeds(values: Iterable[float]) -> Json:
    """The mean over seeds with Student's t interval, which one seed has not; all None of no value."""
    found = statistics.interval(values)
    return {key: None if math.isnan(number) else float(number) for key, number in found._asdict().items()}


def geometric(values: Iterable[float]) -> Json:
    """The geometric mean over seeds with Student's t interval of the logarithms, for what is positive."""
    found = over_seeds(math.log(value) for value in values)
    return {key: None if value is None else math.exp(value) for key, value in found.items()}


def bounded(value: float, low: float, high: float) -> Json:
    """An estimate of something positive: no interval's end is NaN, infinite or 0."""
    ends = {'low': low, 'high': high}
    return {'value': float(value), **{k: float(end) if 0 < end < math.inf else None for k, end in ends.items()}}
