"""Claims held against tables made by hand."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from bsgap import claims, config
from bsgap.metrics import Record

BASE = {
    'text': 'what is claimed', 'quantity': 'test_accuracy', 'of': 'a', 'relation': 'at least', 'bound': 0.5,
    'published': '50 %', 'source': 'A. Author 2018, table 1', 'status': 'V',
}  # fmt: skip
WIDE = {'relation': 'within', 'bound': (-1e6, 1e6)}


def record(
    recipe: str,
    seed: int,
    tests: Sequence[float],
    diverged: bool = False,
    unfinished: bool = False,
    fields: Mapping[str, Any] | None = None,
    measured: Mapping[str, float] | None = None,
    **columns: Sequence[float],
) -> Record:
    """A run that is evaluated after each of its epochs of 10 updates; `tests` and `columns` have a value a row."""
    rows = [
        {
            'epoch': float(i), 'update': 10 * i, 'learning_rate': 0.01, 'learning_rate_sum': float(i),
            'train_loss': 1.0, 'distance': 1.0, 'test_accuracy': test,
            'train_seconds': 2.0 * i, 'eval_seconds': 1.0 * i,
            **{column: values[i] for column, values in columns.items()},
        }
        for i, test in enumerate(tests)
    ]  # fmt: skip
    if diverged:
        rows[-1]['train_loss'] = math.nan
    about = {
        'name': f'{recipe}-seed{seed}', 'recipe': recipe, 'seed': seed, 'updates': 10 * (len(rows) - 1) + unfinished,
        'fields': fields or {}, 'stages': [{'batch_size': 64, 'learning_rate': 0.5}],
    }  # fmt: skip
    return Record(about, rows, dict(measured or {}))


def runs(recipe: str, finals: Sequence[float], **changes: Any) -> list[Record]:
    """A run a seed, each with the accuracy that it ends with."""
    return [record(recipe, seed, [0.1, final], **changes) for seed, final in enumerate(finals)]


def claim(**changes: Any) -> dict[str, Any]:
    made = {**BASE, **changes}
    claims.check('it', made, ())
    return made


def judged(records: Sequence[Record], **changes: Any) -> claims.Verdict:
    (verdict,) = claims.evaluate({'it': claim(**changes)}, records)
    return verdict


def test_the_interval_over_seeds_is_students() -> None:
    finals = [0.90, 0.93, 0.91, 0.98]
    verdict = judged(runs('a', finals))
    expected = scipy.stats.t.interval(0.95, 3, np.mean(finals), scipy.stats.sem(finals))
    assert (verdict.value.low, verdict.value.high) == pytest.approx(expected)
    assert verdict.value.n == 4
    assert verdict.note == '4 seeds'


# Mean 0.5, and a half width of 12.706 × 0.1 / √2 / √2 = 0.6353 by the printed table: t(0.975; 1) = 12.706.
TWO = [0.45, 0.55]
LOW, HIGH = 0.5 - 0.63531, 0.5 + 0.63531


@pytest.mark.parametrize(
    ('relation', 'bound', 'verdict'),
    [
        ('at least', LOW - 1e-4, 'reproduced'),
        ('at least', LOW + 1e-4, 'inconclusive'),
        ('at least', HIGH - 1e-4, 'inconclusive'),
        ('at least', HIGH + 1e-4, 'not reproduced'),
        ('at most', HIGH + 1e-4, 'reproduced'),
        ('at most', HIGH - 1e-4, 'inconclusive'),
        ('at most', LOW + 1e-4, 'inconclusive'),
        ('at most', LOW - 1e-4, 'not reproduced'),
        ('within', (LOW - 1e-4, HIGH + 1e-4), 'reproduced'),
        ('within', (LOW + 1e-4, HIGH + 1e-4), 'inconclusive'),
        ('within', (LOW - 1e-4, HIGH - 1e-4), 'inconclusive'),
        ('within', (0.4, 0.6), 'inconclusive'),
        ('within', (HIGH + 1e-4, 9), 'not reproduced'),
        ('within', (-9, LOW - 1e-4), 'not reproduced'),
    ],
)
def test_the_verdict_is_of_the_whole_interval(relation: str, bound: Any, verdict: str) -> None:
    assert judged(runs('a', TWO), relation=relation, bound=bound).verdict == verdict


@pytest.mark.parametrize(
    ('relation', 'bound', 'verdict'),
    [
        ('at least', 20, 'reproduced'),
        ('at least', 20.001, 'not reproduced'),
        ('at most', 20, 'reproduced'),
        ('at most', 19.999, 'not reproduced'),
        ('within', (20, 20), 'reproduced'),
        ('within', (0, 19), 'not reproduced'),
    ],
)
def test_an_exact_quantity_has_an_interval_without_width(relation: str, bound: Any, verdict: str) -> None:
    records = [record('a', seed, [0.1, 0.2, 0.3]) for seed in range(3)]
    for quantity in ('update', 'updates'):
        made = judged(records, quantity=quantity, relation=relation, bound=bound)
        assert (made.verdict, made.measured) == (verdict, '20 ± 0')


def test_rounding_does_not_decide_over_equal_numbers() -> None:
    """The mean of three times 0.1 is 0.10000000000000002, and its interval is wider than nothing."""
    assert judged(runs('a', [0.1] * 3), relation='at most', bound=0.1).verdict == 'reproduced'
    assert judged(runs('a', [0.1] * 3), relation='at least', bound=0.1).verdict == 'reproduced'


def test_comparisons_are_paired_by_seed() -> None:
    """The seeds differ by ten points and the recipes by one: paired it is plain, in another order it is not."""
    first, second = [0.70, 0.80, 0.90], [0.69, 0.79, 0.891]
    paired = judged([*runs('a', first), *runs('b', second)[::-1]], minus='b', bound=0.0)
    assert (paired.verdict, paired.value.n) == ('reproduced', 3)
    assert paired.value.mean == pytest.approx(0.029 / 3)
    crossed = judged([*runs('a', first), *runs('b', second[1:] + second[:1])], minus='b', bound=0.0)
    assert crossed.value.mean == pytest.approx(paired.value.mean)
    assert crossed.verdict == 'inconclusive'


def test_over_is_the_ratio_of_each_seed() -> None:
    verdict = judged([*runs('a', [0.2, 0.9]), *runs('b', [0.4, 0.6])], over='b', **WIDE)
    assert verdict.value.mean == pytest.approx((0.5 + 1.5) / 2)
    assert verdict.measured == '1 ± 6.353'


def test_a_time_has_no_interval_over_seeds() -> None:
    """The seconds of a cohort are shared equally among its seeds, so that they say nothing of each other."""
    verdict = judged(runs('a', TWO), quantity='train_seconds', **WIDE)
    assert (verdict.verdict, verdict.measured) == ('inconclusive', '2')
    assert verdict.note == '2 seeds; time is measured once for all seeds'


def test_a_number_that_no_run_has_is_named_before_training() -> None:
    known = ('test_accuracy', 'validation_accuracy', 'sharpness*')
    for changes in ({}, {'quantity': 'sharpness_0.001'}, {'select': 'validation_accuracy'}):
        claims.check('it', {**BASE, **changes}, (), known)
    with pytest.raises(config.UserError, match=r"config.claims.it.quantity: 'test_acuracy' .* such as test_accuracy"):
        claims.check('it', {**BASE, 'quantity': 'test_acuracy'}, (), known)
    with pytest.raises(config.UserError, match=r"config.claims.it.select: 'gap' is not allowed"):
        claims.check('it', {**BASE, 'select': 'gap'}, (), known)


def test_no_verdict_without_an_interval() -> None:
    verdict = judged(runs('a', [0.9]))
    assert (verdict.verdict, verdict.measured, verdict.note) == ('inconclusive', '90.00 %', '1 seed')
    assert judged([]).verdict == 'inconclusive'


def test_a_run_is_selected_on_validation_and_reported_on_test() -> None:
    """Seed by seed: lr1 is best on validation for seed 0, lr2 for seed 1; the test accuracies say the opposite."""
    records = [
        record('lr1', 0, [0, 0.60], validation_accuracy=[0, 0.8]),
        record('lr2', 0, [0, 0.90], validation_accuracy=[0, 0.7]),
        record('lr1', 1, [0, 0.95], validation_accuracy=[0, 0.7]),
        record('lr2', 1, [0, 0.70], validation_accuracy=[0, 0.8]),
    ]
    verdict = judged(records, of='lr*', select='validation_accuracy')
    assert verdict.value.mean == pytest.approx((0.60 + 0.70) / 2)
    assert verdict.note == '2 seeds'
    on_test = judged(records, of=('lr1', 'lr2'), select='test_accuracy')
    assert on_test.value.mean == pytest.approx((0.90 + 0.95) / 2)
    assert on_test.note == '2 seeds; selected on the test split'
    assert judged(records, of='lr*').note == 'select must choose one of lr1, lr2'
    assert judged(records, of='lr*').verdict == 'inconclusive'


def test_the_row_that_is_read() -> None:
    """The end, the epoch with the best validation accuracy, or the epoch that is asked for."""
    records = [record('a', seed, [0.1, 0.5, 0.4, 0.3], validation_accuracy=[0.1, 0.2, 0.9, 0.3]) for seed in range(2)]
    for at, expected in ((None, 0.3), ('end', 0.3), ('best', 0.4), (1, 0.5), (2.0, 0.4), (0, 0.1)):
        given = {} if at is None else {'at': at}
        assert judged(records, **given).value.mean == pytest.approx(expected)
    assert judged(records, at='best', select='test_accuracy').value.mean == pytest.approx(0.5)
    assert judged(records, at=2.5).note == 'not evaluated at epoch 2.5'
    assert judged(runs('a', TWO), at='best').note == 'metrics.csv has no column validation_accuracy'


def test_a_run_is_selected_in_the_row_that_is_read() -> None:
    records = [
        record('early', 0, [0.1, 0.7, 0.2], validation_accuracy=[0, 0.9, 0.1]),
        record('late', 0, [0.1, 0.3, 0.8], validation_accuracy=[0, 0.2, 0.5]),
    ]
    for at, expected in ((1, 0.7), ('end', 0.8), ('best', 0.7)):
        verdict = judged(records, of='*', at=at, select='validation_accuracy')
        assert verdict.value.mean == expected, at


@pytest.mark.parametrize(
    ('quantity', 'expected'),
    [
        ('seconds', 3.0),
        ('train_seconds', 2.0),
        ('epochs', 1.0),
        ('batch_size', 256.0),
        ('learning_rate', 0.5),
        ('momentum', 0.9),
        ('sharpness_0.001', 1.25),
        ('examples', 640.0),
    ],
)
def test_where_the_numbers_of_a_run_are(quantity: str, expected: float) -> None:
    """A field that was typed, but not one that a column or the run itself overrules; then the first stage's."""
    fields = {'batch_size': 256, 'momentum': 0.9, 'examples': 0, 'epochs': 0, 'nesterov': True}
    records = runs('a', TWO, fields=fields, measured={'sharpness_0.001': 1.25}, examples=[0, 640])
    assert judged(records, quantity=quantity, **WIDE).value.mean == expected
    assert judged(records, quantity='nesterov', **WIDE).note == 'a-seed0 has no nesterov'


