"""Claims held against tables made by hand, and what of an experiment may be run for them."""

import csv
import dataclasses
import math
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import ROOT
from tables import WIDE, ends, record, runs

from bsgap import config
from bsgap.analysis import claims
from bsgap.analysis.claims import Claim, Verdict
from bsgap.analysis.loading import call
from bsgap.analysis.quantities import exponent, found, spread, value
from bsgap.analysis.statistics import Estimate
from bsgap.config import experiment
from bsgap.errors import UserError
from bsgap.training.rows import Record
from experiments import which_batch

BASE: dict[str, Any] = {'published': '50 %', 'source': 'A. Author 2018, table 1', 'status': 'V'}


def accuracy(runs: pd.DataFrame) -> pd.Series:
    return value(runs, 'a', 'test_accuracy')


def above(runs: pd.DataFrame) -> pd.Series:
    return value(runs, 'a', 'test_accuracy') - value(runs, 'b', 'test_accuracy')


def claim(measure: Any = accuracy, name: str = 'it', **changes: Any) -> Claim:
    bound = {} if {'within', 'at_least', 'at_most'} & set(changes) else {'at_least': 0.5}
    return Claim(name, 'what is claimed', measure, **{**BASE, **bound, **changes})


def cells(verdict: claims.Verdict) -> tuple[str, ...]:
    """What is shown of a verdict."""
    first = verdict.claim, verdict.measured, verdict.expected, verdict.published
    return *first, verdict.verdict, verdict.source, verdict.note


def judged(records: Sequence[Record], measure: Any = accuracy, **changes: Any) -> Verdict:
    (verdict,) = claims.evaluate([claim(measure, **changes)], runs(records))
    return verdict


def test_the_interval_over_seeds_is_students() -> None:
    finals = [0.90, 0.93, 0.91, 0.98]
    verdict = judged(ends('a', finals))
    expected = scipy.stats.t.interval(0.95, 3, np.mean(finals), scipy.stats.sem(finals))
    assert (verdict.low, verdict.high) == pytest.approx(expected)
    assert (verdict.value, verdict.n, verdict.note) == (pytest.approx(0.93), 4, '4 seeds')


# Mean 0.5, whose one-sided tests at 5 % reach 6.314 × 0.1 / √2 / √2 = 0.3157 far by the printed table.
MANY = 'more than 100 seeds would decide'
TWO = [0.45, 0.55]
LOW, HIGH = 0.5 - 0.31569, 0.5 + 0.31569


@pytest.mark.parametrize(
    ('relation', 'bound', 'verdict'),
    [
        ('at_least', LOW - 1e-4, 'reproduced'),
        ('at_least', LOW + 1e-4, 'inconclusive'),
        ('at_least', HIGH - 1e-4, 'inconclusive'),
        ('at_least', HIGH + 1e-4, 'not reproduced'),
        ('at_most', HIGH + 1e-4, 'reproduced'),
        ('at_most', HIGH - 1e-4, 'inconclusive'),
        ('at_most', LOW + 1e-4, 'inconclusive'),
        ('at_most', LOW - 1e-4, 'not reproduced'),
        ('within', (LOW - 1e-4, HIGH + 1e-4), 'reproduced'),
        ('within', (LOW + 1e-4, HIGH + 1e-4), 'inconclusive'),
        ('within', (LOW - 1e-4, HIGH - 1e-4), 'inconclusive'),
        ('within', (0.4, 0.6), 'inconclusive'),
        ('within', (HIGH + 1e-4, 9), 'not reproduced'),
        ('within', (-9, LOW - 1e-4), 'not reproduced'),
    ],
)
def test_the_verdict_is_that_of_one_sided_tests(relation: str, bound: Any, verdict: str) -> None:
    made = judged(ends('a', TWO), **{relation: bound})
    assert made.verdict == verdict
    assert ('would decide' in made.note) == (verdict == 'inconclusive')


def test_how_many_seeds_would_decide() -> None:
    """In 4 of 5 repetitions; the mean is 0.1 from the bound and the standard deviation 0.1: with 8 seeds
    (t(0.95; 7) + t(0.8; 7))/√8 = 0.987, with 7 (t(0.95; 6) + t(0.8; 6))/√7 = 1.077."""
    finals = [0.5, 0.6, 0.7]
    for relation in ({'at_least': 0.5}, {'at_most': 0.5}, {'within': (0.5, 9)}, {'within': (-9, 0.7)}):
        assert judged(ends('a', finals), **relation).note == '3 seeds; about 8 seeds would decide'
    assert judged(ends('a', finals), at_least=0.6).note == '3 seeds; more than 100 seeds would decide'


