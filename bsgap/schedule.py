"""Stages: how a recipe's batch size and learning rate change, and where in the data each update stands.

A run's place is the number of examples it has seen. Every epoch shows every example once, so `divmod(example, n)` is
the epoch and the offset in that epoch's order; the last batch of an epoch, and of a stage, is partial. Everything here
is exact integer arithmetic on the host. `n` is the number of training examples throughout.
"""

import dataclasses
from typing import Literal, NamedTuple

Unit = Literal['epochs', 'updates', 'examples']
UNITS: tuple[Unit, ...] = ('epochs', 'updates', 'examples')


@dataclasses.dataclass(frozen=True)
class Stage:
    """A span of training with one batch size and one learning-rate rule (constant); `length` is counted in `unit`."""

    batch_size: int
    learning_rate: float
    length: int
    unit: Unit


class Span(NamedTuple):
    """A stage put in its place in a run: the updates and examples from `first_` up to, not including, `last_`."""

    stage: Stage
    first_update: int
    last_update: int
    first_example: int
    last_example: int


def updates_between(first_example: int, last_example: int, batch_size: int, n: int) -> int:
    """Counts the updates that lead from one example to another; batches end at the end of each epoch."""
    left = last_example - first_example
    rest_of_epoch = min(left, n - first_example % n)
    epochs, rest = divmod(left - rest_of_epoch, n)
    return -(-rest_of_epoch // batch_size) + epochs * -(-n // batch_size) + -(-rest // batch_size)


def example_after(updates: int, first_example: int, batch_size: int, n: int) -> int:
    """The inverse of `updates_between`: the example that stands `updates` updates after `first_example`."""
    rest_of_epoch = n - first_example % n
    updates_of_rest = -(-rest_of_epoch // batch_size)
    if updates < updates_of_rest:
        return first_example + updates * batch_size
    epochs, rest = divmod(updates - updates_of_rest, -(-n // batch_size))
    return first_example + rest_of_epoch + epochs * n + rest * batch_size


def place(stages: tuple[Stage, ...], n: int) -> tuple[Span, ...]:
    """Puts a recipe's stages one behind the other."""
    spans: list[Span] = []
    update = example = 0
    for stage in stages:
        if stage.unit == 'updates':
            last_example = example_after(stage.length, example, stage.batch_size, n)
        else:
            last_example = example + stage.length * (n if stage.unit == 'epochs' else 1)
        last_update = update + updates_between(example, last_example, stage.batch_size, n)
        spans.append(Span(stage, update, last_update, example, last_example))
        update, example = last_update, last_example
    return tuple(spans)


def span_at(spans: tuple[Span, ...], update: int) -> Span:
    """The span that the update numbered `update` (from 0) belongs to; the last one when the run is over."""
    return next((span for span in spans if update < span.last_update), spans[-1])


def example_at(spans: tuple[Span, ...], update: int, n: int) -> int:
    """The number of examples seen before the update numbered `update`."""
    span = span_at(spans, update)
    example = example_after(update - span.first_update, span.first_example, span.stage.batch_size, n)
    return min(example, span.last_example)


def evaluations(spans: tuple[Span, ...], n: int) -> tuple[int, ...]:
    """The updates before which a run is evaluated: at its start, after every epoch and at its end."""
    updates = [0]
    for span in spans:
        for example in range((span.first_example // n + 1) * n, span.last_example + 1, n):
            updates.append(span.first_update + updates_between(span.first_example, example, span.stage.batch_size, n))
    return tuple(dict.fromkeys((*updates, spans[-1].last_update)))
