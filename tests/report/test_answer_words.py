"""The words for answers that are made by hand."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from answers import GRID, answer, budget, drawn, estimate, fresh, law, machine, row, target

from bsgap.report.answer_words import add_words

WORSE = (row(32, 1.0, 'worse'), row(128, 2.0, 'worse'))
# What no reader should meet.
FORBIDDEN = re.compile(
    r'\?|\b(?:None|nan|inf)\b|−0(?:\.0*)?(?![\d.])|-\d|power of|\(\)|\.\.|  | [.,;:]|[;:]\.|\b1 times\b'
)


def worded(*budgets: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The answer with its words, beside which all else stays; nothing forbidden is in them."""
    return checked(answer(*budgets, **changes))


def checked(before: dict[str, Any]) -> dict[str, Any]:
    kept = json.dumps(before, allow_nan=False)
    found = add_words(before)
    assert json.loads(json.dumps(found, allow_nan=False)) | json.loads(kept) == json.loads(json.dumps(found))
    for text in texts(found):
        plain = text.replace('MLP 256-256', 'MLP')
        assert not FORBIDDEN.search(plain), text
        shares = (float(share.replace('−', '-')) for share in re.findall(r'(−?[\d.]+) %', plain))
        assert all(0 <= share <= 100 for share in shares), text
        for low, high in re.findall(r' % \w* ?\w* ?\((−?[\d.]+) to (−?[\d.]+);', plain):
            assert 0 <= float(low) <= float(high) <= 100, text
        # A mean of one seed has no interval.
        assert not re.search(r' to [^()]*; 1 (fresh )?seed[^s]', plain), text
    for name in ('table', 'learning_rate_table', 'machine_table'):
        assert len({len(line) for line in found[name]}) <= 1
    return found


def texts(found: dict[str, Any]) -> Iterator[str]:
    yield from (*found['warnings'], found['headline'], found['reading'], *found['limits'], found['text'])
    for part in (*found['cards'], *found['sections']):
        assert part['sentences']
        yield from (part['title'], *part['sentences'])
        assert all(sentence.endswith('.') for sentence in part['sentences'])
    for name in ('table', 'learning_rate_table', 'machine_table'):
        for line in found[name]:
            yield from line


def has_limit(found: dict[str, Any], words: str) -> bool:
    return any(words in limit for limit in found['limits'])


def section(found: dict[str, Any], title: str) -> str:
    return ' '.join(next(part['sentences'] for part in found['sections'] if part['title'] == title))


def card(found: dict[str, Any], i: int = 0) -> str:
    return ' '.join(found['cards'][i]['sentences'])


@pytest.mark.parametrize('seed', range(60))
def test_any_answer_has_words_whose_numbers_are_its_own(seed: int) -> None:
    found = checked(drawn(seed))
    known = {float(value) for value in (0, 1, 6, 20, 95)}
    fresh_rows = {each['role']: each for one in found['budgets'] for each in one['fresh']}
    for one in found['budgets']:
        known |= {0.0, *({1 / 6, 6.0} if one['fresh'] else ())}
    for role in ('updates', 'seconds'):
        ratios = [other[role] / each[role] for each in fresh_rows.values() for other in fresh_rows.values()
                  if each.get(role) and other.get(role)]  # fmt: skip
        known |= {*ratios, *(1 / ratio for ratio in ratios)}
    for value in numbers({key: value for key, value in found.items() if key in answer()}):
        known |= {value, 100 * value, 1000 * value, value / 2**20, value / 60, value / 3600, 1 - value}
        known |= {2**value} if abs(value) < 1 else set()
    for text in (part for part in texts(found) if part != found['text']):
        for token in re.findall(r'\d[\d,]*(?:\.\d+)?', text):
            assert any(is_rounded(token, abs(value)) for value in known), (token, text)


def numbers(part: Any) -> Iterator[float]:
    if isinstance(part, dict):
        for value in part.values():
            yield from numbers(value)
    elif isinstance(part, list):
        for value in part:
            yield from numbers(value)
    elif isinstance(part, str):
        yield from map(float, re.findall(r'\d+', part))
    elif part is not None:
        yield float(part)


def is_rounded(token: str, value: float) -> bool:
    """Whether a number of the text is this one, with the digits that it has."""
    plain = token.replace(',', '')
    if '.' in plain:
        return abs(float(plain) - value) <= 0.5001 * 10.0 ** -len(plain.partition('.')[2])
    return abs(float(plain) - value) <= max(
        0.5001, min(0.06 * value, 0.5 * 10.0 ** (len(plain) - len(plain.rstrip('0'))))
    )