def test_ratios_are_tested_as_logarithms() -> None:
    """Of 0.1 and 0.9 the geometric mean is 0.3, their logarithms are ln 3 from its own, t(0.975; 1) = 12.7."""
    made = judged(ends('a', [0.1, 0.9]), unit='ratio', at_least=0.3)
    ends_of = [0.3 * 3 ** (sign * 12.7062) for sign in (-1, 1)]
    assert (made.value, made.low, made.high) == pytest.approx((0.3, *ends_of), rel=1e-4)
    assert made.verdict == 'inconclusive'
    told = judged(ends('a', [0.4, 0.45, 0.5]), unit='ratio', at_most=2)
    assert (told.verdict, told.measured, told.expected) == ('reproduced', '0.45 (0.34 to 0.59)', 'at most 2')
    assert judged(ends('a', [1.06, 1.07, 1.08]), unit='ratio', at_most=2).measured == '1.07 (1.05 to 1.10)'
    assert judged(ends('a', [0.5, 0.5]), unit='ratio', at_most=2).measured == '0.5 (0.5 to 0.5)'
    assert told._replace(low=0.0, high=math.inf).measured == '0.45 (0 to ?)'
    for finals in ([0.0, 0.5], [-0.1, 0.5]):
        assert 'no finite value for 1 of them' in judged(ends('a', finals), unit='ratio').note


@pytest.mark.parametrize(
    ('relation', 'bound', 'verdict'),
    [
        ('at_least', 20, 'reproduced'),
        ('at_least', 20.001, 'not reproduced'),
        ('at_most', 20, 'reproduced'),
        ('at_most', 19.999, 'not reproduced'),
        ('within', (20, 20), 'reproduced'),
        ('within', (0, 19), 'not reproduced'),
    ],
)
def test_an_exact_quantity_has_an_interval_without_width(relation: str, bound: Any, verdict: str) -> None:
    records = [record('a', seed, [0.1, 0.2, 0.3]) for seed in range(3)]
    made = judged(records, lambda runs: value(runs, 'a', 'update'), **{relation: bound})
    assert (made.verdict, made.measured) == (verdict, '20 ± 0')


def test_rounding_does_not_decide_over_equal_numbers() -> None:
    """The mean of three times 0.1 is 0.10000000000000002, and its interval is wider than nothing."""
    for relation in ('at_most', 'at_least'):
        assert judged(ends('a', [0.1] * 3), **{relation: 0.1}).verdict == 'reproduced'


def test_comparisons_are_paired_by_seed() -> None:
    """The seeds differ by ten points and the recipes by one: paired it is plain, in another order it is not."""
    first, second = [0.70, 0.80, 0.90], [0.69, 0.79, 0.891]
    paired = judged([*ends('a', first), *ends('b', second)[::-1]], above, at_least=0.0)
    assert (paired.verdict, paired.n, paired.value) == ('reproduced', 3, pytest.approx(0.029 / 3))
    crossed = judged([*ends('a', first), *ends('b', second[1:] + second[:1])], above, at_least=0.0)
    assert (crossed.verdict, crossed.value) == ('inconclusive', pytest.approx(paired.value))


def test_no_verdict_without_an_interval() -> None:
    verdict = judged(ends('a', [0.9]), unit='%')
    assert (verdict.verdict, verdict.measured, verdict.note) == ('inconclusive', '90.00 %', '1 seed')
    seconds = judged(ends('a', TWO), lambda runs: value(runs, 'a', 'train_seconds'), within=WIDE)
    assert (seconds.verdict, seconds.measured) == ('inconclusive', '2')
    assert seconds.note == '2 seeds; time is measured once for all seeds'
    nothing = judged([])
    assert (nothing.verdict, nothing.n, nothing.measured, nothing.note) == ('inconclusive', 0, '–', 'no run matches a')


