"""The answer and its recommendation in words, from runs made by hand, where the right answer is known."""

import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from bsgap import analysis, recommend, scaling
from bsgap import answer as answer_lib
from bsgap.metrics import Record

N = 1_000_000
GRID = (8, 32, 128)
ENDS = {'epochs': {'8': 1600, '32': 400, '128': 100}, 'updates': dict.fromkeys(('8', '32', '128'), 200)}
OFFSETS = (-0.001, 0.0, 0.001)  # of three seeds: mean ± 4.303 × 0.001/√3 = ± 0.00248
HALF = 0.00248434
MODEL = {
    'model': 'mlp', 'hidden': [16], 'channels': [], 'batch_norm': False, 'ghost_batch': 0, 'model_arguments': {},
    'optimizer': 'sgd',
}  # fmt: skip


def record(
    name: str,
    seed: int,
    rows: Sequence[Mapping[str, float]],
    stages: Sequence[tuple[int, float, int]] = (),
    stopped: bool = False,
    measured: dict[str, float] | None = None,
    momentum: float = 0.0,
) -> Record:
    """A run: `stages` are batch size, learning rate and updates; a row has its update and what was measured there."""
    table = [
        {'batch_size': size, 'learning_rate': rate, 'length': length, 'unit': 'updates', 'momentum': momentum}
        for size, rate, length in stages
    ]
    edges = [0, *itertools.accumulate(length for _, _, length in stages)]

    def examples(update: float) -> float:
        return sum(
            size * max(0, min(update - start, length))
            for (size, _, length), start in zip(stages, edges, strict=False)
        )  # fmt: skip

    fields = {**MODEL, 'batch_size': stages[0][0], 'learning_rate': stages[0][1], 'momentum': momentum}
    about = {
        'name': f'{name}-seed{seed}', 'recipe': name, 'seed': seed, 'n': N, 'updates': edges[-1], 'stages': table,
        'fields': fields,
    }  # fmt: skip
    always = {'distance': 1.0, 'validation_loss': 1.0, 'train_seconds': 3.0, 'eval_seconds': 1.0}
    full = [
        {**always, 'examples': examples(row['update']), 'epoch': examples(row['update']) / N, **row} for row in rows
    ]
    return Record(about, full, measured or {}, stopped)


def full(update: int, validation: float, test: float, train: float = 1.0) -> dict[str, float]:
    """What a row has where all splits were evaluated."""
    return {
        'update': update, 'validation_accuracy': validation, 'test_accuracy': test, 'train_accuracy': train,
        'gap': train - test, 'train_loss': 0.1,
    }  # fmt: skip


def searched(
    size: int,
    rate: float,
    accuracy: Mapping[str, tuple[float, float]] | tuple[float, float],
    seeds: Sequence[int] = (0, 1, 2),
    target_at: float = 50,
    **changes: Any,
) -> list[Record]:
    """The runs of a recipe of the search: validation and test accuracy where each budget ends, by seed ± 0.001.

    The validation error is a power law of the update that passes through 0.1 at `target_at`.
    """
    runs = []
    for seed in seeds:
        offset = OFFSETS[seed % len(OFFSETS)]
        ends = {ENDS[unit][str(size)]: unit for unit in ENDS}
        dense = [
            {'update': update, 'validation_accuracy': 1 - 0.1 * math.sqrt(target_at * 2**offset / update)}
            for update in (1, 10, 25, 90)
        ]
        at = {
            unit: accuracy[unit] if isinstance(accuracy, Mapping) else accuracy for unit in ENDS
        }  # fmt: skip
        rows = [full(end, at[unit][0] + offset, at[unit][1] + offset) for end, unit in sorted(ends.items())]
        name = f'bs{size}-lr{rate:.12g}' + (f'-m{changes["momentum"]:g}' if changes.get('momentum') else '')
        runs.append(record(name, seed, [*dense, *rows], [(size, rate, max(ends))], **changes))
    return runs


def search(**changes: Any) -> dict[str, Any]:
    return {
        'target': 0.1, 'budgets': {'epochs': 0.0128, 'updates': 200}, 'updates': ENDS,
        'seconds_per_update': {'8': 0.01, '32': 0.02, '128': 0.04}, 'reference': 0.1, 'rungs': [], 'stopped': [],
        **changes,
    }  # fmt: skip


