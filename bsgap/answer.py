"""The answer of a search study, from its runs: which batch size and learning rate for each budget, as plain data.

All choices are made on the validation split, and numbers are reported on the test split. `find` gives what
recommendation.json holds. In it an estimate is {'value', 'low', 'high'}, a 95 % interval whose ends are None where they
are not known or not bounded. Accuracies, errors and gaps are fractions, times are seconds on the study's device,
batch sizes and noise scales are examples.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bsgap import analysis, data, metrics, noise_scale, recipe, recommend, scaling, schedule
from bsgap.metrics import Record, Row

NEAR = 1.5  # rows within this factor of an update are pooled for the noise scale there
UNTIL = 'two batches, mean over the updates to the target'
NUMBERS = (
    *('b_crit', 's_min', 'e_min', 'learning_rate_exponent', 'first_slope', 'last_slope', 'winners'),
    *('noise_growth', 'noise_over_b_crit'),
)

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


Tried = dict[int, list[Candidate]]  # by batch size, both ascending


def find(about: Mapping[str, Any], search: Mapping[str, Any], records: Sequence[Record]) -> Json:
    """What recommendation.json holds, from study.json, search.json and the study's runs.

    Not finished is no error: what cannot be told is None or an empty list, and `limits` and `text` say so.
    """
    settings = about['config']
    by_role = roles(records, settings['seeds'], search.get('recipes'))
    tried, fresh = candidates(by_role['search']), candidates(by_role['confirmation'])
    sound = {
        size: [c for c in found if len(c.runs) == settings['seeds'] and all(map(_errors, c.runs))]
        for size, found in tried.items()
    }
    target = search['target'] or _common_target(sound)
    reached = to_target(sound, target, search['seconds_per_update'])
    curve = fit(reached)
    budgets = [
        budget(unit, amount, search['updates'][unit], sound) for unit, amount in search['budgets'].items() if amount
    ]
    first = records[0].about if records else None
    found: Json = {
        'dataset': data.title(settings['dataset']),
        'model': _model(first['fields']) if first else '',
        'optimizer': first['fields']['optimizer'] if first else '',
        'n': first['n'] if first else 0,
        'device': search.get('device') or ', '.join(dict.fromkeys(about['devices'])),
        'target': {'error': target, 'found': not search['target']},
        'to_target': reached,
        'curve': curve,
        'learning_rate_exponent': learning_rate_exponent(sound, target),
        'noise_scale': noise(reached, sound, by_role['trunk'], by_role['branch'], curve),
        'seconds_per_update': dict(search['seconds_per_update']),
        'budgets': budgets,
        'surface': surface(tried),
        'gaps': gaps(search, budgets, tried),
        'grow': grow(by_role['grow'], target, search, reached, budgets, sound),
        'confirmation': confirmation(budgets, fresh),
        'rests_on': rests_on(by_role, settings['seeds']),
    }
    found['numbers'] = numbers(found, sound)
    found['limits'] = recommend.limits(found)
    found['text'] = recommend.paragraph(found)
    return found


def numbers(answer: Mapping[str, Any], sound: Tried) -> Json:
    """What a claim can be held against, by name; those that are known.

    b_crit, s_min, e_min, learning_rate_exponent: as in the answer.
    first_slope, last_slope: of log updates to the target against log batch size, between the two smallest and the two
      largest batch sizes that reached it.
    winners: how many different batch sizes win the budgets, by each seed's own validation accuracy.
    noise_growth: the noise scale of the updates after the target over that of the first tenth of the updates to it, at
      the batch size nearest to the critical one.
    noise_over_b_crit: the mean noise scale over the updates to the target, over B_crit, which is taken for exact.
    """
    found: dict[str, Json | None] = {'learning_rate_exponent': answer['learning_rate_exponent']}
    if curve := answer['curve']:
        found |= curve
    lines = [entry for entry in answer['to_target'] if all(run['updates'] for run in entry['runs'])]
    if len(lines) > 1:
        for name, (first, second) in (('first_slope', lines[:2]), ('last_slope', lines[-2:])):
            step = math.log(second['batch_size'] / first['batch_size'])
            by_seed = {run['seed']: run['updates'] for run in first['runs']}
            found[name] = _over_seeds(math.log(run['updates'] / by_seed[run['seed']]) / step for run in second['runs'])
    if all(budget['rows'] for budget in answer['budgets']):
        won: dict[int, set[int]] = {}
        for budget in answer['budgets']:
            best: dict[int, tuple[float, int]] = {}
            for row in budget['rows']:
                for record in (run for candidate in sound[row['batch_size']] for run in candidate.runs):
                    seed = record.about['seed']
                    for at in rows_at([record], row['updates']):
                        here = at['validation_accuracy'], row['batch_size']
                        best[seed] = max(best.get(seed, here), here)
            for seed, (_, size) in best.items():
                won.setdefault(seed, set()).add(size)
        found['winners'] = _over_seeds(len(sizes) for sizes in won.values())
    until = next((p for p in answer['noise_scale']['predictions'] if p['estimator'] == UNTIL), None)
    if curve and lines and until and until['ratio']:
        found['noise_over_b_crit'] = {
            end: value and value / curve['b_crit']['value'] for end, value in until['value'].items()
        }
        nearest = _nearest(lines, curve['b_crit']['value'])
        growth = []
        for run_of, run in _pairs(sound, nearest):
            early = _ratio([row for row in _measured(run_of) if row['update'] <= max(8, run['updates'] / 10)])
            late = _ratio([row for row in _measured(run_of) if row['update'] >= run['updates']])
            if early and late and early['value'] > 0:
                growth.append(late['value'] / early['value'])
        if len(growth) == len(nearest['runs']):
            found['noise_growth'] = _geometric(growth)
    return {name: estimate for name, estimate in found.items() if estimate}


def _nearest(entries: Iterable[Mapping[str, Any]], batch_size: float) -> Mapping[str, Any]:
    """The entry whose batch size is nearest, by its logarithm."""
    return min(entries, key=lambda entry: abs(math.log(entry['batch_size'] / batch_size)))


def roles(records: Iterable[Record], seeds: int, wanted: Sequence[str] | None = None) -> dict[str, list[Record]]:
    """The runs by what they are for; those of the search that have other seeds than 0 … seeds − 1 confirm it.

    Of the others only the recipes that are `wanted`, if given: a workdir may have those of earlier settings as well.
    """
    found: dict[str, list[Record]] = {role: [] for role in ('search', 'confirmation', 'trunk', 'branch', 'grow')}
    for record in records:
        name = record.about['recipe']
        if re.match(r'bs\d+-lr', name):
            found['search' if record.about['seed'] < seeds else 'confirmation'].append(record)
        elif wanted is not None and name not in wanted:
            continue
        elif name.startswith('moment'):
            found['branch' if '-to-' in name else 'trunk'].append(record)
        elif name.startswith('grow'):
            found['grow'].append(record)
    return found


def candidates(records: Iterable[Record]) -> Tried:
    """Groups runs by batch size, learning rate and momentum."""

    def key(record: Record) -> tuple[int, float, float]:
        fields = record.about['fields']
        return fields['batch_size'], fields['learning_rate'], fields['momentum']

    found: Tried = {}
    ordered = sorted(records, key=lambda record: (*key(record), record.about['seed']))
    for setting, runs in itertools.groupby(ordered, key):
        found.setdefault(setting[0], []).append(Candidate(*setting, list(runs)))
    return found


def to_target(sound: Tried, target: float | None, seconds_per_update: Mapping[str, float]) -> list[Json]:
    """How far each batch size is from the target at the learning rate and momentum that need the fewest updates.

    Those have the lowest geometric mean over the seeds, of all with which every seed reached the target. If there are
    none, the lowest error at the end of its runs counts, and the runs that did not reach the target are censored.
    """
    reached = []
    for tried in sound.values():
        if target is None or not tried:
            continue
        needed = [[needs(run, target, seconds_per_update) for run in candidate.runs] for candidate in tried]
        complete = [i for i, runs in enumerate(needed) if all(run['updates'] for run in runs)]
        if complete:
            best = min(complete, key=lambda i: _geometric(run['updates'] for run in needed[i])['value'])
        else:
            best = min(range(len(tried)), key=lambda i: np.mean([_errors(run)[-1][1] for run in tried[i].runs]))
        runs = [
            {'seed': run.about['seed'], 'made': run.rows[-1]['update'], **need}
            for run, need in zip(tried[best].runs, needed[best], strict=True)
        ]
        reached.append({**tried[best].about, 'runs': runs})
    return reached


def needs(run: Record, target: float, seconds_per_update: Mapping[str, float]) -> Json:
    """The updates, examples and seconds of a run to the target; None if it does not reach it."""
    if not math.isfinite(updates := crossing(run, target)):
        return {'updates': None, 'examples': None, 'seconds': None}
    examples = np.interp(updates, [row['update'] for row in run.rows], [row['examples'] for row in run.rows])
    return {
        'updates': updates,
        'examples': float(examples),
        'seconds': seconds(run, updates, seconds_per_update),
    }


def crossing(run: Record, target: float) -> float:
    """The update at which a run's validation error reaches the target; infinite if it never does. At least 1."""
    errors = _errors(run)
    # A network that starts at the target has no logarithm otherwise.
    return max(1.0, scaling.crossing([u for u, _ in errors], [e for _, e in errors], target))