def test_seeds_and_runs_that_are_left_out_are_counted() -> None:
    nan, half = record('a', 2, [0.1, 0.99], diverged=True), record('b', 3, [0.1], unfinished=True)
    verdict = judged([*ends('a', TWO), nan])
    assert (verdict.value, verdict.n, verdict.note) == (pytest.approx(0.5), 2, f'2 of 3 seeds; 1 run diverged; {MANY}')
    assert judged([*ends('a', [*TWO, 0.9, 0.9])[::3], *ends('b', TWO)], above).note == '1 of 3 seeds'
    both = judged([*ends('a', TWO), nan, *ends('b', [0.1, 0.2, 0.3]), half, record('a', 3, [0, 1])], above)
    assert (both.n, both.note) == (2, '2 of 4 seeds; 1 run diverged; 1 run unfinished')
    alone = judged([nan])
    assert (alone.verdict, alone.measured, alone.note) == ('inconclusive', '–', '0 of 1 seed; 1 run diverged')


def test_a_run_that_both_sides_need_is_counted_once() -> None:
    nan = record('a', 2, [0.1, 0.99], diverged=True)
    twice = judged([*ends('a', TWO), nan], lambda runs: accuracy(runs) - accuracy(runs))
    assert twice.note == '2 of 3 seeds; 1 run diverged'


def test_what_is_not_finite_is_not_averaged() -> None:
    for quotient in (0.0, 1.0):
        records = [*ends('a', [quotient, 0.55]), *ends('b', [0.0, 0.5])]
        verdict = judged(records, lambda runs: accuracy(runs) / value(runs, 'b', 'test_accuracy'))
        note = '2 seeds; no finite value for 1 of them, which no mean includes'
        assert (verdict.verdict, verdict.measured, verdict.note) == ('inconclusive', '1.1', note)


def test_a_choice_at_an_end_of_the_range_is_inconclusive() -> None:
    records = [
        record(f'bs{size}-lr{rate}', seed, [0, 0.5], validation_accuracy=[0, best == rate],
               fields={'batch_size': size, 'learning_rate': rate})
        for seed in (0, 1) for size, best in ((4, 1), (16, 2), (64, 3)) for rate in (1, 2, 3)
    ]  # fmt: skip
    best = 'bs*', 'recipe.learning_rate', 'recipe.batch_size', 'validation_accuracy'
    verdict = judged(records, lambda runs: exponent(runs, *best), within=WIDE)
    assert (verdict.value, verdict.low) == (pytest.approx(math.log(3) / math.log(16)),) * 2
    assert (verdict.verdict, verdict.note) == (
        'inconclusive',
        '2 seeds; the best is at an end of the range in 4 of 6 choices',
    )


def test_what_cannot_be_read_is_said() -> None:
    records = ends('a', TWO, validation_accuracy=[0, 1])
    for measure, note in (
        (lambda runs: value(runs, 'x*', 'gap'), 'no run matches x*'),
        (lambda runs: value(runs, 'a', 'sharpness'), 'the runs have no sharpness'),
        (lambda runs: spread(runs, 'a', 'gap'), 'a spread needs two recipes'),
        (lambda runs: found(runs, 'b_crit'), 'b_crit is not known'),
    ):
        verdict = judged(records, measure, status='U')
        assert (verdict.verdict, verdict.n, verdict.value) == ('inconclusive', 0, pytest.approx(math.nan, nan_ok=True))
        assert verdict.note.split('; ')[0].startswith(note)
        assert verdict.note.endswith("; the source's figure is unverified")
    on_test = judged(records, lambda runs: value(runs, '*', 'test_accuracy', by='test_accuracy'))
    assert on_test.note == f'2 seeds; selected on the test split; {MANY}'


@pytest.mark.parametrize(
    ('measure', 'says'),
    [
        (lambda runs: runs['no such column'], "KeyError: 'no such column'"),
        (lambda runs: 1 / 0, 'ZeroDivisionError: division by zero'),
        (lambda runs: runs[['gap', 'update']], 'ValueError: '),
        (lambda runs: 'words', 'ValueError: '),
        (lambda runs: value(runs, 'a', 'recipe.optimizer'), 'TypeError: '),
    ],
)
def test_a_mistake_in_a_claim_is_one_line_that_says_where(measure: Any, says: str) -> None:
    made = [claim(), claim(measure, name='wrong'), claim(name='after')]
    verdicts = claims.evaluate(made, runs(ends('a', TWO, fields={'optimizer': 'sgd'})))
    wrong = verdicts[1]
    line = measure.__code__.co_firstlineno
    place = f'test_claims.py:{line}: ' * (says != 'ValueError: ')  # the values are looked at later
    assert wrong.note.startswith(f'cannot be computed: {place}{says}')
    assert '\n' not in wrong.note
    assert wrong.verdict == 'inconclusive'
    assert [verdict.note for verdict in verdicts if verdict is not wrong] == [f'2 seeds; {MANY}'] * 2