def test_an_exponent_is_that_of_a_power_law() -> None:
    """4 · B^−1.5 for one seed, 9 · B^−0.5 for the other."""
    records = [
        record(f'bs{size}', seed, [0, 1], fields={'batch_size': size}, measured={'top': scale * size**power})
        for size in (8, 64, 1024)
        for seed, (scale, power) in enumerate([(4.0, -1.5), (9.0, -0.5)])
    ]
    verdict = judged(records, quantity='exponent top against batch_size', of='bs*', **WIDE)
    assert verdict.value[:3] == (pytest.approx(-1.0), pytest.approx(12.706 * 0.5, rel=1e-4), 2)
    one = judged(records, quantity='exponent top against batch_size', of='bs8', **WIDE)
    assert (one.verdict, one.note) == ('inconclusive', 'an exponent needs two points and all values above 0')
    records += runs('bs0', TWO, measured={'top': 0.0})
    assert judged(records, quantity='exponent top against batch_size', of='bs*', **WIDE).note == one.note


def best_rates(best: Callable[[int], float], seed: int = 0, **changes: Any) -> list[Record]:
    """Three learning rates a batch size, of which the middle one is best on validation."""
    return [
        record(f'bs{size}-lr{i}', seed, [0, 0.5], fields={'batch_size': size, 'learning_rate': best(size) * 3.0**i},
               validation_accuracy=[0, 0.8 - 0.1 * abs(i)], **changes)
        for size in (4, 16, 64) for i in (-1, 0, 1)
    ]  # fmt: skip


