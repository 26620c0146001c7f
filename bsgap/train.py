"""The training loop, the only one: restore → evaluate → save → segment → write."""

import contextlib
import dataclasses
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from bsgap import checkpoint, config, data, metrics, model, optimizer, progress, schedule, step
from bsgap import study as study_lib

FIRST_SEGMENT_UPDATES = 4  # before there is a measurement


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """Training was stopped by a signal; all is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclasses.dataclass
class Seat:
    """A run in training: what the host knows of it."""

    run: study_lib.Run
    folder: Path
    checkpoints: checkpoint.Checkpoints
    rows: list[metrics.Row]
    update: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    state: step.State | None = None  # host arrays, only while the run is in no cohort
    saved_update: int = 0

    @property
    def example(self) -> int:
        return self.run.example(self.update)

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


class Programs:
    """The compiled programs of a study: one for each model, kind of optimizer, batch size and cohort size.

    The `run` that most methods take stands for its cohort.
    """

    def __init__(
        self, study: config.Study, datasets: Mapping[config.Variant, data.Dataset], view: progress.View
    ) -> None:
        self._datasets = datasets
        self._on_device: dict[int, jax.Array] = {}
        self._splits = {variant: jax.tree.map(self._put, dataset.splits) for variant, dataset in datasets.items()}
        self._max_physical_batch = study.max_physical_batch
        self._how = across_runs(study)
        self._view = view
        self._models: dict[Any, model.Model] = {}
        self._compiled: dict[Any, Any] = {}

    def _put(self, array: np.ndarray) -> jax.Array:
        """Puts an array on the device once, however many variants of the dataset share it."""
        if id(array) not in self._on_device:
            self._on_device[id(array)] = jax.device_put(array)
        return self._on_device[id(array)]

    def sizes(self, run: study_lib.Run) -> dict[str, int]:
        """The number of examples of each split."""
        return {name: len(split.labels_N) for name, split in self._datasets[run.recipe.variant].splits.items()}

    def splits(self, run: study_lib.Run) -> dict[str, data.Split]:
        """The splits on the device."""
        return self._splits[run.recipe.variant]

    def model(self, recipe: config.Recipe) -> model.Model:
        """A recipe's model, normalisation included."""
        key = recipe.architecture, recipe.variant
        if key not in self._models:
            dataset = self._datasets[recipe.variant]
            shape = dataset.train.images_NxHxWxC.shape[1:]
            try:
                made = model.define(recipe.architecture, shape, dataset.classes, dataset.mean_C, dataset.std_C)
            except ValueError as error:
                raise config.UserError(f'config.model: {error} (recipe {recipe.name})') from error
            self._models[key] = made
        return self._models[key]

    def init(self, run: study_lib.Run, seeds: Sequence[int]) -> step.State:
        """The untrained state of a cohort."""
        one = functools.partial(step.init, self.model(run.recipe), run.recipe.kind)
        seed_R = jax.device_put(np.asarray(seeds, np.int32))
        return self._program('start', run, len(seeds), jax.jit(step.across_runs(one, self._how)), seed_R)(seed_R)

    def order(self, run: study_lib.Run, seeds: Sequence[int], epoch: int) -> jax.Array:
        """The order of the examples in an epoch of each run, `order_RxN`."""

        def order(seed_R: jax.Array, epoch: jax.Array) -> jax.Array:
            return jax.vmap(lambda seed: step.order(seed, epoch, run.n))(seed_R)

        arguments = jax.device_put((np.asarray(seeds, np.int32), np.int32(epoch)))
        return self._program('order', run, len(seeds), jax.jit(order), *arguments)(*arguments)

    def abstract_state(self, run: study_lib.Run) -> step.State:
        """Shapes and dtypes of one run's state."""
        return jax.eval_shape(functools.partial(step.init, self.model(run.recipe), run.recipe.kind), jnp.int32(0))

    def segment(
        self,
        run: study_lib.Run,
        batch_size: int,
        stretch: step.Stretch,
        order_RxN: jax.Array,
        leg_R: step.Leg,
        state_R: step.State,
    ) -> Callable[[], step.State]:
        """Compiles if need be, and returns the call that makes the segment; the call uses up `state_R`."""
        architecture, kind = run.recipe.architecture, run.recipe.kind
        parts = step.parts(batch_size, self._max_physical_batch, architecture.ghost_batch)
        of_run = functools.partial(step.segment, self.model(run.recipe), kind, batch_size, parts)

        def segment(train: data.Split, stretch: step.Stretch, *of_runs: Any) -> step.State:
            return step.across_runs(functools.partial(of_run, train, stretch), self._how)(*of_runs)

        train = self._splits[run.recipe.variant]['train']
        arguments = (train, *jax.device_put((stretch, order_RxN, leg_R)), state_R)
        jitted = jax.jit(segment, donate_argnums=4)
        program = self._program(f'batch size {batch_size}', run, len(leg_R.stop), jitted, *arguments)
        return functools.partial(program, *arguments)

    def evaluate(
        self, run: study_lib.Run, state_R: step.State, initial_R: Any, runs: int
    ) -> Callable[[], tuple[dict[str, step.Evaluation], Any]]:
        """Compiles if need be, and returns the call that evaluates a cohort on each split and its distance from w₀."""
        of_run = self.model(run.recipe)

        def evaluate(splits: dict[str, data.Split], params_R: Any, model_state_R: Any, initial_R: Any) -> Any:
            def one(params: Any, model_state: Any, initial: Any) -> Any:
                evaluations = {
                    name: step.evaluate(of_run, split, params, model_state) for name, split in splits.items()
                }
                return evaluations, step.distance(params, initial)

            return step.across_runs(one, self._how)(params_R, model_state_R, initial_R)

        arguments = (self._splits[run.recipe.variant], state_R.params, state_R.model_state, initial_R)
        return functools.partial(self._program('evaluation', run, runs, jax.jit(evaluate), *arguments), *arguments)

    def _program(self, what: str, run: study_lib.Run, runs: int, jitted: Any, *arguments: Any) -> Callable[..., Any]:
        """Compilation is kept apart from running, so that it is neither timed nor repeated."""
        recipe = run.recipe
        key = what, recipe.architecture, recipe.variant, recipe.kind, runs
        if key not in self._compiled:
            with self._view.compiling(f'{what}, {runs} run{"s"[: runs > 1]}'):
                self._compiled[key] = jitted.lower(*arguments).compile()
        return self._compiled[key]


