"""What claims measure, on tables made by hand."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest
from tables import ends, record, runs

from bsgap.analysis.quantities import (
    AbsentError,
    Reading,
    UnreadableError,
    exponent,
    found,
    growth,
    reading,
    rises,
    spread,
    until,
    value,
)
from bsgap.training.rows import Record


def measure(quantity: Callable[..., pd.Series], *arguments: Any, **options: Any) -> tuple[list[float], list[str]]:
    """A quantity's values, NaN as None, and its notes."""
    with reading() as known:
        values = quantity(*arguments, **options)
    return [None if math.isnan(v) else v for v in values], known.notes


def test_a_value_for_each_seed() -> None:
    table = runs(record('a', 2, [0.1, 0.3]), record('a', 0, [0.1, 0.2]), ends('b', [0.9]))
    found = value(table, 'a', 'test_accuracy')
    assert found.to_dict() == {0: 0.2, 2: 0.3}


def test_the_row_that_is_read() -> None:
    """The end, the epoch with the best validation accuracy, or the epoch that is asked for."""
    table = runs(record('a', 0, [0.1, 0.5, 0.4, 0.3], validation_accuracy=[0.1, 0.2, 0.9, 0.3]))
    for at, expected in (('end', 0.3), ('best', 0.4), (1, 0.5), (2.0, 0.4), (0, 0.1)):
        assert list(value(table, 'a', 'test_accuracy', at=at)) == [expected], at
    assert measure(value, table, 'a', 'test_accuracy', at='best', by='test_accuracy')[0] == [0.5]
    with pytest.raises(UnreadableError, match=r'^not evaluated at epoch 2\.5$'):
        value(table, 'a', 'test_accuracy', at=2.5)
    with pytest.raises(UnreadableError, match=r'^the runs have no validation_accuracy'):
        value(runs(ends('a', [0.5])), 'a', 'test_accuracy', at='best')


def test_a_run_is_selected_on_validation_and_reported_on_test() -> None:
    """Seed by seed: lr1 is best on validation for seed 0, lr2 for seed 1; the test accuracies say the opposite."""
    table = runs(
        record('lr1', 0, [0, 0.60], validation_accuracy=[0, 0.8]),
        record('lr2', 0, [0, 0.90], validation_accuracy=[0, 0.7]),
        record('lr1', 1, [0, 0.95], validation_accuracy=[0, 0.7]),
        record('lr2', 1, [0, 0.70], validation_accuracy=[0, 0.8]),
    )
    assert measure(value, table, 'lr*', 'test_accuracy', by='validation_accuracy') == ([0.60, 0.70], [])
    on_test = measure(value, table, ('lr1', 'lr2'), 'test_accuracy', by='test_accuracy')
    assert on_test == ([0.90, 0.95], ['selected on the test split'])
    with pytest.raises(UnreadableError, match=r'^by must choose one of lr1, lr2$'):
        value(table, 'lr*', 'test_accuracy')


def test_the_best_of_the_others_and_of_equal_ones_that_with_the_lowest_loss() -> None:
    table = runs(
        record('a1', 0, [0, 0.9], validation_accuracy=[0, 0.8], validation_loss=[2, 1.0]),
        record('a2', 0, [0, 0.7], validation_accuracy=[0, 0.8], validation_loss=[2, 0.5]),
        record('b1', 0, [0, 0.2], validation_accuracy=[0, 0.6], validation_loss=[2, 0.1]),
    )
    by = 'validation_accuracy'
    assert list(value(table, '*', 'test_accuracy', by=by)) == [0.7]
    assert list(value(table, '*', 'test_accuracy', by=by, without='a2')) == [0.9]
    assert list(value(table, '*', 'test_accuracy', by=by, without='a*')) == [0.2]


def test_a_run_is_selected_in_the_row_that_is_read() -> None:
    table = runs(
        record('early', 0, [0.1, 0.7, 0.2], validation_accuracy=[0, 0.9, 0.1]),
        record('late', 0, [0.1, 0.3, 0.8], validation_accuracy=[0, 0.2, 0.5]),
    )
    for at, expected in ((1, 0.7), ('end', 0.8), ('best', 0.7)):
        assert list(value(table, '*', 'test_accuracy', at=at, by='validation_accuracy')) == [expected], at


