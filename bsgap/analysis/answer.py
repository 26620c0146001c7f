"""The answer of a search, from its trials: which batch size and learning rate for each budget, as plain data.

All choices are made on the validation split, and scores are reported on the test split, at last those of fresh
seeds. A score is the task's (an accuracy is a fraction), an error 1 − score, a gap a difference of scores, times are
seconds on the device, batch sizes and noise scales examples.
An estimate is {'value', 'low', 'high'}: a 95 % interval, or of a `difference` two one-sided bounds that hold at 5 % for
all settings together; an end is None where not known or not bounded.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsgap import config, data
from bsgap.analysis import comparison, fresh, ladder, noise_scale, scaling, trials
from bsgap.analysis.statistics import Estimate, bounded, interval, plain, standard_errors
from bsgap.analysis.trials import SETTING
from bsgap.config import Architecture
from bsgap.errors import UserError
from bsgap.files import read_json
from bsgap.training.rows import NOISE, read_records

Json = dict[str, Any]
Known = Mapping[str, Any]
Curves = Sequence[ladder.Curve]
CELL = [*SETTING, 'updates']  # what a trial is
VERSION = 2  # of search.json
FEW_EXAMPLES = 200  # of validation data: below them the answer says so first


def decided(workdir: Path) -> Json:
    """search.json; only its version if there is none yet. UserError if it is of an earlier version."""
    path = workdir / 'search.json'
    found = read_json(path) if path.exists() else {'version': VERSION}
    if found.get('version') != VERSION:
        raise UserError(f'workdir: {path} is of an earlier version of the search; use another workdir')
    return found


def find(about: Known, search: Known, workdir: Path) -> Json:
    """recommendation.json but for its words, of study.json, search.json and runs; what is unknown is None or empty."""
    settings, records = about['config'], read_records(workdir)
    task = config.task(settings.get('task', 'classification'))
    table = trials.table(records, search, task.score)
    climbed = table[~table['fresh']]
    known = (about.get('training_sets') or [{}])[0]
    sizes = {'train': 0, 'validation': 0, 'test': 0, **known.get('sizes', {})}
    climbed = climbed.assign(learned=_learned(climbed, known, task))
    cells = ladder.cells(climbed, search['seeds'], sizes['validation'] if task.is_share else 0)
    curves = ladder.curves(cells) if cells['complete'].any() else []
    budgets = [_budget(unit, search, climbed, cells, curves, workdir) for unit in search['budgets']]
    for budget in budgets:
        fresh.confirm(budget, search, records, workdir)
    fields: Json = next((record.about['fields'] for record in records if 'batch_size' in record.about['fields']), {})
    lasts = [record.rows[-1] for record in records if record.rows]
    found: Json = {'dataset': data.title(settings['dataset']), 'task': task.name}
    found |= {'model': Architecture.of(fields).text if fields else '', 'optimizer': fields.get('optimizer', '')}
    found['schedule'] = {'name': fields.get('schedule', ''), 'warm_up': settings['search.warm_up']}
    found |= {'n': records[0].about['n'] if records else 0, 'examples': sizes}
    found |= {'device': search['device'], 'margin': search['margin'], 'budgets': budgets, 'trials': _trials(cells)}
    found |= {**_of_ladder(climbed, curves, search, sizes['validation']), 'machine': _machine(search)}
    found['rests_on'] = {
        'runs': len(records),
        'diverged': int(table['diverged'].sum()),
        'seeds': search['seeds'],
        'fresh_seeds': max((len(entry['seeds']) for entry in search['fresh']), default=0),
        'examples': int(sum(last['examples'] for last in lasts)),
        # Of training and evaluation, shared by runs that ran side by side.
        'seconds': sum(last['train_seconds'] + last['eval_seconds'] for last in lasts),
    }
    return {**found, 'numbers': _numbers(found)}


def _learned(climbed: pd.DataFrame, known: Known, task: config.Task) -> pd.Series:
    """Whether trials ended above always answering with the most frequent class, or with the mean target, by two
    standard errors over seeds and two of that answer; the others are no comparison's winner or loser."""
    baselines = known.get('baseline', known.get('most_frequent', {}))  # as an earlier version called it
    chance, n = baselines.get('validation', -math.inf), known.get('sizes', {}).get('validation', 0)
    needed = chance + (2 * math.sqrt(chance * (1 - chance) / n) if n and task.is_share else 0)
    cell = climbed.groupby(CELL)['validation_error']
    error = (cell.transform('std') / np.sqrt(cell.transform('count'))).fillna(0)  # of one seed there is none
    return cell.transform('mean') + 2 * error < 1 - needed


