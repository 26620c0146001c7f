"""What the answer of a search says of one budget, in words.

A difference of accuracies is one on the validation split, where all choices are made; an accuracy is one on the test
split, of fresh seeds where there are some.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bsgap.report.numbers import lower, number, points, share
from bsgap.report.words import budget_text, listed, plural

Json = dict[str, Any]
Known = Mapping[str, Any]  # of the answer, or a part of it
NOISY = 0.2  # the spread of a time's measurements over their median, above which seconds are not told
NOTHING = 'trained all its seeds without diverging and did clearly better than guessing the most frequent class'
# What one may lack, and which of those that are as good saves it.
LACKS = {'memory': 'memory is', 'time': 'time is', 'updates': 'updates are'}
CHOSEN = {'memory': 'the smallest', 'time': 'the fastest', 'updates': 'the one with the fewest updates'}


def card(answer: Known, budget: Known) -> Json:
    """What is recommended, why, and how everything else compares."""
    said = [f'Nothing can be recommended: no setting {NOTHING}.']
    if chosen := budget['recommended']:
        said = [f'Take {setting(answer, chosen)}: {reached(budget)}.', *_why(answer, budget), *_compared(budget)]
        if budget['missing']:
            said.append(f'Not compared: batch size {listed(budget["missing"])}, of which no setting {NOTHING}.')
        said += [*_fresh(answer, budget), *_growing(budget), *_gap(budget)]
    return {'title': f'With a budget of {budget_text(budget)}', 'sentences': said}


def beside(answer: Known, budget: Known) -> Iterator[str]:
    """For the headline: what else is as good, and what to take if something is short."""
    chosen, sizes = budget['recommended']['batch_size'], _sizes(good(budget))
    undecided = _sizes(with_verdict(budget, 'undecided'))
    if budget['first_thought']:
        yield 'fresh seeds showed it to be better than what the search had favoured'
        return
    for row in budget['fresh']:
        if row['role'] == 'recommended' and row['diverged']:
            yield f'but {row["diverged"]} of {row["diverged"] + row["seeds"]} fresh seeds diverged with it'
    if len(budget['rows']) == 1:
        yield 'no other batch size can be compared with it'
    elif len(sizes) == 1 and undecided:
        yield f'whether {_either(undecided)} is as good is undecided'
    elif len(sizes) == 1:
        yield 'every other batch size that was compared is worse'
    elif len(sizes) > 2 and sizes == [size for size in _tried(budget) if sizes[0] <= size <= sizes[-1]]:
        yield f'anything from {sizes[0]} to {sizes[-1]} is as good'
    else:
        others = [size for size in sizes if size != chosen]
        yield f'{listed(others)} {"is" if len(others) == 1 else "are"} as good'
    other = {size: lacks for size, lacks in _choices(answer, budget).items() if size != chosen}
    for size, lacks in other.items():
        yield f'if {_either(LACKS[lack] for lack in lacks)} what you lack, take {size}'


def _why(answer: Known, budget: Known) -> Iterator[str]:
    sizes, size = _sizes(good(budget)), budget['recommended']['batch_size']
    best = next(row['batch_size'] for row in budget['rows'] if row['verdict'] == 'best')
    if first := budget['first_thought']:
        contradicted = next(row for row in budget['fresh'] if row['role'] == 'recommended')
        yield (
            f'At first the search favoured {setting(answer, first)}. Fresh seeds contradicted it: they were'
            f' {lower(contradicted["difference"])} in validation accuracy than with what is recommended now.'
        )
        yield f'The next sentences are what the search itself saw, against its own best, batch size {best}.'
    elif len(budget['rows']) == 1:
        yield 'There is no other batch size to compare it with.'
    elif len(sizes) == 1:
        yield 'Its validation accuracy was the highest, and no other batch size was shown to be as good.'
    else:
        others, was = listed(s for s in sizes if s != best), 'was' if len(sizes) == 2 else 'were'
        yield (
            f'Batch size {best} had the highest validation accuracy, and {others} {was} shown to be as good: less than'
            f' {margin(answer)} below it.'
        )
        of_each = _choices(answer, budget).items()
        yield f'Of these, {"; ".join(f"{s} is {listed(CHOSEN[lack] for lack in lacks)}" for s, lacks in of_each)}.'
        if noisy(answer, sizes):
            yield f'Which is the fastest was measured too unevenly to tell; {size} is taken here.'
    if budget['unit'] == 'seconds' and noisy(answer, _tried(budget)):
        yield 'This budget rests on times that were measured too unevenly: take it as a guess.'


def _compared(budget: Known) -> Iterator[str]:
    """How the other batch sizes compare with the best; 'as good' with how much it may be below."""
    for word, rows in (('As good', with_verdict(budget, 'as good')), ('Worse', with_verdict(budget, 'worse'))):
        if rows:
            each = (f'batch size {row["batch_size"]}, {lower(row["difference"])}' for row in rows)
            yield f'{word}: {"; ".join(each)}.'
    for row in with_verdict(budget, 'undecided'):
        yield f'Undecided: batch size {row["batch_size"]}, {lower(row["difference"])}; {_needed(row)}.'


def _needed(row: Known) -> str:
    if row['seeds_needed']:
        more = f'about {number(row["seeds_needed"])} seeds each would decide, where there are {row["seeds"]}'
    elif row['examples_needed']:
        more = f'no number of seeds would decide, but about {number(row["examples_needed"])} validation examples would'
    else:
        return 'how many seeds would decide is not known' + ' from one seed' * (row['seeds'] == 1)
    return f'{more}, if what was seen is the truth'


def _fresh(answer: Known, budget: Known) -> Iterator[str]:
    """What seeds say that had no part in the choice."""
    rows = [row for row in budget['fresh'] if row['role'] != 'growing']
    if not rows:
        yield 'No fresh seeds were trained with it.'
        return
    first, verdict = rows[0], rows[0]['verdict']
    if not budget['first_thought']:
        agree = {
            'best': 'agree: no setting beside it had a higher validation accuracy',
            'as good': f'agree: it is less than {margin(answer)} below the best beside it',
            'undecided': 'leave it open: a setting beside it may be better',
        }
        yield f'Fresh seeds, which had no part in the choice, {agree.get(verdict, "did not train to the end")}.'
    if first['diverged']:
        yield 'As it can diverge, a smaller learning rate is safer.'
    yield from (f'Fresh seeds with {_outcome(row)}.' for row in rows)


def _outcome(row: Known) -> str:
    """What fresh seeds of a setting reached."""
    rate, all_ = number(row['learning_rate'], 3), row['diverged'] + row['seeds']
    name = f'batch size {row["batch_size"]} and learning rate {rate}'
    if row['role'] in ('half the rate', 'twice the rate'):
        name = f'{row["role"].replace("the", "the learning")} ({rate})'
    lost = f'{row["diverged"]} of {all_} diverged' if row['diverged'] else ''
    if not row['test_accuracy']:
        return f'{name}: {lost or "not finished"}'
    verdict = 'the best of these' if row['verdict'] == 'best' else row['verdict'] or ''
    if row['verdict'] not in ('best', None):
        verdict += f', {lower(row["difference"])}'
    test = share(row['test_accuracy'], plural(row['seeds'], 'seed'))
    return f'{name}: {", ".join(filter(None, (test, verdict, lost)))}'


def _growing(budget: Known) -> Iterator[str]:
    """Whether a batch that grows in place of the decay pays."""
    rows = {row['role']: row for row in budget['fresh']}
    if not (row := rows.get('growing')):
        return
    what, same = 'Growing the batch in place of lowering the learning rate', rows.get('recommended')
    if not row['verdict'] or not same or not same['test_accuracy']:
        lost = f': {row["diverged"]} fresh seeds diverged' * bool(row['diverged'])
        yield f'{what} was not measured{lost}.'
        return
    saved = _times(same['updates'] / row['updates'], 'fewer updates', 'more updates', 'as many updates')
    if row['seconds'] and same['seconds']:
        saved += f' and {_times(same["seconds"] / row["seconds"], "less time", "more time", "the same time")}'
    verdict = {
        'best': 'not shown to cost accuracy' + f' ({lower(row["difference"])})' * bool(row['difference']['value']),
        'as good': f'as good ({lower(row["difference"])} in validation accuracy)',
        'worse': f'worse, {lower(row["difference"])} in validation accuracy',
        'undecided': f'undecided, {lower(row["difference"])} in validation accuracy',
    }[row['verdict']]
    seeds = (share(each['test_accuracy'], plural(each['seeds'], 'seed')) for each in (row, same))
    lost = f'; {row["diverged"]} diverged' * bool(row['diverged'])
    yield f'{what}: {" against ".join(seeds)} without{lost}; {verdict}, with {saved}.'


def _times(ratio: float, less: str, more: str, same: str) -> str:
    text = number(max(ratio, 1 / ratio))
    return same if text == '1' else f'{text} times {less if ratio > 1 else more}'


def _gap(budget: Known) -> Iterator[str]:
    """The generalization gap, from the smallest to the largest batch size."""
    rows = budget['rows'][:: max(1, len(budget['rows']) - 1)]
    each = (f'{points(row["gap"], plural(row["seeds"], "seed"))} at batch size {row["batch_size"]}' for row in rows)
    yield f'The generalization gap (train minus test accuracy) is {listed(each)}.'


def reached(budget: Known) -> str:
    """The recommended setting's test accuracy."""
    return share(*figure(budget), noun='test accuracy')