def test_a_winner_alone() -> None:
    found = worded(budget(row(8), *WORSE))
    assert found['headline'] == (
        'Start with batch size 8 and learning rate 0.1: 97.00 % test accuracy (96.50 to 97.50; 6 seeds of the search)'
        ' after 2 epochs; every other batch size that was compared is worse.'
    )
    assert 'Worse: batch size 32, 1.00 points lower (0.60 to 1.40); batch size 128, 2.00 points' in card(found)
    assert found['table'][1][:3] == ('2 epochs', '8', '0.1')
    assert found['table'][1][4:] == ('–', '–', '32 and 128', '–')
    assert has_limit(found, 'smallest batch size that was tried, 8, is among the best')


def test_a_range_that_is_as_good_and_what_to_take_of_it() -> None:
    rows = row(8, 0.01, 'as good'), row(32), row(128, 0.02, 'as good'), row(512, 1.0, 'worse')
    found = worded(budget(*rows))
    assert 'Start with batch size 128' in found['headline']  # the fastest of these
    assert '; anything from 8 to 128 is as good; if memory is what you lack, take 8.' in found['headline']
    assert 'and 8 and 128 were shown to be as good: less than 0.1 points below it.' in card(found)
    assert 'Of these, 8 is the smallest; 128 is the one with the fewest updates and the fastest.' in card(found)
    assert found['table'][1][4:] == ('8 and 32', '–', '512', '–')
    # One between that is not shown to be as good: no range.
    rows = row(8, 0.01, 'as good'), row(32), row(128, 0.3, 'undecided', seeds_needed=20), row(512, 0.0, 'as good')
    assert '; 8 and 32 are as good; if memory is what you lack, take 8.' in worded(budget(*rows))['headline']


def test_a_machine_that_is_too_noisy_does_not_tell_the_fastest() -> None:
    rows = row(8, 0.01, 'as good'), row(32)
    found = worded(budget(*rows), machine=[machine(8, 1e-4, 0.05), machine(32, 2e-4, 0.4)])
    assert 'Which is the fastest was measured too unevenly to tell; 32 is taken here.' in card(found)
    assert '32 is the fastest' not in found['text']
    assert 'At batch size 32 they spread over more than 20 %: this machine was too noisy' in found['text']
    assert found['machine_table'][1][1] == '0.1 (0.0975 to 0.103)'
    assert found['machine_table'][2][1] == '0.2 (0.16 to 0.24), too noisy'
    assert found['machine_table'][1][2:] == ('80,000', '38')
    seconds = worded(budget(*rows, unit='seconds'), machine=[machine(8, 1e-4, 0.4)])
    assert 'rests on times that were measured too unevenly' in card(seconds)


@pytest.mark.parametrize(
    ('needed', 'words'),
    [
        ({'seeds_needed': 20}, 'about 20 seeds each would decide, where there are 6, if what was seen is the truth.'),
        ({'examples_needed': 41234}, 'no number of seeds would decide, but about 41,000 validation examples would'),
        ({}, 'how many seeds would decide is not known.'),
    ],
)
def test_what_is_undecided_says_what_would_decide(needed: dict[str, int], words: str) -> None:
    found = worded(budget(row(8), row(32, 0.37, 'undecided', **needed)))
    assert 'whether 32 is as good is undecided' in found['headline']
    assert f'Undecided: batch size 32, 0.4 points lower (1.4 lower to 0.6 higher); {words}' in card(found)


def test_nothing_was_learned() -> None:
    found = worded(
        budget(missing=[*GRID]), budget(missing=[*GRID], unit='updates', amount=100), curves=[], targets=[],
        learning_rates={'rows': [], 'law': None}, noise_scale=[],
    )  # fmt: skip
    assert found['headline'].startswith('Nothing can be recommended: no setting trained all its seeds')
    assert 'Start with' not in found['text']
    assert found['table'][1][:2] == ('2 epochs', 'none')
    assert section(found, 'The critical batch size').startswith('It is not known here: nothing trained.')
    assert found['learning_rate_table'] == []
    assert not has_limit(found, 'were chosen')


def test_few_validation_examples_stand_before_everything() -> None:
    found = worded(budget(row(8), *WORSE), examples={'train': 900, 'validation': 120, 'test': 1000})
    assert found['text'].startswith('Warning: only 120 validation examples')
    assert 'one would need about 1,000 validation examples' in found['warnings'][1]
    assert worded(budget(row(8), *WORSE))['warnings'] == []


