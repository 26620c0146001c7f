"""Updates and examples, counted exactly, against a loop that takes one batch after the other; ε in closed form."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsgap.config import schedule
from bsgap.config.schedule import Plan, Stage, evaluations, example_after, example_at, place, span_at, updates_between


def walk(stages: list[Stage], n: int) -> list[tuple[int, int]]:
    """Each update's batch size as configured and the examples seen before it, by the definition."""
    updates: list[tuple[int, int]] = []
    example: Any = 0
    for stage in stages:
        last, made = {'epochs': round(stage.length * n), 'examples': stage.length, 'updates': None}[stage.unit], 0
        end = None if last is None else example + last
        while (example < end) if end is not None else (made < stage.length):
            updates.append((stage.batch_size, example))
            rest = n - example % n if end is None else min(n - example % n, end - example)
            example += min(stage.batch_size, rest)
            made += 1
    return [*updates, (0, example)]


def test_938_updates_an_epoch_of_mnist_at_batch_size_64() -> None:
    (span,) = place((Stage(64, 0.01, 30, 'epochs'),), 60000)
    assert (span.last_update, span.last_example) == (30 * 938, 30 * 60000)
    assert updates_between(0, 60000, 60000, 60000) == 1
    assert updates_between(0, 60000, 1, 60000) == 60000


@pytest.mark.parametrize('n', [1, 7, 12])
@pytest.mark.parametrize('batch_size', [1, 3, 7, 12])
def test_updates_between_and_example_after_are_inverse(n: int, batch_size: int) -> None:
    for first, updates in itertools.product(range(2 * n), range(20)):
        example = example_after(updates, first, batch_size, n)
        assert updates_between(first, example, batch_size, n) == updates


@pytest.mark.parametrize(
    'stages',
    [
        [Stage(3, 0.1, 2, 'epochs')],
        [Stage(3, 0.1, 5, 'updates'), Stage(4, 0.1, 2, 'epochs')],
        [Stage(5, 0.1, 13, 'examples'), Stage(2, 0.1, 3, 'updates'), Stage(10, 0.1, 1, 'epochs')],
        [Stage(10, 0.1, 1, 'updates'), Stage(1, 0.1, 1, 'examples'), Stage(7, 0.1, 9, 'updates')],
        [Stage(3, 0.1, 0.26, 'epochs'), Stage(4, 0.1, 1.7, 'epochs'), Stage(10, 0.1, 0.3, 'epochs')],
        [Stage(4, 0.1, 2.9, 'epochs'), Stage(9, 0.1, 2, 'updates'), Stage(2, 0.1, 0.1, 'epochs')],
    ],
)
def test_every_update_stands_where_a_walk_over_the_batches_puts_it(stages: list[Stage]) -> None:
    n = 10
    spans = place(tuple(stages), n)
    walked = walk(stages, n)
    assert spans[-1].last_update == len(walked) - 1
    assert spans[-1].last_example == walked[-1][1]
    for update, (batch_size, example) in enumerate(walked):
        assert example_at(spans, update, n) == example
        if batch_size:
            assert span_at(spans, update).stage.batch_size == batch_size
    due = [update for update, (_, example) in enumerate(walked) if example % n == 0 or update == len(walked) - 1]
    assert list(evaluations(spans, n)) == due


def seen(stages: tuple[Stage, ...], n: int) -> tuple[list[int], list[float]]:
    """Batch size and ε of every update, ε as the host has it; the traced one must agree."""
    spans = place(stages, n)
    sizes, rates = [], []
    for update in range(spans[-1].last_update):
        span = span_at(spans, update)
        sizes.append(span.stage.batch_size)
        rates.append(schedule.learning_rate_at(spans, update))
        rate = span.rate._replace(start=np.float32(span.rate.start), final=np.float32(span.rate.final))
        np.testing.assert_allclose(traced(rate, update), rates[-1], rtol=1e-6, atol=1e-6 * max(span.rate[:2]))
    return sizes, rates


