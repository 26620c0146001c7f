"""The training loop, the only one: restore → evaluate → save → segment → write."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from bsgap import checkpoint, cluster, config, data, metrics, progress, schedule, search, step
from bsgap import study as study_lib
from bsgap.cluster import Interrupted
from bsgap.programs import Programs, across_runs, keep_compiled, leg
from bsgap.tensorboard import Board

GRACE_SECONDS = 25  # from SIGTERM on; Slurm and Kubernetes kill after 30
FIRST_SEGMENT_UPDATES = 4  # before there is a measurement


class _Elsewhere(Exception):  # noqa: N818
    """Another device's training has failed; here all is saved."""


class Stop:
    """Whether training shall end before its time: for a signal, another process of the launch, or another device.

    The first SIGINT or SIGTERM lets the segment in flight end; a second one has its usual effect. A segment that takes
    longer than GRACE_SECONDS after a SIGTERM is given up: what was saved before is kept.
    """

    def __init__(self) -> None:
        self.failed = False  # another device's training
        self._number: int | None = None

    def check(self) -> None:
        """Raises what ends the training, if it shall end."""
        if self._number:
            raise Interrupted(self._number)
        if self.failed:
            raise _Elsewhere
        cluster.stop_if_told()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """In the main thread, answers signals within the block."""
        usual: dict[int, Any] = {}
        patience: list[threading.Timer] = []

        def restore() -> None:
            for number, handler in usual.items():
                signal.signal(number, handler)

        def stop(number: int, _: Any) -> None:
            self._number = number
            restore()
            if number == signal.SIGTERM:
                patience.append(threading.Timer(GRACE_SECONDS, _give_up, [number]))
                patience[0].daemon = True
                patience[0].start()

        if threading.current_thread() is threading.main_thread():
            usual |= {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            restore()
            for timer in patience:
                timer.cancel()


def _give_up(number: int) -> None:
    name = signal.Signals(number).name
    print(f'stopped by {name} before all was saved; what is missing is trained again', file=sys.stderr, flush=True)
    os._exit(128 + number)


@dataclasses.dataclass
class Seat:
    """A run in training: what the host knows of it."""

    goal: study_lib.Goal
    folder: Path
    checkpoints: checkpoint.Checkpoints
    rows: list[metrics.Row]
    update: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    state: step.State | None = None  # host arrays, only while the run is in no cohort
    saved_update: int = 0

    @property
    def run(self) -> study_lib.Run:
        return self.goal.run

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
        return metrics.status(self.rows, self.run.updates) == 'diverged'

    @property
    def due(self) -> bool:
        """Whether the run is to be evaluated before its next update."""
        evaluated = bool(self.rows) and self.rows[-1]['update'] == self.update
        return self.update in self.run.evaluations and not evaluated and not self.diverged


@dataclasses.dataclass
class Cohort:
    """Runs that stand at the same example with the same batch size, stacked on a leading axis R, on the device.

    A run that diverges keeps its place, so that nothing is compiled anew, but is neither evaluated nor saved any more.
    """

    seats: list[Seat]
    state_R: step.State
    initial_R: Any  # the untrained parameters
    order: tuple[int, jax.Array] | None = None  # an epoch and `order_RxN` in it
    segment_updates: int = FIRST_SEGMENT_UPDATES
    saved_at: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def example(self) -> int:
        return self.seats[0].example

    @property
    def over(self) -> bool:
        return all(seat.diverged for seat in self.seats)

    def share(self, what: Literal['train_seconds', 'eval_seconds'], seconds: float) -> None:
        """Shares the time that passed among the runs that have not diverged."""
        seats = [seat for seat in self.seats if not seat.diverged]
        for seat in seats:
            setattr(seat, what, getattr(seat, what) + seconds / len(seats))

    def host_states(self) -> list[step.State]:
        """A copy of each run's state; a view would change when the device's buffer is used again."""
        state_R = jax.device_get(self.state_R)
        return [jax.tree.map(lambda leaf, r=r: np.array(leaf[r]), state_R) for r in range(len(self.seats))]


def train(settings: ConfigDict, workdir: str | Path) -> list[metrics.Record]:
    """Trains those runs of a study that are missing in `workdir`, and returns all that it then holds.

    Where the launch has several processes, each calls this, and trains its share of the runs.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used, or `workdir` could not be written any more; what
        was saved before is kept, and the same call goes on with it.
      Interrupted: SIGINT or SIGTERM came; all runs are saved, and the same call goes on with them.
    """
    keep_compiled()
    workdir = Path(workdir)
    study = config.resolve(settings)
    board = Board(workdir) if study.tensorboard else None
    with cluster.first_goes_first():  # it may prepare a copy of the data
        datasets = data.load(study.data, (recipe.variant for recipe in study.recipes))
    runs = study_lib.runs(study, {variant: dataset.n for variant, dataset in datasets.items()})
    stop = Stop()
    with progress.View(study, datasets, workdir) as view, study_lib.locked(workdir), stop.on_signals():
        programs = functools.cache(lambda device: Programs(study, datasets, view, device))
        here = programs(jax.local_devices()[0])
        for recipe in study.recipes:
            here.model(recipe)  # so that a model that can't be made stops here
        with cluster.first_goes_first(stop.check):
            study_lib.open_workdir(workdir, study, () if study.search else runs)
        if study.search is None:
            rounds: Iterable[list[study_lib.Goal]] = [[study_lib.Goal(run, run.updates) for run in runs]]
        else:

            def seconds_per_update(run: study_lib.Run) -> float:
                stop.check()
                return here.seconds_per_update(run)

            rounds = search.rounds(study, study.search, runs[0].n, seconds_per_update, workdir)
        try:
            for goals in filter(None, rounds):
                if study.search:
                    with cluster.first_goes_first(stop.check):
                        study_lib.add_runs(workdir, [goal.run for goal in goals])
                _Round(study, programs, goals, workdir, view, board, stop).run()
        except OSError as error:
            raise study_lib.unusable(workdir, error) from error
    return metrics.read_runs(workdir)


def reached(goal: study_lib.Goal, workdir: Path, records: Mapping[str, metrics.Record]) -> bool:
    """Whether a run has all its rows up to its goal, and was saved there or later, or has diverged."""
    record = records.get(goal.run.name)
    if record is None:
        return False
    have = {row['update'] for row in record.rows}
    due = (update for update in goal.run.evaluations if update <= goal.until)
    saved = study_lib.saved_updates(workdir, goal.run.name)
    return record.status == 'diverged' or (have.issuperset(due) and max(saved, default=-1) >= goal.until)


class _Round:
    """The runs of a round that are missing, from where they are to where they shall be, on this process's devices."""

    def __init__(
        self,
        study: config.Study,
        programs: Callable[[jax.Device], Programs],
        goals: Sequence[study_lib.Goal],
        workdir: Path,
        view: progress.View,
        board: Board | None,
        stop: Stop,
    ) -> None:
        self.study, self.workdir, self.view, self.board, self.stop = study, workdir, view, board, stop
        self.records = {record.about['name']: record for record in metrics.read_runs(workdir)}
        self.trainings = []
        dealt = study_lib.shares(goals, cluster.all_devices(), side_by_side=across_runs(study) == 'vmap')
        self.plan = repr([across_runs(study), *([(goal.run.name, goal.until) for goal in share] for share in dealt)])
        for place, device in cluster.devices().items():
            if not all(map(self.reached, dealt[place])):
                self.trainings.append(_Training(self, programs(device), dealt[place]))
        self._writing = threading.Lock()

    def reached(self, goal: study_lib.Goal) -> bool:
        return reached(goal, self.workdir, self.records)

    def run(self) -> None:
        """Trains every run as far as it shall come, or until the training shall end."""
        cluster.meet(self.stop.check, self.plan)
        self.view.start([goal for training in self.trainings for goal in training.goals if not self.reached(goal)])
        if len(self.trainings) == 1:
            self.trainings[0].run()
        elif self.trainings:
            self._side_by_side()
        self.stop.check()  # a signal may have come in the last segment, or while it was saved
        cluster.meet(self.stop.check)
        if not cluster.index():
            metrics.write_results(self.workdir, metrics.read_runs(self.workdir))

    def _side_by_side(self) -> None:
        """A thread for each device; when one fails, the others save and end too."""

        def run(training: _Training) -> None:
            try:
                training.run()
            except BaseException:
                self.stop.failed = True
                raise

        with concurrent.futures.ThreadPoolExecutor(len(self.trainings)) as pool:
            futures = [pool.submit(run, training) for training in self.trainings]
            try:
                concurrent.futures.wait(futures)
            except KeyboardInterrupt:  # a second signal
                self.stop.failed = True
                raise
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Interrupted | _Elsewhere)):
            raise error

    def write_results(self) -> None:
        """Shows in results.csv how far the runs are; where others train some, process 0 does so at the end."""
        if cluster.count() == 1:
            with self._writing:
                metrics.write_results(self.workdir, self.records.values())


