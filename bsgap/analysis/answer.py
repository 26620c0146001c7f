"""The answer of a search, from its trials: which batch size and learning rate for each budget, as plain data.

All choices are made on the validation split, and accuracies are reported on the test split, at last those of fresh
seeds. Accuracies, errors and gaps are fractions, times seconds on the device, batch sizes and noise scales examples.
An estimate is {'value', 'low', 'high'}: a 95 % interval, whose ends are None where not known or not bounded.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsgap import data
from bsgap.analysis import comparison, ladder, noise_scale, scaling, trials
from bsgap.analysis.statistics import Estimate, interval
from bsgap.analysis.trials import SETTING
from bsgap.config import Architecture, schedule
from bsgap.errors import UserError
from bsgap.files import read_json
from bsgap.training.rows import NOISE, Record, read_records

Json = dict[str, Any]
VERSION = 2  # of search.json
FEW_EXAMPLES = 200  # of validation data: below them the answer says so first


def decided(workdir: Path) -> Json:
    """search.json; only its version if there is none yet. UserError if it is of an earlier version."""
    path = workdir / 'search.json'
    found = read_json(path) if path.exists() else {'version': VERSION}
    if found.get('version') != VERSION:
        raise UserError(f'workdir: {path} is of an earlier version of the search; use another workdir')
    return found


def find(about: Mapping[str, Any], search: Mapping[str, Any], workdir: Path) -> Json:
    """recommendation.json but for its words, of study.json, search.json and runs; what is unknown is None or empty."""
    settings, records = about['config'], read_records(workdir)
    table = trials.table(records, search)
    climbed = table[~table['fresh']]
    sound = climbed[learned(climbed, about)]
    budgets = [_budget(unit, amount, search, sound, workdir) for unit, amount in search['budgets'].items()]
    for budget in budgets:
        budget['fresh'] = _fresh(budget, search, records, workdir)
        _decide(budget)
    fields: Json = next((record.about['fields'] for record in records if 'batch_size' in record.about['fields']), {})
    sizes = (about.get('training_sets') or [{}])[0].get('sizes', {})
    found: Json = {
        'dataset': data.title(settings['dataset']),
        'model': Architecture.of(fields).text if fields else '',
        'optimizer': fields.get('optimizer', ''),
        'schedule': {'name': fields.get('schedule', ''), 'warm_up': settings['search.warm_up']},
        'n': records[0].about['n'] if records else 0,
        'examples': {name: sizes.get(name, 0) for name in ('train', 'validation', 'test')},
        'device': search['device'],
        'margin': search['margin'],
        'budgets': budgets,
        'trials': _cells(climbed, search),
        **_of_ladder(climbed.assign(learned=learned(climbed, about)), search, sizes.get('validation', 0)),
        'machine': machine(search),
        'rests_on': {
            'runs': len(records),
            'diverged': int(table['diverged'].sum()),
            'seeds': search['seeds'],
            'fresh_seeds': max((len(entry['seeds']) for entry in search['fresh']), default=0),
            'examples': int(sum(record.rows[-1]['examples'] for record in records if record.rows)),
            # Of training and evaluation, shared by runs that ran side by side.
            'seconds': sum(
                record.rows[-1]['train_seconds'] + record.rows[-1]['eval_seconds'] for record in records if record.rows
            ),
        },
    }
    return {**found, 'numbers': _numbers(found)}


def learned(climbed: pd.DataFrame, about: Mapping[str, Any]) -> pd.Series:
    """Whether trials ended above always answering with the most frequent class, by two standard errors over seeds and
    two of that answer; the others are no comparison's winner or loser."""
    known = (about.get('training_sets') or [{}])[0]
    chance, n = (known.get(field, {}).get('validation', 0) for field in ('most_frequent', 'sizes'))
    needed = chance + (2 * math.sqrt(chance * (1 - chance) / n) if n else 0)
    cell = climbed.groupby([*SETTING, 'updates'])['validation_error']
    error = (cell.transform('std') / np.sqrt(cell.transform('count'))).fillna(0)  # of one seed there is none
    return cell.transform('mean') + 2 * error < 1 - needed