@jax.jit
def traced(rate: schedule.Rate, update: Any) -> jax.Array:
    """As step has it: float32, the counts int32."""
    found = schedule.learning_rate(rate, update, jnp)
    assert found.dtype == jnp.float32
    return found


N = 10


@pytest.mark.parametrize(
    ('name', 'changes', 'sizes', 'rates'),
    [
        ('constant', {}, [4] * 9, [0.5] * 9),
        ('cosine', {}, [4] * 9, [0.5 * (1 + math.cos(math.pi * t / 9)) / 2 for t in range(9)]),
        (
            'constant',
            {'warm_up': 1.5, 'warm_up_start': 0.1},  # 1.5 epochs are 5 updates, the last of 1 example
            [4] * 10,
            [0.1, 0.18, 0.26, 0.34, 0.42] + [0.5] * 5,
        ),
        ('linear', {}, [4] * 9, [0.5 * (1 - t / 9) for t in range(9)]),
        (
            'linear',
            {'length': 15, 'unit': 'updates', 'warm_up': 5},
            [4] * 15,
            [0.5 * t / 5 for t in range(5)] + [0.5 * (1 - t / 10) for t in range(10)],
        ),
        (
            'decay_learning_rate',
            {'milestones': (1, 2), 'factor': 2.5},
            [4] * 9,
            [0.5] * 3 + [0.2] * 3 + [0.08] * 3,
        ),
        (
            'grow_batch',  # 4 × 2.5 = 10, then no more
            {'milestones': (1, 2), 'factor': 2.5, 'cap': 10},
            [4] * 3 + [10] + [10],
            [0.5] * 3 + [0.5] + [0.2],
        ),
        (
            'grow_batch',  # 2 × 1.7 = 3.4 → 3 and 3 × 1.7 = 5.1 → 5: ε takes what rounding leaves
            {'batch_size': 2, 'milestones': (1, 2), 'factor': 1.7},
            [2] * 5 + [3] * 4 + [5] * 2,
            [0.5] * 5 + [0.5 * 3 / 3.4] * 4 + [0.5 * 3 / 3.4 * 5 / 5.1] * 2,
        ),
        (
            'hybrid',
            {'batch_size': 2, 'milestones': (0.5, 1, 2), 'factor': 2.0},
            [2] * 3 + [4] * 2 + [4] * 3 + [4] * 3,
            [0.5] * 3 + [0.5] * 2 + [0.25] * 3 + [0.125] * 3,
        ),
        (
            'hybrid',
            {'batch_size': 2, 'milestones': (1, 2), 'factor': 4.0, 'cap': 5},
            [2] * 5 + [5] * 2 + [5] * 2,
            [0.5] * 5 + [0.5 * 5 / 8] * 2 + [0.5 * 5 / 8 / 4] * 2,
        ),
        ('switch_batch', {'milestones': (1, 2), 'switch_to': (1, 10)}, [4] * 3 + [1] * 10 + [10], [0.5] * 14),
    ],
)
def test_every_update_of_a_named_schedule(
    name: str, changes: dict[str, Any], sizes: list[int], rates: list[float]
) -> None:
    plan = Plan(**{'batch_size': 4, 'learning_rate': 0.5, 'length': 3, 'unit': 'epochs', **changes})
    got_sizes, got_rates = seen(schedule.SCHEDULES[name](plan), N)
    assert got_sizes == sizes
    np.testing.assert_allclose(got_rates, rates, rtol=1e-12)


@pytest.mark.parametrize('name', ['decay_learning_rate', 'grow_batch', 'hybrid'])
@pytest.mark.parametrize('factor', [2.0, 1.3, 5.0])
@pytest.mark.parametrize('cap', [None, 50, 997])
def test_noise_scale_falls_by_the_factor_at_each_milestone(name: str, factor: float, cap: int | None) -> None:
    """Smith et al. 2018: ε/B decides, so all three have the same one; rounding and cap go into ε."""
    plan = Plan(37, 0.3, 50, 'updates', milestones=(10, 20, 30, 40), factor=factor, cap=cap)
    stages = schedule.SCHEDULES[name](plan)
    noise = [stage.learning_rate / stage.batch_size for stage in stages]
    np.testing.assert_allclose(noise, [0.3 / 37 / factor**i for i in range(5)], rtol=1e-12)
    assert all(stage.batch_size <= (cap or math.inf) for stage in stages)


