"""Runs, and what they cost."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from bsgap import config
from bsgap.config import schedule
from bsgap.config.checks import require

MOST_UPDATES = 2**31 - 1  # they are counted as int32


@dataclasses.dataclass(frozen=True)
class Run:
    """One recipe with one seed, on `n` training examples."""

    recipe: config.Recipe
    seed: int
    n: int
    keep: bool = dataclasses.field(default=True, compare=False)  # its weights, when it is done

    @property
    def name(self) -> str:
        return f'{self.recipe.name}-seed{self.seed}'

    @functools.cached_property
    def spans(self) -> tuple[schedule.Span, ...]:
        return schedule.place(self.recipe.stages, self.n)

    @functools.cached_property
    def evaluations(self) -> tuple[int, ...]:
        """The updates before which the run is evaluated, in order."""
        recipe = self.recipe
        if recipe.evaluate_at:
            return tuple(sorted({self.updates}.union(u for u in recipe.evaluate_at if u < self.updates)))
        return schedule.evaluations(self.spans, self.n, recipe.evaluate_epochs, recipe.evaluate_updates)

    @property
    def full(self) -> bool:
        """Whether it is evaluated on all splits, or on the validation split alone."""
        return self.recipe.evaluate_on == 'all'

    @property
    def updates(self) -> int:
        return self.spans[-1].last_update

    @property
    def examples(self) -> int:
        return self.spans[-1].last_example

    def example(self, update: int) -> int:
        """The number of examples seen before `update`."""
        return schedule.example_at(self.spans, update, self.n)

    def span(self, update: int) -> schedule.Span:
        """The stage that `update` belongs to, in its place."""
        return schedule.span_at(self.spans, update)

    @property
    def program(self) -> tuple[Any, ...]:
        """What decides its compiled programs, besides the batch size."""
        recipe = self.recipe
        return recipe.architecture, recipe.training_set, recipe.kind, recipe.noise_scale

    def cohort(self, update: int) -> tuple[Any, ...]:
        """What the runs of a cohort have in common: all that is compiled, and the example that they stand at."""
        return *self.program, self.span(update).stage.batch_size, self.example(update)


def cross(study: config.Study, n: Mapping[config.TrainingSet, int]) -> tuple[Run, ...]:
    """Crosses the recipes with the seeds.

    Raises:
      UserError: a batch size is above `n`, the training examples; a stage has no updates, or a run too many.
    """
    runs = [Run(recipe, seed, n[recipe.training_set]) for recipe in study.recipes for seed in range(study.seeds)]
    for run in runs[:: study.seeds]:
        for i, span in enumerate(run.spans):
            stage, where = span.stage, f'is not allowed (recipe {run.recipe.name}, stage {i + 1}); it must be'
            most = f'{where} a whole number from 1 to {run.n}, the number of training examples'
            require(stage.batch_size <= run.n, 'batch_size', f'{stage.batch_size} {most}')
            enough = f'{stage.length:g} {where} long enough for an update, with {run.n} training examples'
            require(span.first_update < span.last_update, stage.unit, enough)
            most = f'{stage.length:g} {where} so short that a run makes at most {MOST_UPDATES} updates'
            require(span.last_update <= MOST_UPDATES, stage.unit, most)
        evaluated = f'{run.recipe.evaluate_epochs:g} is not allowed (recipe {run.recipe.name}); it must be at least'
        require(run.recipe.evaluate_epochs * run.n >= 1, 'evaluate_epochs', f'{evaluated} an example')
    return tuple(runs)


def boundaries(runs: Iterable[Run]) -> tuple[int, ...]:
    """The examples at which some run changes its stage or stops: there the runs are grouped into cohorts anew."""
    return tuple(sorted({span.last_example for run in runs for span in run.spans}))


def cost(
    run: Run, first_update: int = 0, last_update: int | None = None, runs: int = 1, side_by_side: bool = False
) -> float:
    """Roughly how long such runs take as a cohort, in examples: an update passes over a run's weights, which takes as
    long as 8 examples on a CPU; an accelerator, where the runs go side by side, has a latency besides."""
    overhead, of_run = (200, 32) if side_by_side else (0, 8)
    until = run.updates if last_update is None else last_update
    return sum(
        max(0, min(until, span.last_update) - max(first_update, span.first_update))
        * (overhead + runs * (of_run + span.stage.batch_size))
        for span in run.spans
    )