def figure(budget: Known) -> tuple[Known, str]:
    """The recommended setting's test accuracy and what that is a mean of: fresh seeds, where there are some."""
    chosen = budget['recommended']
    for row in budget['fresh']:
        same = all(row[key] == chosen[key] for key in ('batch_size', 'learning_rate'))
        if same and row['role'] != 'growing' and row['test_accuracy']:
            return row['test_accuracy'], plural(row['seeds'], 'fresh seed')
    return chosen['test_accuracy'], plural(chosen['seeds'], 'seed') + ' of the search'


def setting(answer: Known, row: Known) -> str:
    return f'batch size {row["batch_size"]} and learning rate {rate_text(answer, row)}'


def rate_text(answer: Known, row: Known) -> str:
    """The learning rate, with what else was chosen."""
    found = number(row['learning_rate'], 3)
    for field in ('momentum', 'weight_decay', 'beta2'):
        if field == 'beta2' and answer['optimizer'] not in ('adam', 'adamw', 'lamb'):
            continue
        if row.get(field):
            found += f', {field.replace("_", " ")} {number(row[field], 6)}'
    return found


def margin(answer: Known) -> str:
    return f'{number(100 * answer["margin"])} points'


def good(budget: Known) -> list[Json]:
    """The rows of the best batch size and of those that were shown to be as good."""
    return [row for row in budget['rows'] if row['verdict'] in ('best', 'as good')]