def test_a_recommendation_that_fresh_seeds_overturned() -> None:
    before = row(8)
    after = {**before, 'batch_size': 32, 'learning_rate': 0.4, 'test_accuracy': estimate(0.968, 0.002)}
    seeds = [
        fresh('recommended', 8, 0.6, 'worse'),
        fresh('larger', 32, learning_rate=0.4, test_accuracy=estimate(0.968, 0.002)),
    ]
    found = worded(
        budget(before, row(32, 0.01, 'as good'), *WORSE[1:], recommended=after, first_thought=before, fresh=seeds)
    )
    assert (
        'Start with batch size 32 and learning rate 0.4: 96.80 % test accuracy (96.60 to 97.00; 6 fresh'
        in (found['headline'])
    )
    assert 'fresh seeds showed it to be better than what the search had favoured' in found['headline']
    assert 'is as good' not in found['headline']
    assert (
        'At first the search favoured batch size 8 and learning rate 0.1. Fresh seeds contradicted it: they were 0.60'
        in (card(found))
    )
    assert found['table'][1][4:7] == ('–', '–', '–')


def test_what_fresh_seeds_say() -> None:
    seeds = [
        fresh('recommended', 8, 0.2, 'as good'),
        fresh('larger', 32),
        fresh('half the rate', 8, learning_rate=0.05, below=0.3, verdict='undecided'),
        fresh('twice the rate', 8, learning_rate=0.2, verdict=None),
    ]
    found = worded(budget(row(8), *WORSE, fresh=seeds))
    assert '96.80 % test accuracy (96.30 to 97.30; 6 fresh seeds)' in found['headline']
    assert 'Fresh seeds, which had no part in the choice, agree: it is less than 0.1 points below' in card(found)
    assert 'Fresh seeds with half the learning rate (0.05): 96.70 % (96.20 to 97.20; 6 seeds), undecided' in card(found)
    assert 'Fresh seeds with twice the learning rate (0.2): 6 of 6 diverged.' in card(found)
    seeds[0] |= {'diverged': 2, 'seeds': 4}
    found = worded(budget(row(8), *WORSE, fresh=seeds))
    assert 'but 2 of 6 fresh seeds diverged with it' in found['headline']
    assert 'a smaller learning rate is safer' in card(found)


@pytest.mark.parametrize(
    ('verdict', 'words'),
    [
        ('best', 'not shown to cost accuracy (0.30 points lower'),
        ('as good', 'as good (0.30 points lower (0.27 to 0.33)'),
        ('undecided', 'undecided, 0.3 points lower (1.3 lower to 0.7 higher) in validation accuracy'),
        ('worse', 'worse, 0.30 points lower'),
    ],
)
def test_whether_a_growing_batch_pays(verdict: str, words: str) -> None:
    seeds = [fresh('recommended', 8), fresh('growing', 8, 0.3, verdict, updates=1250, seconds=0.5)]
    said = card(worded(budget(row(8), *WORSE, fresh=seeds)))
    assert 'in place of lowering the learning rate: 96.70 % (96.20 to 97.20; 6 seeds) against 97.00 %' in said
    assert words in said
    assert 'with 2 times fewer updates and 1.4 times less time.' in said


def test_one_seed_has_no_intervals() -> None:
    rests = {**answer()['rests_on'], 'seeds': 1, 'fresh_seeds': 0}
    found = worded(budget(row(8, seeds=1), row(32, 0.3, 'undecided', seeds=1)), rests_on=rests)
    assert '97.00 % test accuracy (1 seed of the search, no interval)' in found['headline']
    assert '0.30 points lower (no interval); how many seeds would decide is not known from one seed.' in card(found)
    assert has_limit(found, 'One seed was trained')
    assert has_limit(found, 'No fresh seeds were trained')


def test_budgets_with_different_winners_say_so_in_the_headline() -> None:
    others = budget(row(512), unit='updates', amount=100), budget(unit='seconds', amount=3.71, missing=[*GRID])
    found = worded(budget(row(8), *WORSE), *others)
    assert 'For 100 updates take batch size 512 and learning rate 0.1: 97.00 %' in found['headline']
    assert 'For 3.71 s on this device nothing can be recommended.' in found['headline']
    assert [each['title'] for each in found['cards']] == [
        'With a budget of 2 epochs', 'With a budget of 100 updates', 'With a budget of 3.71 s on this device',
    ]  # fmt: skip
    same = worded(budget(row(8), *WORSE), budget(row(8), *WORSE, unit='updates', amount=100))
    assert '100 updates' not in same['headline']
    alone = worded(budget(row(32), missing=[8], unit='seconds', amount=3.71))
    assert alone['headline'].endswith('after 3.71 s on this device; no other batch size can be compared with it.')
    assert 'Not compared: batch size 8, of which no setting trained all its seeds' in card(alone)


