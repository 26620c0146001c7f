"""A study's compiled programs, what they need of a device, and how long they take."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np

from bsgap import config, data, model, optimizer, progress, schedule, step
from bsgap import study as study_lib

IN_TURN_RUNS = 8  # of a cohort on a CPU: more gain nothing there, and a signal waits for a cohort's evaluation
IN_TURN_EXAMPLES = 2**18  # likewise, in one update of a cohort
TIMED_CALLS, TIMED_SECONDS = 5, 0.2  # of `Programs.seconds_per_update`

Item = TypeVar('Item')


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

    def cohorts(self, group: list[Item], batch_size: int) -> list[list[Item]]:
        """Parts runs that could form one cohort into equal ones; on a CPU a large one gains nothing."""
        largest = len(group)
        if self._how == 'map':
            largest = max(1, min(IN_TURN_RUNS, IN_TURN_EXAMPLES // batch_size))
        size = -(-len(group) // -(-len(group) // largest))
        return [group[first : first + size] for first in range(0, len(group), size)]

    def memory(self, goals: Sequence[study_lib.Goal], limit: int = 0) -> int:
        """Bytes that these runs take while they are trained, `limit` side by side; all at once without it.

        The data, the runs' states and orders, and what the largest program needs while it runs, as XLA counts it for
        the cohorts of all runs; where they are advanced side by side, a part of a cohort needs that part of it.
        """
        whole: dict[Any, tuple[int, int]] = {}  # of each cohort, its size and the bytes that a program of it needs
        for (program, batch_size), runs in _groups(goals).items():
            size = len(self.cohorts(runs, batch_size)[0])
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
        for key, runs in _groups(goals).items():
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


def _groups(goals: Sequence[study_lib.Goal]) -> dict[tuple[Any, int], list[study_lib.Run]]:
    """The most runs that could form a cohort on their way to their goals, for each program and batch size."""
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


def keep_compiled() -> None:
    """Lets later launches find the compiled programs, in the user's cache unless JAX was told another place."""
    if not jax.config.values.get('jax_compilation_cache_dir'):
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        jax.config.update('jax_compilation_cache_dir', str(Path(cache) / 'bsgap' / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