def seconds(run: Record, update: float, seconds_per_update: Mapping[str, float]) -> float:
    """The time that a run alone takes to an update, by the measured time of an update at each batch size.

    A batch size that was not measured has its time by interpolation, log time linear in log batch size.
    """
    known = sorted((int(size), each) for size, each in seconds_per_update.items())
    log_b_K, log_s_K = np.log(known).T
    spans = schedule.place(tuple(schedule.Stage(**stage) for stage in run.about['stages']), run.about['n'])
    return sum(
        max(0.0, min(update, span.last_update) - span.first_update)
        * math.exp(np.interp(math.log(span.stage.batch_size), log_b_K, log_s_K))
        for span in spans
    )


def fit(reached: Iterable[Mapping[str, Any]]) -> Json | None:
    """The hyperbola through all runs of `to_target`; None where it can't be told."""
    points = [(entry['batch_size'], run['updates'], run['made']) for entry in reached for run in entry['runs']]
    found = scaling.fit(
        [size for size, _, _ in points],
        [updates or max(1, made) for _, updates, made in points],
        [updates is None for _, updates, _ in points],
    )
    return found and {name: _estimate(*getattr(found, name)) for name in ('s_min', 'e_min', 'b_crit')}


def learning_rate_exponent(sound: Tried, target: float | None) -> Json | None:
    """p of best ε ∝ B^p: for each seed the slope through the ε that need the fewest updates to the target.

    Where momenta differ, ε is the effective one, ε/(1 − m) (Shallue et al. 2019, 1811.03600). The interval is that over
    seeds, and at least what the grid of ε leaves open: half a step at either end of the batch sizes.
    """
    best: dict[int, dict[int, tuple[float, float]]] = {}
    for size, tried in sound.items():
        for candidate in tried:
            for run in candidate.runs:
                if target is not None and math.isfinite(updates := crossing(run, target)):
                    fewest = best.setdefault(run.about['seed'], {})
                    here = updates, candidate.learning_rate / (1 - candidate.momentum)
                    fewest[size] = min(fewest.get(size, here), here)
    slopes = [
        scaling.exponent(list(fewest), [rate for _, rate in fewest.values()])
        for fewest in best.values()
        if len(fewest) > 1
    ]
    if not slopes:
        return None
    found = _over_seeds(slopes)
    rates = sorted({each.learning_rate for tried in sound.values() for each in tried})
    sizes = {size for fewest in best.values() for size in fewest}
    if found['low'] is not None and len(rates) > 1:
        untold = float(np.median(np.diff(np.log(rates)))) / math.log(max(sizes) / min(sizes))
        found['low'] = min(found['low'], found['value'] - untold)
        found['high'] = max(found['high'], found['value'] + untold)
    return found


