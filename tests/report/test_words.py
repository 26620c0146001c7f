"""What is said of a study's runs, on tables made by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from bsgap.analysis.table import table
from bsgap.config import task
from bsgap.report import words
from bsgap.training.rows import Record


def record(
    size: int,
    seed: int,
    tests: Sequence[float],
    rate: float = 0.1,
    train: float = 1.0,
    updates: int = 10,
    sizes: Sequence[int] = (),
    **changes: Any,
) -> Record:
    """A run of one epoch that is evaluated at equal distances; `tests` are its test accuracies."""
    fields = {'schedule': 'constant', 'batch_size': size, 'learning_rate': rate, **changes}
    name = '-'.join([f'bs{size}', f'lr{rate}', *map(str, changes.values())])
    about = {
        'recipe': name, 'name': f'{name}-seed{seed}', 'seed': seed, 'fields': fields, 'n': 100,
        'stages': [{'batch_size': size, 'learning_rate': rate}], 'updates': updates,
    }  # fmt: skip
    points = len(tests) - 1
    rows = [
        {
            'update': round(updates * i / points), 'learning_rate_sum': rate * round(updates * i / points),
            'epoch': i, 'train_accuracy': train, 'test_accuracy': test, 'gap': train - test, 'train_loss': 1.0,
            'test_loss': 1.0, 'distance': 1.0, 'examples': 0, 'batch_size': sizes[i] if sizes else size,
        }
        for i, test in enumerate(tests)
    ]  # fmt: skip
    return Record(about, rows, {})


def sentences(*records: Record) -> list[str]:
    return words.sentences(table(records), {record.name: record.status for record in records}, task('classification'))


@pytest.mark.parametrize(
    ('large', 'says'),
    [
        ((0.80, 0.81, 0.82), 'the smaller batch ends higher'),
        ((0.98, 0.99, 1.00), 'the larger batch ends higher'),
        ((0.80, 0.90, 1.00), 'the interval holds zero'),
    ],
)
def test_the_sentences_say_what_the_numbers_say(large: tuple[float, ...], says: str) -> None:
    small = (0.90, 0.91, 0.92)
    said = ' '.join(
        sentences(
            *[record(64, seed, [0.1, 0.5, 0.6, 0.7, test], updates=20) for seed, test in enumerate(small)],
            *[record(256, seed, [0.1, test], updates=5) for seed, test in enumerate(large)],
        )
    )
    assert says in said
    assert 'With learning rate 0.1, test accuracy by batch size is 64: 91.00 ± 2.48 %; 256: ' in said
    assert 'The generalization gap (train − test accuracy) by batch size is 64: +9.00 ± 2.48; 256: ' in said
    assert 'Where learning rate × updates is the same (0.5, the most that all have made)' in said


def test_differences_are_paired_by_seed() -> None:
    """The seeds differ by much, the recipes by 0.1 for each of them; one has more seeds."""
    said = sentences(
        *[record(8, seed, [0, 0.5 + seed / 10]) for seed in range(3)],
        *[record(16, seed, [0, 0.4 + seed / 10]) for seed in range(4)],
    )
    assert 'that is a difference of +10.00 ± 0.00 points (paired by seed, n = 3)' in said[1]


def test_what_goes_with_the_length_of_training() -> None:
    """Twice the rate and half the updates lie on one line; what is read is where the shorter one ends."""
    one = [record(8, seed, [0.0, 0.2, 0.4 + seed / 100], updates=20) for seed in range(2)]
    same = [record(32, seed, [0.0, 0.2 + seed / 100], updates=10) for seed in range(2)]
    said = sentences(*one, *same)
    assert '(1, the most that all have made), the batch sizes are 0.50 points of test accuracy apart' in said[3]
    assert 'at the end they are 20.00' in said[3]
    assert len(said) == 4
    other = [record(32, seed, [0.0, 0.3 + seed / 100], updates=10) for seed in range(2)]
    assert '(1, the most that all have made), the batch sizes are 10.50 points' in sentences(*one, *other)[3]


def test_curves_are_not_compared_before_the_first_evaluation() -> None:
    """The longer recipe was evaluated after 40 updates for the first time; the shorter one made 10."""
    said = sentences(record(32, 0, [0.0, 0.5]), record(8, 0, [0.0, 0.8], updates=40))
    assert 'the evaluations are too far apart' in said[-1]


def test_a_curve_has_the_points_that_all_runs_have() -> None:
    """Those of the first recipe are (0, 0.1) and (0.75, 0.3); at 0.75 the other one is at 0.25."""
    runs = [record(8, 0, [0.0, 0.2, 0.4]), record(8, 1, [0.2, 0.4]), record(16, 0, [0.0, 0.2, 0.3])]
    said = sentences(*runs)[-1]
    assert 'is the same (0.75, the most that all have made), the batch sizes are 5.00 points' in said


def test_only_what_differs_in_the_batch_size_alone_is_compared() -> None:
    small = record(8, 0, [0, 1])
    several = record(16, 0, [0, 1], sizes=(16, 32))
    stages = [record(size, 0, [0, 1]) for size in (16, 32)]
    for run in stages:
        del run.about['fields']['schedule']
    for other in (record(16, 0, [0, 1], rate=0.2), record(16, 0, [0, 1], hidden='[3]'), several, stages[0]):
        assert sentences(small, other) == ['There is nothing to compare: give at least two batch sizes.']
    assert sentences(*stages) == ['There is nothing to compare: give at least two batch sizes.']
    assert sentences(record(64, 0, [0, 1]), *stages) == ['There is nothing to compare: give at least two batch sizes.']
    assert 'by batch size is 8: 100.00 %; 16: 100.00 %.' in sentences(record(16, 0, [0, 1]), small)[0]
    unfinished = record(16, 0, [0, 0.5])._replace(about={**record(16, 0, [0, 1]).about, 'updates': 11})
    assert sentences(small, unfinished) == ['Not finished: 1 run.']


def test_a_run_without_a_row_is_not_finished() -> None:
    runs = [record(8, 0, [0, 1]), record(16, 0, [0, 1]), record(16, 1, [0, 1])._replace(rows=[])]
    assert sentences(*runs) == ['Not finished: 1 run.']
    assert sentences(*[run._replace(rows=[]) for run in runs]) == ['Not finished: 3 runs.']


def test_what_diverged_is_named_and_in_no_mean() -> None:
    lost = record(8, 2, [0.1, 0.2])
    lost.rows[-1]['train_loss'] = math.nan
    said = sentences(record(8, 0, [0.1, 0.5]), record(8, 1, [0.1, 0.7]), lost, record(16, 0, [0.1, 0.5]))
    assert 'by batch size is 8: 60.00 ± ' in said[0]
    assert said[-1] == 'Runs that diverged, which no mean includes: bs8-lr0.1 (1).'


def test_fields_that_differ_are_named_where_recipes_have_them() -> None:
    runs = [record(size, 0, [0, 1], momentum=momentum, clip=0.0) for momentum in (0.0, 0.9) for size in (8, 16)]
    said = sentences(*runs)
    assert 'With learning rate 0.1, momentum 0, test accuracy' in said[0]
    assert any('With learning rate 0.1, momentum 0.9, test accuracy' in sentence for sentence in said)


def test_rows_without_all_splits_do_not_count() -> None:
    runs = [record(8, 0, [0, 0.5, 0.9]), record(16, 0, [0, 0.5, 0.9])]
    for run in runs:
        for column in ('train_accuracy', 'test_accuracy', 'gap'):
            del run.rows[-1][column]
    assert 'by batch size is 8: 50.00 %; 16: 50.00 %.' in sentences(*runs)[0]
