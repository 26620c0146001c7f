"""Stages: how a recipe's batch size and learning rate change, and where in the data each update stands.

A run's place is the number of examples it has seen. Every epoch shows every example once, so `divmod(example, n)` is
the epoch and the offset in that epoch's order; the last batch of an epoch, and of a stage, is partial. Everything here
is exact integer arithmetic on the host. `n` is the number of training examples throughout.
"""

import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

Unit = Literal['epochs', 'updates', 'examples']
UNITS: tuple[Unit, ...] = get_args(Unit)
Rule = Literal['constant', 'linear', 'cosine']
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A span of training with one batch size and one learning-rate rule; `length` is counted in `unit`."""

    batch_size: int
    learning_rate: float  # at its start
    length: float  # epochs may be a fraction, updates and examples are whole
    unit: Unit
    rule: Rule = 'constant'
    final_learning_rate: float = 0.0  # that a linear or a cosine rule would reach with the update after its last
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999


class Rate(NamedTuple):
    """A learning-rate rule in its place in a run: numbers, or arrays when traced."""

    start: Any
    final: Any
    cosine: Any  # bool
    first_update: Any
    updates: Any


def learning_rate(rate: Rate, update: Any, xp: ModuleType = np) -> Any:
    """ε for the update numbered `update`: from `start` to `final`, in a straight line or along half a cosine.

    t of T updates into the stage, ε = final + (start − final)·(1 − t/T), or ·(1 + cos(π t/T))/2 (Loshchilov & Hutter
    2017, eq. 5). `xp` is numpy or jax.numpy.
    """
    progress = (update - rate.first_update) / rate.updates
    left = xp.where(rate.cosine, (1 + xp.cos(math.pi * progress)) / 2, 1 - progress)
    return rate.final + (rate.start - rate.final) * left


class Span(NamedTuple):
    """A stage put in its place in a run: the updates and examples from `first_` up to, not including, `last_`."""

    stage: Stage
    first_update: int
    last_update: int
    first_example: int
    last_example: int

    @property
    def rate(self) -> Rate:
        """Its learning-rate rule."""
        stage = self.stage
        final = stage.learning_rate if stage.rule == 'constant' else stage.final_learning_rate
        updates = max(1, self.last_update - self.first_update)
        return Rate(stage.learning_rate, final, stage.rule == 'cosine', self.first_update, updates)


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
    exact = 0.0  # where a stage ends, before it is rounded to a whole example
    for stage in stages:
        if stage.unit == 'updates':
            last_example = example_after(int(stage.length), example, stage.batch_size, n)
            exact = float(last_example)
        else:
            exact += stage.length * (n if stage.unit == 'epochs' else 1)
            last_example = round(exact)
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


def learning_rate_at(spans: tuple[Span, ...], update: int) -> float:
    """ε of the update numbered `update`; of the last one when the run is over."""
    span = span_at(spans, update)
    return float(learning_rate(span.rate, min(update, span.last_update - 1)))


def learning_rate_sum(spans: tuple[Span, ...], update: int) -> float:
    """η·t: the sum of the learning rates of the updates before `update`."""
    total = 0.0
    for span in spans:
        made = max(0, min(update, span.last_update) - span.first_update)
        if span.stage.rule == 'constant':
            total += made * span.stage.learning_rate
        else:
            total += float(learning_rate(span.rate, span.first_update + np.arange(made)).sum())
    return total


def evaluations(spans: tuple[Span, ...], n: int, epochs: float = 1.0, updates: int = 0) -> tuple[int, ...]:
    """The updates before which a run is evaluated: at its start, its end, and when some `epochs` have passed again.

    Where that falls within a batch, it is evaluated after the batch. Or when some `updates` have passed, if not 0.
    """
    end = spans[-1].last_update
    if updates:
        return (*range(0, end, updates), end)
    due = [0]
    passed = itertools.count(1)
    example = round(next(passed) * epochs * n)
    for span in spans:
        while example <= span.last_example:
            due.append(span.first_update + updates_between(span.first_example, example, span.stage.batch_size, n))
            example = round(next(passed) * epochs * n)
    return tuple(dict.fromkeys((*due, end)))


class Plan(NamedTuple):
    """What the named schedules are made from; lengths and milestones are counted in `unit`."""

    batch_size: int
    learning_rate: float
    length: float
    unit: Unit
    milestones: tuple[float, ...] = ()  # where a new stage begins, ascending
    factor: float = 1.0  # by which ε falls, or the batch grows, at each milestone
    cap: int = 0  # that the batch does not grow beyond; 0: none
    switch_to: tuple[int, ...] = ()  # the batch size from each milestone on
    warm_up: float = 0.0  # its length
    warm_up_start: float = 0.0  # learning rate at its start

    def stages(self, sizes_and_rates: list[tuple[int, float]]) -> tuple[Stage, ...]:
        """One stage from each milestone to the next."""
        edges = itertools.pairwise((0, *self.milestones, self.length))
        return tuple(
            Stage(size, rate, last - first, self.unit)
            for (size, rate), (first, last) in zip(sizes_and_rates, edges, strict=True)
        )


def constant(plan: Plan, rule: Rule = 'constant') -> tuple[Stage, ...]:
    """One batch size, one ε, or one that falls to 0 by a rule; before it a warm-up, if there is one: ε grows in a
    straight line from `warm_up_start` (Goyal et al. 2017, §2.2)."""
    size, rate, length, unit = plan[:4]
    first = (Stage(size, plan.warm_up_start, plan.warm_up, unit, 'linear', rate),) if plan.warm_up else ()
    return *first, Stage(size, rate, length - plan.warm_up, unit, rule)


def decay_learning_rate(plan: Plan) -> tuple[Stage, ...]:
    """ε falls by `factor` at each milestone."""
    rates = [plan.learning_rate / plan.factor**i for i in range(len(plan.milestones) + 1)]
    return plan.stages([(plan.batch_size, rate) for rate in rates])


def grow_batch(plan: Plan) -> tuple[Stage, ...]:
    """ε/B falls by `factor` at each milestone: B grows as far as `cap` lets it, and ε takes the rest.

    Smith et al. 2018 (1711.00489), §3 and §5.1: the noise scale of SGD is about εN/B, so both have the same effect.
    """
    steps = [(plan.batch_size, plan.learning_rate)]
    for _ in plan.milestones:
        size, rate = steps[-1]
        grown = min(round(plan.factor * size), plan.cap or math.inf)
        steps.append((int(grown), rate * grown / (plan.factor * size)))
    return plan.stages(steps)


def hybrid(plan: Plan) -> tuple[Stage, ...]:
    """B grows at the first milestone, ε falls at the others (Smith et al. 2018, §5.1)."""
    return grow_batch(plan._replace(cap=min(round(plan.factor * plan.batch_size), plan.cap or sys.maxsize)))


def switch_batch(plan: Plan) -> tuple[Stage, ...]:
    """One ε; from each milestone on the next batch size of `switch_to`."""
    return plan.stages([(size, plan.learning_rate) for size in (plan.batch_size, *plan.switch_to)])


SCHEDULES: Mapping[str, Callable[[Plan], tuple[Stage, ...]]] = {
    'constant': constant,
    'linear': functools.partial(constant, rule='linear'),
    'cosine': functools.partial(constant, rule='cosine'),
    'decay_learning_rate': decay_learning_rate,
    'grow_batch': grow_batch,
    'hybrid': hybrid,
    'switch_batch': switch_batch,
}