def across_runs(study: config.Study) -> Literal['vmap', 'map']:
    """How a cohort's runs are advanced on this machine."""
    if study.across_runs == 'auto':
        return 'map' if jax.default_backend() == 'cpu' else 'vmap'
    return study.across_runs


def train(settings: ConfigDict, workdir: str | Path) -> list[metrics.Record]:
    """Trains those runs of a study that are missing in `workdir`, and returns all that it then holds.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used; nothing was trained.
      Interrupted: SIGINT or SIGTERM came; all runs are saved, and the same call goes on with them.
    """
    _keep_compiled_programs()
    workdir = Path(workdir)
    study = config.resolve(settings)
    datasets = data.load(study.data, (recipe.variant for recipe in study.recipes))
    runs = study_lib.runs(study, {variant: dataset.n for variant, dataset in datasets.items()})
    with jax.default_matmul_precision(study.precision), progress.View(study, datasets, workdir) as view:
        programs = Programs(study, datasets, view)
        for recipe in study.recipes:
            programs.model(recipe)  # so that a model that can't be made stops here
        study_lib.open_workdir(workdir, study, runs)
        _Training(study, programs, runs, workdir, view).run()
    return metrics.read_runs(workdir)


def _keep_compiled_programs() -> None:
    """Lets later launches find the compiled programs, in the user's cache unless JAX was told another place."""
    if not jax.config.values.get('jax_compilation_cache_dir'):
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        jax.config.update('jax_compilation_cache_dir', str(Path(cache) / 'bsgap' / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


class _Training:
    """One launch: the runs that are missing, from where they are to their ends."""

    def __init__(
        self,
        study: config.Study,
        programs: Programs,
        runs: Sequence[study_lib.Run],
        workdir: Path,
        view: progress.View,
    ) -> None:
        self.study, self.programs, self.workdir, self.view = study, programs, workdir, view
        self.header = metrics.columns(programs.sizes(runs[0]))
        self.records = {record.about['name']: record for record in metrics.read_runs(workdir)}
        self.seats = [self._seat(run) for run in runs]
        self.stopped_by: int | None = None

    def _seat(self, run: study_lib.Run) -> Seat:
        folder = study_lib.run_folder(self.workdir, run.name)
        return Seat(run, folder, checkpoint.Checkpoints(folder / 'checkpoints'), self.records[run.name].rows)

    def run(self) -> None:
        """Trains every run to its end, or until a signal."""
        cohorts: list[Cohort] = []
        try:
            with self._signals():
                seats = self._restore()
                self.view.start(seats)
                for target in study_lib.targets(seat.run for seat in seats):
                    cohorts = self._group(seats, cohorts)
                    # The one that is furthest behind goes first, so that all recipes show their epochs together.
                    while behind := [cohort for cohort in cohorts if cohort.example < target and not cohort.over]:
                        self._turn(min(behind, key=lambda cohort: cohort.example), target)
                    for cohort in cohorts:
                        self._save(cohort)
                metrics.write_results(self.workdir, self.records.values())
        except Interrupted:
            for cohort in cohorts:
                self._save(cohort)
            raise
        finally:
            for seat in self.seats:
                seat.checkpoints.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM lets the segment in flight end; a second one has its usual effect."""
        usual: dict[int, Any] = {}

        def restore() -> None:
            for number, handler in usual.items():
                signal.signal(number, handler)

        def stop(number: int, _: Any) -> None:
            self.stopped_by = number
            restore()

        if threading.current_thread() is threading.main_thread():
            usual |= {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            restore()

    def _restore(self) -> list[Seat]:
        """Puts every run where it goes on, and returns those that have updates to make."""
        going_on = {seat.run: seat for seat in self.seats if seat.rows and not seat.diverged}
        saved = {run: self._usable(seat) for run, seat in going_on.items()}
        loaded: dict[tuple[study_lib.Run, int], checkpoint.Saved] = {}
        while True:
            starts = study_lib.start_updates(saved, lambda run, update: going_on[run].checkpoints.cohort(update))
            starts = {seat.run: starts.get(seat.run, 0) for seat in self.seats if not seat.diverged}
            seats = [seat for seat in self.seats if starts.get(seat.run, seat.run.updates) < seat.run.updates]
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
            seat.checkpoints.delete_after(seat.update)
            seat.rows[:] = [row for row in seat.rows if row['update'] <= seat.update]
            if seat.rows and seat.rows[-1]['update'] == seat.update:  # the evaluation may have come after the save
                seat.train_seconds, seat.eval_seconds = (seat.rows[-1][f'{what}_seconds'] for what in ('train', 'eval'))
            metrics.write(seat.folder / 'metrics.csv', seat.rows, self.header)
        return seats

    def _usable(self, seat: Seat) -> list[int]:
        """The updates from which a run can go on: saved, with all rows that were due before."""
        have = {row['update'] for row in seat.rows}
        first_missing = next((update for update in seat.run.evaluations if update not in have), None)
        saved = seat.checkpoints.updates()
        if first_missing is None:
            return saved
        return [update for update in saved if update <= first_missing and update < seat.run.updates]

    def _group(self, seats: Sequence[Seat], cohorts: Sequence[Cohort]) -> list[Cohort]:
        """Groups the runs that have updates to make by what a cohort has in common; so far they were in `cohorts`."""
        groups: dict[Any, list[Seat]] = {}
        for seat in seats:
            if seat.update < seat.run.updates and not seat.diverged:
                groups.setdefault(seat.run.cohort(seat.update), []).append(seat)
        members = {tuple(seat.run for seat in cohort.seats): cohort for cohort in cohorts}
        kept = [members.pop(tuple(seat.run for seat in group), None) for group in groups.values()]
        for cohort in members.values():
            for seat, state in zip(cohort.seats, cohort.host_states(), strict=True):
                seat.state = state
        return [old or self._stack(group) for old, group in zip(kept, groups.values(), strict=True)]

    def _stack(self, seats: list[Seat]) -> Cohort:
        """Puts runs on the device as one cohort."""
        state_R = self.programs.init(seats[0].run, [seat.run.seed for seat in seats])
        initial_R = jax.tree.map(jnp.copy, state_R.params)
        if seats[0].update:
            state_R = jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *[seat.state for seat in seats]))
        for seat in seats:
            seat.state = None
        return Cohort(seats, state_R, initial_R)

    def _turn(self, cohort: Cohort, target: int) -> None:
        """Evaluates, saves if it is time, and makes one segment, which ends before the end of the epoch or at it."""
        self._evaluate(cohort)
        if time.monotonic() - cohort.saved_at > self.study.checkpoint_seconds:
            self._save(cohort)
        if self.stopped_by:
            raise Interrupted(self.stopped_by)
        if cohort.over:
            return
        example, run = cohort.example, cohort.seats[0].run
        batch_size = run.span(cohort.seats[0].update).stage.batch_size
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
        call = self.programs.evaluate(cohort.seats[0].run, cohort.state_R, cohort.initial_R, len(cohort.seats))
        began = time.perf_counter()
        evaluations_R, distance_R = jax.device_get(call())
        seconds = time.perf_counter() - began
        grad_norm_sum_R = jax.device_get(cohort.state_R.grad_norm_sum)
        cohort.share('eval_seconds', seconds)
        for r, seat in enumerate(cohort.seats):
            if seat.due:
                measured = {}
                for name, size in self.programs.sizes(seat.run).items():
                    measured[f'{name}_loss'] = float(evaluations_R[name].loss[r])
                    measured[f'{name}_accuracy'] = int(evaluations_R[name].correct[r]) / size
                row = _row(seat, measured, float(distance_R[r]), float(grad_norm_sum_R[r]))
                metrics.append(seat.folder / 'metrics.csv', row, self.header)
                seat.rows.append(row)
        metrics.write_results(self.workdir, self.records.values())
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


def leg(run: study_lib.Run, update: int) -> step.Leg:
    """What a segment that begins with `update` does with a run."""
    recipe, span = run.recipe, run.span(update)
    epoch_end = (run.example(update) // run.n + 1) * run.n
    stage, rate = span.stage, span.rate
    return step.Leg(
        np.int32(run.seed),
        np.int32(min(0, span.last_example - epoch_end) + run.n),
        schedule.Rate(
            np.float32(rate.start),
            np.float32(rate.final),
            np.bool_(rate.cosine),
            np.int32(rate.first_update),
            np.int32(rate.updates),
        ),
        optimizer.Hyperparameters(
            *map(np.float32, (0, stage.momentum, stage.beta1, stage.beta2, recipe.weight_decay, recipe.clip))
        ),
        np.float32(recipe.label_smoothing),
        np.bool_(update in run.evaluations),
    )


def _row(seat: Seat, measured: dict[str, float], distance: float, grad_norm_sum: float) -> metrics.Row:
    """A row of metrics.csv."""
    run, update = seat.run, seat.update
    updates_since = update - max((e for e in run.evaluations if e < update), default=update)
    return {
        'epoch': seat.example / run.n,
        'update': update,
        'examples': seat.example,
        'batch_size': run.span(update).stage.batch_size,
        'learning_rate': schedule.learning_rate_at(run.spans, update),
        'learning_rate_sum': schedule.learning_rate_sum(run.spans, update),
        **measured,
        'gap': measured['train_accuracy'] - measured['test_accuracy'],
        'distance': distance,
        'grad_norm': grad_norm_sum / updates_since if updates_since else float('nan'),
        'train_seconds': seat.train_seconds,
        'eval_seconds': seat.eval_seconds,
    }