def test_equal_runs_are_chosen_in_the_table_s_order_and_nan_never() -> None:
    nan = math.nan
    same = [record(name, 0, [0, i], validation_accuracy=[0, 0.5]) for i, name in enumerate('ab')]
    table = runs(record('0', 0, [0, 9], validation_accuracy=[0, nan]), same)
    assert list(value(table, '*', 'test_accuracy', by='validation_accuracy')) == [0]
    assert list(value(table, '0', 'test_accuracy', by='validation_accuracy')) == [9]


def test_differences_and_ratios_are_of_each_seed() -> None:
    """The seeds differ by ten points and the recipes by one; the runs stand in another order."""
    table = runs(ends('a', [0.70, 0.80, 0.90]), ends('b', [0.69, 0.79, 0.891])[::-1])
    difference = value(table, 'a', 'test_accuracy') - value(table, 'b', 'test_accuracy')
    assert list(difference) == pytest.approx([0.01, 0.01, 0.009])
    table = runs(ends('a', [0.2, 0.9]), ends('b', [0.4, 0.6]))
    assert list(value(table, 'a', 'test_accuracy') / value(table, 'b', 'test_accuracy')) == pytest.approx([0.5, 1.5])


def test_a_diverged_run_takes_its_seed_with_it_or_is_not_selected() -> None:
    nan = record('a', 2, [0.1, 0.99], diverged=True, validation_accuracy=[0, 0.99])
    table = runs(
        ends('a', [0.45, 0.55], validation_accuracy=[0, 0.5]), nan,
        ends('b', [0.1, 0.2, 0.3], validation_accuracy=[0, 0.4]),
    )  # fmt: skip
    assert measure(value, table, 'a', 'test_accuracy') == ([0.45, 0.55, None], [])
    selected = measure(value, table, '*', 'test_accuracy', by='validation_accuracy')
    assert selected == ([0.45, 0.55, 0.3], [])
    assert measure(value, runs(nan), 'a', 'gap', by='validation_accuracy')[0] == [None]
    assert measure(value, runs(nan, record('b', 2, [0.1])), '*', 'gap')[0] == [None]


def test_a_seed_is_left_out_until_all_its_runs_are_done() -> None:
    half = record('b', 1, [0.1, 0.9], unfinished=True, validation_accuracy=[0, 0.9])
    table = runs(
        ends('a', [0.2, 0.3, 0.4], validation_accuracy=[0, 0.5]), half,
        record('b', 0, [0.1, 0.8], validation_accuracy=[0, 0.9]),
    )  # fmt: skip
    selected = measure(value, table, '*', 'test_accuracy', by='validation_accuracy')
    assert selected == ([0.8, None, None], [])
    assert measure(value, table, 'a', 'test_accuracy') == ([0.2, 0.3, 0.4], [])
    unfinished = record('a', 0, [0.2], unfinished=True)
    assert measure(value, runs(unfinished), 'a', 'test_accuracy') == ([None], [])


@pytest.mark.parametrize(('recipe', 'missing'), [('x*', 'x*'), (('a', 'y'), 'y'), (('x', 'y'), 'x, y')])
def test_a_pattern_without_runs_cannot_be_read(recipe: Any, missing: str) -> None:
    with pytest.raises(UnreadableError, match=f'^no run matches {missing.replace("*", "[*]")}$'):
        value(runs(ends('a', [0.5])), recipe, 'test_accuracy')


def test_what_is_not_part_of_the_study_is_told_from_what_is_wrong() -> None:
    table = runs(ends('a', [0.5]), ends('b', [0.5]))
    table.loc[table['recipe'] == 'b', 'status'] = 'absent'
    assert list(value(table, 'a', 'test_accuracy')) == [0.5]
    for recipe in ('b', '*'):
        with pytest.raises(AbsentError, match=r'^b is not part of this study$'):
            value(table, recipe, 'test_accuracy', by='test_accuracy')


def test_a_column_that_there_is_not_is_named() -> None:
    table = runs(ends('a', [0.5]))
    with pytest.raises(UnreadableError, match=r'^the runs have no test_acuracy, but test_accuracy$'):
        value(table, 'a', 'test_acuracy')
    with pytest.raises(UnreadableError, match=r'^the runs have no zzz$'):
        growth(table, 'a', 'test_accuracy', 'zzz')


