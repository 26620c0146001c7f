"""The answer of a search in words: a paragraph, a table and its limits."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bsgap.analysis import statistics
from bsgap.analysis.candidates import Json
from bsgap.analysis.statistics import percent, points
from bsgap.report.words import budget_text, listed, plural, rounded

HEADINGS = ('Budget', 'Batch size', 'Learning rate', 'Test accuracy', 'Gap (points)', 'Intervals overlap', 'Winner')


def add_words(answer: Mapping[str, Any]) -> Json:
    """What recommendation.json holds: what `answer.find` gives, with `limits`, `text`, and a `label` to each gap."""
    gaps, budgets = [], {budget['unit']: budget_text(budget) for budget in answer['budgets']}
    for line in answer['gaps']:
        rate = 'tuned' if line['learning_rate'] is None else f'{line["learning_rate"]:g} for all'
        gaps.append({**line, 'label': f'after {budgets[line["unit"]]}, learning rate {rate}'})
    return {**answer, 'gaps': gaps, 'limits': limits(answer), 'text': paragraph(answer)}


def limits(answer: Mapping[str, Any]) -> list[str]:
    """What the answer does not say, in sentences; only what applies."""
    rests, reached, tried = (answer[part] for part in ('rests_on', 'to_target', 'surface'))
    seeds, errors = rests['seeds'], statistics.standard_errors(rests['seeds'])
    rates = sorted({cell['learning_rate'] for cell in tried})
    step = np.median(np.divide(rates[1:], rates[:-1])) if len(rates) > 1 else 0
    trained = {entry['batch_size'] for entry in reached}
    lost = [size for size in dict.fromkeys(cell['batch_size'] for cell in tried) if size not in trained]
    censored = [entry['batch_size'] for entry in reached if any(run['updates'] is None for run in entry['runs'])]
    timed = any(budget['unit'] == 'seconds' for budget in answer['budgets'])
    told = [
        (seeds > 1, f'Intervals are Student’s t over {seeds} seeds ({errors:.1f} standard errors to each side): more'
                    ' seeds may tell batch sizes apart that tie here.'),
        (seeds == 1, 'One seed: there are no intervals, and ties cannot be told.'),
        (step, f'Learning rates are a factor of {step:.2g} apart, and are not told apart more finely.'),
        *((True, sentence) for budget in answer['budgets'] for sentence in _budget_limits(answer, budget)),
        (lost, f'No learning rate trained batch size {listed(lost)} with all seeds.'),
        (censored, f'At batch size {listed(censored)} no learning rate reached the target with all seeds: how many'
                   ' updates that takes is known from below only.'),
        (reached, 'The target is an error on the validation split, and so is what the critical batch size is for.'),
        (rests['stopped'], f'The search stopped {plural(rests["stopped"], "run")} early for a high validation error; a'
                           ' learning rate that starts slowly can be lost so.'),
        (True, 'All learning rates are constant; with a decay the best values can differ.'),
        (timed, f'Times hold for this device ({answer["device"]}) with one run alone, without compilation.'),
        (not answer['noise_scale'], 'The noise scale was not measured.'),
        (not answer['confirmation'], 'No fresh seeds were trained with the recommendation.'),
    ]  # fmt: skip
    return [sentence for applies, sentence in told if applies]


def _budget_limits(answer: Mapping[str, Any], budget: Mapping[str, Any]) -> list[str]:
    """What the batch sizes and learning rates that were tried leave open for a budget."""
    on, beyond = f'For {budget_text(budget)}', 'tried: a better one may lie beyond.'
    tried, found = answer['surface'], []
    grid = sorted({cell['batch_size'] for cell in tried})
    here = {row['batch_size']: row for row in budget['rows']}
    if lost := [entry['batch_size'] for entry in answer['to_target'] if entry['batch_size'] not in here]:
        found.append(f'{on} no learning rate trained batch size {listed(lost)} to the end with all seeds.')
    if (winner := budget['winner']) is None:
        return found
    for end, there in (('smallest', winner == grid[0] > 1), ('largest', winner == grid[-1] < answer['n'])):
        if there and len(grid) > 1:
            found.append(f'{on} the winner, {winner}, is the {end} batch size {beyond}')
    low, high = budget['range']
    if apart := [size for size in budget['tied'] if not low <= size <= high]:
        found.append(f'{on} batch size {listed(apart)} ties as well, but not all between.')
    for size in dict.fromkeys((winner, budget['recommended'])):
        rate, momentum = here[size]['learning_rate'], here[size]['momentum']
        near = [c['learning_rate'] for c in tried if (c['batch_size'], c['momentum']) == (size, momentum)]
        if rate in (min(near), max(near)):
            which = 'only one' if min(near) == max(near) else 'smallest' if rate == min(near) else 'largest'
            found.append(f'{on} the best learning rate of batch size {size}, {rate:g}, is the {which} {beyond}')
    return found


def paragraph(answer: Mapping[str, Any]) -> str:
    """The recommendation in plain text."""
    budgets, exponent, known = answer['budgets'], answer['learning_rate_exponent'], answer['numbers']
    sentences = [_budget_sentence(budget) for budget in budgets]
    wide = [budget['unit'] for budget in budgets if budget['range'] and budget['range'][0] < budget['range'][1]]
    reasons = ['the smallest for epochs (memory, energy)'] * ('epochs' in wide)
    reasons += ['the largest for updates and seconds (time)'] * bool({'updates', 'seconds'} & set(wide))
    if reasons:
        sentences.append(f'Of batch sizes that are as good on validation data, this is {listed(reasons)}.')
    if exponent:
        forced = 'If another batch size is forced on you, scale the learning rate with B to the power of'
        sentences.append(f'{forced} {_between(exponent)}.')
    sentences.append(_curve_sentence(answer))
    if 'noise_scale' in known:
        times = f'{rounded(known["noise_over_b_crit"]["value"])} times the critical batch size'
        sentences.append(f'Up to that error the mean noise scale is {_between(known["noise_scale"])}, {times}.')
    sentences += [_fresh_sentence(answer, budget) for budget in budgets]
    return ' '.join(filter(None, [*sentences, _evidence_sentence(answer)]))


def table(answer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The recommendation as a table of texts, its headings first."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for budget in answer['budgets']:
        if budget['winner'] is None:
            lines.append((budget_text(budget), *('–',) * (len(HEADINGS) - 1)))
            continue
        row, (low, high) = _recommended(budget), budget['range']
        test = row['test_accuracy']
        same = 'not known' if test['low'] is None else f'{low} to {high}' if low < high else 'none other'
        cells = str(row['batch_size']), _rate(row), percent(test), points(row['gap']), same, str(budget['winner'])
        lines.append((budget_text(budget), *cells))
    return lines


def _budget_sentence(budget: Mapping[str, Any]) -> str:
    amount = budget_text(budget)
    if budget['winner'] is None:
        return (
            f'For {amount} nothing can be recommended: no learning rate trained to the end with all seeds, and to more'
            ' than an untrained network or the most frequent class gets.'
        )
    row, (low, high) = _recommended(budget), budget['range']
    sizes = [row['batch_size'] for row in budget['rows']]
    if len(sizes) == 1:
        verdict = 'no other batch size can be compared'
    elif row['test_accuracy']['low'] is None:
        verdict = 'with one seed it is not known which other batch sizes are as good'
    elif low == high:
        beside = 'every other batch size' if budget['tied'] == [low] else 'the next smaller or larger batch size'
        verdict = f'{beside} differs measurably, and the validation split prefers this one'
    else:
        everything = ', all that were tried,' if [low, high] == [sizes[0], sizes[-1]] else ''
        verdict = f'from {low} to {high}{everything} it makes no measurable difference'
        if apart := [size for size in budget['apart'] if low <= size <= high]:
            differ = f'{listed(apart)} differ{"s" * (len(apart) == 1)}'
            verdict = f'from {low} to {high}{everything} the 95 % intervals overlap, though paired by seed {differ}'
    return (
        f'For {amount} use batch size {row["batch_size"]} with learning rate {_rate(row)} (test accuracy'
        f' {percent(row["test_accuracy"])}); {verdict}.'
    )


def _fresh_sentence(answer: Mapping[str, Any], budget: Mapping[str, Any]) -> str:
    """What fresh seeds reach, beside what the search stated; nothing without them."""

    def reached(row: Mapping[str, Any]) -> str:
        test = percent(row['test_accuracy']) if row['seeds'] else 'nothing'
        lost = f', {row["diverged"]} diverged' if row['diverged'] else ''
        return f'batch size {row["batch_size"]} reaches {test}{lost}'

    rows = {row['batch_size']: row for row in answer['confirmation'] if row['unit'] == budget['unit']}
    if not (first := rows.pop(budget['recommended'], None)):
        return ''
    seeds = plural(first['seeds'] + first['diverged'], 'fresh seed')
    stated = percent(_recommended(budget)['test_accuracy'])
    beside = ''.join(f'; {reached(row)}' for row in rows.values())
    return f'For {budget_text(budget)}: with {seeds} {reached(first)} (the search stated {stated}){beside}.'


def _curve_sentence(answer: Mapping[str, Any]) -> str:
    if answer['target']['error'] is None:
        return 'There is no target error to compare the batch sizes by: no run trained with all seeds.'
    error = f'{100 * answer["target"]["error"]:.3g} % validation error'
    if not any(run['updates'] for entry in answer['to_target'] for run in entry['runs']):
        return f'Nothing reached the target of {error}, so there is no critical batch size for it.'
    if answer['curve'] is None:
        return f'The runs to {error} do not tell a critical batch size.'
    named, sizes = f'critical batch size for {error}', [entry['batch_size'] for entry in answer['to_target']]
    b_crit = answer['curve']['b_crit']
    low, high = b_crit['low'], b_crit['high']
    if low and high:
        effect = 'doubling the batch nearly halves the updates; well above it, it saves hardly any'
        return f'Well below {_between(b_crit)}, the {named}, {effect}.'
    if low:
        effect = 'as far as that, doubling the batch saves at least a quarter of the updates'
        return f'The {named} is above {rounded(min(low, sizes[-1]))}: {effect}.'
    if high:
        effect = 'beyond that, doubling the batch saves less than a quarter of the updates'
        return f'The {named} is below {rounded(max(high, sizes[0]))}: {effect}.'
    return f'The batch sizes tried do not bound the {named}.'


def _evidence_sentence(answer: Mapping[str, Any]) -> str:
    rests = answer['rests_on']
    states = ('stopped', 'stopped early'), ('diverged', 'diverged')
    lost = [f'{rests[state]} {text}' for state, text in states if rests[state]]
    size, unit = next(((s, u) for s, u in ((3600, 'h'), (60, 'min')) if rests['seconds'] >= 2 * s), (1, 's'))
    spent = f'{rounded(rests["seconds"] / size)} {unit}'
    return (
        f'This rests on {plural(rests["runs"], "run")}{f" ({listed(lost)})" if lost else ""},'
        f' {plural(rests["seeds"], "seed")}, {rounded(rests["examples"] / 1e6)} million training examples, {spent} of'
        f' training and evaluation of {answer["model"]} on {answer["dataset"]}.'
    )


def _between(estimate: Mapping[str, Any]) -> str:
    ends = '' if estimate['low'] is None else f' ({rounded(estimate["low"])} to {rounded(estimate["high"])})'
    return rounded(estimate['value']) + ends


def _recommended(budget: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the recommended batch size."""
    return next(row for row in budget['rows'] if row['batch_size'] == budget['recommended'])


def _rate(row: Mapping[str, Any]) -> str:
    return f'{row["learning_rate"]:.3g}' + (f' and momentum {row["momentum"]:g}' if row['momentum'] else '')