def _whole(table: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """The trials of which all seeds are there and none diverged."""
    cell = table.groupby([*SETTING, 'updates'])
    return table[(cell['seed'].transform('size') == seeds) & ~cell['diverged'].transform('any')]


def _best(table: pd.DataFrame) -> pd.DataFrame | None:
    """Of trials, the runs of the one with the lowest mean validation error."""
    groups = [group for _, group in table.groupby([*SETTING, 'updates'])]
    return min(groups, key=lambda group: group['validation_error'].mean(), default=None)


def _budget(unit: str, amount: float, search: Mapping[str, Any], sound: pd.DataFrame, workdir: Path) -> Json:
    """What each batch size reaches within a budget at its best setting, beside the best of them."""
    ends, whole, chosen = search['updates'][unit], _whole(sound, search['seeds']), dict[int, pd.DataFrame]()
    for size in map(int, ends):
        at = whole[(whole['batch_size'] == size) & (whole['updates'] == ends[str(size)])]
        if (best := _best(at)) is not None:
            chosen[size] = best
    correct = {size: trials.answers(workdir, runs['run'], 'validation') for size, runs in chosen.items()}
    compared = comparison.compare(correct, search['margin']) if correct else {}
    rows = []
    for size, runs in chosen.items():
        first, told = runs.iloc[0], compared[size]
        row = {field: first[field].item() for field in (*SETTING, 'updates', 'examples', 'seconds')}
        row |= {'validation_accuracy': plain(comparison.share(correct[size]))}
        row |= {'test_accuracy': plain(comparison.share(trials.answers(workdir, runs['run'], 'test')))}
        row |= {name: plain(interval(runs[name])) for name in ('train_accuracy', 'gap')}
        row |= {**told._asdict(), 'difference': plain(told.difference), 'seeds': len(runs)}
        rows.append(row)
    missing = [size for size in map(int, ends) if size not in chosen]
    found: Json = {'unit': unit, 'amount': amount, 'rows': rows, 'missing': missing, 'recommended': None}
    if rows:
        good = [row for row in rows if row['verdict'] in ('best', 'as good')]
        choices = {'memory': good[0], 'updates': good[-1], 'time': min(good, key=lambda row: row['seconds'])}
        found['choices'] = {name: row['batch_size'] for name, row in choices.items()}
        # A budget in seconds leaves no time to be saved.
        found['recommended'] = choices['memory' if unit == 'seconds' else 'time']
        found['examples_to_tell'] = comparison.examples_to_tell(search['margin'], correct)
    return found


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


def _fresh(budget: Json, search: Mapping[str, Any], records: Sequence[Record], workdir: Path) -> list[Json]:
    """What fresh seeds reach, a row a role: compared on the validation split that was drawn anew, except what grows."""
    wanted = {entry['role']: entry for entry in search['fresh'] if entry['unit'] == budget['unit']}
    by_recipe: dict[str, list[Record]] = {}
    seeds = {entry['recipe']: entry['seeds'] for entry in wanted.values()}
    for record in records:
        if record.about['seed'] in seeds.get(record.about['recipe'], ()):
            by_recipe.setdefault(record.about['recipe'], []).append(record)
    done = {
        role: [r for r in by_recipe.get(entry['recipe'], []) if r.status == 'done'] for role, entry in wanted.items()
    }
    right = {
        (role, split): trials.answers(workdir, (record.name for record in runs), split)
        for role, runs in done.items()
        for split in ('validation', 'test')
        if runs
    }
    # A setting with which a run diverges is no candidate.
    lost = {role: len(by_recipe.get(entry['recipe'], [])) - len(done[role]) for role, entry in wanted.items()}
    settled = {role: right[role, 'validation'] for role in done if done[role] and not lost[role]}
    grown = settled.pop('growing', None)
    compared = comparison.compare(settled, search['margin']) if settled else {}
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
        row |= {'test_accuracy': None, 'verdict': None, 'difference': None}
        if done[role]:
            row['updates'], row['examples'] = (done[role][0].about[key] for key in ('updates', 'examples'))
            row['seconds'] = _seconds(done[role][0], search)
            row['test_accuracy'] = plain(comparison.share(right[role, 'test']))
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


def _decide(budget: Json) -> None:
    """Takes another setting for recommended where fresh seeds show it to be better than the one that was; what was
    thought at first stays."""
    budget['first_thought'] = None
    rows = {row['role']: row for row in budget['fresh'] if row['verdict'] and row['role'] != 'growing'}
    if 'recommended' not in rows or rows['recommended']['verdict'] != 'worse':
        return
    best = next(row for row in rows.values() if row['verdict'] == 'best')
    budget['first_thought'] = budget['recommended']
    budget['recommended'] = {key: best[key] for key in (*SETTING, 'updates', 'examples', 'seconds', 'test_accuracy')}


def _of_ladder(climbed: pd.DataFrame, search: Mapping[str, Any], examples: int) -> Json:
    """What follows from the error against the length of the trials, for any budget, target and batch size."""
    cells, sound = ladder.cells(climbed, search['seeds'], examples), climbed[climbed['learned']]
    of = ladder.curves(cells) if cells['complete'].any() else []
    found: Json = {'curves': [], 'winners': {}, 'targets': [], 'learning_rates': {'rows': [], 'law': None}}
    for curve in of:
        best = curve.best.assign(error=[plain(error) for error in curve.error])
        points = best[['updates', 'examples', 'seconds', 'learning_rate', 'error']].to_dict('records')
        found['curves'].append({'batch_size': curve.batch_size, 'points': points})
    if len(of) > 1:
        units: tuple[ladder.Unit, ...] = ('examples', 'updates', 'seconds')
        for unit in units:
            rows = ladder.winners(of, unit).to_dict('records')
            found['winners'][unit] = [{**row, 'best': list(row['best']), 'among': list(row['among'])} for row in rows]
        given = np.array([search['targets']]) if search['targets'] else ladder.targets(of)
        given = given[:, given[0] * examples > 1] if examples else given  # what the validation split can show
        found['targets'] = [_target(of, error_R, not search['targets']) for error_R in given.T]
        ends = {int(size): updates for size, updates in search['updates']['epochs'].items()}
        rates, law = ladder.learning_rates(of, ends)
        rows = [{**row, **plain(Estimate(row['value'], row['low'], row['high']))} for row in rates.to_dict('records')]
        found['learning_rates'] = {'rows': rows, 'law': law and _law(law, sorted(ends))}
    found['noise_scale'] = _noise_scale(of, sound)
    return found


def _target(of: Sequence[ladder.Curve], error_R: np.ndarray, found: bool) -> Json:
    """How many updates each batch size needs to an error, and the hyperbola through them."""
    reached = ladder.to_target(of, error_R if len(error_R) > 1 else float(error_R[0]))
    curve = scaling.hyperbola(reached.batch_size_P, reached.log_updates_RxP, reached.censored_RxP)
    known = zip(reached.batch_size_P.tolist(), reached.updates, reached.censored_RxP[0].tolist(), strict=True)
    points = [{'batch_size': size, 'updates': bounded(updates), 'censored': side} for size, updates, side in known]
    told = curve and {name: bounded(estimate) for name, estimate in curve._asdict().items()}
    return {'error': float(error_R[0]), 'found': found, 'points': points, 'curve': told}


def _law(law: ladder.Laws, sizes: Sequence[int]) -> Json:
    """How the best learning rate grows with the batch size, and what that advises within the range that was tried."""
    advice = [(size, law.learning_rate(size)) for size in sizes]
    found: Json = {name: bounded(getattr(law, name)) for name in ('maximum', 'b_0')} | {'exponent': plain(law.exponent)}
    found |= {'better': law.better, 'left_out': law.left_out, 'between': list(law.between)}
    return {**found, 'advice': [{'batch_size': size, **plain(rate)} for size, rate in advice if rate]}


def _noise_scale(of: Sequence[ladder.Curve], sound: pd.DataFrame) -> list[Json]:
    """tr Σ/‖G‖², means over all updates of each batch size's best trials, by their length."""
    lines, cell = [], ['batch_size', 'updates', *ladder.SETTING]
    for curve in of:
        points = []
        for row in curve.best.to_dict('records'):
            alike = (sound[cell] == pd.Series(row)[cell]).all(axis=1)
            measured = sound[alike].dropna(subset=list(NOISE))
            scale = noise_scale.ratio(*(measured[name].to_numpy() for name in NOISE))
            if 0 < scale.value < math.inf:
                point = {name: row[name] for name in ('updates', 'examples', 'learning_rate')}
                points.append({**point, 'noise_scale': bounded(scale)})
        lines += [{'batch_size': curve.batch_size, 'points': points}] * bool(points)
    return lines


def _numbers(found: Mapping[str, Any]) -> Json:
    """What a claim can be held against, by name; those that are known.

    b_crit, s_min, e_min: at the target in the middle. learning_rate_exponent: p of ε* ∝ B^p after the budget in epochs.
    first_slope, last_slope: of log updates to that target against log batch size, between the two smallest and the two
      largest batch sizes that reached it (their intervals are the ends' in the worst case).
    loss_in_epochs: what the winner of the budget in updates loses in the budget in epochs, validation accuracy.
    noise_growth: at the batch size nearest to B_crit, the noise scale of the longest trial over the shortest's.
    noise_over_b_crit: there, that of the longest trial over B_crit, which is taken for exact.
    """
    numbers: Json = {}
    if targets := [target for target in found['targets'] if target['curve']]:
        middle = targets[len(targets) // 2]
        numbers |= middle['curve']
        known = [point for point in middle['points'] if not point['censored']]
        for name, pair in (('first_slope', known[:2]), ('last_slope', known[-2:])):
            if len(known) > 1 and all(None not in point['updates'].values() for point in pair):
                numbers[name] = _slope(*pair)
    if law := found['learning_rates']['law']:
        numbers['learning_rate_exponent'] = law['exponent']
    rows = {budget['unit']: {row['verdict']: row for row in budget['rows']} for budget in found['budgets']}
    if all('best' in rows.get(unit, ()) for unit in ('epochs', 'updates')):
        size = rows['updates']['best']['batch_size']
        budget = next(budget for budget in found['budgets'] if budget['unit'] == 'epochs')
        for row in (row for row in budget['rows'] if row['batch_size'] == size):
            value, low, high = (row['difference'][end] for end in ('value', 'high', 'low'))
            numbers['loss_in_epochs'] = {'value': -value, 'low': low and -low, 'high': high and -high}
    critical = numbers.get('b_crit')
    if critical and found['noise_scale'] and None not in critical.values():
        line = min(found['noise_scale'], key=lambda line: abs(math.log(line['batch_size'] / critical['value'])))
        first, last = (line['points'][i]['noise_scale'] for i in (0, -1))
        over = {'value': critical['value'], 'low': critical['value'], 'high': critical['value']}
        numbers |= {'noise_growth': _over(last, first), 'noise_over_b_crit': _over(last, over)}
    return numbers


def _slope(first: Mapping[str, Any], second: Mapping[str, Any]) -> Json:
    """Of log updates against log batch size; both are uncertain, independently."""
    step = math.log(second['batch_size'] / first['batch_size'])
    over = _over(second['updates'], first['updates'])
    return {end: value and math.log(value) / step for end, value in over.items()}


def _over(above: Mapping[str, Any], below: Mapping[str, Any]) -> Json:
    """The quotient of two independent positive estimates: their intervals' logarithms add up in squares."""
    value = above['value'] / below['value']
    found: Json = {'value': value, 'low': None, 'high': None}
    for end, other in (('low', 'high'), ('high', 'low')):
        if above[end] and below[other]:
            away = math.hypot(math.log(above[end] / above['value']), math.log(below[other] / below['value']))
            found[end] = value * math.exp(away if end == 'high' else -away)
    return found


def _cells(climbed: pd.DataFrame, search: Mapping[str, Any]) -> list[Json]:
    """Everything that was tried: a row a trial."""
    found = []
    for setting, group in climbed.groupby([*SETTING, 'updates']):
        row = dict(zip((*SETTING, 'updates'), (value.item() for value in map(np.asarray, setting)), strict=True))
        lost = int(group['diverged'].sum())
        row |= {'examples': int(group['examples'].iloc[0]), 'seconds': float(group['seconds'].iloc[0])}
        error = plain(interval(group['validation_error'])) if not lost else None
        found.append({**row, 'seeds': len(group), 'diverged': lost, 'validation_error': error})
    return found


def machine(search: Mapping[str, Any]) -> list[Json]:
    """How fast updates are on the device, one run alone, and what memory one needs by XLA's count, by batch size."""
    found = []
    for size, times in search['seconds_per_update'].items():
        estimate = {'value': statistics.median(times), 'low': min(times), 'high': max(times)}
        about = {'measurements': len(times), 'bytes': search['bytes'][size]}
        about['examples_per_second'] = int(size) / estimate['value']
        found.append({'batch_size': int(size), 'seconds': estimate, **about})
    return found


def plain(estimate: Estimate) -> Json:
    """An estimate as plain data: what is NaN or infinite is None."""
    return {key: float(value) if math.isfinite(value) else None for key, value in estimate._asdict().items()}


def bounded(estimate: Estimate) -> Json:
    """Likewise of something positive: a low end of 0 is None too."""
    return {key: value or None for key, value in plain(estimate).items()}
