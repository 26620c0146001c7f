"""The recommendation in words: a paragraph, a table and its limits, from the answer of a search alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bsgap import analysis

HEADINGS = (
    *('Budget', 'Batch size', 'Learning rate', 'Test accuracy', 'Gap (points)', 'Intervals overlap'),
    'Winner by validation',
)

Json = dict[str, Any]


def limits(answer: Mapping[str, Any]) -> list[str]:
    """What the answer does not say, in sentences; only what applies."""
    seeds = answer['rests_on']['seeds']
    if seeds > 1:
        found = [
            f'Intervals are Student’s t over {seeds} seeds ({analysis.standard_errors(seeds):.1f} standard errors to'
            ' each side): more seeds may tell batch sizes apart that tie here.'
        ]
    else:
        found = ['One seed: there are no intervals, and ties cannot be told.']
    found += _grid_limits(answer)
    found += _target_limits(answer)
    if stopped := answer['rests_on']['stopped']:
        found.append(
            f'{plural(stopped, "run")} of the search {"was" if stopped == 1 else "were"} stopped early for a high'
            ' validation error; a learning rate that starts slowly can be lost so.'
        )
    found.append('All learning rates are constant; with a decay the best values can differ.')
    if any(budget['unit'] == 'seconds' for budget in answer['budgets']):
        found.append(f'Times hold for this device ({answer["device"]}) with one run alone, without compilation.')
    missing = {
        'the noise scale was not measured': not any(answer['noise_scale'].values()),
        'a growing batch was not tried': answer['grow'] is None,
        'no fresh seeds confirm the recommendation': answer['confirmation'] is None,
    }
    if left_out := [words for words, applies in missing.items() if applies]:
        found.append(f'{_listed(left_out)}.'.capitalize())
    return found


def _grid_limits(answer: Mapping[str, Any]) -> list[str]:
    """What the batch sizes and learning rates that were tried leave open."""
    found = []
    tried = answer['surface']
    rates = sorted({cell['learning_rate'] for cell in tried})
    grid = sorted({cell['batch_size'] for cell in tried})
    if len(rates) > 1:
        factor = float(np.median(np.divide(rates[1:], rates[:-1])))
        found.append(f'Learning rates are a factor of {factor:.2g} apart, and are not told apart more finely.')
    for budget in answer['budgets']:
        amount = budget_text(budget)
        trained = {entry['batch_size'] for entry in answer['to_target']}
        if lost := sorted(trained - {row['batch_size'] for row in budget['rows']}):
            found.append(f'For {amount} no learning rate trained batch size {_listed(lost)} to the end with all seeds.')
        if (winner := budget['winner']) is None:
            continue
        ends = {'smallest': winner == grid[0] > 1, 'largest': winner == grid[-1] < answer['n']}
        for end in [end for end, there in ends.items() if there and len(grid) > 1]:
            found.append(
                f'For {amount} the winner, {winner}, is the {end} batch size tried: a better one may lie beyond.'
            )
        if budget['apart']:
            sizes = _listed(budget['apart'])
            found.append(
                f'For {amount} the interval of batch size {sizes} overlaps that of the winner, but paired by seed they'
                ' differ measurably.'
            )
        if beyond := [size for size in budget['tied'] if not budget['range'][0] <= size <= budget['range'][1]]:
            found.append(f'For {amount} batch size {_listed(beyond)} ties as well, but not all between.')
        for size in dict.fromkeys((winner, budget['recommended'])):
            row = row_of(budget, size)
            alike = size, row['momentum']
            near = [cell['learning_rate'] for cell in tried if (cell['batch_size'], cell['momentum']) == alike]
            ends = {'smallest': row['learning_rate'] == min(near), 'largest': row['learning_rate'] == max(near)}
            if any(ends.values()):
                which = 'only one' if all(ends.values()) else 'smallest' if ends['smallest'] else 'largest'
                found.append(
                    f'For {amount} the best learning rate of batch size {size}, {row["learning_rate"]:g}, is the'
                    f' {which} tried: a better one may lie beyond.'
                )
    return found


def _target_limits(answer: Mapping[str, Any]) -> list[str]:
    """What the runs to the target leave open."""
    found = []
    reached = answer['to_target']
    sizes = dict.fromkeys(cell['batch_size'] for cell in answer['surface'])
    if lost := [size for size in sizes if size not in {entry['batch_size'] for entry in reached}]:
        found.append(f'No learning rate trained batch size {_listed(lost)} with all seeds.')
    if censored := [e['batch_size'] for e in reached if any(run['updates'] is None for run in e['runs'])]:
        found.append(
            f'At batch size {_listed(censored)} no learning rate reached the target with all seeds: how many updates'
            ' that takes is known from below only.'
        )
    if reached and answer['curve'] is None:
        found.append('The critical batch size could not be fitted: too few batch sizes reached the target.')
    if answer['curve'] and None in answer['curve']['b_crit'].values():
        found.append('The batch sizes tried do not bound the critical batch size on both sides.')
    if reached:
        found.append('The target is an error on the validation split, and so is what the critical batch size is for.')
    return found


def paragraph(answer: Mapping[str, Any]) -> str:
    """The recommendation in plain text."""
    sentences = [_budget_sentence(budget) for budget in answer['budgets']]
    wide = [b for b in answer['budgets'] if b['winner'] is not None and b['range'][0] < b['range'][1]]
    reasons = {
        'the smallest for epochs (memory, energy)': any(b['unit'] == 'epochs' for b in wide),
        'the largest for updates and seconds (time)': any(b['unit'] != 'epochs' for b in wide),
    }
    if wide:
        sentences.append(
            f'Of batch sizes that are as good on validation data, this is'
            f' {_listed(words for words, said in reasons.items() if said)}.'
        )
    sentences += [*_exponent_sentence(answer['learning_rate_exponent']), _curve_sentence(answer)]
    if answer['grow']:
        sentences.append(answer['grow']['sentence'].partition(':')[0] + '.')
    if answer['confirmation']:
        sentences.append(_confirmed(answer['confirmation']))
    sentences.append(_evidence_sentence(answer))
    return ' '.join(sentences)


def _confirmed(confirmation: Mapping[str, Any]) -> str:
    words: dict[bool | None, str] = {True: 'confirmed', False: 'did not confirm', None: 'left open'}
    by_verdict = {
        verdict: [unit for unit, each in confirmation['budgets'].items() if each is verdict] for verdict in words
    }
    seeds = max((row['seeds'] for row in confirmation['rows']), default=0)
    told = [f'{words[verdict]} it for {_listed(units)}' for verdict, units in by_verdict.items() if units]
    return f'{plural(seeds, "fresh seed")} {", and ".join(told)}.'.capitalize()


def table(answer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The recommendation as a table of texts, its headings first."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for budget in answer['budgets']:
        if budget['winner'] is None:
            lines.append((budget_text(budget), *('–',) * (len(HEADINGS) - 1)))
            continue
        row = row_of(budget, budget['recommended'])
        low, high = budget['range']
        same = (
            'not known' if row['test_accuracy']['low'] is None else f'{low} to {high}' if low < high else 'none other'
        )
        lines.append(
            (
                budget_text(budget),
                str(row['batch_size']),
                _rate(row),
                percent(row['test_accuracy']),
                analysis.points(_interval(row['gap'])),
                same,
                str(budget['winner']),
            )
        )
    return lines


def predictions(answer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What each estimate of the noise scale would have said of the critical batch size, headings first; or nothing."""
    lines: list[tuple[str, ...]] = []
    for found in answer['noise_scale']['predictions']:
        value, low, high = (found['value'][end] for end in ('value', 'low', 'high'))
        between = f' ({"?" if low is None else _round(low)} to {"?" if high is None else _round(high)})'
        lines.append((found['estimator'], _round(value) + between, _round(found['ratio']) if found['ratio'] else '–'))
    return [('Noise scale, or critical batch size, by', 'Examples', 'Over the fitted critical batch size')][
        : len(lines)
    ] + lines