def budget(unit: str, amount: float, ends: Mapping[str, int], sound: Tried) -> Json:
    """What each batch size reaches within a budget, which ends at the update `ends[batch size]`.

    The learning rate and momentum are those with the highest mean validation accuracy there. So is the winner; with
    it tie the batch sizes whose interval of test accuracy overlaps its own; `apart` are those of them that differ from
    it all the same when paired by seed. `range` is how far one can go from the winner and still tie.
    Recommended is the smallest that is as good as the winner for a budget in epochs (memory and energy), and the
    largest for updates and seconds: next to one another, and on validation data within one standard error of the
    difference (after Breiman et al. 1984, §3.4.3: wide intervals excuse no choice that looks worse).
    """
    rows, tests = [], dict[int, list[float]]()
    for text, end in sorted(ends.items(), key=lambda item: int(item[0])):
        there = [(found, rows_at(found.runs, end)) for found in sound.get(int(text), [])]
        complete = [(found, at) for found, at in there if len(at) == len(found.runs)]
        if complete:
            best, at = max(complete, key=lambda pair: np.mean([row['validation_accuracy'] for row in pair[1]]))
            columns = ('train_accuracy', 'validation_accuracy', 'test_accuracy', 'gap')
            measured = {column: _over_seeds(row[column] for row in at) for column in columns}
            rows.append({**best.about, 'updates': end, 'seeds': len(at), **measured})
            tests[best.batch_size] = [row['test_accuracy'] for row in at]
    if not rows:
        nothing: Json = {'winner': None, 'tied': [], 'apart': [], 'range': None, 'recommended': None}
        return {'unit': unit, 'amount': amount, 'rows': [], **nothing}
    won = max(rows, key=lambda row: row['validation_accuracy']['value'])
    winner = won['batch_size']
    tied = [
        row['batch_size'] for row in rows if row is won or _overlap(row['test_accuracy'], won['test_accuracy']) is True
    ]
    differences = {size: _over_seeds(np.subtract(tests[size], tests[winner])) for size in tied if size != winner}
    apart = [size for size, each in differences.items() if not each['low'] <= 0 <= each['high']]
    as_good = [row['batch_size'] for row in rows if _as_good(row, won)]
    grid = sorted(map(int, ends))
    down, up = grid[grid.index(winner) :: -1], grid[grid.index(winner) :]
    below, above = (list(itertools.takewhile(tied.__contains__, sizes)) for sizes in (down, up))
    preferred = list(itertools.takewhile(as_good.__contains__, down if unit == 'epochs' else up))
    return {
        'unit': unit,
        'amount': amount,
        'rows': rows,
        'winner': winner,
        'tied': tied,
        'apart': apart,
        'range': [below[-1], above[-1]],
        'recommended': preferred[-1],
    }


