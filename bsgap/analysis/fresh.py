"""What fresh seeds say of what a search recommends, as plain data; see `answer`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bsgap.analysis import comparison, trials
from bsgap.analysis.statistics import Estimate, plain
from bsgap.analysis.trials import SETTING
from bsgap.config import schedule
from bsgap.training.rows import Record

Json = dict[str, Any]


def beside(budget: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """What fresh seeds are trained with, by role: the recommended row of a budget, and what stands beside it."""
    if not (chosen := budget['recommended']):
        return
    yield 'recommended', chosen
    size, rows = chosen['batch_size'], budget['rows']
    for role, factor, side in (
        ('smaller', 0.25, [row for row in rows if row['batch_size'] < size]),
        ('larger', 4, [row for row in rows if row['batch_size'] > size]),
    ):
        if side:
            yield role, min(side, key=lambda row: abs(math.log(row['batch_size'] / (factor * size))))
    for role, factor in (('half the rate', 0.5), ('twice the rate', 2)):
        yield role, {**chosen, 'learning_rate': factor * chosen['learning_rate']}
    if budget['unit'] != 'updates':
        yield 'growing', chosen


def confirm(budget: Json, search: Mapping[str, Any], records: Sequence[Record], workdir: Path) -> None:
    """Adds to a budget `fresh`, what fresh seeds reach, and `first_thought`: what was recommended, where they show
    another setting to be better, which is recommended in its place; else None."""
    budget['fresh'], budget['first_thought'] = _reached(budget, search, records, workdir), None
    rows = {row['role']: row for row in budget['fresh'] if row['verdict'] and row['role'] != 'growing'}
    if 'recommended' in rows and rows['recommended']['verdict'] == 'worse':
        best = next(row for row in rows.values() if row['verdict'] == 'best')
        kept = (*SETTING, 'updates', 'examples', 'seconds', 'test_score')
        budget['first_thought'], budget['recommended'] = budget['recommended'], {key: best[key] for key in kept}


def _reached(budget: Json, search: Mapping[str, Any], records: Sequence[Record], workdir: Path) -> list[Json]:
    """What fresh seeds reach, a row a role, compared with each other on the validation split that was drawn anew."""
    rows, scores = dict[str, Json](), dict[str, Any]()
    for entry in (entry for entry in search['fresh'] if entry['unit'] == budget['unit']):
        runs = [run for run in records if run.about['recipe'] == entry['recipe']]
        runs = [run for run in runs if run.about['seed'] in entry['seeds']]
        done = [run for run in runs if run.status == 'done']
        row: Json = {key: entry[key] for key in ('role', *SETTING)}
        row |= {'seeds': len(done), 'diverged': sum(run.status == 'diverged' for run in runs)}
        row |= {'test_score': None, 'verdict': None, 'difference': None}
        if done:
            row |= {key: done[0].about[key] for key in ('updates', 'examples')}
            row['seconds'] = _seconds(done[0], search)
            names = [run.name for run in done]
            row['test_score'] = plain(comparison.mean(trials.answers(workdir, names, 'test')))
            if len(done) == len(runs):  # a setting with which a run diverges is no candidate
                scores[row['role']] = trials.answers(workdir, names, 'validation')
        rows[row['role']] = row
    slack = {row['batch_size']: row['slack'] for row in budget['rows']}
    sizes = {role: row['batch_size'] for role, row in rows.items()}
    own = sizes.get('recommended')
    # Settings of one batch size have the same time, whatever it is.
    between = {
        role: slack[size] + slack[own] for role, size in sizes.items() if own != size and {own, size} <= {*slack}
    }
    for role, told in _compared(scores, search['margin'], between).items():
        rows[role] |= {**told._asdict(), 'difference': plain(told.difference)}
    return list(rows.values())


def _compared(scores: Json, margin: float, slack: Mapping[str, float]) -> comparison.Comparisons:
    """By role; what grows is compared with what is recommended alone."""
    grown = scores.pop('growing', None)
    compared = comparison.compare(scores, margin, slack) if scores else {}
    if grown is not None and 'recommended' in scores:
        pair = comparison.compare({'growing': grown, 'recommended': scores['recommended']}, margin)
        value, low, high = pair['recommended'].difference
        turned = comparison.Comparison(Estimate(-value, -high, -low), 'best')
        compared['growing'] = turned if pair['growing'].verdict == 'best' else pair['growing']
    return compared


def _seconds(run: Record, search: Mapping[str, Any]) -> float | None:
    """A run's updates alone on the device; a batch size that was not timed lies between those that were."""
    sizes, times = zip(*sorted(trials.seconds_per_update(search).items()), strict=True)
    spans = schedule.place(tuple(schedule.Stage(**stage) for stage in run.about['stages']), run.about['n'])
    if max(span.stage.batch_size for span in spans) > sizes[-1]:
        return None
    log_seconds = [np.interp(math.log(span.stage.batch_size), np.log(sizes), np.log(times)) for span in spans]
    updates = [span.last_update - span.first_update for span in spans]
    return float(sum(n * math.exp(log) for n, log in zip(updates, log_seconds, strict=True)))