def _budget_sentence(budget: Mapping[str, Any]) -> str:
    amount = budget_text(budget)
    if budget['winner'] is None:
        return f'For {amount} nothing can be recommended: no learning rate trained to the end with all seeds.'
    row = row_of(budget, budget['recommended'])
    low, high = budget['range']
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
            differ = f'{_listed(apart)} differ{"s" * (len(apart) == 1)}'
            verdict = f'from {low} to {high}{everything} the 95 % intervals overlap, though paired by seed {differ}'
    return (
        f'For {amount} use batch size {row["batch_size"]} with learning rate {_rate(row)} (test accuracy'
        f' {percent(row["test_accuracy"])}); {verdict}.'
    )


def _exponent_sentence(exponent: Json | None) -> list[str]:
    if exponent is None:
        return []
    between = f' ({exponent["low"]:.2f} to {exponent["high"]:.2f})' if exponent['low'] is not None else ''
    return [
        'If another batch size is forced on you, scale the learning rate with B to the power of'
        f' {exponent["value"]:.2f}{between}.'
    ]


def _curve_sentence(answer: Mapping[str, Any]) -> str:
    if answer['target']['error'] is None:
        return 'There is no target error to compare the batch sizes by: no run trained with all seeds.'
    error = f'{100 * answer["target"]["error"]:.3g} % validation error'
    if not any(run['updates'] for entry in answer['to_target'] for run in entry['runs']):
        return f'Nothing reached the target of {error}, so there is no critical batch size for it.'
    if answer['curve'] is None:
        return f'The runs to {error} do not tell a critical batch size.'
    b_crit = answer['curve']['b_crit']
    low, high = b_crit['low'], b_crit['high']
    sizes = [entry['batch_size'] for entry in answer['to_target']]
    if high is None and low is None:
        return f'The batch sizes tried do not bound the critical batch size for {error}.'
    if high is None:
        return (
            f'The critical batch size for {error} is above {_round(min(low, sizes[-1]))}: as far as that, doubling the'
            ' batch saves at least a quarter of the updates.'
        )
    if low is None:
        return (
            f'The critical batch size for {error} is below {_round(max(high, sizes[0]))}: beyond that, doubling the'
            ' batch saves less than a quarter of the updates.'
        )
    return (
        f'Well below {_round(b_crit["value"])} ({_round(low)} to {_round(high)}), the critical batch size for {error},'
        ' doubling the batch nearly halves the updates; well above it, it saves hardly any.'
    )


