"""Statistics and sentences, on tables made by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bsgap import analysis
from bsgap.metrics import Record


def record(
    size: int,
    seed: int,
    tests: Sequence[float],
    rate: float = 0.1,
    train: float = 1.0,
    updates: int = 10,
    **changes: Any,
) -> Record:
    """A run of one epoch that is evaluated at equal distances; `tests` are its test accuracies."""
    fields = {'schedule': 'constant', 'batch_size': size, 'learning_rate': rate, **changes}
    about = {
        'recipe': f'bs{size}-lr{rate}', 'name': f'bs{size}-lr{rate}-seed{seed}', 'seed': seed, 'fields': fields,
        'stages': [{'batch_size': size}], 'updates': updates,
    }  # fmt: skip
    points = len(tests) - 1
    rows = [
        {
            'update': round(updates * i / points), 'learning_rate_sum': rate * round(updates * i / points),
            'epoch': i, 'train_accuracy': train, 'test_accuracy': test, 'gap': train - test, 'train_loss': 1.0,
            'test_loss': 1.0, 'distance': 1.0,
        }
        for i, test in enumerate(tests)
    ]  # fmt: skip
    return Record(about, rows, {})


def groups(*records: Record) -> list[analysis.Group]:
    return analysis.groups(records)


def test_interval_is_students() -> None:
    """1, 2, 3, 4, 5: mean 3, standard error √(2.5 / 5), t(0.975; 4) = 2.776 from the printed table."""
    value = analysis.interval([1, 2, 3, 4, 5])
    assert value.mean == 3
    assert value.half_width == pytest.approx(2.776 * math.sqrt(0.5), rel=1e-3)
    assert (value.low, value.high, value.n) == (3 - value.half_width, 3 + value.half_width, 5)
    assert math.isnan(analysis.interval([7]).half_width)
    assert math.isnan(analysis.interval([]).mean)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    trials = [analysis.interval(rng.normal(size=3)) for _ in range(4000)]
    covered = np.mean([trial.low < 0 < trial.high for trial in trials])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_groups_leave_out_what_diverged() -> None:
    nan = record(8, 2, [0.1, 0.2])
    nan.rows[-1]['train_loss'] = math.nan
    (group,) = groups(record(8, 0, [0.1, 0.5]), record(8, 1, [0.1, 0.7]), nan)
    assert (len(group.runs), group.diverged, group.unfinished) == (2, 1, 0)
    assert group.last('test_accuracy').mean == pytest.approx(0.6)


def test_paired_differences_are_taken_seed_by_seed() -> None:
    """The seeds differ by much, the recipes by 0.1 for each of them."""
    first, second = groups(
        *[record(8, seed, [0, 0.5 + seed / 10]) for seed in range(3)],
        *[record(16, seed, [0, 0.4 + seed / 10]) for seed in (2, 1, 0)],
    )
    difference = analysis.paired(first, second, 'test_accuracy')
    assert difference.mean == pytest.approx(0.1)
    assert difference.half_width == pytest.approx(0, abs=1e-12)


def test_collapse_reads_all_curves_at_the_same_rate_times_updates() -> None:
    """Twice the rate and half the updates lie on one line; what is read is where the shorter one ends."""
    one, two, three = groups(
        record(8, 0, [0.0, 0.2, 0.4], updates=20),
        record(16, 0, [0.0, 0.2], rate=0.2, updates=5),
        record(32, 0, [0.0, 0.3], rate=0.1, updates=10),
    )
    assert analysis.collapse([one, two]) == pytest.approx((1.0, 0.0))
    assert analysis.collapse([one, three]) == pytest.approx((1.0, 0.1))


def test_collapse_is_not_read_before_the_first_evaluation() -> None:
    """The longer recipe was evaluated after 40 updates for the first time; the shorter one made 10."""
    short, long = groups(record(32, 0, [0.0, 0.5]), record(8, 0, [0.0, 0.8], updates=40))
    assert analysis.collapse([short, long]) is None
    assert 'too far apart' in ' '.join(analysis.answer([short, long]))


def test_curve_holds_the_points_that_all_runs_have() -> None:
    (group,) = groups(record(8, 0, [0.0, 0.2, 0.4]), record(8, 1, [0.2, 0.4]))
    curve = analysis.curve(group, 'test_accuracy')
    np.testing.assert_allclose(curve.x_P, [0, 1])
    np.testing.assert_allclose(curve.mean_P, [0.1, 0.3])


@pytest.mark.parametrize(
    ('large', 'says'),
    [
        ((0.80, 0.81, 0.82), 'the smaller batch ends higher'),
        ((0.98, 0.99, 1.00), 'the larger batch ends higher'),
        ((0.80, 0.90, 1.00), 'the interval holds zero'),
    ],
)
def test_the_answer_says_what_the_numbers_say(large: tuple[float, ...], says: str) -> None:
    small = (0.90, 0.91, 0.92)
    sentences = ' '.join(
        analysis.answer(
            groups(
                *[record(64, seed, [0.1, 0.5, 0.6, 0.7, test], updates=20) for seed, test in enumerate(small)],
                *[record(256, seed, [0.1, test], updates=5) for seed, test in enumerate(large)],
            )
        )
    )
    assert says in sentences
    assert 'test accuracy by batch size is 64: 91.00 ± 2.48 %; 256: ' in sentences
    assert 'Where learning rate × updates is the same (0.5, the most that all have made)' in sentences


def test_the_answer_compares_only_what_differs_in_the_batch_size() -> None:
    small = record(8, 0, [0, 1])
    several = record(16, 0, [0, 1])
    several.about['stages'].append({'batch_size': 32})
    table = record(16, 0, [0, 1])
    del table.about['fields']['schedule']
    for other in (record(16, 0, [0, 1], rate=0.2), record(16, 0, [0, 1], hidden=[3]), several, table):
        assert 'nothing to compare' in analysis.answer(groups(small, other))[0]
    (pair,) = analysis.comparable(groups(record(16, 0, [0, 1]), small))
    assert [group.batch_sizes for group in pair] == [(8,), (16,)]
    unfinished = record(16, 0, [0, 0.5])._replace(about={**record(16, 0, [0, 1]).about, 'updates': 11})
    assert analysis.answer(groups(small, unfinished)) == ['1 runs are not finished.']