def _as_good(row: Mapping[str, Any], won: Mapping[str, Any]) -> bool:
    """Whether the validation accuracy of a batch size is the winner's, or lower by no more than the standard error."""
    behind = won['validation_accuracy']['value'] - row['validation_accuracy']['value']
    variance = 0.0
    for each in (row, won):
        if (low := each['validation_accuracy']['low']) is None:
            return row is won
        half_width = each['validation_accuracy']['value'] - low
        variance += (half_width / analysis.standard_errors(each['seeds'])) ** 2
    return behind <= math.sqrt(variance)


def rows_at(runs: Iterable[Record], update: int) -> list[Row]:
    """The full rows of runs at an update, of those that have one and had not diverged there."""
    return [row for run in runs for row in _sound(run) if row['update'] == update and 'test_accuracy' in row]


def noise(
    reached: Sequence[Mapping[str, Any]],
    sound: Tried,
    trunks: Iterable[Record],
    branches: Sequence[Record],
    curve: Json | None,
) -> Json:
    """The noise scale by each estimator, and how far it would have predicted B_crit.

    In training: the two-batch estimates of all seeds and of the rows within a factor `NEAR` of an update, together.
    Exact: of per-example gradients, at the end of the trunks. Branched: from the branches that leave the trunks.
    """
    training = []
    for entry in reached:
        rows = [row for run in _of(sound, entry).runs for row in _measured(run)]
        points = []
        for update in sorted({row['update'] for row in rows}):
            near = [row for row in rows if 1 / NEAR <= row['update'] / update <= NEAR]
            at = next(row['examples'] for row in rows if row['update'] == update)
            if estimate := _ratio(near):
                points.append({'update': update, 'examples': at, 'noise_scale': estimate})
        if points:
            training.append(
                {'batch_size': entry['batch_size'], 'learning_rate': entry['learning_rate'], 'points': points}
            )
    exact, branched = moments(trunks, branches)
    named = [*_two_batch_predictions(reached, sound, curve)]
    named += [(f'per-example gradients, at {point["update"]} updates', point['noise_scale']) for point in exact]
    named += [(f'branched training, at {point["update"]} updates', point['critical_batch']) for point in branched]
    # Where B_crit has no bound, its value is no more than where the search for it ended.
    b_crit = curve['b_crit']['value'] if curve and None not in curve['b_crit'].values() else None
    predictions = [
        {'estimator': name, 'value': value, 'ratio': value['value'] / b_crit if b_crit else None}
        for name, value in named
    ]
    return {'training': training, 'exact': exact, 'branched': branched, 'predictions': predictions}