def test_a_time_has_no_interval() -> None:
    """The seconds of a cohort are shared equally among its seeds, so that they say nothing of each other."""
    with reading() as known:
        value(runs(ends('a', [0.5])), 'a', 'train_seconds')
    assert known == Reading({'a'}, ['time is measured once for all seeds'], has_interval=False)


def test_growth_within_a_run() -> None:
    """distance = 2 · update^0.3; the row at update 0 has no logarithm, whatever the distance is there."""
    distances = [0.1, *(2 * (10.0 * i) ** 0.3 for i in (1, 2, 3))]
    table = runs(record('a', 0, [0.1] * 4, distance=distances), ends('b', [0.5]))
    assert list(growth(table, 'a', 'distance', 'update')) == pytest.approx([0.3])
    with pytest.raises(UnreadableError, match=r'^an exponent needs two points and all values above 0$'):
        growth(table, 'b', 'distance', 'update')
    with pytest.raises(UnreadableError, match=r'^by must choose one of a, b$'):
        growth(table, '*', 'distance', 'update')


def test_an_exponent_is_that_of_a_power_law() -> None:
    """4 · B^−1.5 for one seed, 9 · B^−0.5 for the other."""
    records = [
        record(f'bs{size}', seed, [0, 1], fields={'batch_size': size}, measured={'top': scale * size**power})
        for size in (8, 64, 1024)
        for seed, (scale, power) in enumerate([(4.0, -1.5), (9.0, -0.5)])
    ]
    powers = exponent(runs(records), 'bs*', 'top', 'recipe.batch_size')
    assert list(powers) == pytest.approx([-1.5, -0.5])
    for table in (runs(records[:2]), runs(records, record('bs0', 0, [0, 1], measured={'top': 0.0}))):
        with pytest.raises(UnreadableError, match=r'^an exponent needs two points and all values above 0$'):
            exponent(table, 'bs*', 'top', 'recipe.batch_size')


def best_rates(seed: int = 0, scale: float = 0.01) -> list[Record]:
    """Three learning rates a batch size, of which the middle one, scale · √B, is best on validation."""
    return [
        record(f'bs{size}-lr{i}', seed, [0, 0.5], validation_accuracy=[0, 0.8 - 0.1 * abs(i)],
               fields={'batch_size': size, 'learning_rate': scale * size**0.5 * 3.0**i})
        for size in (4, 16, 64) for i in (-1, 0, 1)
    ]  # fmt: skip


def test_the_best_lies_between_those_tried() -> None:
    """The error is exp((log ε − log ε*)²) times a tenth, with ε* = 0.02 · √B, which is none of the grid's."""
    records = [
        record(f'bs{size}-lr{rate}', seed, [0, 0.5], fields={'batch_size': size, 'learning_rate': rate},
               validation_accuracy=[0, 1 - 0.1 * math.exp(math.log(rate / (0.02 * size**0.5)) ** 2)])
        for seed in (0, 1) for size in (4, 16, 64) for rate in (0.01, 0.03, 0.09, 0.27, 0.81)
    ]  # fmt: skip
    best = 'bs*', 'recipe.learning_rate', 'recipe.batch_size', 'validation_accuracy'
    assert measure(exponent, runs(records), *best) == ([pytest.approx(0.5)] * 2, [])
    for run in records:
        run.rows[-1]['validation_accuracy'] *= 100
    with pytest.raises(UnreadableError, match=r'^validation_accuracy has values above 1, and is no score$'):
        exponent(runs(records), *best)


def test_the_exponent_of_the_best_learning_rate() -> None:
    records = [*best_rates(), *best_rates(seed=1, scale=0.02)]
    best = 'bs*', 'recipe.learning_rate', 'recipe.batch_size', 'validation_accuracy'
    assert measure(exponent, runs(records), *best) == ([pytest.approx(0.5)] * 2, [])
    records[1].rows[-1]['train_loss'] = math.nan  # B = 4, seed 0: then it is the first, 3 times smaller
    values, notes = measure(exponent, runs(records), *best)
    assert values == pytest.approx([0.5 + math.log(3) / math.log(16), 0.5])
    assert notes == ['the best is at an end of the range in 1 of 6 choices']
    with reading() as known:
        exponent(runs(records), *best)
    assert not known.conclusive  # a better one may lie beyond
    for run in records[:3]:
        run.rows[-1]['train_loss'] = math.nan
    values, notes = measure(exponent, runs(records), *best)
    assert values == [None, pytest.approx(0.5)]
    assert not notes