def test_claims_see_full_rows_alone() -> None:
    """The last row of each run has the validation split alone; what was measured at the end is not lost with it."""
    records = [
        record('a', seed, [0.2, 0.4, 0.9], validation_accuracy=[0.1, 0.2, 0.3], measured={'sharpness': 7.0})
        for seed in (0, 1)
    ]
    for run in records:
        del run.rows[-1]['test_accuracy'], run.rows[-1]['train_accuracy']
    assert judged(records).value == pytest.approx(0.4)
    assert judged(records, lambda runs: value(runs, 'a', 'sharpness')).value == 7
    unfinished = record('a', 2, [0.9, 0.9], unfinished=True, validation_accuracy=[0, 1])
    for row in unfinished.rows:
        del row['test_accuracy']
    assert judged([*records, unfinished]).note == '2 of 3 seeds; 1 run unfinished'


def test_runs_that_have_no_row_yet_count_as_unfinished() -> None:
    table = runs(ends('a', TWO))
    table.attrs['answer'] = {'b_crit': {'value': 1.0, 'low': 1.0, 'high': 1.0}}
    best = claim(lambda runs: value(runs, '*', 'test_accuracy', by='test_accuracy'))
    planned = [(recipe, seed, 'running') for recipe in 'ab' for seed in range(3)]
    other = claim(lambda runs: found(runs, 'b_crit'))
    verdicts = claims.evaluate([claim(), best, other], table, planned)
    assert verdicts[0].note == f'2 of 3 seeds; 1 run unfinished; {MANY}'
    assert verdicts[1].note == '0 of 3 seeds; selected on the test split; 4 runs unfinished'
    assert verdicts[2].value == 1


@pytest.mark.parametrize(
    ('changes', 'finals', 'measured', 'expected'),
    [
        ({'unit': '%'}, (0.976, 0.978), '97.70 ± 1.27 %', 'at least 50.00 %'),
        ({'unit': '%', 'at_most': 0.5}, (0.976, 0.978), '97.70 ± 1.27 %', 'at most 50.00 %'),
        (
            {'unit': 'points', 'within': (-0.002, 0.002)},
            (0.0, 0.001),
            '0.05 ± 0.64 points',
            'within −0.20 to 0.20 points',
        ),
        ({'unit': 'points'}, (-1e-9, -1e-9), '0.00 ± 0.00 points', 'at least 50.00 points'),
        ({'at_least': 29000}, (1.8e6, 1.8e6), '1,800,000 ± 0', 'at least 29,000'),
        ({'at_least': 0.123456}, (0.5, 0.51), '0.505 ± 0.064', 'at least 0.1235'),
    ],
)
def test_numbers_are_written_for_people(
    changes: dict[str, Any], finals: Sequence[float], measured: str, expected: str
) -> None:
    verdict = judged(ends('a', finals), **changes)
    assert (verdict.measured, verdict.expected) == (measured, expected)


@pytest.mark.parametrize(
    ('low', 'high', 'verdict', 'measured'),
    [
        (100.0, 300.0, 'reproduced', '180 (100 to 300)'),
        (50.0, 300.0, 'inconclusive', '180 (50 to 300)'),
        (-math.inf, 300.0, 'inconclusive', '180 (? to 300)'),
        (170.0, math.inf, 'inconclusive', '180 (170 to ?)'),
        (700.0, 900.0, 'not reproduced', '180 (700 to 900)'),
        (math.nan, math.nan, 'inconclusive', '180'),
    ],
)
def test_an_estimate_has_its_own_interval(low: float, high: float, verdict: str, measured: str) -> None:
    made = judged([], lambda runs: Estimate(180.0, low, high), within=(63.0, 632.0))
    assert (made.verdict, made.measured, made.n, made.note) == (verdict, measured, 1, '')


