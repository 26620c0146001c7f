"""The answer, from runs made by hand, where the right answer is known."""

import itertools
import math
from typing import Any

import pytest
from answers import FRESH, GRID, HALF, OFFSETS, answer, budget, plain, record, searched

from bsgap.analysis import scaling
from bsgap.analysis.answer import with_neighbours
from bsgap.analysis.statistics import Estimate


def test_fresh_seeds_do_not_enter_the_numbers_of_the_search() -> None:
    groups = plain(0.88, 0.9, 0.88)
    before = answer(*groups)
    after = answer(*groups, searched(32, 0.1, (0.5, 0.5), seeds=(3, 4, 5), target_at=1))
    for part in ('budgets', 'to_target', 'curve', 'learning_rate_exponent', 'surface', 'gaps'):
        assert before[part] == after[part]
    assert not before['confirmation']
    assert after['confirmation']
    assert (before['rests_on']['runs'], after['rests_on']['runs']) == (27, 30)


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


def test_nothing_trained_at_all() -> None:
    found = answer([], target=0.0)
    assert found['target'] == {'error': None, 'found': True}


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


def test_an_unbounded_critical_batch_size_is_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded = Estimate(1e5, 500.0, math.inf)
    fit = scaling.Fit(Estimate(1.0, 0.0, 2.0), Estimate(800.0, 700.0, 900.0), unbounded, 0.1)
    monkeypatch.setattr(scaling, 'fit', lambda *_, **__: fit)
    found = answer(*plain())
    assert found['curve']['b_crit'] == {'value': 1e5, 'low': 500.0, 'high': None}
    assert found['curve']['s_min'] == {'value': 1.0, 'low': None, 'high': 2.0}
    assert 'noise_over_b_crit' not in found['numbers']


def test_the_gap_lines() -> None:
    """At the reference, with the study's own momentum, then tuned; each at the end of its budget."""
    groups = [searched(size, 0.1, {'epochs': (0.9, 0.90), 'updates': (0.9, 0.85)}) for size in GRID]
    groups += [searched(size, 0.3, {'epochs': (0.95, 0.94), 'updates': (0.95, 0.93)}) for size in GRID[1:]]
    groups += [searched(size, 0.1, (0.1, 0.1), momentum=0.5) for size in GRID]
    found = answer(*groups)
    assert [
        (
            *(line['unit'], line['learning_rate']),
            [(point['batch_size'], round(point['gap']['value'], 6)) for point in line['points']],
        )
        for line in found['gaps']
    ] == [
        ('epochs', 0.1, [(8, 0.1), (32, 0.1), (128, 0.1)]),
        ('updates', 0.1, [(8, 0.15), (32, 0.15), (128, 0.15)]),
        ('epochs', None, [(8, 0.1), (32, 0.06), (128, 0.06)]),
        ('updates', None, [(8, 0.15), (32, 0.07), (128, 0.07)]),
    ]


def test_what_was_left_out_is_empty_and_all_runs_count() -> None:
    found = answer(*plain())
    assert (found['confirmation'], found['noise_scale']) == ([], [])
    rests = found['rests_on']
    assert (rests['runs'], rests['seeds'], rests['stopped'], rests['diverged']) == (27, 3, 0, 0)
    assert rests['seconds'] == 27 * 4
    assert rests['examples'] == 9 * (8 * 1600 + 32 * 400 + 128 * 200)
    assert (found['model'], found['dataset'], found['device']) == ('MLP 16', 'mnist', 'cpu')


def test_what_earlier_revisions_trained_besides_is_no_part_of_the_answer() -> None:
    """They ended runs at moments, branched off there, and let a batch grow; search.json names their recipes."""
    others = [record(name, 0, [{'update': 10}], (32, 0.1, 10)) for name in ('moment10-bs32-lr0.1', 'grow-1b2c')]
    assert answer(*plain(), others, recipes=['moment10-bs32-lr0.1', 'grow-1b2c']) == answer(*plain())


def test_fresh_seeds_that_end_with_their_budget_are_not_stopped_early() -> None:
    fresh = [run._replace(stopped=True, rows=run.rows[:-1]) for run in searched(128, 0.1, (0.9, 0.9), seeds=FRESH)]
    found = answer(*plain(0.88, 0.9, 0.9), fresh)
    assert found['rests_on']['stopped'] == 0


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


def test_a_tie_prefers_the_small_batch_for_epochs_and_the_large_for_updates() -> None:
    found = answer(*plain(0.9, 0.9001, 0.9))
    for unit, size in (('epochs', 8), ('updates', 128)):
        each = budget(found, unit)
        assert (each['winner'], each['tied'], each['range']) == (32, [8, 32, 128], [8, 128])
        assert each['recommended'] == size


def test_ties_that_differ_when_paired_by_seed_are_apart() -> None:
    """All seeds of a batch size are as far from another's, so that paired by seed the smallest difference is seen."""
    groups = plain(0.9, 0.9001, 0.9)
    assert [each['apart'] for each in answer(*groups)['budgets']] == [[8, 128]] * 2
    for run in (run for group in groups for run in group if run.about['fields']['batch_size'] != 32):
        for row in (row for row in run.rows if 'test_accuracy' in row):
            row['test_accuracy'] -= 2 * OFFSETS[run.about['seed']]
    assert [each['apart'] for each in answer(*groups)['budgets']] == [[]] * 2


def test_a_clear_winner_ties_with_none() -> None:
    found = answer(*plain(0.88, 0.9, 0.88))
    assert [(each['tied'], each['recommended']) for each in found['budgets']] == [([32], 32)] * 2


