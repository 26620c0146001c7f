"""The answer of a search in words, for a reader who knows neither the code nor the literature."""

import math
from collections.abc import Iterator

from bsgap.analysis import answer as answers
from bsgap.report import budget_words
from bsgap.report.budget_words import NOISY, NOTHING, Json, Known, noisy, setting
from bsgap.report.numbers import between, duration, number, share
from bsgap.report.words import budget_text, listed, plural

Rows = list[tuple[str, ...]]
ENOUGH_SEEDS = 6
FALLS = {'linear': 'falls to 0 in a straight line', 'cosine': 'falls to 0 along a cosine', 'constant': 'stays as it is'}


def add_words(answer: Known) -> Json:
    """What recommendation.json holds: what `answer.find` gives, and the same in words.

    `warnings`, sentences that stand before everything else; `headline`; `reading`, how it is meant; `cards`, one a
    budget, and then `sections` on what holds for all of them: `title`, `sentences`, and in a section `table`, the name
    of one or None; `table`, `learning_rate_table`, `machine_table`: rows of texts, the headings first; `limits`,
    sentences; `text`, all of it but the tables.
    """
    told: Json = {'warnings': warnings(answer), 'headline': headline(answer), 'reading': _reading(answer)}
    told['cards'] = [budget_words.card(answer, budget) for budget in answer['budgets']]
    told['sections'] = [
        {'title': 'The critical batch size', 'sentences': _critical(answer), 'table': None},
        {'title': 'Learning rates', 'sentences': _rates(answer), 'table': 'learning_rate_table'},
        {'title': 'Speed and memory', 'sentences': _speed(answer), 'table': 'machine_table'},
        {'title': 'What this rests on', 'sentences': _evidence(answer), 'table': None},
    ]
    told |= {'table': table(answer), 'learning_rate_table': learning_rate_table(answer)}
    told |= {'machine_table': machine_table(answer), 'limits': limits(answer)}
    parts = [*told['warnings'], told['headline'], told['reading']]
    parts += [f'{part["title"]}. {" ".join(part["sentences"])}' for part in (*told['cards'], *told['sections'])]
    return {**answer, **told, 'text': '\n\n'.join([*parts, 'Limits. ' + ' '.join(told['limits'])])}


def warnings(answer: Known) -> list[str]:
    """What one must know before the rest."""
    n, found = answer['examples']['validation'], []
    if 0 < n < answers.FEW_EXAMPLES:
        found.append(
            f'Warning: only {plural(n, "validation example")}, too few to tell settings apart unless they differ much.'
            ' Take what follows as a hint.'
        )
    needed = max((budget.get('examples_to_tell') or 0 for budget in answer['budgets']), default=0)
    if n and needed > n:
        found.append(
            f'To tell a difference of {budget_words.margin(answer)} one would need about {number(needed)} validation'
            f' examples, however many seeds are trained; there are {n:,}.'
        )
    return found


def headline(answer: Known) -> str:
    """The recommendation, first for the budget in epochs."""
    main, *others = sorted(answer['budgets'], key=lambda budget: budget['unit'] != 'epochs')
    chosen = main['recommended']
    if not any(budget['recommended'] for budget in answer['budgets']):
        return f'Nothing can be recommended: no setting {NOTHING}.'
    if chosen:
        first = f'Start with {setting(answer, chosen)}: {budget_words.reached(main)} after {budget_text(main)}'
        said = '; '.join([first, *budget_words.beside(answer, main)]) + '.'
    else:
        said = f'For {budget_text(main)} nothing can be recommended: no setting {NOTHING}.'
    for budget in others:
        if not (other := budget['recommended']):
            said += f' For {budget_text(budget)} nothing can be recommended.'
        elif not chosen or other['batch_size'] != chosen['batch_size']:
            said += f' For {budget_text(budget)} take {setting(answer, other)}: {budget_words.reached(budget)}.'
    return said


def table(answer: Known) -> Rows:
    """What is recommended for each budget, and how the other batch sizes compare."""
    lines: Rows = [
        ('Budget', 'Batch size', 'Learning rate', 'Test accuracy', 'As good', 'Undecided', 'Worse', 'Not compared')
    ]
    for budget in answer['budgets']:
        if not (chosen := budget['recommended']):
            lines.append((budget_text(budget), 'none', *('–',) * 5, listed(budget['missing']) or '–'))
            continue
        test, of = budget_words.figure(budget)
        verdicts = (('best', 'as good'), ('undecided',), ('worse',))
        # Fresh seeds have contradicted the setting that all were compared with.
        rows = [] if budget['first_thought'] else budget['rows']
        others = {row['batch_size']: row['verdict'] for row in rows if row['batch_size'] != chosen['batch_size']}
        sides = [[size for size, verdict in others.items() if verdict in of_side] for of_side in verdicts]
        cells = [listed(sizes) or '–' for sizes in (*sides, budget['missing'])]
        size, rate = str(chosen['batch_size']), budget_words.rate_text(answer, chosen)
        lines.append((budget_text(budget), size, rate, share(test, of), *cells))
    return lines


