"""What is to be seen in each figure of an answer, in one line, with this answer's numbers where it has them."""

from collections.abc import Mapping
from typing import Any

from bsgap.report import axes, words

Json = Mapping[str, Any]


def captions(answer: Json) -> dict[str, str]:
    """By the names of `answer_figures.FIGURES`."""
    budgets = {short(budget): budget for budget in answer['budgets'] if budget['rows']}
    lowest = [f'{_best(budget)["batch_size"]} after {text}' for text, budget in budgets.items()]
    chosen = [f'{budget["recommended"]["batch_size"]} for {text}' for text, budget in budgets.items()]
    return {
        'lengths': 'The lowest line at a budget is the batch size to use' + _told(': ', lowest),
        'winners': 'The best batch size for any budget' + _told('; where all have trials: ', _winners(answer)),
        'targets': 'Beyond the critical batch size B_crit larger batches save few updates' + _critical(answer),
        'learning_rates': 'The best learning rate of each batch size' + _law(answer['learning_rates']['law']),
        'budgets': 'Test accuracy within each budget' + _told('; recommended: batch size ', chosen),
        'gaps': 'The generalization gap' + next(map(_gap, budgets.values()), ''),
        'noise_scale': _noise_scale(answer['numbers'].get('noise_growth')),
    }


def short(budget: Json) -> str:
    return words.budget_text(budget).removesuffix(' on this device')


def _best(budget: Json) -> Json:
    return next(row for row in budget['rows'] if row['verdict'] == 'best')


def _told(before: str, parts: list[str]) -> str:
    return before + ', '.join(parts) if parts else ''


def _winners(answer: Json) -> list[str]:
    """Among fewer batch sizes one may win because the others have no trials of that length."""
    count, parts = len(answer['curves']), []
    for unit, rows in answer['winners'].items():
        if of_all := [row['winner'] for row in rows if len(row['among']) == count]:
            parts.append(f'{" → ".join(map(str, dict.fromkeys((of_all[0], of_all[-1]))))} by {unit}')
    return parts


def _critical(answer: Json) -> str:
    """At the target in the middle, as the answer's numbers."""
    fitted = [target for target in answer['targets'] if target['curve']]
    middle = fitted[len(fitted) // 2] if fitted else None
    if not middle or not middle['curve']['b_crit']['value']:
        return ''
    return f': {axes.text(middle["curve"]["b_crit"])} at {100 * middle["error"]:.3g} % error'


def _law(law: Json | None) -> str:
    if law and law['better'] == 'power':
        return f' goes as B to the power of {axes.text(law["exponent"])}'
    if law and law['maximum']['value'] and law['b_0']['value']:
        return f' grows and levels off: {law["maximum"]["value"]:.2g} / (1 + {law["b_0"]["value"]:.2g}/B)'
    return ''


def _gap(budget: Json) -> str:
    gaps = {row['batch_size']: f'{100 * row["gap"]["value"]:.2g} points' for row in budget['rows']}
    told = [f'{gaps[size]} at batch size {size}' for size in (min(gaps), max(gaps))[: len(gaps)]]
    return f' after {short(budget)}: {" and ".join(told)}'


def _noise_scale(growth: Json | None) -> str:
    if growth:
        return f'The noise scale near B_crit changes {axes.text(growth)} times from the shortest trials to the longest'
    return 'The gradient noise scale by length of training, beside the critical batch size'
