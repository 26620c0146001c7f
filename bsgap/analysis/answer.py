"""The answer of a search study, from its runs: which batch size and learning rate for each budget, as plain data.

All choices are made on the validation split, and numbers are reported on the test split. Accuracies, errors and gaps
are fractions, times seconds on the study's device, batch sizes and noise scales examples; estimates as in `candidates`.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bsgap import data
from bsgap.analysis import candidates, noise_scale, statistics
from bsgap.analysis.candidates import Candidate, Json, nearest, over_seeds, rows_at, runs_of
from bsgap.config import Architecture, recipe
from bsgap.training.rows import Record


def find(about: Mapping[str, Any], search: Mapping[str, Any], records: Iterable[Record]) -> Json:
    """recommendation.json but for its words, of study.json, search.json and runs; what is unknown is None or empty."""
    settings, seeds = about['config'], about['config']['seeds']
    searched, fresh = parted(records, seeds)
    tried = candidates.candidates(searched)
    sound = candidates.complete(tried, seeds, about)
    target = search['target'] or candidates.common_target(sound)
    needed = candidates.needed(sound, target)
    reached, limited = candidates.to_target(needed), budgets(search, sound)
    first, ended = searched[0].about if searched else {}, [run for run in (*searched, *fresh) if run.rows]
    fields = first.get('fields', {})
    architecture = {name: value for name, value in fields.items() if name in Architecture._fields}
    arguments = tuple(fields.get('model_arguments', {}).items())
    found: Json = {
        'dataset': data.title(settings['dataset']),
        'model': Architecture(**architecture, arguments=arguments).text if fields else '',
        'optimizer': fields.get('optimizer', ''),
        'n': first.get('n', 0),
        'device': search.get('device') or ', '.join(dict.fromkeys(about['devices'])),
        'target': {'error': target, 'found': not search['target']},
        'to_target': reached,
        'curve': candidates.fit(reached),
        'learning_rate_exponent': candidates.learning_rate_exponent(needed),
        'noise_scale': noise_scale.in_training(reached, sound),
        'seconds_per_update': dict(search['seconds_per_update']),
        'budgets': limited,
        'surface': surface(tried),
        'gaps': gaps(search, limited, tried),
        'confirmation': confirmation(limited, candidates.candidates(fresh)),
        'rests_on': {
            'runs': len(searched) + len(fresh),
            'stopped': sum(run.status == 'stopped' for run in searched),  # fresh ones end where their budget does
            'diverged': sum(run.status == 'diverged' for run in ended),
            'seeds': seeds,
            'examples': sum(run.rows[-1]['examples'] for run in ended),
            # Of training and evaluation, shared by runs that ran side by side.
            'seconds': sum(run.rows[-1]['train_seconds'] + run.rows[-1]['eval_seconds'] for run in ended),
        },
    }
    return {**found, 'numbers': numbers(found, sound)}


def parted(records: Iterable[Record], seeds: int) -> tuple[list[Record], list[Record]]:
    """The runs of the search, and those with fresh seeds; left out are others, which earlier revisions trained."""
    ours = [record for record in records if re.match(r'bs\d+-lr', record.about['recipe'])]
    return [run for run in ours if run.about['seed'] < seeds], [run for run in ours if run.about['seed'] >= seeds]


def numbers(answer: Mapping[str, Any], sound: Sequence[Candidate]) -> Json:
    """What a claim can be held against, by name; those that are known.

    b_crit, s_min, e_min, learning_rate_exponent: as in the answer.
    first_slope, last_slope: of log updates to the target against log batch size, between the two smallest and the two
      largest batch sizes that reached it.
    winners: see `_winners`. What `noise_scale.beside` gives is known if B_crit is bounded on both sides.
    """
    curve, found = answer['curve'] or {}, dict[str, Any]()
    lines = [entry for entry in answer['to_target'] if all(run['updates'] for run in entry['runs'])]
    if len(lines) > 1:
        for name, (first, second) in (('first_slope', lines[:2]), ('last_slope', lines[-2:])):
            step = math.log(second['batch_size'] / first['batch_size'])
            by_seed = zip(first['runs'], second['runs'], strict=True)
            found[name] = over_seeds(math.log(run['updates'] / before['updates']) / step for before, run in by_seed)
    if all(budget['rows'] for budget in answer['budgets']):
        found['winners'] = over_seeds(_winners(answer['budgets'], sound))
    if lines and curve and None not in curve['b_crit'].values():
        found |= noise_scale.beside(curve['b_crit']['value'], lines, sound)
    exponent = answer['learning_rate_exponent']
    return {**curve, **found} | ({'learning_rate_exponent': exponent} if exponent else {})


def _winners(limited: Iterable[Mapping[str, Any]], sound: Sequence[Candidate]) -> list[int]:
    """How many batch sizes win the budgets by each seed's own validation accuracy."""
    won: dict[int, set[int]] = {}
    for budget in limited:
        ends = {row['batch_size']: row['updates'] for row in budget['rows']}
        scores = [
            (run.about['seed'], row['validation_accuracy'], each.batch_size)
            for each in sound
            for run in each.runs
            for row in rows_at([run], ends.get(each.batch_size, -1))
        ]
        best = {seed: size for seed, _, size in sorted(scores)}
        for seed, size in best.items():
            won.setdefault(seed, set()).add(size)
    return list(map(len, won.values()))