def _two_batch_predictions(
    reached: Sequence[Mapping[str, Any]], sound: Tried, curve: Json | None
) -> list[tuple[str, Json]]:
    """Until and around the crossing of the target, at the measured batch size nearest to B_crit."""
    known = [e for e in reached if any(run['updates'] and _measured(run_of) for run_of, run in _pairs(sound, e))]
    if not curve or not known:
        return []
    nearest = _nearest(known, curve['b_crit']['value'])
    until, around = [], []
    for run_of, run in _pairs(sound, nearest):
        shares = [(row, row['update'] / run['updates']) for row in _measured(run_of)] if run['updates'] else []
        until += _mean_over_updates([row for row, share in shares if share <= 1])
        around += [row for row, share in shares if 1 / 2 <= share <= 2]
    named = {UNTIL: _geometric(until) if until else None, 'two batches, at the target': _ratio(around)}
    return [(name, value) for name, value in named.items() if value]


def _mean_over_updates(rows: Sequence[Row]) -> list[float]:
    """The noise scale of one run, mean over its updates, near rows pooled; none if it is known nowhere.

    After McCandlish et al. 2018 (1812.06162), §2.3: where the noise scale B changes over the optimization, S_min = ∫ ds
    and E_min = ∫ B ds, so B_crit = E_min/S_min is its mean over the updates.
    """
    total = weight = 0.0
    before = 0.0
    for row in rows:
        near = [other for other in rows if 1 / NEAR <= other['update'] / row['update'] <= NEAR]
        square, variance = (np.mean([other[column] for other in near]) for column in metrics.NOISE)
        if square > 0 and variance > 0:
            total += (row['update'] - before) * float(variance / square)
            weight += row['update'] - before
        before = row['update']
    return [total / weight] if weight else []


def moments(trunks: Iterable[Record], branches: Sequence[Record]) -> tuple[list[Json], list[Json]]:
    """The exact noise scale, and the local critical batch size by branched training, at the end of each trunk."""
    by_recipe: dict[str, list[Record]] = {}
    for trunk in trunks:
        if trunk.rows and trunk.status != 'diverged':
            by_recipe.setdefault(trunk.about['recipe'], []).append(trunk)
    exact, branched = [], []
    for runs in sorted(by_recipe.values(), key=lambda runs: runs[0].rows[-1]['update']):
        last = runs[0].rows[-1]
        where = {
            'batch_size': runs[0].about['stages'][-1]['batch_size'],
            'update': last['update'],
            'examples': last['examples'],
        }
        measured = [run.measured for run in runs if 0 < run.measured.get('noise_scale', 0) < math.inf]
        if len(measured) == 1:  # no interval over seeds, but one over its examples
            values = measured[0]['noise_scale'], measured[0]['noise_scale_low'], measured[0]['noise_scale_high']
            exact.append({**where, 'noise_scale': _estimate(*values)})
        elif measured:
            exact.append({**where, 'noise_scale': _geometric(values['noise_scale'] for values in measured)})
        critical = noise_scale.branched_interval([_branched(trunk, branches) for trunk in runs])
        if math.isfinite(critical.value):
            branched.append({**where, 'critical_batch': _estimate(*critical)})
    return exact, branched


def _trunk(branch: Record) -> tuple[str, int]:
    """The recipe and the seed of the run that a branch leaves."""
    return branch.about['recipe'].partition('-to-')[0], branch.about['seed']


def _branched(trunk: Record, branches: Iterable[Record]) -> float:
    """The local critical batch size where those of the branches that leave a run do so."""
    start, left = trunk.rows[-1]['validation_loss'], (trunk.about['recipe'], trunk.about['seed'])
    progress = {
        branch.about['stages'][-1]['batch_size']: start - branch.rows[-1]['validation_loss']
        for branch in branches
        if _trunk(branch) == left and branch.rows and branch.status == 'done'
    }
    return noise_scale.branched(sorted(progress), [progress[size] for size in sorted(progress)])


def surface(tried: Tried) -> list[Json]:
    """Everything that was tried: the mean validation accuracy over the seeds at the end of the runs."""
    found = []
    for candidate in itertools.chain.from_iterable(tried.values()):
        states = {run.status for run in candidate.runs}
        last = [_errors(run)[-1] for run in candidate.runs if _errors(run)]
        state = next((state for state in ('diverged', 'stopped', 'running') if state in states), 'done')
        accuracy = None if state == 'diverged' or not last else 1 - float(np.mean([error for _, error in last]))
        updates = max((update for update, _ in last), default=0)
        found.append({**candidate.about, 'updates': updates, 'validation_accuracy': accuracy, 'status': state})
    return found