def test_intervals_tie_as_far_as_they_touch() -> None:
    """Two intervals of ± 0.00248 overlap up to a difference of 0.00497."""
    assert budget(answer(*plain(0.9 - 1.98 * HALF, 0.9, 0.9 - 2.02 * HALF)), 'epochs')['tied'] == [8, 32]


def test_a_tie_beyond_one_that_is_worse_is_not_recommended() -> None:
    found = answer(*plain(0.9001, 0.88, 0.9))
    each = budget(found, 'updates')
    assert (each['winner'], each['tied'], each['recommended']) == (8, [8, 128], 8)


def test_a_tie_that_looks_worse_by_more_than_a_standard_error_is_not_recommended() -> None:
    """Of three seeds ± 0.001 the standard error of a mean is 0.001/√3, and that of a difference √2 times it."""
    error = math.sqrt(2 / 3) * 0.001
    near, far = (answer(*plain(0.88, 0.9, 0.9 - share * error)) for share in (0.98, 1.02))
    for found, size in ((near, 128), (far, 32)):
        each = budget(found, 'updates')
        assert (each['tied'], each['range'], each['recommended']) == ([32, 128], [32, 128], size)


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


def test_an_incomplete_or_diverged_recipe_is_no_candidate() -> None:
    better = searched(32, 0.3, (0.95, 0.95))
    end = {'distance': math.nan, 'validation_loss': math.nan}
    diverged = [run._replace(rows=[*run.rows[:-1], run.rows[-1] | end]) for run in better]
    short = [run._replace(rows=run.rows[:3]) for run in better]
    for runs in (better[:2], [*better[:2], diverged[2]], [*better[:2], short[2]], short):
        each = budget(answer(*plain(), runs), 'epochs')
        assert [row['learning_rate'] for row in each['rows']] == [0.1, 0.1, 0.1]
    assert [row['learning_rate'] for row in budget(answer(*plain(), better), 'epochs')['rows']] == [0.1, 0.3, 0.1]


def test_a_run_that_diverges_after_a_budget_counts_for_it() -> None:
    good = searched(128, 0.1, {'epochs': (0.95, 0.94), 'updates': (0.2, 0.1)})
    for run in good:  # 128 ends its epochs at update 100, and its updates at 200
        run.rows[-1].update(train_loss=math.nan, validation_loss=math.nan, distance=math.nan)
    assert {run.status for run in good} == {'diverged'}
    found = answer(good, searched(32, 0.1, (0.9, 0.9)))
    assert budget(found, 'epochs')['winner'] == 128
    assert [row['batch_size'] for row in budget(found, 'updates')['rows']] == [32]


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


def test_what_fresh_seeds_reach_with_what_is_recommended_and_beside_it() -> None:
    """Those of the recommended setting alone, where the budget ends, and not in what is recommended."""
    tests = {8: 0.89, 32: 0.9, 128: 0.88}
    fresh = [searched(size, 0.1, (0.5, test), seeds=FRESH) for size, test in tests.items()]
    found = answer(*plain(0.88, 0.9, 0.88), *fresh, searched(32, 1.0, (0.99, 0.99), seeds=FRESH))['confirmation']
    about = 'unit', 'batch_size', 'learning_rate', 'momentum', 'seeds', 'diverged'
    assert [tuple(row[key] for key in about) for row in found] == [
        (unit, size, 0.1, 0.0, 3, 0) for unit in ('epochs', 'updates') for size in GRID
    ]
    for row in found:
        assert row['test_accuracy']['value'] == pytest.approx(tests[row['batch_size']])
        assert row['test_accuracy']['high'] == pytest.approx(tests[row['batch_size']] + HALF, rel=1e-6)


def test_fresh_seeds_that_diverged_are_counted_and_those_on_their_way_are_not() -> None:
    fresh = searched(32, 0.1, (0.9, 0.9), seeds=FRESH)
    lost = fresh[2]._replace(rows=[*fresh[2].rows[:2], {**fresh[2].rows[2], 'distance': math.nan}])
    begun = fresh[1]._replace(rows=fresh[1].rows[:2])
    rows = answer(*plain(0.88, 0.9, 0.88), [fresh[0], begun, lost])['confirmation']
    assert [(row['unit'], row['seeds'], row['diverged']) for row in rows] == [('epochs', 1, 1), ('updates', 1, 1)]
    (row, _) = answer(*plain(0.88, 0.9, 0.88), [lost])['confirmation']
    assert (row['seeds'], row['diverged'], row['test_accuracy']['value']) == (0, 1, None)
    after = fresh[2]._replace(rows=[*fresh[2].rows[:-1], {**fresh[2].rows[-1], 'distance': math.nan}])
    rows = answer(*plain(0.88, 0.9, 0.88), [after])['confirmation']  # at 400, where the epochs end: after 200 updates
    assert [(row['unit'], row['seeds'], row['diverged']) for row in rows] == [('epochs', 0, 1), ('updates', 1, 0)]


@pytest.mark.parametrize(
    ('sizes', 'recommended', 'neighbours'),
    [
        ([4, 16, 64, 256], 16, [4, 16, 64]),
        ([5, 60, 90, 100, 130, 1000], 100, [60, 100, 1000]),  # by the logarithm
        ([10, 30, 70, 100, 130, 350], 100, [30, 100, 350]),
        ([8, 32], 8, [8, 32]),
    ],
)
def test_neighbours_are_the_nearest_to_a_quarter_and_four_times(
    sizes: list[int], recommended: int, neighbours: list[int]
) -> None:
    budget: dict[str, Any] = {'rows': [{'batch_size': size} for size in sizes], 'recommended': recommended}
    assert [row['batch_size'] for row in with_neighbours(budget)] == neighbours
    assert with_neighbours({'rows': [], 'recommended': None}) == []