def with_verdict(budget: Known, verdict: str) -> list[Json]:
    return [row for row in budget['rows'] if row['verdict'] == verdict]


def noisy(answer: Known, sizes: Iterable[int] | None = None) -> list[int]:
    """The batch sizes, of these, whose times were measured too unevenly to tell seconds."""
    wanted = None if sizes is None else set(sizes)
    found = []
    for row in answer['machine']:
        time = row['seconds']
        if time['high'] - time['low'] > NOISY * time['value'] and (wanted is None or row['batch_size'] in wanted):
            found.append(row['batch_size'])
    return found


def _choices(answer: Known, budget: Known) -> dict[int, list[str]]:
    """For each batch size of those that are as good what it saves, where one saves more than another."""
    sizes, found = _sizes(good(budget)), dict[int, list[str]]()
    told = {'memory': True, 'time': budget['unit'] != 'seconds', 'updates': budget['unit'] != 'updates'}
    told['time'] &= not noisy(answer, sizes)
    for lack, size in budget['choices'].items():
        if told[lack] and len(sizes) > 1:
            found.setdefault(size, []).append(lack)
    return found


def _sizes(rows: Iterable[Known]) -> list[int]:
    return [row['batch_size'] for row in rows]


def _tried(budget: Known) -> list[int]:
    return sorted({*_sizes(budget['rows']), *budget['missing']})


def _either(words: Iterable[Any]) -> str:
    *most, last = map(str, words)
    return f'{", ".join(most)} or {last}' if most else last
