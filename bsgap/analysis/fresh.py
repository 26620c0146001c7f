"""What fresh seeds say of what a search recommends, as plain data; see `answer`."""

import math
import statistics
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
    """Adds to a budget `fresh`, what fresh seeds reach, and `first_thought`.

    Where they show another setting to be better than the recommended one, that is recommended in its place, and
    `first_thought` is what was; else it is None.
    """
    budget['fresh'], budget['first_thought'] = _reached(budget, search, records, workdir), None
    rows = {row['role']: row for row in budget['fresh'] if row['verdict'] and row['role'] != 'growing'}
    if 'recommended' in rows and rows['recommended']['verdict'] == 'worse':
        best = next(row for row in rows.values() if row['verdict'] == 'best')
        kept = (*SETTING, 'updates', 'examples', 'seconds', 'test_score')
        budget['first_thought'], budget['recommended'] = budget['recommended'], {key: best[key] for key in kept}


def _reached(budget: Json, search: Mapping[str, Any], records: Sequence[Record], workdir: Path) -> list[Json]:
    """What fresh seeds reach, a row a role, compared with each other on the validation split that was drawn anew; what
    grows is compared with what is recommended alone."""
    wanted = {entry['role']: entry for entry in search['fresh'] if entry['unit'] == budget['unit']}
    by_recipe: dict[str, list[Record]] = {}
    seeds = {entry['recipe']: entry['seeds'] for entry in wanted.values()}
    for record in records:
        if record.about['seed'] in seeds.get(record.about['recipe'], ()):
            by_recipe.setdefault(record.about['recipe'], []).append(record)
    done = {
        role: [r for r in by_recipe.get(entry['recipe'], []) if r.status == 'done'] for role, entry in wanted.items()
    }
    scores = {
        (role, split): trials.answers(workdir, (record.name for record in runs), split)
        for role, runs in done.items()
        for split in ('validation', 'test')
        if runs
    }
    # A setting with which a run diverges is no candidate.
    lost = {role: len(by_recipe.get(entry['recipe'], [])) - len(done[role]) for role, entry in wanted.items()}
    settled = {role: scores[role, 'validation'] for role in done if done[role] and not lost[role]}
    grown = settled.pop('growing', None)
    slack = {row['batch_size']: row['slack'] for row in budget['rows']}
    sizes = {role: entry['batch_size'] for role, entry in wanted.items()}
    own = sizes.get('recommended')
    # Settings of one batch size have the same time, whatever it is.
    between = {
        role: slack[size] + slack[own] for role, size in sizes.items() if own != size and {own, size} <= {*slack}
    }
    compared = comparison.compare(settled, search['margin'], between) if settled else {}
    if grown is not None and 'recommended' in settled:
        pair = comparison.compare({'growing': grown, 'recommended': settled['recommended']}, search['margin'])
        value, low, high = pair['recommended'].difference
        turned = comparison.Comparison(Estimate(-value, -high, -low), 'best')
        compared['growing'] = turned if pair['growing'].verdict == 'best' else pair['growing']
    rows = []
    for role, entry in wanted.items():
        runs = by_recipe.get(entry['recipe'], [])
        row: Json = {key: entry[key] for key in ('role', *SETTING)}
        row |= {'seeds': len(done[role]), 'diverged': sum(record.status == 'diverged' for record in runs)}
        row |= {'test_score': None, 'verdict': None, 'difference': None}
        if done[role]:
            row['updates'], row['examples'] = (done[role][0].about[key] for key in ('updates', 'examples'))
            row['seconds'] = _seconds(done[role][0], search)
            row['test_score'] = plain(comparison.mean(scores[role, 'test']))
        if told := compared.get(role):
            row |= {**told._asdict(), 'difference': plain(told.difference)}
        rows.append(row)
    return rows


def _seconds(run: Record, search: Mapping[str, Any]) -> float | None:
    """A run's updates alone on the device; a batch size that was not timed lies between those that were."""
    times = {int(size): statistics.median(of_size) for size, of_size in search['seconds_per_update'].items()}
    sizes = sorted(times)
    logs = np.log(sizes), np.log([times[size] for size in sizes])
    spans = schedule.place(tuple(schedule.Stage(**stage) for stage in run.about['stages']), run.about['n'])
    if max(span.stage.batch_size for span in spans) > sizes[-1]:
        return None
    return float(
        sum(
            (span.last_update - span.first_update) * math.exp(np.interp(math.log(span.stage.batch_size), *logs))
            for span in spans
        )
    )