def test_the_exponent_of_the_best_learning_rate() -> None:
    records = [*best_rates(lambda size: 0.01 * size**0.5), *best_rates(lambda size: 0.02 * size**0.5, seed=1)]
    best = {
        'quantity': 'exponent learning_rate against batch_size', 'of': 'bs*', 'group': 'batch_size',
        'select': 'validation_accuracy', 'relation': 'within', 'bound': (0.49, 0.51),
    }  # fmt: skip
    verdict = judged(records, **best)
    assert verdict.value.mean == pytest.approx(0.5)
    assert verdict.verdict == 'reproduced'
    records[1].rows[-1]['train_loss'] = math.nan  # B = 4, seed 0: then it is the first, 3 times smaller
    diverged = judged(records, **best)
    assert diverged.value.mean == pytest.approx(0.5 + math.log(3) / math.log(16) / 2)
    assert (diverged.value.n, diverged.note) == (
        2,
        '2 seeds; the best is at an end of the range in 1 of 6 choices; 1 run diverged',
    )
    assert diverged.verdict == 'inconclusive'  # a better one may lie beyond
    for run in records[:3]:
        run.rows[-1]['train_loss'] = math.nan
    assert judged(records, **best).note == '1 of 2 seeds; 3 runs diverged'


def test_growth_within_a_run() -> None:
    """distance = 2 · update^0.3; the row at update 0 has no logarithm."""
    distances = [0.0, *(2 * (10.0 * i) ** 0.3 for i in (1, 2, 3))]
    records = [record('a', seed, [0.1] * 4, distance=distances) for seed in range(2)]
    verdict = judged(records, quantity='growth distance against update', bound=0.29)
    assert verdict.value.mean == pytest.approx(0.3)
    assert (verdict.verdict, verdict.measured, verdict.expected) == ('reproduced', '0.3 ± 0', 'at least 0.29')
    difference = judged([*records, *runs('b', TWO)], quantity='growth distance against update', minus='b')
    assert difference.note == 'an exponent needs two points and all values above 0'


