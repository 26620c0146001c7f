"""Runs in training: what the host knows of each, and those that one compiled program advances together."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from bsgap.training import step
from bsgap.training.checkpoint import Checkpoints
from bsgap.training.rows import Row, status
from bsgap.training.runs import Run

FIRST_SEGMENT_UPDATES = 4  # before there is a measurement


@dataclasses.dataclass
class Member:
    """A run in training: what the host knows of it."""

    run: Run
    folder: Path
    checkpoints: Checkpoints
    rows: list[Row]
    update: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    state: step.State | None = None  # host arrays, only while the run is in no cohort
    saved_update: int = 0

    @property
    def example(self) -> int:
        return self.run.example(self.update)

    @property
    def batch_size(self) -> int:
        """Of the next update."""
        return self.run.span(self.update).stage.batch_size

    @property
    def next_evaluation(self) -> int:
        """The update before which it comes."""
        return next(update for update in self.run.evaluations if update > self.update)

    @property
    def diverged(self) -> bool:
        return status(self.rows, self.run.updates) == 'diverged'

    @property
    def due(self) -> bool:
        """Whether the run is to be evaluated before its next update."""
        evaluated = bool(self.rows) and self.rows[-1]['update'] == self.update
        return self.update in self.run.evaluations and not evaluated and not self.diverged


@dataclasses.dataclass
class Cohort:
    """Runs that stand at the same example with the same batch size, stacked on a leading axis R on the device. One that
    diverges keeps its place, so that nothing is compiled anew, but is neither evaluated nor saved any more."""

    members: list[Member]
    state_R: step.State
    initial_R: Any  # the untrained parameters
    order: tuple[int, jax.Array] | None = None  # an epoch and `order_RxN` in it
    segment_updates: int = FIRST_SEGMENT_UPDATES
    saved_at: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def example(self) -> int:
        return self.members[0].example

    @property
    def over(self) -> bool:
        return all(member.diverged for member in self.members)

    def share(self, what: Literal['train_seconds', 'eval_seconds'], seconds: float) -> None:
        """Shares the time that passed among the runs that have not diverged."""
        members = [member for member in self.members if not member.diverged]
        for member in members:
            setattr(member, what, getattr(member, what) + seconds / len(members))

    def host_states(self) -> list[step.State]:
        """A copy of each run's state; a view would change when the device's buffer is used again."""
        state_R = jax.device_get(self.state_R)
        return [jax.tree.map(lambda leaf, r=r: np.array(leaf[r]), state_R) for r in range(len(self.members))]