def grow_sentence(
    stages: Sequence[Json],
    time: Json | None,
    compared: Iterable[Mapping[str, Any]],
    pays: bool | None,
    fastest: tuple[int, Json] | None,
) -> str:
    verdict = {True: 'pays here', False: 'does not measurably pay here', None: 'may or may not pay here'}[pays]
    facts = []
    if time and fastest:
        facts.append(
            f'it takes {_round(time["value"], 3)} s to the target, the fastest constant batch size ({fastest[0]})'
            f' {_round(fastest[1]["value"], 3)} s'
        )
    elif fastest:
        facts.append('it does not reach the target with all seeds')
    facts += [
        f'for the budget in {found["unit"]} it ends {analysis.points(_interval(found["difference"]))} points from the'
        ' winner in test accuracy'
        for found in compared
    ]
    sizes = list(dict.fromkeys(stage['batch_size'] for stage in stages))
    return f'Growing the batch from {sizes[0]} to {sizes[-1]} {verdict}: {"; ".join(facts) or "nothing to compare"}.'


def _evidence_sentence(answer: Mapping[str, Any]) -> str:
    rests = answer['rests_on']
    words = {'stopped': 'stopped early', 'diverged': 'diverged'}
    lost = [f'{rests[state]} {words[state]}' for state in words if rests[state]]
    size, unit = next(((s, u) for s, u in ((3600, 'h'), (60, 'min')) if rests['seconds'] >= 2 * s), (1, 's'))
    spent = f'{_round(rests["seconds"] / size)} {unit}'
    return (
        f'This rests on {plural(rests["runs"], "run")}{f" ({_listed(lost)})" if lost else ""},'
        f' {plural(rests["seeds"], "seed")}, {_round(rests["examples"] / 1e6)} million training examples, {spent} of'
        f' training and evaluation of {answer["model"]} on {answer["dataset"]}.'
    )


def row_of(budget: Mapping[str, Any], size: int) -> Json:
    return next(row for row in budget['rows'] if row['batch_size'] == size)


def _interval(estimate: Mapping[str, Any]) -> analysis.Interval:
    known = estimate['low'] is not None
    return analysis.Interval(estimate['value'], estimate['high'] - estimate['value'] if known else math.nan, 0)


def percent(estimate: Mapping[str, Any]) -> str:
    return analysis.percent(_interval(estimate))


def budget_text(budget: Mapping[str, Any]) -> str:
    amount = budget['amount']
    if budget['unit'] == 'seconds':
        return f'{_round(amount, 3)} s on this device'
    return f'{amount:.12g} {budget["unit"][:-1] if amount == 1 else budget["unit"]}'


def _rate(row: Mapping[str, Any]) -> str:
    return f'{row["learning_rate"]:.3g}' + (f' and momentum {row["momentum"]:g}' if row['momentum'] else '')


def _round(value: float, digits: int = 2) -> str:
    """With so many significant digits, and without an exponent up to 10¹²."""
    return f'{float(f"{value:.{digits}g}"):.12g}'


def plural(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'


def _listed(words: Iterable[Any]) -> str:
    *most, last = [str(word) for word in words] or ['']
    return f'{", ".join(most)} and {last}' if most else last
