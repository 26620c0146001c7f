"""The training loop, the only one: restore → evaluate → save → segment → write."""

import contextlib
import dataclasses
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from bsgap import checkpoint, config, data, metrics, model, optimizer, progress, schedule, search, step
from bsgap import study as study_lib

FIRST_SEGMENT_UPDATES = 4  # before there is a measurement
TIMED_CALLS, TIMED_SECONDS = 5, 0.2  # of `Programs.seconds_per_update`


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """Training was stopped by a signal; all is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


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
        noise = run.recipe.noise_scale
        of_run = functools.partial(step.segment, self.model(run.recipe), kind, batch_size, parts, noise)

        def segment(train: data.Split, stretch: step.Stretch, *of_runs: Any) -> step.State:
            return step.across_runs(functools.partial(of_run, train, stretch), self._how)(*of_runs)

        train = self._splits[run.recipe.variant]['train']
        arguments = (train, *jax.device_put((stretch, order_RxN, leg_R)), state_R)
        jitted = jax.jit(segment, donate_argnums=4)
        what = f'batch size {batch_size}{" with noise scale" * noise}'
        program = self._program(what, run, len(leg_R.stop), jitted, *arguments)
        return functools.partial(program, *arguments)

    def evaluate(
        self, run: study_lib.Run, state_R: step.State, initial_R: Any, runs: int, full: bool
    ) -> Callable[[], tuple[dict[str, step.Evaluation], Any]]:
        """Compiles if need be, and returns the call that evaluates a cohort, and its distance from w₀.

        On each split if `full`, else on the validation split.
        """
        of_run = self.model(run.recipe)

        def evaluate(splits: dict[str, data.Split], params_R: Any, model_state_R: Any, initial_R: Any) -> Any:
            def one(params: Any, model_state: Any, initial: Any) -> Any:
                evaluations = {
                    name: step.evaluate(of_run, split, params, model_state) for name, split in splits.items()
                }
                return evaluations, step.distance(params, initial)

            return step.across_runs(one, self._how)(params_R, model_state_R, initial_R)

        splits = self._splits[run.recipe.variant]
        splits = splits if full else {'validation': splits['validation']}
        arguments = (splits, state_R.params, state_R.model_state, initial_R)
        what = 'evaluation' if full else 'validation'
        return functools.partial(self._program(what, run, runs, jax.jit(evaluate), *arguments), *arguments)

    def seconds_per_update(self, run: study_lib.Run) -> float:
        """How long an update takes while this one run has the device, compilation apart: the median of some calls."""
        batch_size = run.recipe.stages[0].batch_size
        state_R, order_RxN = self.init(run, [run.seed]), self.order(run, [run.seed], 0)
        leg_R = jax.tree.map(lambda leaf: np.stack([leaf]), leg(run, 0))
        in_an_epoch = -(-run.n // batch_size)
        updates, times = min(2, in_an_epoch), list[float]()
        while len(times) < TIMED_CALLS:
            stretch = step.Stretch(np.int32(0), np.int32(updates))
            call = self.segment(run, batch_size, stretch, order_RxN, leg_R, state_R)
            began = time.perf_counter()
            state_R = jax.block_until_ready(call())
            seconds = (time.perf_counter() - began) / updates
            fitting = min(in_an_epoch, max(1, round(TIMED_SECONDS / seconds)))
            if updates < fitting / 2:
                updates = min(fitting, 8 * updates)
            else:
                times.append(seconds)
        return float(np.median(times))

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
        study_lib.open_workdir(workdir, study, () if study.search else runs)
        if study.search is None:
            rounds: Iterable[list[study_lib.Goal]] = [[study_lib.Goal(run, run.updates) for run in runs]]
        else:
            rounds = search.rounds(study, study.search, runs[0].n, programs.seconds_per_update, workdir)
        for goals in filter(None, rounds):
            study_lib.add_runs(workdir, [goal.run for goal in goals])
            _Training(study, programs, goals, workdir, view).run()
    return metrics.read_runs(workdir)


def _keep_compiled_programs() -> None:
    """Lets later launches find the compiled programs, in the user's cache unless JAX was told another place."""
    if not jax.config.values.get('jax_compilation_cache_dir'):
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        jax.config.update('jax_compilation_cache_dir', str(Path(cache) / 'bsgap' / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


class _Training:
    """One round: the runs that are missing, from where they are to where they shall be."""

    def __init__(
        self,
        study: config.Study,
        programs: Programs,
        goals: Sequence[study_lib.Goal],
        workdir: Path,
        view: progress.View,
    ) -> None:
        self.study, self.programs, self.workdir, self.view = study, programs, workdir, view
        self.header = metrics.columns(programs.sizes(goals[0].run))
        self.records = {record.about['name']: record for record in metrics.read_runs(workdir)}
        self.seats = [self._seat(goal) for goal in goals if not self._reached(goal)]
        self.stopped_by: int | None = None

    def _seat(self, goal: study_lib.Goal) -> Seat:
        folder = study_lib.run_folder(self.workdir, goal.run.name)
        return Seat(goal, folder, checkpoint.Checkpoints(folder / 'checkpoints'), self.records[goal.run.name].rows)

    def _reached(self, goal: study_lib.Goal) -> bool:
        """Whether a run has all its rows up to its goal, and was saved there or later."""
        have = {row['update'] for row in self.records[goal.run.name].rows}
        saved = (study_lib.run_folder(self.workdir, goal.run.name) / 'checkpoints').glob('[0-9]*')
        due = (update for update in goal.run.evaluations if update <= goal.until)
        return have.issuperset(due) and any(path.name.isdigit() and int(path.name) >= goal.until for path in saved)

    def run(self) -> None:
        """Trains every run as far as it shall come, or until a signal."""
        cohorts: list[Cohort] = []
        try:
            with self._signals():
                seats = self._restore()
                self.view.start(seats)
                for target in study_lib.targets(seat.goal for seat in seats):
                    cohorts = self._group(seats, cohorts)
                    # The one that is furthest behind goes first, so that all recipes show their epochs together.
                    while behind := [cohort for cohort in cohorts if cohort.example < target and not cohort.over]:
                        self._turn(min(behind, key=lambda cohort: cohort.example), target)
                    for cohort in cohorts:
                        self._save(cohort)
                if self.stopped_by:  # in the last segment or while it was saved
                    raise Interrupted(self.stopped_by)
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
            seat.checkpoints.delete_after(seat.update)
            seat.rows[:] = [row for row in seat.rows if row['update'] <= seat.update]
            if seat.rows and seat.rows[-1]['update'] == seat.update:  # the evaluation may have come after the save
                seat.train_seconds, seat.eval_seconds = (seat.rows[-1][f'{what}_seconds'] for what in ('train', 'eval'))
            metrics.write(seat.folder / 'metrics.csv', seat.rows, self.header)
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
        seat.rows[:] = self.records[trunk.name].rows

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
        'batch_size': run.span(update).stage.batch_size,
        'learning_rate': schedule.learning_rate_at(run.spans, update),
        'learning_rate_sum': schedule.learning_rate_sum(run.spans, update),
        **measured,
        'distance': distance,
        'grad_norm': sums.grad_norm / updates_since if updates_since else float('nan'),
        'train_seconds': seat.train_seconds,
        'eval_seconds': seat.eval_seconds,
    }
