"""The words for answers whose runs are made by hand."""

import itertools
import math
from typing import Any

import pytest
from answers import ENDS, FRESH, GRID, OFFSETS, measured, plain, power_law, searched, worded

from bsgap.report.answer_words import paragraph, table


def has_limit(found: dict[str, Any], words: str) -> bool:
    return any(words in limit for limit in found['limits'])


def test_ties() -> None:
    groups = plain(0.9, 0.9001, 0.9)
    found = worded(*groups)
    assert 'For 200 updates use batch size 128 with learning rate 0.1 (test accuracy 90.00 ± 0.25 %)' in found['text']
    apart = 'from 8 to 128, all that were tried, the 95 % intervals overlap, though paired by seed 8 and 128 differ'
    assert apart in found['text']
    assert 'the smallest for epochs (memory, energy) and the largest for updates and seconds (time)' in found['text']
    assert table(found)[2] == ('200 updates', '128', '0.1', '90.00 ± 0.25 %', '+10.00 ± 0.25', '8 to 128', '32')
    for run in (run for group in groups for run in group if run.about['fields']['batch_size'] != 32):
        for row in (row for row in run.rows if 'test_accuracy' in row):
            row['test_accuracy'] -= 2 * OFFSETS[run.about['seed']]
    assert 'from 8 to 128, all that were tried, it makes no measurable difference' in worded(*groups)['text']


def test_a_clear_winner() -> None:
    found = worded(*plain(0.88, 0.9, 0.88))
    assert 'every other batch size differs measurably' in found['text']
    assert 'makes no measurable difference' not in found['text']
    assert 'intervals overlap' not in found['text']
    assert 'that tie' not in found['text']
    assert table(found)[1][-2:] == ('none other', '32')
    assert not has_limit(found, 'lie beyond')


def test_a_tie_beyond_one_that_is_worse() -> None:
    found = worded(*plain(0.9001, 0.88, 0.9))
    assert has_limit(found, 'batch size 128 ties as well')
    assert 'the next smaller or larger batch size differs measurably' in found['text']


def test_what_diverged() -> None:
    runs = list(itertools.chain.from_iterable(plain()))
    found = worded(
        [
            run._replace(rows=[{**row, 'distance': math.inf} for row in run.rows[:1]])
            if run.about['fields']['batch_size'] == 8
            else run
            for run in runs
        ]
    )
    assert has_limit(found, 'trained batch size 8 with all seeds')
    assert '9 diverged' in found['text']


def test_nothing_trained_at_all() -> None:
    found = worded([], target=0.0)
    assert found['text'].count('nothing can be recommended') == 2
    assert 'no target error' in found['text']


def test_the_exponent_and_the_critical_batch_size() -> None:
    found = worded(*power_law())
    assert 'with B to the power of 0.5 (0.25 to 0.75).' in found['text']
    assert 'Well below 48 (' in found['text']
    assert 'the critical batch size for 10 % validation error' in found['text']


def test_momentum_is_said() -> None:
    found = worded(searched(8, 0.1, (0.95, 0.9)), searched(32, 0.1, (0.95, 0.9), momentum=0.9))
    assert 'batch size 32 with learning rate 0.1 and momentum 0.9' in found['text']
    assert table(found)[2][1:3] == ('32', '0.1 and momentum 0.9')


def test_what_did_not_reach_the_target() -> None:
    found = worded(
        searched(8, 0.1, (0.85, 0.85), target_at=1e6),
        searched(32, 0.1, (0.85, 0.85), target_at=1e6),
        searched(128, 0.1, (0.95, 0.95), target_at=40),
    )
    assert has_limit(found, 'At batch size 8 and 32 no learning rate reached the target')
    nothing = worded(*plain(), target=0.0001)
    assert 'Nothing reached the target of 0.01 % validation error' in nothing['text']
    assert 'power of' not in nothing['text']


def test_what_was_stopped() -> None:
    stopped = [run._replace(rows=run.rows[:4], stopped=True) for run in searched(32, 1.0, (0, 0), target_at=30)]
    found = worded(stopped, searched(32, 0.1, (0.95, 0.95), target_at=60))
    assert '3 stopped early' in found['text']
    assert has_limit(found, 'The search stopped 3 runs early')


def test_one_seed() -> None:
    groups = [[run._replace(about={**run.about, 'seed': 0}) for run in runs[1:2]] for runs in plain(0.9, 0.9001, 0.9)]
    found = worded(*groups, seeds=1)
    assert 'with one seed it is not known' in found['text']
    assert found['limits'][0].startswith('One seed')
    assert table(found)[1][-2] == 'not known'
    assert table(found)[1][3:5] == ('90.01 %', '+9.99')