def test_until_is_read_between_rows_in_the_run_that_needs_least() -> None:
    def two(slow: Sequence[float], fast: Sequence[float]) -> list[Record]:
        return [record('a-slow', 0, slow), record('a-fast', 0, fast)]

    target = 'update', 'test_accuracy', 0.5
    both = two([0.1, 0.3, 0.6, 0.8], [0.1, 0.4, 0.4, 0.9])
    assert list(until(runs(both), 'a-*', *target)) == pytest.approx([10 + 10 * 2 / 3])
    assert list(until(runs(both), 'a-fast', *target)) == pytest.approx([22])
    assert list(until(runs(record('a', 0, [0.5, 0.3, 0.7])), 'a', *target)) == pytest.approx([15])
    assert list(until(runs(record('a', 0, [0.5, 0.7])), 'a', *target)) == [math.inf]  # it does not come to it
    falling = runs(record('a', 0, [0.9, 0.6, 0.2, 0.7]))
    assert list(until(falling, 'a', *target, falling=True)) == pytest.approx([12.5])
    assert list(until(falling, 'a', *target)) == pytest.approx([26])
    diverged = record('a-gone', 0, [0.1, 0.9], diverged=True)
    assert measure(until, runs(both, diverged), 'a-*', *target) == (
        [pytest.approx(10 + 20 / 3)],
        [],
    )
    assert list(until(runs(two([0.1, 0.2], [0.1, 0.4])), 'a-*', *target)) == [math.inf]
    assert measure(until, runs(diverged), 'a-*', *target)[0] == [None]


def test_how_often_a_column_rises() -> None:
    table = runs(record('a', 0, [0.1, 0.3, 0.2, 0.4, 0.4]), record('a', 1, [0.5, 0.4, 0.3, 0.2, 0.1]))
    assert list(rises(table, 'a', 'test_accuracy')) == [0.5, 0.0]


def test_the_spread_is_read_at_the_largest_common_rate_times_updates() -> None:
    """One ends at 2, where the other, which has 0.2 at 1 and 0.6 at 3, is at 0.4; seed 1 is another 0.1 apart."""
    records = [
        *[record('bs8', seed, [0, 0.2, 0.6, 0.9], learning_rate_sum=[0, 1, 3, 9]) for seed in range(2)],
        *[record('bs64', seed, [0, 0.5 + seed / 10], learning_rate_sum=[0, 2]) for seed in range(2)],
    ]
    assert list(spread(runs(records), 'bs*', 'test_accuracy')) == pytest.approx([0.1, 0.2])
    relative = spread(runs(records), 'bs*', 'test_accuracy', relative=True)
    assert list(relative) == pytest.approx([0.1 / 0.45, 0.2 / 0.5])
    assert list(spread(runs(records), 'bs*', 'distance', relative=True)) == [0, 0]
    near = [0, 2 - 4e-9]  # at 2 but for the nine digits of metrics.csv
    nan = record('bs256', 1, [0, 0.9], learning_rate_sum=near, diverged=True)
    third = [*ends('bs256', [0.9], learning_rate_sum=near), nan]
    assert measure(spread, runs(records, third), 'bs*', 'test_accuracy')[0] == [pytest.approx(0.5), None]
    with pytest.raises(UnreadableError, match=r'^a spread needs two recipes$'):
        spread(runs(records), 'bs8', 'test_accuracy')
    short = [record('bs256', seed, [0, 0.2], learning_rate_sum=[0, 0.5]) for seed in range(2)]
    with pytest.raises(UnreadableError, match=r'^evaluated too seldom to compare'):
        spread(runs(records, short), 'bs*', 'test_accuracy')


def test_a_number_that_a_search_found_has_its_own_interval() -> None:
    table = runs()
    with pytest.raises(UnreadableError, match=r'^b_crit is not known$'):
        found(table, 'b_crit')
    table.attrs['answer'] = {'b_crit': {'value': 180.0, 'low': None, 'high': 300.0}, 'flat': dict.fromkeys(
        ('value', 'low', 'high'), 1.0)}  # fmt: skip
    assert found(table, 'b_crit') == (180, -math.inf, 300)
    assert found(table, 'flat') == (1, 1, 1)
