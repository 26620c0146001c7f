"""Updates and examples, counted exactly, against a loop that takes one batch after the other."""

import itertools

import pytest

from bsgap.schedule import Stage, evaluations, example_after, example_at, place, span_at, updates_between


def walk(stages: list[Stage], n: int) -> list[tuple[int, int]]:
    """Each update's batch size as configured and the examples seen before it, by the definition."""
    updates, example = [], 0
    for stage in stages:
        last, made = {'epochs': stage.length * n, 'examples': stage.length, 'updates': None}[stage.unit], 0
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