def test_until_is_read_between_rows_in_the_run_that_needs_least() -> None:
    def two(slow: Sequence[float], fast: Sequence[float], **changes: Any) -> list[Record]:
        return [
            record(recipe, seed, tests, **changes)
            for seed in (0, 1)
            for recipe, tests in (('a-slow', slow), ('a-fast', fast))
        ]

    until = {'quantity': 'update until test_accuracy 0.5', 'of': 'a-*', **WIDE}
    slow, fast = [0.1, 0.3, 0.6, 0.8], [0.1, 0.4, 0.4, 0.9]
    assert judged(two(slow, fast), **until).value.mean == pytest.approx(10 + 10 * 2 / 3)
    assert judged(two(slow, fast), **until, over='a-fast').value.mean == pytest.approx((10 + 20 / 3) / 22)
    with_diverged = two(slow, fast) + [record('a-gone', seed, [0.1, 0.9], diverged=True) for seed in (0, 1)]
    assert judged(with_diverged, **until).value.mean == pytest.approx(10 + 20 / 3)
    never = judged(two([0.1, 0.2], [0.1, 0.4]), **until)
    assert (never.verdict, never.note) == (
        'inconclusive',
        '2 seeds; no finite value for 2 of them, which no mean includes',
    )


def test_the_spread_is_read_at_the_largest_common_rate_times_updates() -> None:
    """One ends at 2, where the other, which has 0.2 at 1 and 0.6 at 3, is at 0.4; seed 1 is another 0.1 apart."""
    records = [
        *[record('bs8', seed, [0, 0.2, 0.6, 0.9], learning_rate_sum=[0, 1, 3, 9]) for seed in range(2)],
        *[record('bs64', seed, [0, 0.5 + seed / 10], learning_rate_sum=[0, 2]) for seed in range(2)],
    ]
    verdict = judged(records, quantity='spread test_accuracy', of='bs*', **WIDE)
    assert verdict.value.mean == pytest.approx((0.1 + 0.2) / 2)
    assert verdict.measured == '15.00 ± 63.53 points'
    relative = judged(records, quantity='relative spread test_accuracy', of='bs*', **WIDE)
    assert relative.value.mean == pytest.approx((0.1 / 0.45 + 0.2 / 0.5) / 2)
    same = {'of': 'bs*', 'relation': 'at most', 'bound': 0.08}
    assert judged(records, quantity='relative spread distance', **same).measured == '0.00 ± 0.00 %'
    assert judged(records, quantity='relative spread distance', **same).expected == 'at most 8.00 %'
    ends = [0, 2 - 4e-9]  # at 2 but for the nine digits of metrics.csv
    nan = record('bs256', 1, [0, 0.9], learning_rate_sum=ends, diverged=True)
    third = [*runs('bs256', [0.9], learning_rate_sum=ends), nan]
    assert judged([*records, *third], quantity='spread test_accuracy', **same).value.n == 1
    alone = judged(records, quantity='spread test_accuracy', of='bs8', **WIDE)
    assert (alone.verdict, alone.note) == ('inconclusive', 'a spread needs two recipes')
    short = [record('bs256', seed, [0, 0.2], learning_rate_sum=[0, 0.5]) for seed in range(2)]
    seldom = judged([*records, *short], quantity='spread test_accuracy', of='bs*', **WIDE)
    assert seldom.note == 'evaluated too seldom to compare at the same learning rate × updates'
    assert seldom.value.n == 0