class _Training:
    """The runs of a round on one device."""

    def __init__(self, of: _Round, programs: Programs, goals: list[study_lib.Goal]) -> None:
        self.round, self.study, self.view, self.workdir = of, of.study, of.view, of.workdir
        self.programs, self.goals = programs, goals
        self.header = metrics.columns(programs.sizes(goals[0].run))
        self.seats: list[Seat] = []

    def run(self) -> None:
        """As many runs side by side as the device has memory for, in the order of the goals."""
        with jax.default_matmul_precision(self.study.precision):  # a thread's own
            goals = self.goals
            try:
                limit = self.study.max_parallel_runs or self.programs.parallel_runs(self.goals)
                for first in range(0, len(self.goals), limit):
                    goals = [goal for goal in self.goals[first : first + limit] if not self.round.reached(goal)]
                    self._train(goals)
            except jax.errors.JaxRuntimeError as error:
                if 'RESOURCE_EXHAUSTED' not in str(error):
                    raise
                raise config.UserError(
                    f'config.max_parallel_runs: {self.study.max_parallel_runs or "unset"} does not do, the memory of'
                    f' {self.programs.device} is full; it must be below {len(goals)}'
                ) from error

    def _train(self, goals: Sequence[study_lib.Goal]) -> None:
        cohorts: list[Cohort] = []
        try:
            self.seats = [self._seat(goal) for goal in goals]
            seats = self._restore()
            self.view.add(seats)
            for target in study_lib.targets(seat.goal for seat in seats):
                cohorts = self._group(seats, cohorts)
                # The one that is furthest behind goes first, so that all recipes show their epochs together.
                while behind := [cohort for cohort in cohorts if cohort.example < target and not cohort.over]:
                    self._turn(min(behind, key=lambda cohort: cohort.example), target)
                for cohort in cohorts:
                    self._save(cohort)
            for seat in self.seats:
                seat.checkpoints.wait()
        except (Interrupted, _Elsewhere, config.UserError):
            for cohort in cohorts:
                self._save(cohort)
            for seat in self.seats:
                seat.checkpoints.wait()
            raise
        finally:
            for seat in self.seats:
                seat.checkpoints.close()

    def _seat(self, goal: study_lib.Goal) -> Seat:
        folder = study_lib.run_folder(self.workdir, goal.run.name)
        rows = self.round.records[goal.run.name].rows
        return Seat(goal, folder, checkpoint.Checkpoints(folder / 'checkpoints'), rows)

    def _restore(self) -> list[Seat]:
        """Puts every run where it goes on, and returns those that have updates to make."""
        going_on = {seat.run: seat for seat in self.seats if seat.rows and not seat.diverged}
        saved = {run: self._usable(seat) for run, seat in going_on.items()}
        loaded: dict[tuple[study_lib.Run, int], checkpoint.Saved] = {}
        while True:
            starts = study_lib.start_updates(saved, lambda run, update: going_on[run].checkpoints.cohort(update))
            starts = {seat.run: starts.get(seat.run, 0) for seat in self.seats if not seat.diverged}
            seats = [seat for seat in self.seats if starts.get(seat.run, seat.goal.until) < seat.goal.until]
            wanted = [seat for seat in seats if starts[seat.run] and (seat.run, starts[seat.run]) not in loaded]
            if not wanted:
                break
            for seat in wanted:
                update = starts[seat.run]
                try:
                    loaded[seat.run, update] = seat.checkpoints.load(update, self.programs.abstract_state(seat.run))
                except checkpoint.DamagedError as error:
                    self.view.warn(
                        f'{seat.folder}/checkpoints/{update} is damaged ({error}); going on from the one before'
                    )
                    saved[seat.run].remove(update)
        for seat in seats:
            seat.update = seat.saved_update = starts[seat.run]
            if seat.update:
                seat.state, seat.train_seconds, seat.eval_seconds, _ = loaded[seat.run, seat.update]
            elif seat.goal.trunk:
                self._branch(seat, seat.goal.trunk)
            if not seat.rows and seat.checkpoints.updates():
                self.view.warn(f'{seat.folder}/metrics.csv is damaged in its first row; the run starts anew')
            seat.checkpoints.delete_after(seat.update)
            due = set(seat.run.evaluations)  # a run that was shorter before was evaluated at its end
            seat.rows[:] = [row for row in seat.rows if row['update'] <= seat.update and row['update'] in due]
            if seat.rows and seat.rows[-1]['update'] == seat.update:  # the evaluation may have come after the save
                seat.train_seconds, seat.eval_seconds = (seat.rows[-1][f'{what}_seconds'] for what in ('train', 'eval'))
            metrics.write(seat.folder / 'metrics.csv', seat.rows, self.header)
            if self.round.board:
                self.round.board.start(study_lib.describe(seat.run), seat.rows)
        return seats

    def _branch(self, seat: Seat, trunk: study_lib.Run) -> None:
        """Puts a run where its trunk ended; if that can't be read, it is trained from its start."""
        checkpoints = checkpoint.Checkpoints(study_lib.run_folder(self.workdir, trunk.name) / 'checkpoints')
        try:
            saved = checkpoints.load(trunk.updates, self.programs.abstract_state(seat.run))
        except checkpoint.DamagedError as error:
            self.view.warn(f'{trunk.name} cannot be gone on from ({error}); {seat.run.name} starts anew')
            return
        finally:
            checkpoints.close()
        seat.state, seat.train_seconds, seat.eval_seconds, _ = saved
        seat.update = trunk.updates
        seat.rows[:] = self.round.records[trunk.name].rows

    def _usable(self, seat: Seat) -> list[int]:
        """The updates from which a run can go on: saved, with all rows that were due before."""
        have = {row['update'] for row in seat.rows}
        first_missing = next((update for update in seat.run.evaluations if update not in have), None)
        saved = seat.checkpoints.updates()
        if first_missing is None:
            return saved
        return [update for update in saved if update <= first_missing and update < seat.goal.until]

    def _group(self, seats: Sequence[Seat], cohorts: Sequence[Cohort]) -> list[Cohort]:
        """Groups the runs that have updates to make by what a cohort has in common; so far they were in `cohorts`."""
        groups: dict[Any, list[Seat]] = {}
        for seat in seats:
            if seat.update < seat.goal.until and not seat.diverged:
                groups.setdefault(seat.run.cohort(seat.update), []).append(seat)
        parts = [part for group in groups.values() for part in self.programs.cohorts(group, group[0].batch_size)]
        members = {tuple(seat.run for seat in cohort.seats): cohort for cohort in cohorts}
        kept = [members.pop(tuple(seat.run for seat in part), None) for part in parts]
        for cohort in members.values():
            for seat, state in zip(cohort.seats, cohort.host_states(), strict=True):
                seat.state = state
        return [old or self._stack(part) for old, part in zip(kept, parts, strict=True)]

    def _stack(self, seats: list[Seat]) -> Cohort:
        """Puts runs on the device as one cohort."""
        state_R = self.programs.init(seats[0].run, [seat.run.seed for seat in seats])
        initial_R = jax.tree.map(jnp.copy, state_R.params)
        if seats[0].update:
            state_R = self.programs.put(jax.tree.map(lambda *leaves: np.stack(leaves), *[s.state for s in seats]))
        for seat in seats:
            seat.state = None
        return Cohort(seats, state_R, initial_R)

    def _turn(self, cohort: Cohort, target: int) -> None:
        """Evaluates, saves if it is time, and makes one segment, which ends before the end of the epoch or at it."""
        self._evaluate(cohort)
        if time.monotonic() - cohort.saved_at > self.study.checkpoint_seconds:
            self._save(cohort)
        self.round.stop.check()
        if cohort.over:
            return
        example, run = cohort.example, cohort.seats[0].run
        batch_size = cohort.seats[0].batch_size
        epoch = example // run.n
        epoch_end = (epoch + 1) * run.n
        if cohort.order is None or cohort.order[0] != epoch:
            cohort.order = epoch, self.programs.order(run, [seat.run.seed for seat in cohort.seats], epoch)
        until_stop = -(-(min(target, epoch_end) - example) // batch_size)
        until_due = min(seat.next_evaluation - seat.update for seat in cohort.seats)
        updates = min(until_stop, until_due, cohort.segment_updates)
        stretch = step.Stretch(np.int32(example % run.n), np.int32(updates))
        legs = [leg(seat.run, seat.update) for seat in cohort.seats]
        leg_R = jax.tree.map(lambda *leaves: np.stack(leaves), *legs)
        call = self.programs.segment(run, batch_size, stretch, cohort.order[1], leg_R, cohort.state_R)
        began = time.perf_counter()
        cohort.state_R = jax.block_until_ready(call())
        seconds = time.perf_counter() - began
        for seat in cohort.seats:
            seat.update += updates
        cohort.share('train_seconds', seconds)
        fitting = round(updates * self.study.segment_seconds / max(seconds, 1e-6))
        cohort.segment_updates = max(1, min(fitting, 8 * updates))
        self.view.trained(cohort.seats, len(cohort.seats) * (cohort.example - example), seconds)
        self._evaluate(cohort)  # at once, so that no run is saved at its end without its last row

    def _evaluate(self, cohort: Cohort) -> None:
        """Evaluates the runs that are due and writes their rows."""
        if not any(seat.due for seat in cohort.seats):
            return
        full = any(seat.due and seat.update in seat.run.full_evaluations for seat in cohort.seats)
        run, runs = cohort.seats[0].run, len(cohort.seats)
        call = self.programs.evaluate(run, cohort.state_R, cohort.initial_R, runs, full)
        began = time.perf_counter()
        evaluations_R, distance_R = jax.device_get(call())
        seconds = time.perf_counter() - began
        sums_R = jax.device_get(cohort.state_R.sums)
        cohort.share('eval_seconds', seconds)
        for r, seat in enumerate(cohort.seats):
            if seat.due:
                measured = {}
                sizes = self.programs.sizes(seat.run)
                for name in sizes if seat.update in seat.run.full_evaluations else ('validation',):
                    measured[f'{name}_loss'] = float(evaluations_R[name].loss[r])
                    measured[f'{name}_accuracy'] = int(evaluations_R[name].correct[r]) / sizes[name]
                sums = step.Sums(*(float(total_R[r]) for total_R in sums_R))
                row = _row(seat, measured, float(distance_R[r]), sums)
                metrics.append(seat.folder / 'metrics.csv', row, self.header)
                seat.rows.append(row)
                if self.round.board:
                    self.round.board.add(seat.run.name, row)
                    if seat.update == seat.run.updates or seat.diverged:
                        self.round.board.end(study_lib.describe(seat.run), seat.rows)
        self.round.write_results()
        self.view.evaluated(cohort.seats)

    def _save(self, cohort: Cohort) -> None:
        """Saves the runs that have made updates since they were saved last."""
        cohort.saved_at = time.monotonic()
        if all(seat.update == seat.saved_update or seat.diverged for seat in cohort.seats):
            return
        names = [seat.run.name for seat in cohort.seats if not seat.diverged]
        for seat, state in zip(cohort.seats, cohort.host_states(), strict=True):
            if not seat.diverged:
                saved = checkpoint.Saved(state, seat.train_seconds, seat.eval_seconds, names)
                seat.checkpoints.save(seat.update, saved)
                seat.saved_update = seat.update


def _row(seat: Seat, measured: dict[str, float], distance: float, sums: step.Sums) -> metrics.Row:
    """A row of metrics.csv."""
    run, update = seat.run, seat.update
    updates_since = update - max((e for e in run.evaluations if e < update), default=update)
    if 'train_accuracy' in measured:
        measured['gap'] = measured['train_accuracy'] - measured['test_accuracy']
    if sums.measured and updates_since:
        measured |= {name: getattr(sums, name) / sums.measured for name in metrics.NOISE}
    return {
        'epoch': seat.example / run.n,
        'update': update,
        'examples': seat.example,
        'batch_size': seat.batch_size,
        'learning_rate': schedule.learning_rate_at(run.spans, update),
        'learning_rate_sum': schedule.learning_rate_sum(run.spans, update),
        **measured,
        'distance': distance,
        'grad_norm': sums.grad_norm / updates_since if updates_since else float('nan'),
        'train_seconds': seat.train_seconds,
        'eval_seconds': seat.eval_seconds,
    }
