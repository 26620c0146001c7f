"""The answer of a search in words, for a reader who knows neither the code nor the literature.

Differences of scores are of the validation split, on which all choices are made; scores are of the test split, of fresh
seeds where there are some.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bsgap.analysis import answer as answers
from bsgap.analysis.statistics import plural
from bsgap.analysis.trials import SETTING
from bsgap.config import Task, task
from bsgap.report.numbers import between, bounds, difference, level, number
from bsgap.report.words import budget_text, listed

Json = dict[str, Any]
Known = Mapping[str, Any]  # the answer, or a part of it
Rows = list[tuple[str, ...]]
ENOUGH_SEEDS = 6
NOISY = 0.2  # the spread of a time's measurements over their median, above which they do not tell the fastest
NOTHING = 'no setting trained all its seeds without diverging and did clearly better than guessing'
COMPARED = {'as good': 'As good as', 'worse': 'Worse than', 'undecided': 'Undecided against'}


def add_words(answer: Known) -> Json:
    """What recommendation.json holds: what `answer.find` gives, and the same in words.

    `warnings`, sentences that stand before all else; `headline`; `table`, of the budgets; `reading`, how it is meant;
    `sections`, first one a budget: `title`, `sentences`, `table` (either may be empty); `limits`, sentences; `text`,
    all of it but the tables. A table is rows of texts, the headings first.
    """
    told: Json = {'warnings': [*_warnings(answer)], 'headline': _headline(answer), 'table': _table(answer)}
    told |= {'reading': _reading(answer), 'sections': _sections(answer), 'limits': [*_limits(answer)]}
    parts = [(part['title'], part['sentences']) for part in told['sections']] + [('Limits', told['limits'])]
    text = [*told['warnings'], told['headline'], told['reading']]
    text += [f'{title}. {" ".join(sentences)}' for title, sentences in parts if sentences]
    return {**answer, **told, 'text': '\n\n'.join(text)}


def _sections(answer: Known) -> list[Json]:
    made: list[tuple[str, list[str], Rows]] = []
    for budget in answer['budgets']:
        chosen = _setting(answer, budget['recommended']) if budget['recommended'] else 'nothing to recommend'
        made.append((f'{budget_text(budget)}: {chosen}', [*_sentences(answer, budget)], _fresh_table(answer, budget)))
    made.append(('Critical batch size', [*_critical(answer)], []))
    made += [('Learning rates', [], _rate_table(answer)), ('Speed and memory', [], _machine_table(answer))]
    return [dict(zip(('title', 'sentences', 'table'), part, strict=True)) for part in made if part[1] or part[2]]


def _warnings(answer: Known) -> Iterator[str]:
    n = answer['examples']['validation']
    if 0 < n < answers.FEW_EXAMPLES:
        yield f'Warning: only {plural(n, "validation example")}, too few to tell most settings apart: this is a hint.'
    needed = max((budget.get('examples_to_tell') or 0 for budget in answer['budgets']), default=0)
    if needed > n:
        of = f'{_margin(answer)} takes about {number(needed)} validation examples'
        yield f'To tell a difference of {of}, however many seeds are trained; there are {n:,}.'


def _headline(answer: Known) -> str:
    """What to take for each budget."""
    if not any(budget['recommended'] for budget in answer['budgets']):
        return f'Nothing can be recommended: {NOTHING}.'
    return ' '.join(f'For {budget_text(budget)} {"; ".join(_advice(answer, budget))}.' for budget in answer['budgets'])


def _advice(answer: Known, budget: Known) -> Iterator[str]:
    if not (chosen := budget['recommended']):
        yield 'nothing can be recommended'
        return
    yield f'take {_setting(answer, chosen)}: test {_task(answer).text} {_score(answer, budget)}'
    if budget['first_thought']:
        yield f'what the search had favoured, {_setting(answer, budget["first_thought"])}, was worse with fresh seeds'
    yield from (f'{_lost(row)} fresh seeds diverged' for row in _fresh(budget)[:1] if row['diverged'])
    for verdict in ('as good', 'undecided'):
        if sizes := _sizes(budget, verdict):
            yield f'{verdict}: {listed(sizes)}'
    for lack, short in (('memory', 'memory is'), ('updates', 'updates are')):
        size = budget['choices'][lack]
        if size in _sizes(budget, 'as good') and budget['unit'] != lack:
            yield f'if {short} short, take {size}'


def _table(answer: Known) -> Rows:
    """What is recommended for each budget, and how the other batch sizes compare."""
    headings = ('Budget', 'Batch size', 'Learning rate', f'Test {_task(answer).text}', 'As good', 'Undecided', 'Worse')
    rows = []
    for budget in answer['budgets']:
        cells, ends = ['none', '–', '–'], ''
        if chosen := budget['recommended']:
            cells = [str(chosen['batch_size']), _rate(answer, chosen), _score(answer, budget)]
            ends = '; '.join(_ends(answer, budget))
        sides = [*(_sizes(budget, verdict) for verdict in ('as good', 'undecided', 'worse')), budget['missing']]
        rows.append((budget_text(budget), *cells, *(listed(sizes) or '–' for sizes in sides), ends or '–'))
    return [(*headings, 'Not compared', 'Try beyond'), *rows]


def _reading(answer: Known) -> str:
    runs, lost = answer['rests_on']['runs'], answer['rests_on']['diverged']
    return (
        f'From {plural(runs, "run")} ({lost} diverged) on {answer["n"]:,} examples of {answer["dataset"]}. Brackets:'
        f' 95 % intervals. Differences are of validation {_task(answer).text}; each of their bounds holds with'
        f' 95 % confidence, for all settings together. As good means: shown to be less than {_margin(answer)} below.'
    )


def _sentences(answer: Known, budget: Known) -> Iterator[str]:
    """How all else compares with the recommendation of a budget."""
    rows = budget['rows']
    if rows:
        yield _confirmed(answer, budget)
    for verdict, compared in COMPARED.items():
        if alike := [row for row in rows if row['verdict'] == verdict]:
            each = (f'{row["batch_size"]}, {_apart(answer, row)}{_needed(row)}' for row in alike)
            yield f'{compared} {_best(rows)["batch_size"]}: {"; ".join(each)}.'
    if budget['missing']:
        yield f'Not compared: {listed(budget["missing"])}, as {NOTHING}.'
    roles = {row['role']: row for row in budget['fresh'] if row['verdict']}
    if (grown := roles.get('growing')) and (same := roles.get('recommended')):
        costs = ((row['updates'], row['seconds']) for row in (grown, same))
        cost = ' instead of '.join(f'{n:,} updates' + (f' ({number(s)} s)' if s else '') for n, s in costs)
        what = f'Growing the batch instead of lowering the learning rate is {_pays(grown)}'
        yield f'{what}: {_apart(answer, grown)} with {cost}.'
    if ends := rows[:: max(1, len(rows) - 1)]:
        gaps = listed(f'{difference(row["gap"], _task(answer))} at {row["batch_size"]}' for row in ends)
        yield f'The gap, train minus test {_task(answer).text}, is {gaps}.'


def _confirmed(answer: Known, budget: Known) -> str:
    """What seeds say that had no part in the choice."""
    first: Known = next(iter(_fresh(budget)), {'verdict': None, 'diverged': 0})
    if first['verdict'] == 'best':
        left = [_setting(answer, row) for row in _fresh(budget) if row['verdict'] in ('as good', 'undecided')]
        besides = f'; not shown to be worse: {"; ".join(left)}' if left else ''
        return f'Fresh seeds agree: no neighbouring setting that trained all its seeds did better{besides}.'
    if first['verdict']:
        overturned = f'Fresh seeds overturned {_setting(answer, first)}'
        said = {'as good': 'Fresh seeds agree: as good', 'undecided': 'Fresh seeds leave it undecided'}
        against = f'{_apart(answer, first)} against {_setting(answer, _best(_fresh(budget)))}{_needed(first)}'
        return f'{said.get(first["verdict"], overturned)}, {against}.'
    if first['diverged']:
        return f'{_lost(first)} fresh seeds diverged: a smaller learning rate is safer.'
    return 'Fresh seeds have yet to confirm it.'


def _needed(row: Known) -> str:
    """What would decide, where it is undecided, if what was seen is the truth."""
    if row['verdict'] != 'undecided':
        return ''
    if row['seeds_needed']:
        return f', about {number(row["seeds_needed"])} seeds each would decide'
    if row['examples_needed']:
        return f', no number of seeds but about {number(row["examples_needed"])} validation examples would decide'
    return ', what would decide is not known'


def _fresh_table(answer: Known, budget: Known) -> Rows:
    rows, of = [], _task(answer)
    for row in budget['fresh']:
        score = level(row['test_score'], of, plural(row['seeds'], 'seed')) if row['test_score'] else '–'
        is_grown, against = row['role'] == 'growing', row['verdict']
        if not against:
            against = f'{_lost(row)} diverged' if row['diverged'] else 'not finished'
        elif is_grown or against != 'best':
            against = f'{_pays(row) if is_grown else against}, {_apart(answer, row)}'
        rows.append((_setting(answer, row) + ', growing' * is_grown, score, against))
    return _titled(rows, 'Fresh seeds with', f'Test {of.text}', 'Validation, against the best of these')


def _critical(answer: Known) -> Iterator[str]:
    """Up to which batch size a larger batch saves updates: to the first target and to the last."""
    known = [target for target in answer['targets'] if target['curve']]
    if not known:
        yield 'It is not known: too few batch sizes trained to the same errors.'
        return
    of, sizes = _task(answer), [curve['batch_size'] for curve in answer['curves']]
    each = listed(
        f'{bounds(target["curve"]["b_crit"], sizes)} for {number(of.scale * target["error"])}{" %" * of.is_share}'
        for target in known[:: max(1, len(known) - 1)]
    )
    if of.is_share:
        yield f'Larger batches than this save few updates: {each} validation {of.error}.'
    else:
        yield f'Larger batches than this save few updates, by validation {of.error}: {each}.'
    if lines := answer['noise_scale']:
        near = known[len(known) // 2]['curve']['b_crit']['value'] or sizes[len(sizes) // 2]
        line = min(lines, key=lambda line: abs(math.log(line['batch_size'] / near)))
        scale = between(line['points'][-1]['noise_scale'])
        yield f'The gradient noise scale, which forecasts it, was {scale} at batch size {line["batch_size"]}.'


def _rate_table(answer: Known) -> Rows:
    found, law = answer['learning_rates']['rows'], answer['learning_rates']['law']
    advice = {row['batch_size']: between(row) for row in law['advice']} if law else {}
    rows = []
    for row in found:
        rate = between(row) + ', at the end of what was tried' * row['edge']
        rows.append((str(row['batch_size']), f'{row["updates"]:,}', rate, advice.get(row['batch_size'], '–')))
    return _titled(rows, 'Batch size', 'Updates', 'Best learning rate', 'Smoothed over all batch sizes')


def _machine_table(answer: Known) -> Rows:
    rows = []
    for row in answer['machine']:
        middle, low, high = (number(1000 * row['seconds'][end], 3) for end in ('value', 'low', 'high'))
        time = f'{middle} ({low} to {high}; n = {row["measurements"]})' + ', too noisy' * _noisy(row)
        memory = number(row['bytes'] / 2**20) if row['bytes'] else 'not known'
        size = str(row['batch_size']) + f', in {row["parts"]} parts' * (row['parts'] > 1)
        rows.append((size, time, number(row['examples_per_second']), memory))
    return _titled(rows, 'Batch size', 'ms an update (lowest to highest of n)', 'Examples a second', 'MiB')


def _limits(answer: Known) -> Iterator[str]:
    """What the answer does not say; only what applies."""
    chosen = [budget for budget in answer['budgets'] if budget['recommended']]
    if not chosen:
        return
    schedule, seeds = answer['schedule'], answer['rests_on']['seeds']
    if seeds < ENOUGH_SEEDS:
        yield f'Only {plural(seeds, "seed")}: {ENOUGH_SEEDS} or more decide more.'
    for budget in chosen:
        yield from (f'For {budget_text(budget)} try beyond {end}.' for end in _ends(answer, budget))
    warm_up = f' with {100 * schedule["warm_up"]:.3g} % warm-up' * bool(schedule['warm_up'])
    of, device = f'{answer["model"]}, {answer["optimizer"]}', answer['device']
    yield f'All holds for {of}, the {schedule["name"]} schedule{warm_up} and this device ({device}).'
    noisy = [row['batch_size'] for row in answer['machine'] if _noisy(row)]
    if noisy and any(budget['unit'] == 'seconds' or _sizes(budget, 'as good') for budget in chosen):
        yield f'Times at batch size {listed(noisy)} are too noisy: what is fastest, or fits in seconds, is a guess.'


def _ends(answer: Known, budget: Known) -> Iterator[str]:
    """What is recommended at an end of what was tried: a better setting may lie beyond."""
    size, rate, updates = (budget['recommended'][field] for field in ('batch_size', 'learning_rate', 'updates'))
    sizes = [row['batch_size'] for row in budget['rows']] + budget['missing']
    alike = (row for row in answer['trials'] if (row['batch_size'], row['updates']) == (size, updates))
    rates = [row['learning_rate'] for row in alike]
    for name, value, tried in (('batch size', size, sizes), ('learning rate', rate, rates)):
        end = 'smallest' if value <= min(tried) else 'largest' if value >= max(tried) else ''
        if end and not (name == 'batch size' and value in (1, answer['n'])):
            yield f'{name} {value:.9g}, the {end} tried'


def _task(answer: Known) -> Task:
    return task(answer['task'])


def _margin(answer: Known) -> str:
    of = _task(answer)
    return f'{number(of.scale * answer["margin"])}' + (' points' if of.is_share else f' of {of.text}')


def _apart(answer: Known, row: Known) -> str:
    return difference(row['difference'], _task(answer))


def _score(answer: Known, budget: Known) -> str:
    """The recommended setting's, on the test split."""
    chosen, of = budget['recommended'], _task(answer)
    for row in _fresh(budget):
        if row['test_score'] and all(row[field] == chosen[field] for field in SETTING):
            return level(row['test_score'], of, plural(row['seeds'], 'fresh seed'))
    return level(chosen['test_score'], of, plural(chosen['seeds'], 'seed') + ' of the search')