@pytest.mark.parametrize('unit', ['epochs', 'updates', 'examples'])
def test_milestones_are_counted_in_the_unit_of_the_length(unit: schedule.Unit) -> None:
    plan = Plan(5, 0.3, 40, unit, milestones=(10, 25), factor=2.0, switch_to=(2, 3), warm_up=10)
    for name in ('decay_learning_rate', 'grow_batch', 'hybrid', 'switch_batch'):
        assert [(stage.length, stage.unit) for stage in schedule.SCHEDULES[name](plan)] == [
            (10, unit), (15, unit), (15, unit)
        ]  # fmt: skip
    assert [(stage.length, stage.unit) for stage in schedule.SCHEDULES['cosine'](plan)] == [(10, unit), (30, unit)]


RULES = (
    Stage(3, 0.8, 0.9, 'epochs'),
    Stage(4, 0.5, 7, 'updates', 'linear', 0.1),
    Stage(5, 0.3, 2.3, 'epochs', 'cosine', 0.05),
    Stage(10, 0.0, 1, 'epochs', 'linear', 0.4),
)


def test_every_update_of_each_stage_rule() -> None:
    sizes, rates = seen(RULES, N)
    # 9 examples; 1 + 10 + 10 in 1 + 3 + 3 updates, to the end of an epoch; 23 examples; 7 and 3 in 2 updates.
    assert sizes == [3] * 3 + [4] * 7 + [5] * 5 + [10] * 2
    linear = [0.5 - 0.4 * t / 7 for t in range(7)]
    cosine = [0.05 + 0.25 * (1 + math.cos(math.pi * t / 5)) / 2 for t in range(5)]
    np.testing.assert_allclose(rates, [0.8] * 3 + linear + cosine + [0.0, 0.2], rtol=1e-12, atol=1e-15)


def test_learning_rate_sum_is_a_plain_sum() -> None:
    spans = place(RULES, N)
    _, rates = seen(RULES, N)
    for update in range(len(rates) + 1):
        assert schedule.learning_rate_sum(spans, update) == pytest.approx(math.fsum(rates[:update]), rel=1e-12)


def test_where_a_run_is_over_its_last_update_counts() -> None:
    spans = place(RULES, N)
    end = spans[-1].last_update
    assert schedule.learning_rate_at(spans, end) == schedule.learning_rate_at(spans, end - 1) == pytest.approx(0.2)
    assert example_at(spans, end, N) == spans[-1].last_example == 9 + 21 + 23 + 10
    assert span_at(spans, end).stage == RULES[-1]


@pytest.mark.parametrize('epochs', [0.25, 0.3, 1.0, 1.5, 3.0, 100.0])
def test_evaluations_come_when_some_epochs_have_passed(epochs: float) -> None:
    """At the first update before which at least k · epochs of examples were seen; and at the start and the end."""
    spans = place(RULES, N)
    end = spans[-1].last_update
    examples = [example_at(spans, update, N) for update in range(end + 1)]
    marks = [round(k * epochs * N) for k in range(1, 1 + int(examples[-1] / N / epochs + 1e-9))]
    due = [next(update for update, example in enumerate(examples) if example >= mark) for mark in marks]
    assert list(evaluations(spans, N, epochs)) == sorted({0, *due, end})


def test_evaluations_by_updates() -> None:
    spans = place(RULES, N)  # 17 updates
    assert evaluations(spans, N, 1.0, 5) == (0, 5, 10, 15, 17)
    assert evaluations(spans, N, 1.0, 17) == evaluations(spans, N, 1.0, 100) == (0, 17)


def test_fractions_of_an_epoch_are_rounded_where_they_end() -> None:
    """Three thirds of an epoch are an epoch, though no third is a whole number of examples."""
    spans = place((Stage(4, 0.1, 1 / 3, 'epochs'),) * 3, 10)
    assert [span.last_example for span in spans] == [3, 7, 10]