def _runs(climbed: pd.DataFrame, cell: Any) -> pd.DataFrame:
    """The runs of a row of `ladder.cells`."""
    return climbed[(climbed[CELL] == cell[CELL]).all(axis=1)]


def _budget(
    unit: str, search: Known, climbed: pd.DataFrame, cells: pd.DataFrame, curves: Curves, workdir: Path
) -> Json:
    """What each batch size reaches within a budget at its best setting, beside the best of them."""
    ends = {int(size): updates for size, updates in search['updates'][unit].items()}
    off = _off(search) if unit == 'seconds' else {}
    slack = {of.batch_size: ladder.slack(of, ends[of.batch_size], off[of.batch_size]) for of in curves if off}
    at_end = cells[cells['complete'] & (cells['updates'] == cells['batch_size'].map(ends))]
    best = at_end.sort_values(['mean', 'loss']).drop_duplicates('batch_size')  # as the search itself chose
    best = best.sort_values('batch_size')
    chosen = {cell['batch_size']: _runs(climbed, cell) for _, cell in best.iterrows()}
    scores = {size: trials.answers(workdir, runs['run'], 'validation') for size, runs in chosen.items()}
    rows = []
    for size, told in (comparison.compare(scores, search['margin'], slack) if scores else {}).items():
        runs = chosen[size]
        row = {field: runs[field].iloc[0].item() for field in (*SETTING, 'updates', 'examples', 'seconds')}
        row |= {'validation_score': plain(comparison.mean(scores[size]))}
        row |= {'test_score': plain(comparison.mean(trials.answers(workdir, runs['run'], 'test')))}
        row |= {name: plain(interval(runs[name])) for name in ('train_score', 'gap')}
        row |= {**told._asdict(), 'difference': plain(told.difference), 'seeds': len(runs)}
        rows.append({**row, 'slack': slack.get(size, 0.0)})
    found: Json = {'unit': unit, 'amount': search['budgets'][unit], 'rows': rows}
    found |= {'missing': [size for size in ends if size not in chosen], 'recommended': None}
    if rows:
        good = [row for row in rows if row['verdict'] in ('best', 'as good')]
        choices = {'memory': good[0], 'updates': good[-1], 'time': min(good, key=lambda row: row['seconds'])}
        found['choices'] = {name: row['batch_size'] for name, row in choices.items()}
        # A budget in seconds leaves no time to be saved.
        found['recommended'] = choices['memory' if unit == 'seconds' else 'time']
        found['examples_to_tell'] = comparison.examples_to_tell(search['margin'], scores)
    return found


def _off(search: Known) -> dict[int, list[float]]:
    """By batch size, log(seconds of an update / their median), one number a measurement; the i-th ones of all batch
    sizes were measured in the same round."""
    medians, times = trials.seconds_per_update(search), search['seconds_per_update']
    return {size: [math.log(time / median) for time in times[str(size)]] for size, median in medians.items()}


def _of_ladder(climbed: pd.DataFrame, of: Curves, search: Known, examples: int) -> Json:
    """What follows from the error against the length of the trials, for any budget, target and batch size."""
    found: Json = {'curves': [], 'winners': {}, 'targets': [], 'learning_rates': {'rows': [], 'law': None}}
    for curve in of:
        best = curve.best.assign(error=[plain(error) for error in curve.error])
        points = best[['updates', 'examples', 'seconds', 'learning_rate', 'error']].to_dict('records')
        found['curves'].append({'batch_size': curve.batch_size, 'points': points})
    if len(of) > 1:
        units: tuple[ladder.Unit, ...] = ('examples', 'updates', 'seconds')
        for unit in units:
            rows = ladder.winners(of, unit, _off(search) if unit == 'seconds' else None).to_dict('records')
            found['winners'][unit] = [{**row, 'best': list(row['best'])} for row in rows]
        given = np.array([search['targets']]) if search['targets'] else ladder.targets(of)
        given = given[:, given[0] * examples > 1] if examples else given  # what the validation split can show
        found['targets'] = [_target(of, error_R, not search['targets']) for error_R in given.T]
        ends = {int(size): updates for size, updates in search['updates']['epochs'].items()}
        rates, law = ladder.learning_rates(of, ends)
        rows = [{**row, **plain(Estimate(row['value'], row['low'], row['high']))} for row in rates.to_dict('records')]
        found['learning_rates'] = {'rows': rows, 'law': law and _law(law, sorted(ends))}
    # tr Σ/‖G‖², means over all updates of each batch size's best trials, by their length.
    lines = [{'batch_size': curve.batch_size, 'points': _noise_scales(curve, climbed)} for curve in of]
    return {**found, 'noise_scale': [line for line in lines if line['points']]}


