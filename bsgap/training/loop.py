"""The training loop, the only one: restore → evaluate → save → segment → write."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bsgap import config
from bsgap.config import schedule
from bsgap.errors import Interrupted, StoppedElsewhere, UserError, place_of
from bsgap.training import memory, rows, step
from bsgap.training.checkpoint import Checkpoints, NotSavedError, Saved
from bsgap.training.cohort import Cohort, Member
from bsgap.training.programs import Programs, inputs
from bsgap.training.restore import is_done, restore
from bsgap.training.runs import Run, boundaries
from bsgap.training.watcher import Watcher, WatcherError
from bsgap.training.workdir import run_folder


class Trainer:
    """Trains runs on one device, to their ends; what is done is left as it is. `check()` is called before each segment;
    where it raises Interrupted, StoppedElsewhere or UserError, or a watcher fails, all runs are saved first."""

    def __init__(
        self, study: config.Study, programs: Programs, workdir: Path, watcher: Watcher, check: Callable[[], None]
    ) -> None:
        self.study, self.programs, self.workdir, self.watcher, self.check = study, programs, workdir, watcher, check
        self.score = config.task(study.data.task).score
        self._read_back = False  # whether one of this training's checkpoints was

    def train(self, runs: Sequence[Run], records: Mapping[str, rows.Record]) -> None:
        """As many runs side by side as the device has memory for, in their order. `records` are what the files say of
        the runs, by name; new rows are added to them.

        Raises:
          UserError: the device's memory is full, or the user's code does not do.
          OSError: the workdir can't be written.
        """
        with step.numerics(self.study.precision):
            now: Sequence[Run] = runs
            try:
                limit = memory.parallel_runs(self.programs, runs, self.study.max_parallel_runs)
                for first in range(0, len(runs), limit):
                    wave = runs[first : first + limit]
                    now = [run for run in wave if not is_done(run, self.workdir, records)]
                    self._train(now, records)
                    for run in wave:
                        if not run.keep and is_done(run, self.workdir, records):
                            Checkpoints(self.workdir, run.name).delete_after(-1)
            except (jax.errors.JaxRuntimeError, MemoryError, TypeError) as error:
                if memory.is_full(error):
                    raise memory.too_small(self.study, self.programs, now) from error
                if 'Traceback' in str(error) and (place := place_of(error)):  # of a callback
                    raise UserError(f'config.model: {place}: {str(error).splitlines()[-1]}') from error
                if 'Computation compiled for' in str(error):
                    keeps = f'{now[0].recipe.architecture.model} keeps an array of one call for the next, as a cache'
                    raise UserError(f'config.model: {keeps}') from error
                raise

    def _train(self, runs: Sequence[Run], records: Mapping[str, rows.Record]) -> None:
        members, cohorts = list[Member](), list[Cohort]()
        self.header = rows.columns(self.programs.splits(runs[0]), self.score) if runs else []
        try:
            for run in runs:
                folder, checkpoints = run_folder(self.workdir, run.name), Checkpoints(self.workdir, run.name)
                members.append(Member(run, folder, checkpoints, records[run.name].rows))
                checkpoints.clear()
            restore(members, self.programs, self.watcher, self.header)
            self.watcher.began(members)
            for boundary in boundaries(runs):
                cohorts = self._group(members, cohorts)
                # The one that is furthest behind goes first, so that all recipes show their epochs together.
                while behind := [cohort for cohort in cohorts if cohort.example < boundary and not cohort.over]:
                    self._turn(min(behind, key=lambda cohort: cohort.example), boundary)
                for cohort in cohorts:
                    self._save(cohort)
            for member in members:
                member.checkpoints.wait()
        except (Interrupted, StoppedElsewhere, UserError, WatcherError):
            for cohort in cohorts:
                self._save(cohort, tell=False)  # a watcher that fails must not keep the others from being saved
            for member in members:
                member.checkpoints.wait()
            raise
        finally:
            for member in members:
                with contextlib.suppress(NotSavedError):  # told above
                    member.checkpoints.wait()

    def _group(self, members: Sequence[Member], cohorts: Sequence[Cohort]) -> list[Cohort]:
        """Groups the runs that have updates to make by what a cohort has in common; so far they were in `cohorts`."""
        groups: dict[Any, list[Member]] = {}
        for member in members:
            if member.update < member.run.updates and not member.diverged:
                groups.setdefault(member.run.cohort(member.update), []).append(member)
        parts = [part for group in groups.values() for part in self.programs.cohorts(group, group[0].batch_size)]
        before = {tuple(member.run for member in cohort.members): cohort for cohort in cohorts}
        kept = [before.pop(tuple(member.run for member in part), None) for part in parts]
        for cohort in before.values():
            for member, state in zip(cohort.members, cohort.host_states(), strict=True):
                member.state = state
        return [old or self._stack(part) for old, part in zip(kept, parts, strict=True)]

    def _stack(self, members: list[Member]) -> Cohort:
        """Puts runs on the device as one cohort."""
        state_R = self.programs.init(members[0].run, [member.run.seed for member in members])
        initial_R = jax.tree.map(jnp.copy, state_R.params)
        if members[0].update:
            states = [member.state for member in members]
            state_R = self.programs.put(jax.tree.map(lambda *leaves: np.stack(leaves), *states))
        for member in members:
            member.state = None
        return Cohort(members, state_R, initial_R)

    def _turn(self, cohort: Cohort, boundary: int) -> None:
        """Evaluates, saves if it is time, and makes one segment, which ends before the end of the epoch or at it."""
        self._evaluate(cohort)
        if time.monotonic() - cohort.saved_at > self.study.checkpoint_seconds:
            self._save(cohort)
        self.check()
        if cohort.over:
            return
        members, example, run = cohort.members, cohort.example, cohort.members[0].run
        batch_size = members[0].batch_size
        epoch, offset = divmod(example, run.n)
        if cohort.order is None or cohort.order[0] != epoch:
            cohort.order = epoch, self.programs.order(run, [member.run.seed for member in members], epoch)
        until_stop = -(-min(boundary - example, run.n - offset) // batch_size)
        until_due = min(member.next_evaluation - member.update for member in members)
        updates = min(until_stop, until_due, cohort.segment_updates)
        window = step.Window(np.int32(offset), np.int32(updates))
        of_runs = [inputs(member.run, member.update) for member in members]
        inputs_R = jax.tree.map(lambda *leaves: np.stack(leaves), *of_runs)
        arguments = window, cohort.order[1], inputs_R, cohort.state_R
        cohort.state_R, seconds = self.programs.segment(run, batch_size, *arguments)
        for member in members:
            member.update += updates
        cohort.share('train_seconds', seconds)
        fitting = round(updates * self.study.segment_seconds / max(seconds, 1e-6))
        cohort.segment_updates = max(1, min(fitting, 8 * updates))
        self.watcher.trained(members, len(members) * (cohort.example - example), seconds)
        self._evaluate(cohort)  # at once, so that no run is saved at its end without its last row

    def _evaluate(self, cohort: Cohort) -> None:
        """Evaluates the runs that are due and writes their rows."""
        due = [(r, member) for r, member in enumerate(cohort.members) if member.due]
        if not due:
            return
        full = any(member.run.full for _, member in due)
        run = cohort.members[0].run
        arguments = cohort.state_R, cohort.initial_R, len(cohort.members)
        evaluations_R, distance_R, seconds = self.programs.evaluate(run, *arguments, full)
        cohort.share('eval_seconds', seconds)
        sums_R = jax.device_get(cohort.state_R.sums)
        for r, member in due:
            measured, answers = dict[str, float](), dict[str, Any]()
            for name in self.programs.splits(run, member.run.full):
                measured[f'{name}_loss'] = float(evaluations_R[name].loss[r])
                answers[name] = evaluations_R[name].score_N[r]
                measured[f'{name}_{self.score}'] = float(answers[name].mean(dtype=np.float64))
            if member.update == member.run.updates:
                rows.write_answers(member.folder, answers)
            sums = jax.tree.map(lambda total_R, r=r: float(total_R[r]), sums_R)
            if member.run.full:
                measured['gap'] = measured[f'train_{self.score}'] - measured[f'test_{self.score}']
            row = _row(member, measured, float(distance_R[r]), sums)
            rows.append(member.folder / 'metrics.csv', row, self.header)
            member.rows.append(row)
        self.watcher.evaluated(cohort.members)

    def _save(self, cohort: Cohort, tell: bool = True) -> None:
        """Saves the runs that have made updates since they were saved last; not those that end and leave nothing."""
        cohort.saved_at = time.monotonic()
        sound = [m for m in cohort.members if not m.diverged and (m.run.keep or m.update < m.run.updates)]
        if all(member.update == member.saved_update for member in sound):
            return
        names = [member.run.name for member in sound]
        for member, state in zip(cohort.members, cohort.host_states(), strict=True):
            if member in sound:
                member.checkpoints.save(member.update, Saved(state, member.train_seconds, member.eval_seconds, names))
                member.saved_update = member.update
        if not self._read_back:  # what can't be read again is known now, and not when it is needed
            sound[0].checkpoints.read_back(sound[0].update)
            self._read_back = True
        if tell:
            self.watcher.saved(sound)


def _row(member: Member, measured: dict[str, float], distance: float, sums: step.Sums) -> rows.Row:
    run, update = member.run, member.update
    updates_since = update - max((e for e in run.evaluations if e < update), default=0)
    if sums.measured and updates_since:
        measured |= {name: getattr(sums, name) / sums.measured for name in rows.NOISE}
    return {
        'epoch': member.example / run.n,
        'update': update,
        'examples': member.example,
        'batch_size': member.batch_size,
        'learning_rate': schedule.learning_rate_at(run.spans, update),
        'learning_rate_sum': schedule.learning_rate_sum(run.spans, update),
        **measured,
        'distance': distance,
        'grad_norm': sums.grad_norm / updates_since if updates_since else float('nan'),
        'train_seconds': member.train_seconds,
        'eval_seconds': member.eval_seconds,
    }
