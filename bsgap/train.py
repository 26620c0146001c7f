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

from bsgap import checkpoint, cluster, config, data, metrics, model, optimizer, progress, schedule, search, step
from bsgap import study as study_lib
from bsgap.cluster import Interrupted
from bsgap.tensorboard import Board

GRACE_SECONDS = 25  # from SIGTERM on; Slurm and Kubernetes kill after 30
IN_TURN_RUNS = 8  # of a cohort on a CPU: more gain nothing there, and a signal waits for a cohort's evaluation
IN_TURN_EXAMPLES = 2**18  # likewise, in one update of a cohort
FIRST_SEGMENT_UPDATES = 4  # before there is a measurement
TIMED_CALLS, TIMED_SECONDS = 5, 0.2  # of `Programs.seconds_per_update`


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
    """A study's programs, compiled for a device: one for each model, kind of optimizer, batch size and cohort size.

    The `run` that most methods take stands for its cohort.
    """

    def __init__(
        self,
        study: config.Study,
        datasets: Mapping[config.Variant, data.Dataset],
        view: progress.View,
        device: jax.Device,
    ) -> None:
        self.device = device
        self._datasets = datasets
        self._on_device: dict[int, jax.Array] = {}
        self._splits = {variant: jax.tree.map(self._put, dataset.splits) for variant, dataset in datasets.items()}
        self._max_physical_batch = study.max_physical_batch
        self._how = across_runs(study)
        self._view = view
        self._models: dict[Any, model.Model] = {}
        self._states: dict[Any, step.State] = {}
        self._compiled: dict[Any, Any] = {}

    def put(self, tree: Any) -> Any:
        return jax.device_put(tree, self.device)

    def _put(self, array: np.ndarray) -> jax.Array:
        """Puts an array on the device once, however many variants of the dataset share it."""
        if id(array) not in self._on_device:
            self._on_device[id(array)] = self.put(array)
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
        seed_R = self.put(np.asarray(seeds, np.int32))
        return self._program('start', run, len(seeds), jax.jit(step.across_runs(one, self._how)), seed_R)(seed_R)

    def order(self, run: study_lib.Run, seeds: Sequence[int], epoch: int) -> jax.Array:
        """The order of the examples in an epoch of each run, `order_RxN`."""

        def order(seed_R: jax.Array, epoch: jax.Array) -> jax.Array:
            return jax.vmap(lambda seed: step.order(seed, epoch, run.n))(seed_R)

        arguments = self.put((np.asarray(seeds, np.int32), np.int32(epoch)))
        return self._program('order', run, len(seeds), jax.jit(order), *arguments)(*arguments)

    def abstract_state(self, run: study_lib.Run) -> step.State:
        """Shapes and dtypes of one run's state."""
        if run.program not in self._states:
            one = functools.partial(step.init, self.model(run.recipe), run.recipe.kind)
            self._states[run.program] = jax.eval_shape(one, jax.ShapeDtypeStruct((), np.int32))
        return self._states[run.program]

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
        train = self._splits[run.recipe.variant]['train']
        arguments = (train, *self.put((stretch, order_RxN, leg_R)), state_R)
        return functools.partial(self._segment(run, batch_size, len(leg_R.stop)), *arguments)

    def _segment(self, run: study_lib.Run, batch_size: int, runs: int) -> Any:
        recipe = run.recipe
        parts = step.parts(batch_size, self._max_physical_batch, recipe.architecture.ghost_batch)
        of_run = functools.partial(step.segment, self.model(recipe), recipe.kind, batch_size, parts, recipe.noise_scale)

        def segment(train: data.Split, stretch: step.Stretch, *of_runs: Any) -> step.State:
            return step.across_runs(functools.partial(of_run, train, stretch), self._how)(*of_runs)

        train = self._splits[recipe.variant]['train']
        stretch = self._abstract(step.Stretch(np.int32(0), np.int32(0)))
        of_runs = self._abstract((np.empty(run.n, np.int32), leg(run, 0), self.abstract_state(run)), runs)
        what = f'batch size {batch_size}{" with noise scale" * recipe.noise_scale}'
        return self._program(what, run, runs, jax.jit(segment, donate_argnums=4), train, stretch, *of_runs)

    def evaluate(
        self, run: study_lib.Run, state_R: step.State, initial_R: Any, runs: int, full: bool
    ) -> Callable[[], tuple[dict[str, step.Evaluation], Any]]:
        """Compiles if need be, and returns the call that evaluates a cohort, and its distance from w₀.

        On each split if `full`, else on the validation split.
        """
        arguments = (self._evaluated(run, full), state_R.params, state_R.model_state, initial_R)
        return functools.partial(self._evaluate(run, runs, full), *arguments)

    def _evaluated(self, run: study_lib.Run, full: bool) -> dict[str, data.Split]:
        splits = self._splits[run.recipe.variant]
        return splits if full else {'validation': splits['validation']}

    def _evaluate(self, run: study_lib.Run, runs: int, full: bool) -> Any:
        of_run = self.model(run.recipe)

        def evaluate(splits: dict[str, data.Split], params_R: Any, model_state_R: Any, initial_R: Any) -> Any:
            def one(params: Any, model_state: Any, initial: Any) -> Any:
                evaluations = {
                    name: step.evaluate(of_run, split, params, model_state) for name, split in splits.items()
                }
                return evaluations, step.distance(params, initial)

            return step.across_runs(one, self._how)(params_R, model_state_R, initial_R)

        state_R = self._abstract(self.abstract_state(run), runs)
        arguments = self._evaluated(run, full), state_R.params, state_R.model_state, state_R.params
        return self._program('evaluation' if full else 'validation', run, runs, jax.jit(evaluate), *arguments)

    def _abstract(self, tree: Any, runs: int | None = None) -> Any:
        """Shapes, dtypes and place of what is on the device, with a leading axis if `runs`."""
        sharding = jax.sharding.SingleDeviceSharding(self.device)
        lead = () if runs is None else (runs,)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(lead + leaf.shape, leaf.dtype, sharding=sharding), tree)

    def largest_cohort(self, batch_size: int) -> int | None:
        """How many runs a cohort may have; None if any number."""
        return max(1, min(IN_TURN_RUNS, IN_TURN_EXAMPLES // batch_size)) if self._how == 'map' else None

    def memory(self, goals: Sequence[study_lib.Goal], limit: int = 0) -> int:
        """Bytes that these runs take while they are trained, `limit` side by side; all at once without it.

        The data, the runs' states and orders, and what the largest program needs while it runs, as XLA counts it for
        the cohorts of all runs; where they are advanced side by side, a part of a cohort needs that part of it.
        """
        whole: dict[Any, tuple[int, int]] = {}  # of each cohort, its size and the bytes that a program of it needs
        for (program, batch_size), runs in _cohorts(goals).items():
            size = even(len(runs), self.largest_cohort(batch_size))
            programs = self._segment(runs[0], batch_size, size), self._evaluate(runs[0], size, full=True)
            whole[program, batch_size] = size, max(_transient(program.memory_analysis()) for program in programs)
        return sum(map(_bytes, self._on_device.values())) + max(
            self._wave(goals[first : first + (limit or len(goals))], whole)
            for first in range(0, len(goals), limit or len(goals))
        )

    def _wave(self, goals: Sequence[study_lib.Goal], whole: Mapping[Any, tuple[int, int]]) -> int:
        resident, transient = 0, 0
        for goal in goals:
            state = self.abstract_state(goal.run)
            resident += sum(_bytes(leaf) for leaf in jax.tree.leaves((state, state.params))) + 4 * goal.run.n
        for key, runs in _cohorts(goals).items():
            size, needs = whole[key]
            transient = max(transient, needs if self._how == 'map' else needs * len(runs) // size)
        return resident + transient

    def parallel_runs(self, goals: Sequence[study_lib.Goal]) -> int:
        """How many of these runs fit on the device side by side; all on one of unknown size."""
        if len(goals) < 2 or (room := _room(self.device)) is None:
            return len(goals)
        limits = (-(-len(goals) // waves) for waves in range(1, len(goals)))
        return next((limit for limit in limits if self.memory(goals, limit) <= room), 1)

    def seconds_per_update(self, run: study_lib.Run, runs: int = 1, batch_size: int = 0) -> float:
        """How long an update of a cohort of so many such runs takes while it has the device, compilation apart.

        The median of some calls, at the run's first batch size if none is given.
        """
        batch_size = batch_size or run.recipe.stages[0].batch_size
        seeds = [run.seed] * runs
        state_R, order_RxN = self.init(run, seeds), self.order(run, seeds, 0)
        leg_R = jax.tree.map(lambda leaf: np.stack([leaf] * runs), leg(run, 0))
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

    def seconds_per_evaluation(self, run: study_lib.Run, runs: int = 1, full: bool = True) -> float:
        """How long a cohort's evaluation takes, on all splits or on the validation split: the median of some."""
        state_R, times = self.init(run, [run.seed] * runs), list[float]()
        call = self.evaluate(run, state_R, state_R.params, runs, full)
        for _ in range(TIMED_CALLS):
            began = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - began)
        return float(np.median(times))

    def _program(self, what: str, run: study_lib.Run, runs: int, jitted: Any, *arguments: Any) -> Callable[..., Any]:
        """Compilation is kept apart from running, so that it is neither timed nor repeated."""
        recipe = run.recipe
        key = what, recipe.architecture, recipe.variant, recipe.kind, runs
        if key not in self._compiled:
            with self._view.compiling(f'{what}, {runs} run{"s"[: runs > 1]}'):
                self._compiled[key] = jitted.lower(*arguments).compile()
        return self._compiled[key]


def _cohorts(goals: Sequence[study_lib.Goal]) -> dict[tuple[Any, int], list[study_lib.Run]]:
    """The largest cohort that runs form on their way to their goals, for each program and batch size."""
    largest: dict[tuple[Any, int], list[study_lib.Run]] = {}
    for example in (0, *study_lib.targets(goals)):
        alike: dict[tuple[Any, int], list[study_lib.Run]] = {}
        for goal in goals:
            if example < goal.last_example:
                span = next(span for span in goal.run.spans if example < span.last_example)
                alike.setdefault((goal.run.program, span.stage.batch_size), []).append(goal.run)
        for key, runs in alike.items():
            largest[key] = max(largest.get(key, []), runs, key=len)
    return largest


def _transient(needs: Any) -> int:
    """Bytes that a program needs besides its arguments, by XLA's analysis."""
    return needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes


def _bytes(array: Any) -> int:
    return array.size * array.dtype.itemsize


def even(number: int, largest: int | None) -> int:
    """The size of equal parts of at most `largest`."""
    return -(-number // -(-number // largest)) if largest else number


def _room(device: jax.Device) -> int | None:
    """The bytes that may be used on a device; None if that is unknown.

    On a CPU half of the memory that this process may have, which holds the dataset and what is being saved as well.
    Other processes on the machine are not known of.
    """
    if limit := (device.memory_stats() or {}).get('bytes_limit'):
        return int(0.8 * limit)
    if device.platform != 'cpu':
        return None
    total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return min([total, *_limits()]) // 2 // len(jax.local_devices())


def _limits() -> Iterator[int]:
    """What this process's control group, and those around it, may have of the memory (Linux, version 2)."""
    top, group = Path('/sys/fs/cgroup'), ''
    with contextlib.suppress(OSError):
        group = Path('/proc/self/cgroup').read_text().partition('0::')[2].strip().strip('/')
    for folder in (top / group, *(top / group).parents):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            yield int((folder / 'memory.max').read_text())


def across_runs(study: config.Study) -> Literal['vmap', 'map']:
    """How a cohort's runs are advanced on this machine."""
    if study.across_runs == 'auto':
        return 'map' if jax.default_backend() == 'cpu' else 'vmap'
    return study.across_runs


def train(settings: ConfigDict, workdir: str | Path) -> list[metrics.Record]:
    """Trains those runs of a study that are missing in `workdir`, and returns all that it then holds.

    Where the launch has several processes, each calls this, and trains its share of the runs.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used, or `workdir` could not be written any more; what
        was saved before is kept, and the same call goes on with it.
      Interrupted: SIGINT or SIGTERM came; all runs are saved, and the same call goes on with them.
    """
    _keep_compiled_programs()
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


def _keep_compiled_programs() -> None:
    """Lets later launches find the compiled programs, in the user's cache unless JAX was told another place."""
    if not jax.config.values.get('jax_compilation_cache_dir'):
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        jax.config.update('jax_compilation_cache_dir', str(Path(cache) / 'bsgap' / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def reached(goal: study_lib.Goal, workdir: Path, record: metrics.Record) -> bool:
    """Whether a run has all its rows up to its goal, and was saved there or later, or has diverged."""
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
        return reached(goal, self.workdir, self.records[goal.run.name])

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
        parts = [part for group in groups.values() for part in self._parts(group)]
        members = {tuple(seat.run for seat in cohort.seats): cohort for cohort in cohorts}
        kept = [members.pop(tuple(seat.run for seat in group), None) for group in parts]
        for cohort in members.values():
            for seat, state in zip(cohort.seats, cohort.host_states(), strict=True):
                seat.state = state
        return [old or self._stack(group) for old, group in zip(kept, parts, strict=True)]

    def _parts(self, group: list[Seat]) -> list[list[Seat]]:
        """Equal cohorts of a group that is too large for one."""
        size = even(len(group), self.programs.largest_cohort(group[0].run.span(group[0].update).stage.batch_size))
        return [group[i : i + size] for i in range(0, len(group), size)]

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