def budgets(search: Mapping[str, Any], sound: Sequence[Candidate]) -> list[Json]:
    """What each batch size reaches within each budget of search.json, and what is recommended.

    The learning rate and momentum are those with the highest mean validation accuracy there. So is the winner; with
    it tie the batch sizes whose interval of test accuracy overlaps its own; `apart` are those of them that differ from
    it all the same when paired by seed. `range` is how far one can go from the winner and still tie.
    Recommended is the smallest that is as good as the winner for a budget in epochs (memory and energy), and the
    largest for updates and seconds: next to one another, and on validation data within one standard error of the
    difference (after Breiman et al. 1984, §3.4.3: wide intervals excuse no choice that looks worse).
    """
    return [_budget(unit, amount, search['updates'][unit], sound) for unit, amount in search['budgets'].items()]


def _budget(unit: str, amount: float, ends: Mapping[str, int], sound: Sequence[Candidate]) -> Json:
    rows, tests = [], dict[int, list[float]]()
    grid = sorted(map(int, ends))
    for size in grid:
        end = ends[str(size)]
        there = [(each, rows_at(each.runs, end)) for each in sound if each.batch_size == size]
        if whole := [(each, at) for each, at in there if len(at) == len(each.runs)]:
            best, at = max(whole, key=lambda pair: np.mean([row['validation_accuracy'] for row in pair[1]]))
            columns = 'train_accuracy', 'validation_accuracy', 'test_accuracy', 'gap'
            measured = {column: over_seeds(row[column] for row in at) for column in columns}
            rows.append({**best.about, 'updates': end, 'seeds': len(at), **measured})
            tests[size] = [row['test_accuracy'] for row in at]
    found: Json = {'unit': unit, 'amount': amount, 'rows': rows}
    if not rows:
        return {**found, 'winner': None, 'tied': [], 'apart': [], 'range': None, 'recommended': None}
    won = max(rows, key=lambda row: row['validation_accuracy']['value'])
    winner = won['batch_size']
    tied = as_good = [winner]
    if won['seeds'] > 1:
        low, high = won['test_accuracy']['low'], won['test_accuracy']['high']
        near = [row for row in rows if row['test_accuracy']['high'] >= low and row['test_accuracy']['low'] <= high]
        tied = [row['batch_size'] for row in near]
        as_good = [row['batch_size'] for row in rows if _as_good(row, won)]
    differences = {size: over_seeds(np.subtract(tests[size], tests[winner])) for size in tied if size != winner}
    down, up = grid[grid.index(winner) :: -1], grid[grid.index(winner) :]
    below, above = (list(itertools.takewhile(tied.__contains__, sizes)) for sizes in (down, up))
    preferred = list(itertools.takewhile(as_good.__contains__, down if unit == 'epochs' else up))
    return {
        **found,
        'winner': winner,
        'tied': tied,
        'apart': [size for size, each in differences.items() if not each['low'] <= 0 <= each['high']],
        'range': [below[-1], above[-1]],
        'recommended': preferred[-1],
    }