def test_winners_and_learning_rates_at_the_end_of_what_was_tried_are_limits() -> None:
    found = worded(
        searched(8, 0.1, (0.8, 0.8)),
        searched(32, 0.1, (0.85, 0.85)),
        *(searched(128, rate, (accuracy, accuracy)) for rate, accuracy in ((0.01, 0.8), (0.1, 0.85), (1.0, 0.9))),
    )
    assert has_limit(found, 'For 200 updates the winner, 128, is the largest batch size tried')
    assert has_limit(found, 'the best learning rate of batch size 128, 1, is the largest tried')
    assert has_limit(found, 'a factor of 10 apart')
    smallest = worded(*plain(0.9, 0.88, 0.86))
    assert has_limit(smallest, 'For 200 updates the winner, 8, is the smallest batch size tried')


@pytest.mark.parametrize(
    ('low', 'high', 'words'),
    [
        (None, None, 'do not bound the critical batch size'),
        (123.4, None, 'is above 120:'),
        (500.0, None, 'is above 130:'),  # the largest that was tried
        (None, 1234.5, 'is below 1200:'),
        (None, 0.1, 'is below 8:'),
        (123.4, 312.0, 'Well below 190 (120 to 310), the critical batch size for 10 % validation error,'),
    ],
)
def test_the_words_for_the_critical_batch_size(low: float | None, high: float | None, words: str) -> None:
    found = worded(*power_law())
    found['curve']['b_crit'] = {'value': 188.0, 'low': low, 'high': high}
    assert words in paragraph(found)


def test_the_gap_lines_have_labels() -> None:
    found = worded(*(searched(size, 0.1, (0.9, 0.90)) for size in GRID))
    assert [line['label'] for line in found['gaps']] == [
        'after 0.0128 epochs, learning rate 0.1 for all',
        'after 200 updates, learning rate 0.1 for all',
        'after 0.0128 epochs, learning rate tuned',
        'after 200 updates, learning rate tuned',
    ]


def test_what_fresh_seeds_say() -> None:
    fresh = {8: 0.89, 32: 0.896, 128: 0.88}
    groups = [*plain(0.88, 0.9, 0.88), *(searched(size, 0.1, (0.5, test), seeds=FRESH) for size, test in fresh.items())]
    found = worded(*groups)
    for budget in ('0.0128 epochs', '200 updates'):
        said = (
            f'For {budget}: with 3 fresh seeds batch size 32 reaches 89.60 ± 0.25 % (the search stated 90.00 ± 0.25 %);'
            ' batch size 8 reaches 89.00 ± 0.25 %; batch size 128 reaches 88.00 ± 0.25 %.'
        )
        assert said in found['text']
    assert not has_limit(found, 'No fresh seeds')


def test_fresh_seeds_that_diverge_or_stand_alone() -> None:
    groups, fresh = plain(0.88, 0.9, 0.88), searched(32, 0.1, (0.8, 0.8), seeds=FRESH)
    lost = [run._replace(rows=[{**run.rows[0], 'distance': math.nan}]) for run in fresh]
    said = 'with 3 fresh seeds batch size 32 reaches 80.05 ± 0.64 %, 1 diverged (the search stated 90.00 ± 0.25 %).'
    assert said in worded(*groups, fresh[1:], lost[:1])['text']
    assert 'with 3 fresh seeds batch size 32 reaches nothing, 3 diverged (the' in worded(*groups, lost)['text']
    assert 'with 1 fresh seed batch size 32 reaches 79.90 % (the search' in worded(*groups, fresh[:1])['text']


def test_a_budget_in_seconds_names_the_device() -> None:
    ends = {**ENDS, 'seconds': {'8': 200, '32': 200, '128': 200}}
    found = worded(*plain(0.88, 0.9, 0.88), budgets={'updates': 200, 'seconds': 3.7}, updates=ends)
    assert 'For 3.7 s on this device use batch size 32' in found['text']
    assert has_limit(found, 'Times hold for this device (cpu)')


def test_the_noise_scale_stands_beside_the_critical_batch_size() -> None:
    groups = [measured(runs, runs[0].about['fields']['batch_size']) for runs in power_law()]
    found = worded(*groups)
    assert 'Up to that error the mean noise scale is 290 (2' in found['text']
    assert ', 6.1 times the critical batch size.' in found['text']
    assert not has_limit(found, 'oise scale was not measured')
    assert 'noise scale' not in worded(*power_law())['text']


def test_what_was_left_out_is_said() -> None:
    found = worded(*plain())
    assert has_limit(found, 'The noise scale was not measured')
    assert has_limit(found, 'No fresh seeds were trained with the recommendation')
    assert 'fresh seed' not in found['text']
    assert 'This rests on 27 runs, 3 seeds, ' in found['text']
    assert 'of training and evaluation of MLP 16 on mnist.' in found['text']


def test_an_unbounded_critical_batch_size() -> None:
    found = worded(*power_law())
    found['curve']['b_crit'] |= {'low': 500.0, 'high': None}
    assert 'The critical batch size for 10 % validation error is above 130:' in paragraph(found)