def _target(of: Curves, error_R: np.ndarray, found: bool) -> Json:
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


def _noise_scales(curve: ladder.Curve, climbed: pd.DataFrame) -> list[Json]:
    points = []
    for _, row in curve.best.iterrows():
        measured = _runs(climbed, row).dropna(subset=list(NOISE))
        scale = noise_scale.ratio(*(measured[name].to_numpy() for name in NOISE))
        if 0 < scale.value < math.inf:
            at = {name: float(row[name]) for name in ('updates', 'examples', 'learning_rate')}
            points.append({**at, 'noise_scale': bounded(scale)})
    return points


def _numbers(found: Known) -> Json:
    """What a claim can be held against, by name; those that are known.

    b_crit, s_min, e_min: at the target in the middle. learning_rate_exponent: p of ε* ∝ B^p after the budget in epochs.
    first_slope, last_slope: of log updates to that target against log batch size, between the two smallest and the two
      largest batch sizes that reached it.
    loss_in_epochs: what the winner of the budget in updates loses in the budget in epochs, validation score.
    noise_growth, noise_over_b_crit: at the batch size nearest to B_crit, the noise scale of the longest trial over the
      shortest's, and over B_crit, which is taken for exact.
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
    rows = {budget['unit']: budget['rows'] for budget in found['budgets']}
    winner = [row['batch_size'] for row in rows.get('updates', []) if row['verdict'] == 'best']
    for row in rows.get('epochs', []):
        if row['batch_size'] in winner:
            value, low, high = (row['difference'][end] for end in ('value', 'high', 'low'))
            numbers['loss_in_epochs'] = {'value': -value, 'low': low and -low, 'high': high and -high}
    critical = numbers.get('b_crit')
    if critical and found['noise_scale'] and None not in critical.values():
        line = min(found['noise_scale'], key=lambda line: abs(math.log(line['batch_size'] / critical['value'])))
        first, last = (line['points'][i]['noise_scale'] for i in (0, -1))
        exactly = dict.fromkeys(critical, critical['value'])
        numbers |= {'noise_growth': _over(last, first), 'noise_over_b_crit': _over(last, exactly)}
    return numbers


def _slope(first: Known, second: Known) -> Json:
    """Of log updates against log batch size; both are uncertain, independently."""
    step = math.log(second['batch_size'] / first['batch_size'])
    over = _over(second['updates'], first['updates'])
    return {end: value and math.log(value) / step for end, value in over.items()}


def _over(above: Known, below: Known) -> Json:
    """The quotient of two independent positive estimates: their intervals' logarithms add up in squares."""
    found: Json = {'value': above['value'] / below['value'], 'low': None, 'high': None}
    for end, other, side in (('low', 'high', -1), ('high', 'low', 1)):
        if above[end] and below[other]:
            away = math.hypot(math.log(above[end] / above['value']), math.log(below[other] / below['value']))
            found[end] = found['value'] * math.exp(side * away)
    return found


def _trials(cells: pd.DataFrame) -> list[Json]:
    """Everything that was tried: a row a trial."""
    found = []
    for row in cells.to_dict('records'):
        half_width = standard_errors(row['n']) * row['sd'] / math.sqrt(row['n'])
        error = Estimate(row['mean'], row['mean'] - half_width, row['mean'] + half_width)
        about = {name: row[name] for name in (*CELL, 'examples', 'seconds', 'diverged')} | {'seeds': row['n']}
        found.append({**about, 'validation_error': None if row['diverged'] else plain(error)})
    return found


def _machine(search: Known) -> list[Json]:
    """How fast updates are on the device, one run alone, and what memory one needs by XLA's count and in how
    many parts a batch is computed, by batch size."""
    found = []
    for size, middle in trials.seconds_per_update(search).items():
        times, parts = search['seconds_per_update'][str(size)], search.get('parts', {})  # told by later versions alone
        seconds = {'value': middle, 'low': min(times), 'high': max(times)}
        about = {'measurements': len(times), 'bytes': search['bytes'][str(size)], 'parts': parts.get(str(size), 1)}
        found.append({'batch_size': size, 'seconds': seconds, **about, 'examples_per_second': size / middle})
    return found