def _as_good(row: Mapping[str, Any], won: Mapping[str, Any]) -> bool:
    """Whether validation accuracy is below the winner's by no more than the standard error."""
    ours, best = row['validation_accuracy'], won['validation_accuracy']
    half_width = math.hypot(ours['value'] - ours['low'], best['value'] - best['low'])
    return best['value'] - ours['value'] <= half_width / statistics.standard_errors(row['seeds'])


def with_neighbours(found: Mapping[str, Any]) -> list[Json]:
    """A budget's row of the recommended batch size, and those nearest to a quarter and to four times it."""
    rows, size = found['rows'], found['recommended']
    smaller = [row for row in rows if row['batch_size'] < size]
    larger = [row for row in rows if row['batch_size'] > size]
    beside = [nearest(side, factor * size)['batch_size'] for side, factor in ((smaller, 0.25), (larger, 4)) if side]
    return [row for row in rows if row['batch_size'] in (size, *beside)]


def confirmation(limited: Iterable[Mapping[str, Any]], fresh: Sequence[Candidate]) -> list[Json]:
    """What fresh `seeds` reach at each recommended batch size and beside it; others had `diverged` by then."""
    found = []
    for budget in limited:
        for row in with_neighbours(budget):
            runs = runs_of(fresh, row)
            at = rows_at(runs, row['updates'])
            lost = sum(run.status == 'diverged' and run.rows[-1]['update'] <= row['updates'] for run in runs)
            if at or lost:
                about = {key: row[key] for key in ('batch_size', 'learning_rate', 'momentum')}
                told = {'test_accuracy': over_seeds(each['test_accuracy'] for each in at), 'seeds': len(at)}
                found.append({'unit': budget['unit'], **about, **told, 'diverged': lost})
    return found


def surface(tried: Iterable[Candidate]) -> list[Json]:
    """Everything that was tried: the mean validation accuracy over the seeds at the end of the runs."""
    found = []
    for each in tried:
        states = {run.status for run in each.runs}
        state = next((state for state in ('diverged', 'stopped', 'running') if state in states), 'done')
        last = [errors[-1] for run in each.runs if (errors := candidates.errors(run))]
        accuracy = None if state == 'diverged' or not last else 1 - float(np.mean([error for _, error in last]))
        updates = max((update for update, _ in last), default=0)
        found.append({**each.about, 'updates': updates, 'validation_accuracy': accuracy, 'status': state})
    return found


def gaps(search: Mapping[str, Any], limited: Iterable[Mapping[str, Any]], tried: Iterable[Candidate]) -> list[Json]:
    """The gap after the epochs and the updates, by batch size: at one `learning_rate` for all, then tuned (None)."""
    lines, common = [], dict[int, list[Record]]()
    for each in tried:
        about = each.runs[0].about
        # Another momentum than the study's own is a part of the name.
        if each.learning_rate == search['reference'] and about['recipe'] == recipe.swept_name(about['fields'], {}):
            common[each.batch_size] = [run for run in each.runs if run.status != 'diverged']
    for rate, budget in itertools.product((search['reference'], None), limited):
        if rate is None:
            points = {row['batch_size']: row['gap'] for row in budget['rows']}
        else:
            ends = search['updates'][budget['unit']]
            at = {size: rows_at(runs, ends.get(str(size), -1)) for size, runs in common.items()}
            points = {size: over_seeds(row['gap'] for row in rows) for size, rows in at.items() if rows}
        if points and budget['unit'] != 'seconds':
            listed = [{'batch_size': size, 'gap': gap} for size, gap in points.items()]
            lines.append({'unit': budget['unit'], 'learning_rate': rate, 'points': listed})
    return lines