def gaps(search: Mapping[str, Any], budgets: Iterable[Mapping[str, Any]], tried: Tried) -> list[Json]:
    """The gap against batch size after the epochs and after the updates, at one learning rate for all, then tuned."""
    lines = []
    counted = [found for found in budgets if found['unit'] != 'seconds']
    for found in counted:
        points = []
        for text, end in sorted(search['updates'][found['unit']].items(), key=lambda item: int(item[0])):
            # Another momentum than the study's own is a part of the name.
            runs = [
                run
                for candidate in tried.get(int(text), [])
                if candidate.learning_rate == search['reference']
                for run in candidate.runs
                if run.about['recipe'] == recipe.swept_name(run.about['fields'], {}) and run.status != 'diverged'
            ]
            if at := rows_at(runs, end):
                points.append({'batch_size': int(text), 'gap': _over_seeds(row['gap'] for row in at)})
        label = f'after {recommend.budget_text(found)}, learning rate {search["reference"]:g} for all'
        lines.append({'label': label, 'points': points})
    for found in counted:
        points = [{'batch_size': row['batch_size'], 'gap': row['gap']} for row in found['rows']]
        lines.append({'label': f'after {recommend.budget_text(found)}, learning rate tuned', 'points': points})
    return [line for line in lines if line['points']]


def grow(
    runs: Sequence[Record],
    target: float | None,
    search: Mapping[str, Any],
    reached: Sequence[Mapping[str, Any]],
    budgets: Iterable[Mapping[str, Any]],
    sound: Tried,
) -> Json | None:
    """Whether growing the batch pays, against the constant ones; None without such a run.

    It pays if, paired by seed, it ends significantly higher than the winner of the budget in updates or in seconds, or
    if its interval of the time to the target lies below that of the fastest constant batch size.
    """
    runs = [run for run in runs if run.rows]
    if not runs:
        return None
    each = search['seconds_per_update']
    compared = []
    for found in budgets:
        ours = {run.about['seed']: row for run in runs if (row := _end_of(run, found, each)) is not None}
        if not ours or found['winner'] is None:
            continue
        won = recommend.row_of(found, found['winner'])
        theirs = {run.about['seed']: row for run in _of(sound, won).runs for row in rows_at([run], won['updates'])}
        paired = [ours[seed]['test_accuracy'] - theirs[seed]['test_accuracy'] for seed in ours if seed in theirs]
        if paired:
            compared.append(
                {
                    'unit': found['unit'],
                    'test_accuracy': _over_seeds(row['test_accuracy'] for row in ours.values()),
                    'winner_test_accuracy': won['test_accuracy'],
                    'difference': _over_seeds(paired),
                }
            )
    needed = [needs(run, target, each) for run in runs] if target is not None else []
    need: Json = {'updates': None, 'examples': None, 'seconds': None}
    if needed and all(run['updates'] for run in needed):
        need = {unit: _geometric(run[unit] for run in needed) for unit in need}
    spans = schedule.place(tuple(schedule.Stage(**s) for s in runs[0].about['stages']), runs[0].about['n'])
    stages = [
        {
            'batch_size': span.stage.batch_size,
            'learning_rate': span.stage.learning_rate,
            'examples': span.last_example - span.first_example,
        }
        for span in spans
    ]
    fastest = _fastest(reached)
    lows = [found['difference']['low'] for found in compared if found['unit'] != 'epochs']
    tests = [None if low is None else low > 0 for low in lows]
    if need['seconds'] and fastest:
        apart = _overlap(need['seconds'], fastest[1])
        tests.append(None if apart is None else not apart and need['seconds']['value'] < fastest[1]['value'])
    pays = True if True in tests else None if not tests or None in tests else False
    return {
        'stages': stages,
        **need,
        'budgets': compared,
        'pays': pays,
        'sentence': recommend.grow_sentence(stages, need['seconds'], compared, pays, fastest),
    }


def _fastest(reached: Iterable[Mapping[str, Any]]) -> tuple[int, Json] | None:
    """The batch size that reaches the target in the shortest time with all seeds, and that time."""
    times = {
        entry['batch_size']: _geometric(run['seconds'] for run in entry['runs'])
        for entry in reached
        if all(run['seconds'] for run in entry['runs'])
    }
    return min(times.items(), key=lambda item: item[1]['value']) if times else None


def _end_of(run: Record, budget: Mapping[str, Any], seconds_per_update: Mapping[str, float]) -> Row | None:
    """The full row of a run where a budget ends: exactly for updates, within 2 % for epochs and 5 % for seconds."""
    spent = {
        'updates': lambda row: row['update'],
        'epochs': lambda row: row['epoch'],
        'seconds': lambda row: seconds(run, row['update'], seconds_per_update),
    }[budget['unit']]
    tolerance = {'updates': 0.0, 'epochs': 0.02, 'seconds': 0.05}[budget['unit']]
    amount = budget['amount']
    full = [row for row in run.rows if 'test_accuracy' in row]
    nearest = min(full, key=lambda row: abs(spent(row) - amount), default=None)
    return nearest if nearest and abs(spent(nearest) - amount) <= tolerance * amount else None