def test_a_diverged_run_takes_its_seed_with_it_or_is_not_selected() -> None:
    nan = record('a', 2, [0.1, 0.99], diverged=True, validation_accuracy=[0, 0.99])
    records = [*runs('a', TWO, validation_accuracy=[0, 0.5]), nan]
    alone = judged(records)
    assert (alone.value.mean, alone.value.n) == (pytest.approx(0.5), 2)
    assert alone.note == '2 of 3 seeds; 1 run diverged'
    records += runs('b', [0.1, 0.2, 0.3], validation_accuracy=[0, 0.4])
    assert judged(records, of='b', minus='a').value.n == 2
    selected = judged(records, of='*', select='validation_accuracy')
    assert (selected.value.mean, selected.value.n) == (pytest.approx((0.45 + 0.55 + 0.3) / 3), 3)
    all_nan = judged([nan])
    assert (all_nan.verdict, all_nan.measured, all_nan.note) == ('inconclusive', '–', '0 of 1 seed; 1 run diverged')


def test_a_seed_is_left_out_until_all_its_runs_are_done() -> None:
    half = record('b', 1, [0.1, 0.9], unfinished=True, validation_accuracy=[0, 0.9])
    records = [*runs('a', [0.2, 0.3, 0.4], validation_accuracy=[0, 0.5]), half]
    records += [record('b', 0, [0.1, 0.8], validation_accuracy=[0, 0.9])]
    verdict = judged(records, of='*', select='validation_accuracy')
    assert (verdict.value.mean, verdict.value.n) == (0.8, 1)
    assert verdict.note == '1 of 3 seeds; 1 run unfinished'
    assert judged(records).note == '3 seeds'


@pytest.mark.parametrize(('of', 'missing'), [('x*', 'x*'), (('a', 'y'), 'y'), (['x', 'y'], 'x, y')])
def test_a_pattern_without_runs_is_inconclusive(of: Any, missing: str) -> None:
    verdict = judged(runs('a', TWO), of=of, select='test_accuracy', status='U')
    assert (verdict.verdict, verdict.value.n) == ('inconclusive', 0)
    assert verdict.note.startswith(f'no run matches {missing}; ')
    assert judged(runs('a', TWO), minus='b').note == 'no run matches b'


def test_what_is_not_finite_is_not_averaged() -> None:
    verdict = judged([*runs('a', TWO), *runs('b', [0.0, 0.5])], over='b')
    note = '2 seeds; no finite value for 1 of them, which no mean includes'
    assert (verdict.verdict, verdict.measured, verdict.note) == ('inconclusive', '1.1', note)