def _setting(answer: Known, row: Known) -> str:
    return f'batch size {row["batch_size"]}, learning rate {_rate(answer, row)}'


def _rate(answer: Known, row: Known) -> str:
    """The learning rate, with what else was chosen."""
    fields = [field for field in ('momentum', 'weight_decay') if row[field]]
    fields += ['beta2'] * (answer['optimizer'] in ('adam', 'adamw', 'lamb'))
    others = (f', {field.replace("_", " ")} {number(row[field], 6)}' for field in fields)
    return number(row['learning_rate'], 3) + ''.join(others)


def _sizes(budget: Known, verdict: str) -> list[int]:
    """The batch sizes with a verdict, beside the recommended one; none where fresh seeds overturned the search's."""
    chosen, verdicts = budget['recommended'], {verdict, 'best'} if verdict == 'as good' else {verdict}
    sizes = [row['batch_size'] for row in budget['rows'] if row['verdict'] in verdicts and not budget['first_thought']]
    return [size for size in sizes if size != chosen['batch_size']]


def _fresh(budget: Known) -> list[Known]:
    """What fresh seeds reach with the recommended setting, which is the first, and beside it."""
    return [row for row in budget['fresh'] if row['role'] != 'growing']


def _best(rows: Sequence[Known]) -> Known:
    return next(row for row in rows if row['verdict'] == 'best')


def _pays(grown: Known) -> str:
    return 'not shown to be worse' if grown['verdict'] == 'best' else grown['verdict']


def _lost(row: Known) -> str:
    return f'{row["diverged"]} of {row["diverged"] + row["seeds"]}'


def _noisy(row: Known) -> bool:
    return row['seconds']['high'] - row['seconds']['low'] > NOISY * row['seconds']['value']


def _titled(rows: Sequence[tuple[str, ...]], *headings: str) -> Rows:
    return [headings, *rows] if rows else []