def learning_rate_table(answer: Known) -> Rows:
    """The best learning rate of each batch size; none without one."""
    found, law = answer['learning_rates']['rows'], answer['learning_rates']['law']
    advice = {row['batch_size']: between(row) for row in law['advice']} if law else {}
    lines: Rows = [('Batch size', 'Updates', 'Best learning rate', 'Smoothed over all batch sizes')]
    for row in found:
        rate = between(row) + ', at the end of what was tried' * row['edge']
        lines.append((str(row['batch_size']), f'{row["updates"]:,}', rate, advice.get(row['batch_size'], '–')))
    return lines if found else []


def machine_table(answer: Known) -> Rows:
    """How fast updates are, and what memory they need, by batch size."""
    uneven = noisy(answer)
    lines: Rows = [('Batch size', 'ms an update (lowest to highest)', 'Examples a second', 'MiB')]
    for row in answer['machine']:
        times = {end: 1000 * value for end, value in row['seconds'].items()}
        rate, memory = row['examples_per_second'], row['bytes']
        note = ', too noisy' * (row['batch_size'] in uneven)
        text = f'{number(times["value"], 3)} ({number(times["low"], 3)} to {number(times["high"], 3)}){note}'
        lines.append((str(row['batch_size']), text, number(rate), number(memory / 2**20) if memory else 'not known'))
    return lines if answer['machine'] else []


def limits(answer: Known) -> list[str]:
    """What the answer does not say, in sentences; only what applies."""
    rests, schedule, rows = answer['rests_on'], answer['schedule'], answer['learning_rates']['rows']
    chosen = [budget for budget in answer['budgets'] if budget['recommended']]
    timed, few, at_edge = bool(answer['machine']), rests['seeds'] < ENOUGH_SEEDS, [row for row in rows if row['edge']]
    rule = FALLS.get(schedule['name'], f'follows the schedule {schedule["name"]}')
    warm_up = f', after a warm-up over the first {100 * schedule["warm_up"]:.3g} % of it' if schedule['warm_up'] else ''
    told = [
        (few and rests['seeds'] > 1, f'Only {rests["seeds"]} seeds were trained: intervals are wide, and {ENOUGH_SEEDS}'
                                     ' or more tell more batch sizes apart.'),
        (rests['seeds'] == 1, 'One seed was trained: there are no intervals, and batch sizes can’t be told apart.'),
        *((True, sentence) for budget in chosen for sentence in _edges(answer, budget)),
        (at_edge, f'At batch size {listed(row["batch_size"] for row in at_edge)} the best learning rate lies at the end'
                  ' of what was tried: a better one may lie beyond.'),
        (schedule['name'], f'In each run the learning rate {rule}{warm_up}; with another schedule other batch sizes and'
                           ' learning rates can be the best.'),
        (chosen, 'Batch sizes and learning rates were chosen by their accuracy on the validation split, which flatters'
                 ' what is chosen; accuracies are therefore told of the test split.'),
        (chosen and not rests['fresh_seeds'], 'No fresh seeds were trained: accuracies are those of the seeds by which'
                                              ' the choice was made.'),
        (timed, f'Times hold for this device alone ({answer["device"]}), for one run at a time, and without'
                ' compilation.'),
    ]  # fmt: skip
    return [sentence for applies, sentence in told if applies]


def _edges(answer: Known, budget: Known) -> Iterator[str]:
    """Where a better setting may lie beyond what was tried."""
    size, rate, on = *(budget['recommended'][key] for key in ('batch_size', 'learning_rate')), budget_text(budget)
    tried = sorted({row['batch_size'] for row in budget['rows']} | set(budget['missing']))
    ends = {size, *(row['batch_size'] for row in budget['rows'] if row['verdict'] == 'best')}
    for end, which in ((tried[0], 'smallest'), (tried[-1], 'largest')):
        if end in ends and len(tried) > 1 and 1 < end < answer['n']:
            yield f'For {on} the {which} batch size that was tried, {end}, is among the best: one beyond may be better.'
    updates = budget['recommended']['updates']
    alike = (row for row in answer['trials'] if (row['batch_size'], row['updates']) == (size, updates))
    rates = [row['learning_rate'] for row in alike]
    if budget['unit'] != 'epochs' and rates and rate in (min(rates), max(rates)):
        yield f'For {on} the learning rate of batch size {size}, {number(rate, 3)}, lies at the end of what was tried.'


def _reading(answer: Known) -> str:
    return (
        'In brackets stands the 95 % interval, over other seeds and other examples. Accuracies are of the test split,'
        ' differences of the validation split, in points: 1 point is 1 % of the examples. As good: shown to be less'
        f' than {budget_words.margin(answer)} below the best. Worse: shown to be below another. Undecided: neither.'
        ' An epoch is once through the training examples, an update one step of the optimizer.'
    )