@pytest.mark.parametrize(
    ('changes', 'finals', 'measured', 'expected'),
    [
        ({}, (0.976, 0.978), '97.70 ± 1.27 %', 'at least 50.00 %'),
        ({'relation': 'at most'}, (0.976, 0.978), '97.70 ± 1.27 %', 'at most 50.00 %'),
        (
            {'minus': 'b', 'relation': 'within', 'bound': (-0.002, 0.002)},
            (0.0, 0.001),
            '0.05 ± 0.64 points',
            'within -0.20 to 0.20 points',
        ),
        ({'quantity': 'gap', 'bound': 0.02}, (0.03, 0.03), '3.00 ± 0.00 points', 'at least 2.00 points'),
        ({'quantity': 'examples', 'bound': 29000}, (1.8e6, 1.8e6), '1,800,000 ± 0', 'at least 29,000'),
        ({'quantity': 'test_loss', 'bound': 0.123456}, (0.5, 0.51), '0.505 ± 0.06353', 'at least 0.1235'),
    ],
)
def test_numbers_are_written_for_people(
    changes: dict[str, Any], finals: Sequence[float], measured: str, expected: str
) -> None:
    column = changes.get('quantity', 'test_accuracy')
    records = runs('a', finals)
    for run, final in zip(records, finals, strict=True):
        run.rows[-1][column] = final
    verdict = judged([*records, *runs('b', [0.0, 0.0])], **changes)
    assert (verdict.measured, verdict.expected) == (measured, expected)


def test_claims_csv_has_all_of_it(tmp_path: Path) -> None:
    made = {'one': claim(), 'two': claim(of='b', relation='within', bound=(0.1, 0.2), status='U', published='a, "b"')}
    verdicts = claims.evaluate(made, runs('a', TWO))
    claims.write(tmp_path / 'claims.csv', verdicts)
    with (tmp_path / 'claims.csv').open(newline='') as file:
        one, two = csv.DictReader(file)
    assert tuple(one) == claims.CSV_COLUMNS
    assert float(one['value']) == pytest.approx(0.5)
    assert float(one['high']) == pytest.approx(HIGH, rel=1e-4)
    assert float(one['low']) == pytest.approx(1 - HIGH, rel=1e-4)
    assert (one['n'], one['bound_low'], one['bound_high'], one['verdict']) == ('2', '0.5', '', 'inconclusive')
    assert (one['id'], one['claim'], one['quantity']) == ('one', BASE['text'], 'test_accuracy')
    assert (one['relation'], one['source'], one['status']) == ('at least', BASE['source'], 'V')
    assert (two['value'], two['low'], two['high'], two['n']) == ('', '', '', '0')
    assert (two['bound_low'], two['bound_high'], two['published'], two['status']) == ('0.1', '0.2', 'a, "b"', 'U')
    assert two['note'] == "no run matches b; the source's figure is unverified"
    assert [path.name for path in tmp_path.iterdir()] == ['claims.csv']


def test_the_table_names_what_is_unverified() -> None:
    cells = dict(zip(claims.HEADINGS, claims.cells(judged(runs('a', [0.9, 0.9]), status='U')), strict=True))
    assert cells == {
        'claim': 'what is claimed', 'measured': '90.00 ± 0.00 %', 'bound': 'at least 50.00 %',
        'published': '50 %', 'verdict': 'reproduced', 'source': 'A. Author 2018, table 1',
        'note': "2 seeds; the source's figure is unverified",
    }  # fmt: skip