def test_claims_csv_has_all_of_it(tmp_path: Path) -> None:
    made = [
        claim(name='one', unit='%'),
        claim(lambda runs: value(runs, 'b', 'gap'), name='two', within=(0.1, 0.2), status='U', published='a, "b"',
              source='§ ‖w − w₀‖', bound_first=False),
        claim(lambda runs: Estimate(180.0, -math.inf, 300.0), name='three', at_most=400.0),
    ]  # fmt: skip
    verdicts, path = claims.evaluate(made, runs(ends('a', TWO))), tmp_path / 'claims.csv'
    claims.write(path, verdicts)
    with path.open(newline='', encoding='utf-8') as file:
        one, two, three = csv.DictReader(file)
    assert ' '.join(one) == (
        'id claim unit value low high n relation bound_low bound_high verdict published source status bound_first note'
    )
    assert [float(one[key]) for key in ('value', 'low', 'high')] == pytest.approx(
        [0.5, 0.5 - 0.63531, 0.5 + 0.63531], rel=1e-4
    )
    assert (one['n'], one['bound_low'], one['bound_high'], one['verdict']) == ('2', '0.5', '', 'inconclusive')
    assert (one['id'], one['claim'], one['unit']) == ('one', 'what is claimed', '%')
    assert (one['relation'], one['source'], one['status'], one['bound_first']) == (
        *('at least', BASE['source'], 'V', 'True'),
    )
    assert (two['value'], two['low'], two['high'], two['n'], two['source']) == ('', '', '', '0', '§ ‖w − w₀‖')
    assert (two['bound_low'], two['bound_high'], two['published'], two['status']) == ('0.1', '0.2', 'a, "b"', 'U')
    assert (two['note'], two['bound_first']) == ("no run matches b; the source's figure is unverified", 'False')
    assert (three['value'], three['low'], three['high'], three['n']) == ('180', '', '300', '1')
    assert [path.name for path in tmp_path.iterdir()] == ['claims.csv']
    read = claims.read(path)
    assert [cells(verdict) for verdict in read] == [cells(verdict) for verdict in verdicts]
    assert [verdict.bound_first for verdict in read] == [True, False, True]
    claims.write(path.with_name('again.csv'), read)
    assert path.with_name('again.csv').read_bytes() == path.read_bytes()


def test_what_is_told_is_what_claims_csv_has(tmp_path: Path) -> None:
    """Nine digits round 1.61499999996 points up to 1.615, which would be told as 1.62 here and as 1.61 there."""
    near = claims.evaluate(
        [claim(lambda runs: Estimate(0.0161499999996, 0.01, 0.02), unit='points')], runs(ends('a', TWO))
    )
    claims.write(tmp_path / 'claims.csv', near)
    assert claims.read(tmp_path / 'claims.csv')[0].measured == near[0].measured


def test_claims_csv_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'claims.csv'
    assert claims.read(path) == []
    path.write_text(
        'id,claim,quantity,value,low,high,n,relation,bound_low,bound_high,verdict,published,source,status,note\n'
        'x,in words,gap,0.021,0.02,0.022,3,at least,0,,reproduced,2.1,Shen,V,3 seeds\n',
        encoding='utf-8',
    )
    (verdict,) = claims.read(path)
    assert cells(verdict) == (*('in words', '0.0210 ± 0.0010', 'at least 0', '2.1', 'reproduced', 'Shen', '3 seeds'),)
    for damaged in ('id,claim\nx,y\n', 'id,value,n\nx,1,one\n'):
        path.write_text(damaged, encoding='utf-8')
        with pytest.raises(UserError, match=r'^workdir: .*claims\.csv is damaged: .*; remove it$'):
            claims.read(path)


def test_what_is_unverified_is_named() -> None:
    verdict = judged(ends('a', [0.9, 0.9]), unit='%', status='U')
    first = '90.00 ± 0.00 %', 'at least 50.00 %', '50 %', 'reproduced', 'A. Author 2018, table 1'
    assert cells(verdict) == ('what is claimed', *first, "2 seeds; the source's figure is unverified")


def test_a_finding_is_filled_from_the_verdicts() -> None:
    made = [claim(name='grow', unit='%'), claim(lambda runs: value(runs, 'b', 'gap'), name='other')]
    verdicts = claims.evaluate(made, runs(ends('a', [0.9, 0.9])))
    text = claims.finding('At 0.1 {grow}: {grow.value} is {grow.verdict}. {other}, and {grow}. And so?', verdicts)
    assert text == 'At 0.1 90.00 ± 0.00 % (reproduced): 90.00 ± 0.00 % is reproduced. And so?'
    assert claims.finding('As it is.', []) == 'As it is.'
    for wrong in ('{grown}', '{grow.text}', '{}'):
        assert claims.finding(f'{{grow}} {wrong}', verdicts) == ''