def _critical(answer: Known) -> list[str]:
    """Up to which batch size a larger batch saves updates."""
    known = [target for target in answer['targets'] if target['curve']]
    if not known:
        why = 'too few batch sizes reach the same errors' if answer['curves'] else 'nothing trained'
        return [f'It is not known here: {why}.', *_noise(answer, None)]
    sizes = sorted(curve['batch_size'] for curve in answer['curves'])
    middle = known[len(known) // 2]
    critical = middle['curve']['b_crit']
    said = [
        'It is where larger batches stop paying: well below it, doubling the batch size about halves the updates it'
        ' takes to reach an error, well above it doubling saves hardly any.',
        f'To {number(100 * middle["error"])} % validation error it is {_bounds(critical, sizes)}.',
    ]
    others = [target for target in known if target is not middle]
    each = [f'to {number(100 * other["error"])} %, {_bounds(other["curve"]["b_crit"], sizes)}' for other in others]
    said += [f'For other errors: {"; ".join(each)}.'] * bool(each)
    return [*said, *_noise(answer, critical['value'])]


def _bounds(critical: Known, sizes: list[int]) -> str:
    """B_crit, as far as it is known; bounds beyond the batch sizes that were tried say no more than their end does."""
    value, low, high = (critical[key] for key in ('value', 'low', 'high'))
    if low and high and value:
        inside = sizes[0] <= value <= sizes[-1]
        return f'about {between(critical)}' + ', beyond the batch sizes that were tried' * (not inside)
    if low or high:
        side = f'above {number(min(low, sizes[-1]))}' if low else f'below {number(max(high, sizes[0]))}'
        return f'{side}, and not bounded on the other side'
    return 'not bounded by the batch sizes that were tried'


def _noise(answer: Known, critical: float | None) -> list[str]:
    """The noise scale at the batch size nearest to the critical one, or at the one in the middle."""
    lines = answer['noise_scale']
    if not lines:
        return ['The gradient noise scale, by which theory forecasts it, was not measured.']
    near = critical or lines[len(lines) // 2]['batch_size']
    line = min(lines, key=lambda line: abs(math.log(line['batch_size'] / near)))
    last = line['points'][-1]
    return [
        f'The gradient noise scale, by which theory forecasts it, was {between(last["noise_scale"])} on average over'
        f' {last["updates"]:,} updates at batch size {line["batch_size"]}.'
    ]


def _rates(answer: Known) -> list[str]:
    """How the best learning rate goes with the batch size."""
    law, rows = answer['learning_rates']['law'], answer['learning_rates']['rows']
    if not rows:
        return ['Too few batch sizes trained to say how the learning rate goes with the batch size.']
    if not law:
        why = 'fewer than three batch sizes have theirs inside what was tried'
        return [f'How the best learning rate goes with the batch size is not known: {why}.']
    first, last = law['between']
    if law['better'] == 'power':
        doubling = {end: value if value is None else 2**value for end, value in law['exponent'].items()}
        said = f'changes by a factor of {between(doubling)} with each doubling of the batch size'
    else:
        half, most = law['b_0'], law['maximum']
        if half['value'] and most['value'] and first <= half['value'] <= last:
            said = (
                f'grows at first and levels off, to {between(most)}; half of that is best at batch size {between(half)}'
            )
        elif most['value'] and (half['value'] or 0) < first:
            said = 'hardly changes with the batch size'
        else:
            said = 'grows nearly in proportion to the batch size, and where that ends is not known'
    return [
        f'Between batch sizes {first} and {last} the best learning rate {said}.',
        f'Below {first} and above {last} nothing is known.',
    ]


def _speed(answer: Known) -> list[str]:
    rows = answer['machine']
    if not rows:
        return ['Neither was measured.']
    said = [f'One run at a time on this device ({answer["device"]}); the middle, lowest and highest of several times.']
    if sizes := noisy(answer):
        said.append(
            f'At batch size {listed(sizes)} they spread over more than {100 * NOISY:g} %: this machine was too noisy to'
            ' tell seconds there.'
        )
    elif len(rows) > 1:
        fastest = max(rows, key=lambda row: row['examples_per_second'])
        said.append(f'Most examples a second: batch size {fastest["batch_size"]}.')
    return said


def _evidence(answer: Known) -> list[str]:
    rests, examples = answer['rests_on'], answer['examples']
    lost = f' ({rests["diverged"]} diverged)' * bool(rests['diverged'])
    fresh = f' and {plural(rests["fresh_seeds"], "fresh seed")}' * bool(rests['fresh_seeds'])
    data = listed(f'{n:,} {name}' for name, n in examples.items() if n)
    return [
        f'{plural(rests["runs"], "run")}{lost} with {plural(rests["seeds"], "seed")}{fresh};'
        f' {number(rests["examples"])} examples trained on; {duration(rests["seconds"])} of training and evaluation.',
        f'Model: {answer["model"] or "unknown"}; optimizer: {answer["optimizer"] or "unknown"}; data:'
        f' {answer["dataset"]}{f" ({data} examples)" * bool(data)}.',
    ]