def test_a_finding_is_filled_from_the_verdicts() -> None:
    made = {'grow': claim(), 'other': claim(of='b')}
    verdicts = claims.evaluate(made, runs('a', [0.9, 0.9]))
    text = claims.finding('Of {grow}: {grow.value} is {grow.verdict}, {other}.', verdicts)
    assert text == 'Of 90.00 ± 0.00 % (reproduced): 90.00 ± 0.00 % is reproduced, – (inconclusive).'
    claims.check_finding('{grow} {other.value}', made)
    for wrong in ('{grown}', '{grow.text}', '{}'):
        with pytest.raises(config.UserError, match=r'^config\.finding: .* is not known; it must be one of \{grow\}'):
            claims.check_finding(f'{{grow}} {wrong}', made)


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'relation': 'above'}, "relation: 'above' is not allowed; it must be one of within, at least, at most"),
        ({'status': 'X'}, "status: 'X' is not allowed; it must be one of V, S, U"),
        ({'bound': (0.1, 0.2)}, "bound: (0.1, 0.2) is not allowed; it must be a number, as the relation is 'at least'"),
        ({'bound': float('nan')}, 'bound: nan is not allowed; it must be a number'),
        ({'bound': True}, 'bound: True is not allowed'),
        ({'relation': 'within'}, 'bound: 0.5 is not allowed; it must be two numbers (low, high)'),
        ({'relation': 'within', 'bound': (1, 2, 3)}, 'bound: (1, 2, 3) is not allowed'),
        ({'relation': 'within', 'bound': (2, 1)}, 'bound: (2, 1) is not allowed; it must be the lower bound first'),
        ({'quantity': 'test accuracy'}, "quantity: 'test accuracy' is not allowed; it must be NAME, growth Y"),
        ({'quantity': 'exponent a over b'}, "quantity: 'exponent a over b' is not allowed"),
        ({'quantity': 5}, 'quantity: 5 is not allowed'),
        ({'text': ''}, "text: '' is not allowed; it must be a text"),
        ({'published': 94.4}, 'published: 94.4 is not allowed; it must be a text'),
        ({'of': ()}, 'of: () is not allowed; it must be the name of a recipe'),
        ({'minus': 5}, 'minus: 5 is not allowed; it must be the name of a recipe'),
        ({'minus': 'b', 'over': 'c'}, "over: 'c' is not allowed; it must be left out, as minus is given"),
        ({'at': 'last'}, "at: 'last' is not allowed; it must be 'end', 'best', or the number of an epoch"),
        ({'at': -1}, 'at: -1 is not allowed'),
        ({'at': 1, 'quantity': 'spread gap'}, 'at: 1 is not allowed; it must be left out'),
        ({'select': 'test_loss'}, "select: 'test_loss' is not allowed; it must be a column of which the highest value"),
        ({'select': 5}, 'select: 5 is not allowed; it must be a text'),
        ({'select': 'x', 'quantity': 'exponent a against b'}, "select: 'x' is not allowed; it must be left out, or"),
        ({'group': 'batch_size', 'select': 'x'}, "group: 'batch_size' is not allowed; it must be left out, or"),
        ({'group': 'batch_size', 'quantity': 'exponent a against b'}, "group: 'batch_size' is not allowed"),
        ({'of': '*'}, "of: '*' is not allowed; it must be one recipe, or select must choose; it matches a, b"),
        ({'minus': ('a', 'b')}, "minus: ('a', 'b') is not allowed; it must be one recipe"),
        ({'unit': '%'}, 'unit: unknown field; known: text, quantity'),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(config.UserError) as error:
        claims.check('it', {**BASE, **changes}, ('a', 'b'))
    assert str(error.value).startswith(f'config.claims.it.{says}')
    assert '\n' not in str(error.value)


def test_a_claim_is_whole() -> None:
    for field in claims.REQUIRED:
        with pytest.raises(config.UserError, match=rf'^config\.claims\.it\.{field}: missing; a claim has'):
            claims.check('it', {key: value for key, value in BASE.items() if key != field})
    with pytest.raises(config.UserError, match=r'^config\.claims\.it: 5 is not allowed; it must map text'):
        claims.check('it', 5)
    with pytest.raises(config.UserError, match=r"^config\.claims: 'a\.b' is not allowed; an id is letters"):
        claims.check('a.b', BASE)
    claims.check('it', {**BASE, 'of': '*', 'select': 'validation_accuracy'}, ('a', 'b'))
    claims.check('it', {**BASE, 'of': '*', 'quantity': 'spread gap'}, ('a', 'b'))


@pytest.mark.parametrize(
    ('low', 'high', 'verdict', 'measured'),
    [
        (100.0, 300.0, 'reproduced', '180 (100 to 300)'),
        (50.0, 300.0, 'inconclusive', '180 (50 to 300)'),
        (None, 300.0, 'inconclusive', '180 (? to 300)'),
        (170.0, None, 'inconclusive', '180 (170 to ?)'),
    ],
)
def test_a_number_that_a_search_found_has_its_own_interval(
    low: float | None, high: float | None, verdict: str, measured: str
) -> None:
    made = claims.claim('x', 'found b_crit', '*', 'within', (63.0, 632.0), 'x', 'x', 'S')
    claims.check('c', made, [], ['test_accuracy'])
    with pytest.raises(config.UserError, match=r'config\.claims\.c\.quantity: .b_krit. is not known'):
        claims.check('c', {**made, 'quantity': 'found b_krit'})
    (judged,) = claims.evaluate({'c': made}, [], {'b_crit': {'value': 180.0, 'low': low, 'high': high}})
    assert (judged.verdict, judged.measured) == (verdict, measured)
    (unknown,) = claims.evaluate({'c': made}, [], {})
    assert (unknown.verdict, unknown.note) == ('inconclusive', 'b_crit is not known')