@pytest.mark.parametrize(
    ('changes', 'needs'),
    [
        ({'name': 'a.b'}, 'a name of letters, digits and "_"'),
        ({'at_least': None}, 'one of within, at_least and at_most'),
        ({'at_most': 0.0}, 'one of within, at_least and at_most'),
        ({'at_least': None, 'within': (2, 1)}, 'bounds that are numbers, the lower first'),
        ({'at_least': math.nan}, 'bounds that are numbers, the lower first'),
        ({'status': 'X'}, 'a status: V, S or U'),
        ({'unit': 'per cent'}, "a unit: '', '%', 'points' or 'ratio'"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(changes: dict[str, Any], needs: str) -> None:
    good = claim()
    with pytest.raises(UserError) as error:
        dataclasses.replace(good, **changes)
    assert str(error.value) == f'claim {changes.get("name", "it")}: needs {needs}'
    with pytest.raises(TypeError, match='published'):
        Claim('it', 'what is claimed', accuracy, at_least=0.5, source='x', status='V')  # type: ignore[call-arg]


# A study with its claims in a file of its own.
MINE = """
from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value


def get_config(variant=''):
    study = config.default()
    study.name, study.claims, study.seeds, study.sweep.batch_size = 'mine', 'mine:claims', 2, (8, 64)
    return config.with_variant(study, variant, smoke={'evaluate_epochs': 0.5})


def claims(variant):
    def ends(name, recipe, of=value):
        return Claim(name, f'{name} {variant}', lambda runs: of(runs, recipe, 'test_accuracy'),
                     at_least=0.5, published='x', source='x', status='V')

    return [ends('second', 'bs64-lr0.01'), ends('first', 'bs8-lr0.01')]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / 'mine.py'
    path.write_text(MINE, encoding='utf-8')
    return path


def settings(name: str = 'mine:claims', **changes: Any) -> dict[str, Any]:
    """What study.json would have."""
    made = config.default()
    made.claims, made.variant, made.seeds, made.sweep.batch_size = name, 'smoke', 2, (8, 64)
    return {**config.settings(config.resolve(made)), **changes}


BOTH = [*ends('bs8-lr0.01', [0.6, 0.6]), *ends('bs64-lr0.01', [0.9, 0.9])]


def test_the_claims_of_an_experiment_in_its_order(mine: Path, tmp_path: Path) -> None:
    for name in ('mine:claims', 'experiments.mine:claims'):
        verdicts, lines = claims.verdicts(tmp_path, settings(name), runs(BOTH), mine)
        assert [(v.id, v.claim, v.verdict) for v in verdicts] == [
            ('second', 'second smoke', 'reproduced'),
            ('first', 'first smoke', 'reproduced'),
        ]
        assert lines == []
    verdicts, _ = claims.verdicts(tmp_path, settings(), runs(BOTH[:2]), mine)
    assert [verdict.note for verdict in verdicts] == ['0 of 2 seeds; 2 runs unfinished', '2 seeds']
    assert claims.verdicts(tmp_path, settings(''), runs(BOTH), mine) == ([], [])


def test_claims_about_other_runs_are_left_out(mine: Path, tmp_path: Path) -> None:
    given = settings()
    given['recipes'] = dict.fromkeys(('bs64-lr0.01', 'bs32-lr0.01'), given['recipes']['bs64-lr0.01'])
    verdicts, lines = claims.verdicts(tmp_path, given, runs(BOTH[2:]), mine)
    assert [verdict.id for verdict in verdicts] == ['second']
    assert lines == ['1 claim left out: about runs that this study has not']
    earlier, lines = claims.verdicts(tmp_path, given, runs(BOTH), mine)  # an earlier launch had trained it
    assert ([verdict.id for verdict in earlier], lines) == (['second', 'first'], [])
    other = settings(dataset='idx:elsewhere')
    assert claims.verdicts(tmp_path, other, runs(BOTH), mine) == (
        [],
        ['2 claims left out: about mnist, not idx:elsewhere'],
    )


def test_claims_about_another_network_or_training_are_left_out(mine: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({'hidden': [7], 'epochs': 3.0}, 'epochs, hidden'),
        ({'optimizer': 'adam'}, 'optimizer'),
        ({'label_noise': 0.1, 'batch_size': 9}, 'batch_size, label_noise'),
    ):
        other = settings()
        other['recipes']['bs8-lr0.01']['fields'] |= changes
        assert claims.verdicts(tmp_path, other, runs(BOTH), mine) == (
            [],
            [f'2 claims left out: about other values of {said}'],
        )
    other = settings(validation=0.5)
    assert claims.verdicts(tmp_path, other, runs(BOTH), mine)[1] == [
        '2 claims left out: about other values of validation'
    ]
    same = settings(seeds=3, deterministic=False)
    same['recipes']['bs8-lr0.01']['fields'] |= {'evaluate_epochs': 0.25, 'data_seed': 1, 'subset': None}
    assert len(claims.verdicts(tmp_path, same, runs(BOTH), mine)[0]) == 2
    mine.write_text(MINE.replace('(8, 64)', "(8, 64, 'whole')"), encoding='utf-8')
    (name,) = config.resolve(experiment.settings(experiment.run(mine), 'smoke')).recipes[2:]
    same['recipes'][name.name] = {'fields': same['recipes']['bs8-lr0.01']['fields'] | {'batch_size': 60000}}
    assert len(claims.verdicts(tmp_path, same, runs(BOTH), mine)[0]) == 2


def test_claims_of_a_search_of_another_network_are_left_out(tmp_path: Path) -> None:
    study = which_batch.get_config('cpu')
    study.sweep.batch_size, study.sweep.learning_rate = (8, 32, 128), (0.1, 0.4)
    settings = config.settings(config.resolve(study))
    assert claims.verdicts(tmp_path, settings, runs(BOTH))[1] == []
    study.hidden = (32,)
    settings = config.settings(config.resolve(study))
    left_out = [f'{len(which_batch.claims("cpu"))} claims left out: about other values of hidden']
    assert claims.verdicts(tmp_path, settings, runs(BOTH)) == ([], left_out)


def test_a_wrong_recipe_name_is_no_other_run(mine: Path, tmp_path: Path) -> None:
    mine.write_text(MINE.replace('bs8', 'bs9'), encoding='utf-8')
    (_, first), lines = claims.verdicts(tmp_path, settings(), runs(BOTH), mine)
    assert (first.verdict, first.note, lines) == ('inconclusive', 'no run matches bs9-lr0.01', [])


def test_a_mistake_in_a_claim_names_its_line(mine: Path, tmp_path: Path) -> None:
    mine.write_text(MINE.replace("-lr0.01')]", "', {}['x'])]"), encoding='utf-8')
    with pytest.raises(UserError, match=rf'^{mine}:18: KeyError: .x.$'):
        call('mine:claims', 'smoke', mine)
    mine.write_text(MINE.replace("')]", "', lambda *_: {}['x'])]"), encoding='utf-8')
    (second, first), lines = claims.verdicts(tmp_path, settings(), runs(BOTH), mine)
    assert (second.verdict, first.verdict, lines) == ('reproduced', 'inconclusive', [])
    assert first.note == "cannot be computed: mine.py:18: KeyError: 'x'"


@pytest.mark.parametrize(
    ('old', 'new', 'says'),
    [
        ('def claims', 'def claim', "claims is not a function of this file"),
        ('from bsgap import config', 'import no_such', "2: ModuleNotFoundError: No module named 'no_such'"),
        ('from bsgap import config', 'raise SystemExit("bye")', '2: SystemExit: bye'),
        ('def claims', 'def claims(:', '13: SyntaxError: '),
        ('smoke=', 'other=', "config.variant: 'smoke' is not known"),
        ("at_least=0.5", 'at_least=None', "claim second: needs one of within, at_least and at_most"),
        ('return [ends', "raise RuntimeError('a\\nb')  # [ends", '18: RuntimeError: a b'),
        ('return [ends', 'return 5  # [ends', "claims returns 5; it must return a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(mine: Path, tmp_path: Path, old: str, new: str, says: str) -> None:
    mine.write_text(MINE.replace(old, new), encoding='utf-8')
    claims.write(tmp_path / 'claims.csv', kept := claims.evaluate([claim()], runs(ends('a', TWO))))
    verdicts, (line,) = claims.verdicts(tmp_path, settings(), runs(BOTH), mine)
    place = {'1': f'{mine}:', '2': f'{mine}:'}.get(says[0], f'{mine}: ' if 'claims ' in says else '')
    assert line.startswith(f'claims as claims.csv has them: {place}{says}')
    assert '\n' not in line
    assert [cells(verdict) for verdict in verdicts] == [cells(verdict) for verdict in kept]


@pytest.mark.parametrize('returned', ["['bs8']", "[ends('first', 'bs8')] * 2"])
def test_only_claims_with_different_names_are_claims(mine: Path, tmp_path: Path, returned: str) -> None:
    mine.write_text(MINE.replace('return [ends', f'return {returned}  # [ends'), encoding='utf-8')
    verdicts, lines = claims.verdicts(tmp_path, settings(), runs(BOTH), mine)
    assert verdicts == []
    assert lines == [
        'claims left out: mine:claims does not return a list of Claim, each with a name of its own',
    ]


def test_what_a_file_imports_is_not_called(mine: Path, tmp_path: Path) -> None:
    """study.json names the function and its argument: only a function of the file itself is meant."""
    mine.write_text(f'from os import mkdir\n{MINE}', encoding='utf-8')
    made = tmp_path / 'made'
    verdicts, (line,) = claims.verdicts(tmp_path, settings('mine:mkdir', variant=str(made)), runs(BOTH), mine)
    assert verdicts == []
    assert line == f'claims left out: {mine}: mkdir is not a function of this file'
    assert not made.exists()


def test_an_experiment_without_variants(mine: Path, tmp_path: Path) -> None:
    text = MINE.replace("def get_config(variant=''):", 'def get_config():').replace('variant, smoke=', "'', smoke=")
    mine.write_text(text, encoding='utf-8')
    verdicts, lines = claims.verdicts(tmp_path, settings(variant=''), runs(BOTH), mine)
    assert ([verdict.id for verdict in verdicts], lines) == (['second', 'first'], [])


EVIL = "from pathlib import Path\nPath(r'{}').touch()\ndef claims(variant): return []\ndef get_config(variant): {{}}\n"


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A workdir full of code; `ran` is there if any of it was run."""
    for name in ('evil.py', 'experiments/__init__.py', 'experiments/evil.py', 'experiments/mnist.py', 'mnist.py'):
        path = tmp_path / 'workdir' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(EVIL.format(tmp_path / 'ran'), encoding='utf-8')
    claims.write(tmp_path / 'workdir' / 'claims.csv', claims.evaluate([claim()], runs(ends('a', TWO))))
    return tmp_path / 'workdir'


@pytest.mark.parametrize(
    'name',
    [
        'evil:claims', 'experiments.evil:claims', 'experiments.sub.evil:claims', 'experiments.../evil:claims',
        '../evil:claims', 'os:getcwd', 'experiments.mnist', 'experiments.mnist:claims:x', 'experiments.mnist:claims()',
        'mnist:claims', 'experiments.evil:claims\n', {'a': {'of': 'bs8'}}, ['experiments.evil'], 5,
    ],
)  # fmt: skip
def test_nothing_is_run_from_a_workdir(evil: Path, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(evil)
    monkeypatch.syspath_prepend(evil)
    verdicts, (line,) = claims.verdicts(evil, settings(claims=name), runs(BOTH), ROOT / 'experiments' / 'mnist_adam.py')
    assert [verdict.id for verdict in verdicts] == ['it']
    who = 'config.claims: ' if isinstance(name, str) else 'study.json '
    assert line.startswith(f'claims as claims.csv has them: {who}')
    assert '\n' not in line
    assert not (evil.parent / 'ran').exists()


def test_the_checkout_s_experiments_come_first(evil: Path) -> None:
    """In a process that is started in the workdir, whose modules Python finds before all others."""
    code = (
        "import sys; assert sys.path[0] == ''; from bsgap.analysis.loading import call;"
        "print(len(call('experiments.mnist_adam:claims', 'smoke')[0]))"
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=evil, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ('4\n', '')
    assert not (evil.parent / 'ran').exists()


def test_another_package_of_that_name_is_refused(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = types.ModuleType('experiments')
    other.__path__ = [str(evil / 'experiments')]
    monkeypatch.setitem(sys.modules, 'experiments', other)
    with pytest.raises(UserError, match='another package of the name experiments was imported'):
        call('experiments.mnist_adam:claims', 'smoke')