def confirmation(budgets: Iterable[Mapping[str, Any]], fresh: Tried) -> Json | None:
    """What fresh seeds say of each recommendation, and of a quarter and four times its batch size; None without them.

    A budget is confirmed if the fresh mean lies in the interval that the search states for the recommended batch size,
    or the two intervals overlap, and no neighbour's interval lies above the recommended one's. A fresh run that
    diverges at the recommended setting refutes it.
    """
    rows, sentences, verdicts = [], [], {}
    for found in budgets:
        measured: dict[str, Json] = {}
        lost = 0
        beside = neighbours([row['batch_size'] for row in found['rows']], found['recommended'])
        for row in found['rows']:
            role = beside.get(row['batch_size'])
            candidate = _find(fresh, row) if role else None
            if not role or candidate is None:
                continue
            at = rows_at(candidate.runs, row['updates'])
            lost += (len(candidate.runs) - len(at)) * (role == 'recommended')
            if at:
                test = _over_seeds(one['test_accuracy'] for one in at)
                measured[role] = {**candidate.about, 'test_accuracy': test, 'seeds': len(at)}
                rows.append({'unit': found['unit'], 'role': role, **measured[role]})
        if 'recommended' in measured or lost:
            verdict, words = _verdict(recommend.row_of(found, found['recommended'])['test_accuracy'], measured, lost)
            verdicts[found['unit']] = verdict
            sentences.append(f'For {recommend.budget_text(found)}, {words}.')
    if not verdicts:
        return None
    told = verdicts.values()
    confirmed = False if False in told else None if None in told else True
    return {'rows': rows, 'confirmed': confirmed, 'budgets': verdicts, 'sentence': ' '.join(sentences)}


def neighbours(sizes: Iterable[int], recommended: int | None) -> dict[int, str]:
    """The recommended batch size, and of the others those nearest to a quarter and to four times it, with words."""
    if not recommended:
        return {}
    found = {recommended: 'recommended'}
    for factor, words in ((0.25, 'a quarter'), (4.0, 'four times')):
        side = [size for size in sizes if size != recommended and (size < recommended) == (factor < 1)]
        if side:
            wanted = factor * recommended
            nearest = min(side, key=lambda size, wanted=wanted: abs(math.log(size / wanted)))  # type: ignore[misc]
            found[nearest] = words if nearest == wanted else 'smaller' if factor < 1 else 'larger'
    return found


def _verdict(stated: Json, measured: Mapping[str, Json], lost: int) -> tuple[bool | None, str]:
    """Whether fresh seeds confirm the `stated` test accuracy of the recommended batch size, and why."""
    if lost:
        return False, f'{lost} of the fresh runs at the recommended batch size diverged: not confirmed'
    at = measured['recommended']
    fresh = at['test_accuracy']
    seeds = recommend.plural(at['seeds'], 'fresh seed')
    again = f'{seeds} at batch size {at["batch_size"]} reach {recommend.percent(fresh)}'
    if stated['low'] is None:
        return None, f'{again}; the search had one seed, so there is no interval to confirm'
    inside, overlap = stated['low'] <= fresh['value'] <= stated['high'], _overlap(stated, fresh)
    if inside:
        agree = f'within the stated {recommend.percent(stated)}'
    elif overlap:
        agree = f'outside the stated {recommend.percent(stated)}, but the two intervals overlap'
    else:
        agree = f'outside the stated {recommend.percent(stated)}'
    if not inside and overlap is None:
        return None, f'{again}, {agree}; one fresh seed has no interval, so this stays open'
    beside = {role: found for role, found in measured.items() if role != 'recommended'}
    higher = [
        f'batch size {found["batch_size"]} ({role}) is measurably above it with'
        f' {recommend.percent(found["test_accuracy"])}'
        for role, found in beside.items()
        if _overlap(found['test_accuracy'], fresh) is False and found['test_accuracy']['value'] > fresh['value']
    ]
    if beside and not higher:
        names = ' and '.join(str(found['batch_size']) for found in beside.values())
        agree += f', and {names} {"is" if len(beside) == 1 else "are"} not measurably above it'
    confirmed = (inside or bool(overlap)) and not higher
    return confirmed, '; '.join([f'{again}, {agree}', *higher, 'confirmed' if confirmed else 'not confirmed'])


