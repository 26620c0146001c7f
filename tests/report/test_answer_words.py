"""The words for answers that are made by hand."""

import json
import re
from typing import Any

import pytest
from answers import GRID, answer, budget, drawn, estimate, fresh, machine, row, target

from bsgap.report.answer_words import add_words

RESTS = answer()['rests_on']
WORSE = (row(32, 1.0, 'worse'), row(128, 2.0, 'worse'))
# What no reader should meet.
FORBIDDEN = re.compile(r'\?|\b(?:None|nan|inf)\b|−0(?:\.0*)?(?![\d.])|-\d|\(\)|\.\.|  | [.,;:]|[;:]\.')


def worded(*made: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The answer with its words, beside which all else stays; nothing forbidden is in them."""
    before = answer(*made) | changes
    found = add_words(before)
    assert found | before == found
    json.dumps(found, allow_nan=False)
    sentences = [*found['warnings'], found['headline'], found['reading'], *found['limits']]
    tables = [found['table'], *(part['table'] for part in found['sections'])]
    assert all(len({len(line) for line in table}) <= 1 for table in tables)
    sentences += [sentence for part in found['sections'] for sentence in part['sentences']]
    assert all(sentence.endswith('.') and sentence in found['text'] for sentence in sentences)
    for text in (*sentences, found['text'], *(cell for table in tables for line in table for cell in line)):
        plain = text.replace('MLP 256-256', 'MLP')
        assert not FORBIDDEN.search(plain), text
        shares = re.findall(r'% \(([^;]*) to ([^;]*);', plain)
        assert all(0 <= float(low) <= float(high) <= 100 for low, high in shares), text
        assert not re.search(r' to [^()]*; 1 (fresh )?seed', plain), text  # a mean of one has no interval
    return found


def section(found: dict[str, Any], title: str = '2 epochs') -> str:
    return ' '.join(next(part['sentences'] for part in found['sections'] if part['title'].startswith(title)))


def table(found: dict[str, Any], title: str = '2 epochs') -> Any:
    return next((part['table'] for part in found['sections'] if part['title'].startswith(title)), [])


@pytest.mark.parametrize('seed', range(60))
def test_any_answer_has_words(seed: int) -> None:
    worded(**drawn(seed))


def test_a_winner_alone() -> None:
    found = worded(budget(row(8), *WORSE))
    accuracy = 'test accuracy 97.00 % (96.50 to 97.50; 6 seeds of the search)'
    assert found['headline'] == f'For 2 epochs take batch size 8, learning rate 0.1: {accuracy}.'
    assert 'Worse than 8: 32, −1.00 points (−1.40 to −0.60); 128, −2.00 points (−2.40 to −1.60).' in section(found)
    assert 'test accuracy, is 2.00 points (1.50 to 2.50) at 8 and 4.00 points (3.50 to 4.50) at 128.' in section(found)
    assert 'Fresh seeds have yet to confirm it.' in section(found)
    assert found['table'][1][:3] == ('2 epochs', '8', '0.1')
    assert found['table'][1][4:] == ('–', '–', '32 and 128', '–', 'batch size 8, the smallest tried')
    adam = worded(budget(row(8, momentum=0.9, weight_decay=1e-4)), optimizer='adamw')
    assert 'learning rate 0.1, momentum 0.9, weight decay 0.0001, beta2 0.999:' in adam['headline']


def test_what_is_as_good_and_what_to_take_of_it() -> None:
    rows = row(8, 0.01, 'as good'), row(32), row(128, 0.02, 'as good'), row(512, 1.0, 'worse')
    found = worded(budget(*rows))
    assert 'take batch size 128' in found['headline']  # the fastest of these
    assert found['headline'].endswith('; as good: 8 and 32; if memory is short, take 8.')
    assert 'As good as 32: 8, −0.01 points (−0.04 to 0.02); 128,' in section(found)
    assert found['table'][1][4:] == ('8 and 32', '–', '512', '–', '–')
    found = worded(budget(*rows, unit='seconds', amount=3.71))
    same = budget(row(8), row(32, 0.02, 'as good', seconds=9.0), unit='updates', amount=100)
    assert worded(same)['headline'].endswith('; as good: 32.')  # all make as many updates
    assert 'For 3.71 s on this device take batch size 8,' in found['headline']
    assert found['headline'].endswith('; as good: 32 and 128; if updates are short, take 128.')


def test_the_machine_tells_what_is_computed_in_parts() -> None:
    found = worded(budget(row(8)), machine=[machine(8, 1e-4, 0.05), {**machine(4096, 0.1, 0.05), 'parts': 4}])
    (table,) = (part['table'] for part in found['sections'] if part['title'] == 'Speed and memory')
    assert [cells[0] for cells in table] == ['Batch size', '8', '4096, in 4 parts']


def test_a_machine_that_is_too_noisy_does_not_tell_the_fastest() -> None:
    times = [machine(8, 1e-4, 0.05), machine(32, 2e-4, 0.4)]
    found = worded(budget(row(8, 0.01, 'as good'), row(32)), machine=times)
    assert found['limits'][-1].startswith('Times at batch size 32 are too noisy')
    assert table(found, 'Speed')[1] == ('8', '0.1 (0.0975 to 0.103; n = 5)', '80,000', '38')
    assert table(found, 'Speed')[2][1] == '0.2 (0.16 to 0.24; n = 5), too noisy'
    assert 'too noisy' in worded(budget(row(8), unit='seconds'), machine=times)['text']
    assert 'too noisy' not in worded(budget(row(8), *WORSE), machine=times)['text']  # no choice rests on time


def test_what_is_undecided_says_what_would_decide() -> None:
    of_examples = 'no number of seeds but about 41,000 validation examples'
    for needed, words in (('seeds_needed', 'about 41,000 seeds each'), ('examples_needed', of_examples)):
        found = worded(budget(row(8), row(32, 0.37, 'undecided', **{needed: 41234})))
        assert found['headline'].endswith('; undecided: 32.')
        assert f'Undecided against 8: 32, −0.4 points (−1.4 to 0.6), {words} would decide.' in section(found)


def test_nothing_was_learned() -> None:
    nothing = budget(missing=[*GRID])
    found = worded(nothing, curves=[], targets=[], learning_rates={'rows': [], 'law': None}, noise_scale=[])
    assert found['headline'].startswith('Nothing can be recommended: no setting trained all its seeds')
    assert 'take' not in found['text']
    assert found['table'][1] == ('2 epochs', 'none', *'–––––', '8, 32, 128 and 512', '–')
    assert 'Critical batch size. It is not known' in found['text']
    assert table(found, 'Learning rates') == found['limits'] == []
    one = worded(budget(row(8), missing=[32]), {**nothing, 'unit': 'seconds'})
    assert one['headline'].endswith('For 2 s on this device nothing can be recommended.')
    assert 'Not compared: 32, as no setting trained all its seeds' in section(one)


def test_few_validation_examples_stand_before_everything() -> None:
    found = worded(budget(row(8), *WORSE), examples={'train': 900, 'validation': 120, 'test': 1000})
    assert found['text'].startswith('Warning: only 120 validation examples')
    assert 'takes about 1,000 validation examples' in found['warnings'][1]
    assert worded(budget(row(8), *WORSE))['warnings'] == []


def test_a_recommendation_that_fresh_seeds_overturned() -> None:
    seeds = [fresh('recommended', 8, 0.6, 'worse'), fresh('larger', 32, 0.2, learning_rate=0.4)]
    now = {**row(32), 'learning_rate': 0.4}
    found = worded(budget(row(8), row(32, 0.01, 'as good'), recommended=now, first_thought=row(8), fresh=seeds))
    assert found['headline'] == (
        'For 2 epochs take batch size 32, learning rate 0.4: test accuracy 96.80 % (96.30 to 97.30; 6 fresh seeds);'
        ' what the search had favoured, batch size 8, learning rate 0.1, was worse with fresh seeds.'
    )
    assert 'overturned batch size 8, learning rate 0.1, −0.60 points (−1.00 to −0.20) against batch' in section(found)
    assert found['table'][1][4:7] == ('–', '–', '–')


def test_what_fresh_seeds_say() -> None:
    seeds = [
        fresh('recommended', 8, 0.2, 'undecided', seeds_needed=9),
        fresh('larger', 32),
        fresh('twice the rate', 8, verdict=None, learning_rate=0.2),
    ]
    found = worded(budget(row(8), *WORSE, fresh=seeds))
    assert 'test accuracy 96.80 % (96.30 to 97.30; 6 fresh seeds)' in found['headline']
    said = 'leave it undecided, −0.2 points (−1.2 to 0.8) against batch size 32, learning rate 0.1, about 9 seeds'
    assert section(found).startswith(f'Fresh seeds {said}')
    assert [line[2] for line in table(found)[1:]] == ['undecided, −0.2 points (−1.2 to 0.8)', 'best', '6 of 6 diverged']
    for verdict, words in (
        ('as good', 'agree: as good, −0.20 points (−0.23'),
        ('best', 'agree: no neighbouring setting'),
    ):
        seeds[0] = fresh('recommended', 8, 0.2, verdict)
        assert section(worded(budget(row(8), *WORSE, fresh=seeds))).startswith(f'Fresh seeds {words}')
    seeds[1] = fresh('larger', 32, 0.1, 'undecided', seeds_needed=9)
    assert 'did better; not shown to be worse: batch size 32, learning rate 0.1.' in section(
        worded(budget(row(8), *WORSE, fresh=seeds))
    )
    seeds[0] = fresh('recommended', 8, verdict=None, diverged=2, seeds=1, test_score=estimate(0.9))
    found = worded(budget(row(8), *WORSE, fresh=seeds))
    assert found['headline'].endswith('90.00 % (no interval; 1 fresh seed); 2 of 3 fresh seeds diverged.')
    assert 'a smaller learning rate is safer' in section(found)


@pytest.mark.parametrize('verdict', ['best', 'as good', 'undecided', 'worse'])
def test_whether_a_growing_batch_pays(verdict: str) -> None:
    grown = fresh('growing', 8, 0.3, verdict, updates=1250, seconds=0.5, difference=estimate(-0.003, 0.001))
    found = worded(budget(row(8), *WORSE, fresh=[fresh('recommended', 8), grown]))
    word = 'not shown to be worse' if verdict == 'best' else verdict
    assert f' {word}: −0.30 points (−0.40 to −0.20) with 1,250 updates (0.5 s) instead of 2,500 upd' in section(found)
    assert table(found)[2][2] == f'{word}, −0.30 points (−0.40 to −0.20)'


def test_one_seed_has_no_intervals() -> None:
    found = worded(budget(row(8, seeds=1), row(32, 0.3, 'undecided', seeds=1)), rests_on=RESTS | {'seeds': 1})
    assert '97.00 % (no interval; 1 seed of the search)' in found['headline']
    assert '32, −0.30 points (no interval), what would decide is not known.' in section(found)
    assert found['limits'][0].startswith('Only 1 seed:')


@pytest.mark.parametrize(
    ('value', 'low', 'high', 'words', 'near'),
    [
        (None, None, None, 'not bounded by what was tried', 128),
        (None, 123.4, None, 'above 120', 128),
        (700.0, 600.0, 900.0, 'above 510', 512),  # the largest that was tried
        (0.05, 0.01, 0.1, 'below 8', 8),  # the smallest
        (188.0, 123.4, 312.0, '190 (120 to 310)', 128),
    ],
)
def test_the_critical_batch_size(value: Any, low: Any, high: Any, words: str, near: int) -> None:
    targets = [target(error, {'value': value, 'low': low, 'high': high}) for error in (0.09, 0.07, 0.05)]
    said = section(worded(budget(row(8)), targets=targets), 'Critical')
    assert f'updates: {words} for 9 % and {words} for 5 % validation error.' in said
    assert f' at batch size {near}.' in said  # of those whose noise scale was measured the nearest


def test_learning_rates_and_what_holds_only_here_are_told() -> None:
    rates = answer()['learning_rates']
    rates['rows'][3] |= {'edge': True, **estimate(0.4)}
    found = worded(budget(row(8), *WORSE), budget(*WORSE, row(512), unit='updates', amount=100), learning_rates=rates)
    assert table(found, 'Learning rates')[1] == ('8', '2,500', '0.1 (0.08 to 0.12)', '0.11 (0.08 to 0.14)')
    assert table(found, 'Learning rates')[4][2:] == ('0.4 (no interval), at the end of what was tried', '–')
    assert found['limits'] == [
        'For 2 epochs try beyond batch size 8, the smallest tried.',
        'For 100 updates try beyond batch size 512, the largest tried.',
        'All holds for MLP 256-256, sgd, the linear schedule with 5 % warm-up and this device (cpu).',
    ]
    assert 'try beyond learning rate 0.2, the largest tried' in worded(budget(row(128, learning_rate=0.2)))['text']
