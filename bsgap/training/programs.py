"""A study's compiled programs, and how long they take."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import jax
import numpy as np

from bsgap import config, models
from bsgap.config import schedule
from bsgap.data import Dataset, Split
from bsgap.training import losses, optimizer, step
from bsgap.training.runs import Run
from bsgap.training.step import Evaluation, Inputs, State, Window
from bsgap.training.watcher import Watcher

IN_TURN_RUNS = 8  # of a cohort on a CPU: more gain nothing there, and a signal waits for a cohort's evaluation
IN_TURN_EXAMPLES = 2**18  # likewise, in one update of a cohort
# For a GPU's compiler: no kernel whose sums have no fixed order, and none picked by timing, which could pick another.
DETERMINISTIC = {'xla_gpu_deterministic_ops': True}
LEAST_BATCH = 8  # to which batches are halved where memory is short
TIMED_CALLS, TIMED_SECONDS = 5, 0.2  # of `Programs.seconds_per_update`

Item = TypeVar('Item')


class Programs:
    """A study's programs, compiled for a device: one for each model, kind of optimizer, batch size and cohort size. The
    `run` that most methods take stands for its cohort."""

    def __init__(
        self, study: config.Study, datasets: Mapping[config.TrainingSet, Dataset], watcher: Watcher, device: jax.Device
    ) -> None:
        self.device, self._datasets, self._watcher = device, datasets, watcher
        self._on_device: dict[int, jax.Array] = {}
        self._splits = {
            key: {name: Split(*map(self._put, split)) for name, split in dataset.splits.items()}
            for key, dataset in datasets.items()
        }
        self.physical_batch, self._evaluated_batch = study.max_physical_batch, step.EVALUATED
        self.run_axis, self.measure = run_axis(study), losses.of(study.data.task)
        # A search trains its seeds again and again: one size of cohort is compiled once.
        self._in_turn_runs = min(IN_TURN_RUNS, study.seeds) if study.search else IN_TURN_RUNS
        self._options = DETERMINISTIC if study.deterministic and device.platform == 'gpu' else None
        self._models: dict[Any, models.Model] = {}
        self._states: dict[Any, State] = {}
        self._compiled: dict[Any, Any] = {}
        self.compile_seconds: list[float] = []  # of each program

    def put(self, tree: Any) -> Any:
        return jax.device_put(tree, self.device)

    def _put(self, array: np.ndarray) -> jax.Array:
        """Puts an array on the device once, however many training sets share it."""
        if id(array) not in self._on_device:
            self._on_device[id(array)] = self.put(array)
        return self._on_device[id(array)]

    def splits(self, run: Run, full: bool = True) -> dict[str, Split]:
        """On the device; the validation split alone if not `full`."""
        splits = self._splits[run.recipe.training_set]
        return splits if full else {'validation': splits['validation']}

    @property
    def data_bytes(self) -> int:
        return sum(array.size * array.dtype.itemsize for array in self._on_device.values())

    def model(self, recipe: config.Recipe) -> models.Model:
        """A recipe's model, normalisation included."""
        key = recipe.architecture, recipe.training_set
        if key not in self._models:
            of = self._datasets[recipe.training_set]
            examples_N, targets = of.train.examples_N, (of.target_mean_K, of.target_std_K)
            constants = of.mean_C, of.std_C, examples_N.dtype, of.label_shape, *targets
            of_data = models.Format(examples_N.shape[1:], of.outputs, *constants)
            self._models[key] = models.define(recipe.architecture, of_data)
        return self._models[key]

    def halve(self) -> bool:
        """Lets what is computed at once, in training and evaluation, be half as large; False where that is little."""
        if max(self.physical_batch, self._evaluated_batch) <= LEAST_BATCH:
            return False
        self.physical_batch = max(LEAST_BATCH, self.physical_batch // 2)
        self._evaluated_batch = max(LEAST_BATCH, self._evaluated_batch // 2)
        return True

    def parts(self, recipe: config.Recipe, batch_size: int) -> tuple[int, int]:
        """In how many parts of which size a batch is computed; in one where it is normalised as a whole."""
        of = recipe.architecture
        whole = of.batch_norm and not of.ghost_batch
        return step.parts(batch_size, batch_size if whole else self.physical_batch, of.ghost_batch)

    def init(self, run: Run, seeds: Sequence[int]) -> State:
        """The untrained state of a cohort."""
        one = functools.partial(step.init, self.model(run.recipe), run.recipe.kind)
        seed_R = self.put(np.asarray(seeds, np.int32))
        return self._program('start', run, len(seeds), jax.jit(step.over_runs(one, self.run_axis)), seed_R)(seed_R)

    def order(self, run: Run, seeds: Sequence[int], epoch: int) -> jax.Array:
        """The order of the examples in an epoch of each run, `order_RxN`."""
        order = jax.jit(jax.vmap(functools.partial(step.order, n=run.n), in_axes=(0, None)))
        arguments = self.put((np.asarray(seeds, np.int32), np.int32(epoch)))
        return self._program('order', run, len(seeds), order, *arguments)(*arguments)

    def abstract_state(self, run: Run) -> State:
        """Shapes and dtypes of one run's state."""
        if run.program not in self._states:
            one = functools.partial(step.init, self.model(run.recipe), run.recipe.kind)
            self._states[run.program] = jax.eval_shape(one, jax.ShapeDtypeStruct((), np.int32))
        return self._states[run.program]

    def segment(
        self, run: Run, batch_size: int, window: Window, order_RxN: jax.Array, inputs_R: Inputs, state_R: State
    ) -> tuple[State, float]:
        """Makes a cohort's segment, which uses up `state_R`. The seconds that it takes are without compilation."""
        program = self.segment_program(run, batch_size, len(inputs_R.stop))
        train, of_segment = self.splits(run)['train'], self.put((window, order_RxN, inputs_R))
        began = time.perf_counter()
        return jax.block_until_ready(program(train, *of_segment, state_R)), time.perf_counter() - began

    def segment_program(self, run: Run, batch_size: int, runs: int) -> Any:
        recipe = run.recipe
        parts = self.parts(recipe, batch_size)
        of_run = functools.partial(step.segment, self.model(recipe), recipe.kind, batch_size, parts, recipe.noise_scale)

        def segment(train: Split, window: Window, *of_runs: Any) -> State:
            one = functools.partial(of_run, train, window, measure=self.measure)
            return step.over_runs(one, self.run_axis)(*of_runs)

        train = self.splits(run)['train']
        window = self._abstract(Window(np.int32(0), np.int32(0)))
        of_runs = self._abstract((np.empty(run.n, np.int32), inputs(run, 0), self.abstract_state(run)), runs)
        in_parts = f' in {parts[0]} parts' * (parts[0] > 1)
        what = f'batch size {batch_size}{in_parts}{" with noise scale" * recipe.noise_scale}'
        return self._program(what, run, runs, jax.jit(segment, donate_argnums=4), train, window, *of_runs)

    def evaluate(
        self, run: Run, state_R: State, initial_R: Any, runs: int, full: bool
    ) -> tuple[dict[str, Evaluation], Any, float]:
        """Evaluates a cohort, on all splits if `full`, else on the validation split: host arrays of each split and of
        ‖w − w₀‖, and the seconds without compilation."""
        program = self.evaluation_program(run, runs, full)
        began = time.perf_counter()
        found = jax.device_get(program(self.splits(run, full), state_R.params, state_R.model_state, initial_R))
        return *found, time.perf_counter() - began

    def evaluation_program(self, run: Run, runs: int, full: bool) -> Any:
        model, at_once = self.model(run.recipe), self._evaluated_batch

        def evaluate(splits: dict[str, Split], params_R: Any, model_state_R: Any, initial_R: Any) -> Any:
            def one(params: Any, model_state: Any, initial: Any) -> Any:
                evaluations = {
                    name: step.evaluate(model, split, params, model_state, at_once, self.measure)
                    for name, split in splits.items()
                }
                return evaluations, step.distance(params, initial)

            return step.over_runs(one, self.run_axis)(params_R, model_state_R, initial_R)

        state_R = self._abstract(self.abstract_state(run), runs)
        arguments = self.splits(run, full), state_R.params, state_R.model_state, state_R.params
        what = ('evaluation' if full else 'validation') + f' in parts of {at_once}' * (at_once < step.EVALUATED)
        return self._program(what, run, runs, jax.jit(evaluate), *arguments)

    def _abstract(self, tree: Any, runs: int | None = None) -> Any:
        """Shapes, dtypes and place of what is on the device, with a leading axis if `runs`."""
        sharding = jax.sharding.SingleDeviceSharding(self.device)
        lead = () if runs is None else (runs,)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(lead + leaf.shape, leaf.dtype, sharding=sharding), tree)

    def cohorts(self, group: list[Item], batch_size: int) -> list[list[Item]]:
        """Parts runs that could form one cohort into equal ones; on a CPU a large one gains nothing."""
        largest = len(group)
        if self.run_axis == 'map':
            largest = max(1, min(self._in_turn_runs, IN_TURN_EXAMPLES // batch_size))
        size = -(-len(group) // -(-len(group) // largest))
        return [group[first : first + size] for first in range(0, len(group), size)]

    def seconds_per_update(self, run: Run, runs: int = 1, batch_size: int = 0) -> float:
        """How long an update of a cohort takes, compilation apart: the median; by default at the first batch size."""
        timed = self._timed_updates(run, runs, batch_size or run.recipe.stages[0].batch_size)
        return float(np.median([timed() for _ in range(TIMED_CALLS)]))

    def times_in_turn(self, alone: Sequence[Run]) -> list[list[float]]:
        """How long an update of each of these runs takes, alone on the device: seconds, [run][measurement]. They are
        measured in turn, so that what the machine does besides hits all."""
        timed = [self._timed_updates(run, 1, run.recipe.stages[0].batch_size) for run in alone]
        rounds = [[each() for each in timed] for _ in range(TIMED_CALLS)]
        return [list(times) for times in zip(*rounds, strict=True)]

    def _timed_updates(self, run: Run, runs: int, batch_size: int) -> Callable[[], float]:
        """Makes some updates of a cohort, an epoch at most, for TIMED_SECONDS or more, and says how long one took."""
        seeds = [run.seed] * runs
        state_R, order_RxN = self.init(run, seeds), self.order(run, seeds, 0)
        inputs_R = jax.tree.map(lambda leaf: np.stack([leaf] * runs), inputs(run, 0))
        in_an_epoch = -(-run.n // batch_size)

        def timed(updates: int) -> float:
            nonlocal state_R
            window = Window(np.int32(0), np.int32(updates))
            state_R, seconds = self.segment(run, batch_size, window, order_RxN, inputs_R, state_R)
            return seconds / updates

        timed(updates := 1)  # in fresh memory, so that it takes longer
        # One call of two suffices, as the other may have waited for what else the machine does.
        while updates < in_an_epoch and any(updates * timed(updates) < TIMED_SECONDS for _ in range(2)):
            updates = min(in_an_epoch, 2 * updates)
        return functools.partial(timed, updates)

    def seconds_per_evaluation(self, run: Run, runs: int = 1, full: bool = True) -> float:
        """How long a cohort's evaluation takes, on all splits if `full`, else on the validation split: the median."""
        state_R = self.init(run, [run.seed] * runs)
        times = [self.evaluate(run, state_R, state_R.params, runs, full)[-1] for _ in range(TIMED_CALLS)]
        return float(np.median(times))

    def _program(self, what: str, run: Run, runs: int, jitted: Any, *arguments: Any) -> Callable[..., Any]:
        """Compilation is kept apart from running, so that it is neither timed nor repeated."""
        recipe = run.recipe
        key = what, recipe.architecture, recipe.training_set, recipe.kind, runs
        if key not in self._compiled:
            name = f'{what}, {runs} run{"s"[: runs > 1]}'
            self._watcher.compiling(name)
            began = time.monotonic()
            self._compiled[key] = jitted.lower(*arguments).compile(self._options)
            self.compile_seconds.append(time.monotonic() - began)
            self._watcher.compiled(name, self.compile_seconds[-1])
        return self._compiled[key]


def inputs(run: Run, update: int) -> Inputs:
    """What a segment that begins with `update` does with a run."""
    recipe, span = run.recipe, run.span(update)
    epoch_end = (run.example(update) // run.n + 1) * run.n
    stop = np.int32(min(0, span.last_example - epoch_end) + run.n)
    start, final, cosine, first, updates = span.rate
    rate = schedule.Rate(np.float32(start), np.float32(final), np.bool_(cosine), np.int32(first), np.int32(updates))
    stage = span.stage
    numbers = 0, stage.momentum, stage.beta1, stage.beta2, recipe.weight_decay, recipe.clip
    hyperparameters = optimizer.Hyperparameters(*map(np.float32, numbers))
    smoothing, fresh = np.float32(recipe.label_smoothing), np.bool_(update in run.evaluations)
    return Inputs(np.int32(run.seed), stop, rate, hyperparameters, smoothing, fresh)


def run_axis(study: config.Study) -> Literal['vmap', 'map']:
    """How a cohort's runs are advanced on this machine."""
    if study.run_axis == 'auto':
        return 'map' if jax.default_backend() == 'cpu' else 'vmap'
    return study.run_axis