def rests_on(by_role: Mapping[str, Sequence[Record]], seeds: int) -> Json:
    """Counts over all runs, what branches share with their trunks once.

    The time is that of training and evaluation, shared by the runs that ran side by side. Fresh seeds also end before
    their recipe does, where their budget ends; stopped are only those of the search.
    """
    records = [record for found in by_role.values() for record in found]
    ends = {(run.about['recipe'], run.about['seed']): run.rows[-1] for run in by_role['trunk'] if run.rows}

    def total(*columns: str) -> float:
        last = [run.rows[-1] for run in records if run.rows]
        shared = [ends[_trunk(run)] for run in by_role['branch'] if run.rows and _trunk(run) in ends]
        return sum(row[c] for row in last for c in columns) - sum(row[c] for row in shared for c in columns)

    return {
        'runs': len(records),
        'stopped': sum(run.status == 'stopped' for run in by_role['search']),
        'diverged': sum(run.status == 'diverged' for run in records),
        'seeds': seeds,
        'examples': total('examples'),
        'seconds': total('train_seconds', 'eval_seconds'),
    }


def _model(fields: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in fields.items() if name in recipe.Architecture._fields}
    return recipe.Architecture(**shown, arguments=tuple(fields['model_arguments'].items())).text


def _errors(run: Record) -> list[tuple[float, float]]:
    """A run's updates and validation errors, as long as it had not diverged."""
    return [(row['update'], 1 - row['validation_accuracy']) for row in _sound(run) if 'validation_accuracy' in row]


def _sound(run: Record) -> list[Row]:
    """The rows of a run before it diverged, if it did."""
    return [row for row in run.rows if metrics.status([row], 0) != 'diverged']


def _common_target(sound: Tried) -> float | None:
    lowest = {
        size: [[min(error for _, error in _errors(run)) for run in found.runs] for found in tried]
        for size, tried in sound.items()
    }
    return scaling.common_target(lowest) if any(lowest.values()) else None


def _find(tried: Tried, row: Mapping[str, Any]) -> Candidate | None:
    """The candidate that a row of the answer is about."""
    return next((c for c in tried.get(row['batch_size'], []) if all(row[k] == v for k, v in c.about.items())), None)


def _of(tried: Tried, row: Mapping[str, Any]) -> Candidate:
    found = _find(tried, row)
    assert found is not None, f'a row about runs that are not there: {row}'
    return found


def _pairs(tried: Tried, entry: Mapping[str, Any]) -> list[tuple[Record, Json]]:
    """The runs of an entry of `to_target`, each with what the entry says of it."""
    return list(zip(_of(tried, entry).runs, entry['runs'], strict=True))


def _measured(run: Record) -> list[Row]:
    """The rows with an estimate of the noise scale."""
    return [
        row for row in run.rows if row['update'] and all(math.isfinite(row.get(c, math.nan)) for c in metrics.NOISE)
    ]


def _ratio(rows: Sequence[Row]) -> Json | None:
    """The noise scale of measurements together; None where one of their means is not positive."""
    square_P, variance_P = (np.asarray([row[column] for row in rows]) for column in metrics.NOISE)
    found = noise_scale.ratio(square_P, variance_P)
    return _estimate(*found) if 0 < found.value < math.inf else None


def _estimate(value: float, low: float, high: float) -> Json:
    """An estimate of something positive as plain data: no interval's end is NaN, infinite or 0."""
    ends = {'low': low, 'high': high}
    return {'value': float(value), **{k: float(end) if 0 < end < math.inf else None for k, end in ends.items()}}


def _over_seeds(values: Iterable[float]) -> Json:
    """The mean over seeds with Student's t interval, which one seed has not."""
    found = analysis.interval(values)
    known = not math.isnan(found.half_width)
    return {'value': found.mean, 'low': found.low if known else None, 'high': found.high if known else None}


def _geometric(values: Iterable[float]) -> Json:
    """The geometric mean over seeds with Student's t interval of the logarithms, for what is positive."""
    found = _over_seeds(math.log(value) for value in values)
    return {key: None if value is None else math.exp(value) for key, value in found.items()}


def _overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Whether two intervals overlap; None if one is not known."""
    if None in (first['low'], first['high'], second['low'], second['high']):
        return None
    return first['low'] <= second['high'] and second['low'] <= first['high']