def answer(*groups: Sequence[Record], seeds: int = 3, **changes: Any) -> dict[str, Any]:
    about = {'config': {'dataset': 'mnist', 'seeds': seeds}, 'devices': ['cpu', 'cpu']}
    found = answer_lib.find(about, search(**changes), list(itertools.chain.from_iterable(groups)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found  # plain data
    assert found['text'] == recommend.paragraph(found)
    assert all(len(line) == len(recommend.HEADINGS) for line in recommend.table(found))
    return found


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test is about the width of the curve's interval."""
    monkeypatch.setattr(scaling, 'fit', functools.partial(scaling.fit, resamples=10))


def budget(found: Mapping[str, Any], unit: str) -> dict[str, Any]:
    return next(each for each in found['budgets'] if each['unit'] == unit)


def plain(low: float = 0.9, middle: float = 0.9, high: float = 0.9) -> list[Sequence[Record]]:
    """One good learning rate at each batch size, with these accuracies, and one on either side that is worse."""
    groups: list[Sequence[Record]] = []
    for size, accuracy in zip(GRID, (low, middle, high), strict=True):
        groups += [searched(size, rate, (accuracy - loss,) * 2) for rate, loss in ((0.01, 0.02), (0.1, 0), (1.0, 0.02))]
    return groups


def test_a_tie_prefers_the_small_batch_for_epochs_and_the_large_for_updates() -> None:
    found = answer(*plain(0.9, 0.9001, 0.9))
    for unit, size in (('epochs', 8), ('updates', 128)):
        each = budget(found, unit)
        assert (each['winner'], each['tied'], each['range']) == (32, [8, 32, 128], [8, 128])
        assert each['recommended'] == size
    assert 'For 200 updates use batch size 128 with learning rate 0.1 (test accuracy 90.00 ± 0.25 %)' in found['text']
    # All seeds of a batch size are as far from one another's, so that paired by seed the smallest difference is seen.
    apart = 'from 8 to 128, all that were tried, the 95 % intervals overlap, though paired by seed 8 and 128 differ'
    assert apart in found['text']
    groups = plain(0.9, 0.9001, 0.9)
    for run in (run for group in groups for run in group if run.about['fields']['batch_size'] != 32):
        for row in (row for row in run.rows if 'test_accuracy' in row):
            row['test_accuracy'] -= 2 * OFFSETS[run.about['seed']]
    assert 'from 8 to 128, all that were tried, it makes no measurable difference' in answer(*groups)['text']
    assert 'the smallest for epochs (memory, energy) and the largest for updates and seconds (time)' in found['text']
    assert recommend.table(found)[2] == (
        '200 updates', '128', '0.1', '90.00 ± 0.25 %', '+10.00 ± 0.25', '8 to 128', '32'
    )  # fmt: skip


def test_a_clear_winner_ties_with_none() -> None:
    found = answer(*plain(0.88, 0.9, 0.88))
    assert [(each['tied'], each['recommended']) for each in found['budgets']] == [([32], 32)] * 2
    assert 'every other batch size differs measurably' in found['text']
    assert 'makes no measurable difference' not in found['text']
    assert 'intervals overlap' not in found['text']
    assert 'that tie' not in found['text']
    assert recommend.table(found)[1][-2:] == ('none other', '32')
    assert not any('lie beyond' in limit for limit in found['limits'])


def test_intervals_tie_as_far_as_they_touch() -> None:
    """Two intervals of ± 0.00248 overlap up to a difference of 0.00497."""
    assert budget(answer(*plain(0.9 - 1.98 * HALF, 0.9, 0.9 - 2.02 * HALF)), 'epochs')['tied'] == [8, 32]


def test_a_tie_beyond_one_that_is_worse_is_not_recommended() -> None:
    found = answer(*plain(0.9001, 0.88, 0.9))
    each = budget(found, 'updates')
    assert (each['winner'], each['tied'], each['recommended']) == (8, [8, 128], 8)
    assert any('batch size 128 ties as well' in limit for limit in found['limits'])
    assert 'the next smaller or larger batch size differs measurably' in found['text']


def test_choices_are_made_on_validation_and_numbers_are_of_the_test_split() -> None:
    """The test accuracies are arranged the other way round, within a batch size and between them."""
    found = answer(
        searched(8, 0.1, (0.92, 0.80)),
        searched(8, 1.0, (0.90, 0.95)),
        searched(32, 0.1, (0.93, 0.70)),
        searched(128, 0.1, (0.80, 0.99)),
    )
    each = budget(found, 'epochs')
    assert [(row['learning_rate'], round(row['test_accuracy']['value'], 6)) for row in each['rows']] == [
        (0.1, 0.8), (0.1, 0.7), (0.1, 0.99),
    ]  # fmt: skip
    assert each['winner'] == each['recommended'] == 32


def test_reported_numbers_are_means_with_students_interval_where_the_budget_ends() -> None:
    found = answer(searched(32, 0.1, {'epochs': (0.9, 0.8), 'updates': (0.7, 0.6)}))
    epochs, updates = budget(found, 'epochs')['rows'][0], budget(found, 'updates')['rows'][0]
    assert (epochs['updates'], updates['updates'], epochs['seeds']) == (400, 200, 3)
    assert epochs['test_accuracy']['value'] == pytest.approx(0.8)
    assert updates['test_accuracy']['value'] == pytest.approx(0.6)
    assert updates['test_accuracy']['high'] == pytest.approx(0.6 + HALF, rel=1e-6)
    assert updates['gap']['low'] == pytest.approx(0.4 - HALF, rel=1e-6)


def test_fresh_seeds_do_not_enter_the_numbers_of_the_search() -> None:
    groups = plain(0.88, 0.9, 0.88)
    before = answer(*groups)
    after = answer(*groups, searched(32, 0.1, (0.5, 0.5), seeds=(3, 4, 5), target_at=1))
    for part in ('budgets', 'to_target', 'curve', 'learning_rate_exponent', 'surface', 'gaps'):
        assert before[part] == after[part]
    assert before['confirmation'] is None
    assert after['confirmation'] is not None
    assert (before['rests_on']['runs'], after['rests_on']['runs']) == (27, 30)


def test_an_incomplete_or_diverged_recipe_is_no_candidate() -> None:
    better = searched(32, 0.3, (0.95, 0.95))
    end = {'distance': math.nan, 'validation_loss': math.nan}
    diverged = [run._replace(rows=[*run.rows[:-1], run.rows[-1] | end]) for run in better]
    short = [run._replace(rows=run.rows[:3]) for run in better]
    for runs in (better[:2], [*better[:2], diverged[2]], [*better[:2], short[2]], short):
        each = budget(answer(*plain(), runs), 'epochs')
        assert [row['learning_rate'] for row in each['rows']] == [0.1, 0.1, 0.1]
    assert [row['learning_rate'] for row in budget(answer(*plain(), better), 'epochs')['rows']] == [0.1, 0.3, 0.1]


def test_a_batch_size_whose_runs_all_diverge_hides_nothing() -> None:
    runs = list(itertools.chain.from_iterable(plain()))
    found = answer(
        [
            run._replace(rows=[{**row, 'distance': math.inf} for row in run.rows[:1]])
            if run.about['fields']['batch_size'] == 8
            else run
            for run in runs
        ]
    )
    assert [row['batch_size'] for row in budget(found, 'epochs')['rows']] == [32, 128]
    assert [entry['batch_size'] for entry in found['to_target']] == [32, 128]
    assert found['rests_on']['diverged'] == 9
    assert {point['status'] for point in found['surface'] if point['batch_size'] == 8} == {'diverged'}
    assert any('trained batch size 8 with all seeds' in limit for limit in found['limits'])
    assert '9 diverged' in found['text']


def test_nothing_trained_at_all() -> None:
    found = answer([], target=0.0)
    assert found['text'].count('nothing can be recommended') == 2
    assert 'no target error' in found['text']
    assert found['target'] == {'error': None, 'found': True}


def power_law() -> list[Sequence[Record]]:
    """Updates to the target S = 9 (1 + 48/B) at ε = 0.1 (B/8)^½, and twice that at other ε."""
    groups: list[Sequence[Record]] = []
    for size, best in zip(GRID, (0.1, 0.2, 0.4), strict=True):
        updates = 9 * (1 + 48 / size)
        groups += [
            searched(size, rate, (0.95, 0.9), target_at=updates * (1 if rate == best else 2))
            for rate in (0.05, 0.1, 0.2, 0.4, 0.8)
        ]
    return groups


def test_to_target_the_curve_and_the_exponent_have_their_closed_forms() -> None:
    found = answer(*power_law())
    assert [entry['learning_rate'] for entry in found['to_target']] == [0.1, 0.2, 0.4]
    first = found['to_target'][0]['runs'][1]
    assert first['updates'] == pytest.approx(63)
    assert first['examples'] == pytest.approx(8 * 63)
    assert first['seconds'] == pytest.approx(0.01 * 63)
    assert found['curve']['s_min']['value'] == pytest.approx(9, rel=1e-3)
    assert found['curve']['b_crit']['value'] == pytest.approx(48, rel=1e-3)
    assert found['learning_rate_exponent']['value'] == pytest.approx(0.5)
    # The seeds agree, but half a step of 2 at either end is open, over a range of 16.
    assert 'with B to the power of 0.50 (0.25 to 0.75).' in found['text']
    assert 'Well below 48 (' in found['text']
    assert 'the critical batch size for 10 % validation error' in found['text']


def test_the_exponent_uses_the_effective_learning_rate() -> None:
    found = answer(
        searched(8, 0.1, (0.95, 0.9), target_at=180),
        searched(32, 0.1, (0.95, 0.9), target_at=60, momentum=0.9),
    )
    assert found['learning_rate_exponent']['value'] == pytest.approx(math.log(10) / math.log(4))
    assert 'learning rate 0.1 and momentum 0.9' in found['text'] + str(recommend.table(found))


def test_a_target_of_0_is_found() -> None:
    """The lowest errors of the best recipes are 0.05 ± 0.001, 0.06 and 0.07 by batch size."""
    found = answer(*plain(0.95, 0.94, 0.93), target=0.0)
    assert found['target'] == {'error': pytest.approx(0.071), 'found': True}
    assert all(run['updates'] for entry in found['to_target'] for run in entry['runs'])


def test_runs_that_do_not_reach_the_target_are_censored_where_they_end() -> None:
    never = searched(8, 0.1, (0.85, 0.85), target_at=1e6) + searched(8, 1.0, (0.80, 0.8), target_at=1e6)
    one = searched(32, 0.1, (0.85, 0.85), target_at=1e6)
    one[1] = searched(32, 0.1, (0.95, 0.95), target_at=60)[1]
    found = answer(never, one, searched(128, 0.1, (0.95, 0.95), target_at=40))
    made = [[(run['updates'], run['made']) for run in entry['runs']] for entry in found['to_target']]
    assert found['to_target'][0]['learning_rate'] == 0.1  # the lower error at the end
    assert made[0] == [(None, 1600)] * 3
    assert made[1] == [(None, 400), (pytest.approx(60), 400), (None, 400)]
    assert any('At batch size 8 and 32 no learning rate reached the target' in limit for limit in found['limits'])


def test_a_recipe_with_which_every_seed_reached_the_target_comes_first() -> None:
    fast = searched(32, 1.0, (0.95, 0.95), target_at=20)
    fast[0] = searched(32, 1.0, (0.85, 0.85), target_at=1e6)[0]
    assert answer(fast, searched(32, 0.1, (0.95, 0.95), target_at=60))['to_target'][0]['learning_rate'] == 0.1


def test_stopped_runs_count_as_far_as_they_came() -> None:
    stopped = [
        run._replace(rows=run.rows[:4], stopped=True)
        for run in searched(32, 1.0, (0, 0), target_at=30)
    ]  # fmt: skip
    found = answer(stopped, searched(32, 0.1, (0.95, 0.95), target_at=60))
    assert found['to_target'][0]['learning_rate'] == 1.0
    assert budget(found, 'epochs')['rows'][0]['learning_rate'] == 0.1
    assert [(point['status'], point['updates']) for point in found['surface']] == [('done', 400), ('stopped', 90)]
    assert found['rests_on']['stopped'] == 3
    assert '3 stopped early' in found['text']
    assert any('3 runs of the search were stopped early' in limit for limit in found['limits'])


def test_nothing_reached_the_target() -> None:
    found = answer(*plain(), target=0.0001)
    assert found['curve'] is None
    assert found['learning_rate_exponent'] is None
    assert 'Nothing reached the target of 0.01 % validation error' in found['text']
    assert 'power of' not in found['text']


def test_one_seed_tells_no_ties() -> None:
    found = answer(*[runs[1:2] for runs in plain(0.9, 0.9001, 0.9)], seeds=1)
    found_again = answer(
        *[[run._replace(about={**run.about, 'seed': 0}) for run in runs[1:2]] for runs in plain(0.9, 0.9001, 0.9)],
        seeds=1,
    )
    assert not any(each['rows'] for each in found['budgets'])  # seed 1 of one seed is a fresh one
    each = budget(found_again, 'epochs')
    assert (each['tied'], each['recommended']) == ([32], 32)
    assert each['rows'][0]['test_accuracy'] == {'value': 0.9, 'low': None, 'high': None}
    assert 'with one seed it is not known' in found_again['text']
    assert found_again['limits'][0].startswith('One seed')
    assert recommend.table(found_again)[1][-2] == 'not known'


def test_winners_and_learning_rates_at_the_end_of_what_was_tried_are_limits() -> None:
    found = answer(
        searched(8, 0.1, (0.8, 0.8)),
        searched(32, 0.1, (0.85, 0.85)),
        *(searched(128, rate, (accuracy, accuracy)) for rate, accuracy in ((0.01, 0.8), (0.1, 0.85), (1.0, 0.9))),
    )
    joined = ' '.join(found['limits'])
    smallest = answer(*plain(0.9, 0.88, 0.86))['limits']
    assert any('For 200 updates the winner, 8, is the smallest batch size tried' in limit for limit in smallest)
    assert 'For 200 updates the winner, 128, is the largest batch size tried' in joined
    assert 'the best learning rate of batch size 128, 1, is the largest tried' in joined
    assert 'a factor of 10 apart' in joined


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
    found = answer(*power_law())
    found['curve']['b_crit'] = {'value': 188.0, 'low': low, 'high': high}
    assert words in recommend.paragraph(found)


def test_an_unbounded_critical_batch_size_is_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded = scaling.Estimate(1e5, 500.0, math.inf)
    fit = scaling.Fit(scaling.Estimate(1.0, 0.0, 2.0), scaling.Estimate(800.0, 700.0, 900.0), unbounded, 0.1)
    monkeypatch.setattr(scaling, 'fit', lambda *_: fit)
    found = answer(*plain(), moment(40, (50.0,)))
    assert found['curve']['b_crit'] == {'value': 1e5, 'low': 500.0, 'high': None}
    assert found['curve']['s_min'] == {'value': 1.0, 'low': None, 'high': 2.0}
    assert {each['ratio'] for each in found['noise_scale']['predictions']} == {None}
    assert 'The critical batch size for 10 % validation error is above 130:' in found['text']
    assert any('do not bound' in limit for limit in found['limits'])


def test_the_gap_lines() -> None:
    """At the reference, with the study's own momentum, then tuned; each at the end of its budget."""
    groups = [searched(size, 0.1, {'epochs': (0.9, 0.90), 'updates': (0.9, 0.85)}) for size in GRID]
    groups += [searched(size, 0.3, {'epochs': (0.95, 0.94), 'updates': (0.95, 0.93)}) for size in GRID[1:]]
    groups += [searched(size, 0.1, (0.1, 0.1), momentum=0.5) for size in GRID]
    found = answer(*groups)
    assert {
        line['label']: [(point['batch_size'], round(point['gap']['value'], 6)) for point in line['points']]
        for line in found['gaps']
    } == {
        'after 0.0128 epochs, learning rate 0.1 for all': [(8, 0.1), (32, 0.1), (128, 0.1)],
        'after 200 updates, learning rate 0.1 for all': [(8, 0.15), (32, 0.15), (128, 0.15)],
        'after 0.0128 epochs, learning rate tuned': [(8, 0.1), (32, 0.06), (128, 0.06)],
        'after 200 updates, learning rate tuned': [(8, 0.15), (32, 0.07), (128, 0.07)],
    }


FRESH = (3, 4, 5)


@pytest.mark.parametrize(
    ('recommended', 'neighbour', 'confirmed', 'words'),
    [
        (0.9, 0.89, True, 'within the stated 90.00 ± 0.25 %, and 8 and 128 are not measurably above it; confirmed'),
        (0.896, 0.88, True, 'but the two intervals overlap'),
        (0.89, 0.88, False, 'outside the stated 90.00 ± 0.25 %, and 8 and 128 are not measurably above it; not'),
        (0.9, 0.904, True, '; confirmed'),
        (0.9, 0.91, False, 'batch size 8 (a quarter) is measurably above it with 91.00 ± 0.25 %'),
    ],
)
def test_fresh_seeds_confirm_or_refute(recommended: float, neighbour: float, confirmed: bool, words: str) -> None:
    fresh = {8: neighbour, 32: recommended, 128: neighbour}
    found = answer(
        *plain(0.88, 0.9, 0.88), *(searched(size, 0.1, (0.5, test), seeds=FRESH) for size, test in fresh.items())
    )['confirmation']
    assert found['confirmed'] is confirmed
    assert words in found['sentence']
    assert found['sentence'].startswith('For 0.0128 epochs, 3 fresh seeds at batch size 32 reach ')
    assert [(row['unit'], row['batch_size'], row['role'], row['seeds']) for row in found['rows']] == [
        (unit, size, role, 3)
        for unit in ('epochs', 'updates')
        for size, role in ((8, 'a quarter'), (32, 'recommended'), (128, 'four times'))
    ]


def test_confirmation_needs_the_recommended_setting() -> None:
    other = searched(32, 1.0, (0.9, 0.9), seeds=FRESH)
    assert answer(*plain(0.88, 0.9, 0.88), other)['confirmation'] is None


def test_a_fresh_run_that_diverges_refutes_and_one_alone_may_leave_it_open() -> None:
    fresh = searched(32, 0.1, (0.9, 0.9), seeds=FRESH)
    lost = [*fresh[:2], fresh[2]._replace(rows=[{**fresh[2].rows[0], 'distance': math.nan}])]
    groups = plain(0.88, 0.9, 0.88)
    refuted = answer(*groups, lost)['confirmation']
    assert refuted['confirmed'] is False
    assert '1 of the fresh runs at the recommended batch size diverged' in refuted['sentence']
    assert answer(*groups, searched(32, 0.1, (0.8, 0.8), seeds=FRESH[:1]))['confirmation']['confirmed'] is None
    assert answer(*groups, fresh)['confirmation']['confirmed'] is True


def growing(test: float, target_at: int, budgets: Sequence[int] = (200,)) -> list[Record]:
    """From 8 to 64, 100 updates each."""
    return [
        record(
            'grow',
            seed,
            [
                {'update': 10, 'validation_accuracy': 0.5},
                {'update': target_at, 'validation_accuracy': 0.9},
                *(full(update, 0.95, test + OFFSETS[seed]) for update in budgets),
            ],
            [(8, 0.1, 100), (64, 0.4, 100)],
        )
        for seed in range(3)
    ]


def test_growing_pays_if_it_ends_higher_paired_by_seed() -> None:
    """The seeds' offsets cancel in pairs, so that 0.1 points are significant."""
    found = answer(*plain(0.88, 0.9, 0.88), growing(0.901, 150))['grow']
    assert found['stages'] == [
        {'batch_size': 8, 'learning_rate': 0.1, 'examples': 800},
        {'batch_size': 64, 'learning_rate': 0.4, 'examples': 6400},
    ]
    assert [each['unit'] for each in found['budgets']] == ['updates']
    assert found['budgets'][0]['difference']['value'] == pytest.approx(0.001)
    assert found['budgets'][0]['difference']['low'] > 0
    assert found['pays'] is True
    assert 'Growing the batch from 8 to 64 pays here' in found['sentence']
    assert '+0.10 ± 0.00 points from the winner' in found['sentence']


def test_the_time_of_a_growing_batch_is_that_of_its_stages() -> None:
    """100 updates at 0.01 s, then 50 at batch size 64, half-way in log between 0.02 and 0.04 s."""
    found = answer(*plain(0.88, 0.9, 0.88), growing(0.89, 150))
    assert found['grow']['examples']['value'] == pytest.approx(800 + 50 * 64)
    assert found['grow']['seconds']['value'] == pytest.approx(1 + 50 * 0.02 * math.sqrt(2))
    assert found['grow']['pays'] is False
    assert (
        'does not measurably pay here: it takes 2.41 s to the target, the fastest constant batch size (8) 0.5 s'
        in found['grow']['sentence']
    )
    assert 'does not measurably pay here. ' in found['text']


def test_growing_pays_if_it_is_significantly_sooner_at_the_target() -> None:
    slow = [searched(size, 0.1, (0.9, 0.9), target_at=90) for size in GRID]
    assert answer(*slow, growing(0.89, 30))['grow']['pays'] is True
    never = growing(0.89, 30)
    never[0] = never[0]._replace(rows=[{**row, 'validation_accuracy': 0.5} for row in never[0].rows])
    found = answer(*slow, never)['grow']
    assert (found['pays'], found['seconds']) == (False, None)
    assert 'it does not reach the target with all seeds' in found['sentence']


def test_budgets_of_a_growing_batch_end_where_its_rows_are_near_enough() -> None:
    """7200 examples are 0.0072 epochs; 200 updates take 1 + 100 × 0.0283 = 3.83 s."""
    ends = {**ENDS, 'seconds': {'8': 200, '32': 200, '128': 200}}
    for epochs, time, units in ((0.0073, 3.7, ['epochs', 'updates', 'seconds']), (0.0074, 3.6, ['updates'])):
        budgets = {'epochs': epochs, 'updates': 200, 'seconds': time}
        found = answer(*plain(0.88, 0.9, 0.88), growing(0.9, 150), budgets=budgets, updates=ends)
        assert [each['unit'] for each in found['grow']['budgets']] == units
        assert f'For {time} s on this device use batch size 32' in found['text']
        assert any('Times hold for this device (cpu)' in limit for limit in found['limits'])


def test_growing_that_ends_higher_only_after_the_same_epochs_does_not_pay() -> None:
    found = answer(*plain(0.88, 0.9, 0.88), growing(0.95, 150), budgets={'epochs': 0.0072})['grow']
    assert found['budgets'][0]['difference']['low'] > 0
    assert found['pays'] is False


def test_one_seed_does_not_tell_whether_growing_pays() -> None:
    groups = [[runs[0]] for runs in plain(0.88, 0.9, 0.88)]
    found = answer(*groups, growing(0.95, 150)[:1], seeds=1)['grow']
    assert found['pays'] is None
    assert 'may or may not pay here' in found['sentence']


def measured(runs: Sequence[Record], scale: float) -> list[Record]:
    """With a noise scale of `scale` × update in every row."""
    rng = np.random.default_rng(0)
    return [
        run._replace(
            rows=[
                {**row, 'gradient_square': 2 + 0.01 * rng.normal(), 'gradient_variance': 2 * scale * row['update']}
                for row in run.rows
            ]
        )
        for run in runs
    ]


def test_noise_scale_in_training_pools_near_rows_and_predicts_at_the_nearest_batch_size() -> None:
    """Batch size 128 has rows at 1, 10, 25, 90, 100 and 200: only 90 and 100 are near each other."""
    groups = power_law()
    found = answer(*(measured(runs, runs[0].about['fields']['batch_size']) for runs in groups))
    scales = found['noise_scale']
    assert [line['batch_size'] for line in scales['training']] == [8, 32, 128]
    points = {point['update']: point for point in scales['training'][2]['points']}
    assert points[25]['examples'] == 25 * 128
    assert points[25]['noise_scale']['value'] == pytest.approx(128 * 25, rel=0.02)
    assert points[90]['noise_scale']['value'] == pytest.approx(128 * 95, rel=0.02)
    until, at = scales['predictions']
    assert (until['estimator'], at['estimator']) == (answer_lib.UNTIL, 'two batches, at the target')
    assert until['ratio'] == pytest.approx(until['value']['value'] / found['curve']['b_crit']['value'])
    assert [line[0] for line in recommend.predictions(found)[1:]] == [until['estimator'], at['estimator']]
    # At batch size 32 they cross at 22.5: after the rows at 1 and 10, and with the one at 25 around it.
    assert until['value']['value'] == pytest.approx(32 * (1 * 1 + 9 * 10) / 10, rel=0.1)  # by updates
    assert at['value']['value'] == pytest.approx(32 * 25, rel=0.1)


def test_a_noise_scale_without_a_value_is_left_out() -> None:
    runs = [
        run._replace(rows=[{**row, 'gradient_square': -1.0, 'gradient_variance': 1.0} for row in run.rows])
        for run in searched(32, 0.1, (0.95, 0.95))
    ]
    assert answer(runs)['noise_scale'] == {'training': [], 'exact': [], 'branched': [], 'predictions': []}


def moment(critical: float, scales: Sequence[float]) -> list[Record]:
    """Trunks of batch size 32 that end at update 100, and branches whose progress is ∝ 1/(B + critical)."""
    runs = []
    for seed, scale in enumerate(scales):
        values = {'noise_scale': scale, 'noise_scale_low': 0.9 * scale, 'noise_scale_high': 1.1 * scale}
        end = {'update': 100, 'validation_loss': 1.0}
        runs.append(record('moment100', seed, [end], [(32, 0.1, 100)], measured=values))
        for size in (8, 32, 128, 512):
            loss = 1 - 5 / (size + critical)
            rows = [{'update': 110, 'validation_loss': loss}]
            runs.append(record(f'moment100-to-bs{size}', seed, rows, [(32, 0.1, 100), (size, 0.1, 10)]))
    return runs


def test_moments_give_the_exact_and_the_branched_noise_scale() -> None:
    found = answer(*power_law(), moment(40, (50.0, 200.0, 100.0)))
    where = {'batch_size': 32, 'update': 100, 'examples': 3200}
    (exact,), (branched,) = found['noise_scale']['exact'], found['noise_scale']['branched']
    assert {key: exact[key] for key in where} == {key: branched[key] for key in where} == where
    assert exact['noise_scale']['value'] == pytest.approx(100)
    half = analysis.interval(np.log([50, 200, 100])).half_width
    assert exact['noise_scale']['high'] == pytest.approx(100 * math.exp(half))
    assert branched['critical_batch']['value'] == pytest.approx(40, rel=1e-3)
    ratios = {each['estimator']: each['ratio'] for each in found['noise_scale']['predictions']}
    assert ratios['per-example gradients, at 100 updates'] == pytest.approx(100 / 48, rel=1e-2)
    assert ratios['branched training, at 100 updates'] == pytest.approx(40 / 48, rel=1e-2)
    assert 'The noise scale was not measured' not in ' '.join(found['limits'])


def test_what_branches_share_with_their_trunk_counts_once() -> None:
    """A trunk of 100 × 32 examples and 4 s, and four branches that go on for 10 updates in no time."""
    rests = answer(moment(40, (50.0,)))['rests_on']
    assert (rests['runs'], rests['examples'], rests['seconds']) == (5, 3200 + 10 * (8 + 32 + 128 + 512), 4)


def test_fresh_seeds_that_end_with_their_budget_are_not_stopped_early() -> None:
    fresh = [run._replace(stopped=True, rows=run.rows[:-1]) for run in searched(128, 0.1, (0.9, 0.9), seeds=FRESH)]
    found = answer(*plain(0.88, 0.9, 0.9), fresh)
    assert found['rests_on']['stopped'] == 0


def test_one_trunk_has_the_interval_over_its_examples() -> None:
    found = answer(*power_law(), moment(40, (50.0,)))['noise_scale']['exact'][0]['noise_scale']
    assert found == {'value': 50.0, 'low': 45.0, 'high': pytest.approx(55.0)}


def test_fast_mode_says_what_was_left_out() -> None:
    found = answer(*plain())
    assert (found['grow'], found['confirmation']) == (None, None)
    last = found['limits'][-1]
    assert last.startswith('The noise scale was not measured, a growing batch was not tried and no fresh seeds')
    assert 'This rests on 27 runs, 3 seeds, ' in found['text']
    assert 'of training and evaluation of MLP 16 on mnist.' in found['text']
    assert found['rests_on']['seconds'] == 27 * 4
    assert found['device'] == 'cpu'


def test_a_tie_that_looks_worse_by_more_than_a_standard_error_is_not_recommended() -> None:
    """Of three seeds ± 0.001 the standard error of a mean is 0.001/√3, and that of a difference √2 times it."""
    error = math.sqrt(2 / 3) * 0.001
    near, far = (answer(*plain(0.88, 0.9, 0.9 - share * error)) for share in (0.98, 1.02))
    for found, size in ((near, 128), (far, 32)):
        each = budget(found, 'updates')
        assert (each['tied'], each['range'], each['recommended']) == ([32, 128], [32, 128], size)


def test_a_run_that_diverges_after_a_budget_counts_for_it() -> None:
    good = searched(128, 0.1, {'epochs': (0.95, 0.94), 'updates': (0.2, 0.1)})
    for run in good:  # 128 ends its epochs at update 100, and its updates at 200
        run.rows[-1].update(train_loss=math.nan, validation_loss=math.nan, distance=math.nan)
    assert {run.status for run in good} == {'diverged'}
    found = answer(good, searched(32, 0.1, (0.9, 0.9)))
    assert budget(found, 'epochs')['winner'] == 128
    assert [row['batch_size'] for row in budget(found, 'updates')['rows']] == [32]


def test_neighbours_are_the_nearest_to_a_quarter_and_four_times() -> None:
    assert answer_lib.neighbours([4, 16, 64, 256], 16) == {16: 'recommended', 4: 'a quarter', 64: 'four times'}
    assert answer_lib.neighbours([10, 100, 1000], 100) == {100: 'recommended', 10: 'smaller', 1000: 'larger'}
    assert answer_lib.neighbours([8, 32], 8) == {8: 'recommended', 32: 'four times'}
    assert answer_lib.neighbours([8, 32], None) == {}


def test_numbers_for_claims() -> None:
    """The updates to the target are made: 80, 20 and 10 at 8, 32 and 128, so the slopes are −1 and −½."""
    groups = [
        searched(size, 0.1, {'epochs': (by_epochs, 0.5), 'updates': (by_updates, 0.5)}, target_at=at)
        for size, by_epochs, by_updates, at in ((8, 0.95, 0.91, 80), (32, 0.93, 0.93, 20), (128, 0.92, 0.94, 10))
    ]
    found = answer(*groups)
    numbers = found['numbers']
    assert numbers['first_slope']['value'] == pytest.approx(-1)
    assert numbers['last_slope']['value'] == pytest.approx(-0.5)
    assert numbers['b_crit'] == found['curve']['b_crit']
    assert (numbers['winners']['value'], numbers['winners']['low']) == (2, 2)  # 8 by epochs, 128 by updates
    assert 'noise_growth' not in numbers
    assert answer(*groups[:1])['numbers'].keys() == {'winners'}


def test_growth_of_the_noise_scale_is_that_of_each_seed() -> None:
    at = {size: 24 * (1 + 22 / size) for size in GRID}  # B_crit is 22
    groups = {size: searched(size, 0.1, (0.9, 0.9), target_at=at[size]) for size in GRID}
    rows = [row for run in groups[32] for row in run.rows]
    for row in rows:
        row.update(gradient_square=1.0, gradient_variance=20.0 if row['update'] == 1 else 300.0)
    found = answer(*groups.values())
    assert found['curve']['b_crit']['value'] == pytest.approx(22, rel=0.03)
    assert found['numbers']['noise_growth']['value'] == pytest.approx(15)
    until = (1 * 20 + 24 * 300) / 25  # the last row before the target is at 25
    assert found['numbers']['noise_over_b_crit']['value'] == pytest.approx(until / 22, rel=0.03)