@pytest.mark.parametrize(
    ('value', 'low', 'high', 'words'),
    [
        (None, None, None, 'it is not bounded by the batch sizes that were tried.'),
        (None, 123.4, None, 'it is above 120, and not bounded on the other side.'),
        (700.0, 600.0, None, 'it is above 510, and'),  # the largest that was tried
        (20.0, None, 1234.5, 'it is below 1,200, and'),
        (0.05, None, 0.1, 'it is below 8, and'),  # the smallest
        (188.0, 123.4, 312.0, 'To 9 % validation error it is about 190 (120 to 310).'),
        (700.0, 400.0, 900.0, 'about 700 (400 to 900), beyond the batch sizes that were tried.'),
    ],
)
def test_the_critical_batch_size(value: float | None, low: float | None, high: float | None, words: str) -> None:
    found = worded(budget(row(8)), targets=[target(0.09, {'value': value, 'low': low, 'high': high})])
    assert words in section(found, 'The critical batch size')
    assert 'The gradient noise scale, by which theory forecasts it, was 70 (61 to 79)' in found['text']


def test_learning_rates_and_their_law() -> None:
    rates = {'rows': answer()['learning_rates']['rows'], 'law': law('power', GRID[:3])}
    rates['rows'][3] |= {'edge': True, **estimate(0.4)}
    found = worded(budget(row(8)), learning_rates=rates)
    assert found['learning_rate_table'][1] == ('8', '2,500', '0.1 (0.08 to 0.12)', '0.11 (0.08 to 0.14)')
    assert found['learning_rate_table'][4][2:] == ('0.4 (no interval), at the end of what was tried', '–')
    assert has_limit(found, 'At batch size 512 the best learning rate lies at the end')
    said = section(found, 'Learning rates')
    assert 'the best learning rate changes by a factor of 1.3 (1.2 to 1.4) with each doubling' in said  # 2^0.35
    assert 'Below 8 and above 128 nothing is known.' in said
    rates['law'] = law('saturating')
    said = section(worded(budget(row(8)), learning_rates=rates), 'Learning rates')
    assert 'levels off, to 0.48 (0.38 to 0.58); half of that is best at batch size 30 (21 to 39)' in said
    for value, maximum, words in ((2.0, 0.48, 'hardly changes'), (9000.0, 5.0, 'nearly in proportion')):
        rates['law'] |= {'b_0': estimate(value, 1.0), 'maximum': estimate(maximum, 0.1)}
        assert words in section(worded(budget(row(8)), learning_rates=rates), 'Learning rates')
    rates['law'] = None
    assert 'is not known' in section(worded(budget(row(8)), learning_rates=rates), 'Learning rates')


def test_ends_of_what_was_tried_are_limits() -> None:
    found = worded(budget(row(8), *WORSE), budget(*(row(8, 9.0, 'worse'), row(128)), unit='updates', amount=100))
    assert has_limit(found, 'For 2 epochs the smallest batch size that was tried, 8,')
    assert has_limit(found, 'For 100 updates the largest batch size that was tried, 128,')
    middle = worded(budget(row(8, 2.0, 'worse'), row(32), row(128, 2.0, 'worse')))
    assert not has_limit(middle, 'batch size that was tried')
    edge = worded(budget(row(8), unit='updates', amount=2500, recommended={**row(8), 'learning_rate': 0.2}))
    assert has_limit(edge, 'the learning rate of batch size 8, 0.2, lies at the end of what was tried')


def test_few_seeds_and_the_schedule_are_limits() -> None:
    found = worded(budget(row(8)), rests_on={**answer()['rests_on'], 'seeds': 3})
    assert has_limit(found, 'Only 3 seeds were trained')
    assert has_limit(found, 'falls to 0 in a straight line, after a warm-up over the first 5 % of it')
    assert not has_limit(worded(budget(row(8))), 'seeds were trained')
    constant = worded(budget(row(8)), schedule={'name': 'constant', 'warm_up': 0.0})
    assert has_limit(constant, 'the learning rate stays as it is; with another schedule')
