"""How fast are updates and evaluations, beside other libraries on the same machine?

    python -m pip install -e '.[bench]' && python benchmarks/throughput.py
    python benchmarks/throughput.py --beside=PyTorch,DataLoader,Lightning,Keras --batch_sizes=64 --cohort_sizes=1

All train the study's MLP (784-1024-1024-10, float32, SGD) on MNIST; `benchmarks/loops.py` says how. Worker processes,
one a library, work in turn and never at once; each measurement of one is followed by the others', `--rounds` times, and
the ratio is taken within a round, so that what the machine does besides hits all. Compilation and warm-up are apart.
Times are per run. What a library can't do here is told, and the others go on without it.
"""

import dataclasses
import functools
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import app, flags
from loops import LOOPS, Loop, Task
from told import machine, short, spread

from bsgap.files import write_json

BATCH_SIZES = flags.DEFINE_list('batch_sizes', ['1', '2', '4', '8', '64', '256', '1024'], 'batch sizes')
COHORT_SIZES = flags.DEFINE_list('cohort_sizes', ['1', '3', '10'], 'runs in a cohort')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'alternations', lower_bound=1)
SECONDS = flags.DEFINE_float('seconds', 0.5, 'length of one measurement', lower_bound=0.01)
OUT = flags.DEFINE_string('out', None, 'also write the measurements to this JSON file')
BESIDE = flags.DEFINE_list('beside', ['PyTorch'], f'what to compare with: {", ".join(LOOPS)}')
BESIDE_RUNS = flags.DEFINE_integer('beside_runs', 0, 'how many runs they train in turn; 0: as many as bsgap')
EVALUATION = flags.DEFINE_bool('evaluation', True, 'also time the evaluation, where all of them have one')
PRODUCT = flags.DEFINE_integer('product', 2048, 'size of the matrices whose product is timed', lower_bound=1)
WORKER = flags.DEFINE_string('worker', None, 'used by the benchmark itself')

EVALUATED = {'PyTorch', 'torch.compile', 'CUDA graph'}  # those that also have a loop for it

# A multiplication and an addition each, per example and weight: forward; backward to the weights; backward to the
# inputs of the second and third layer.
WEIGHTS = 784 * 1024 + 1024 * 1024 + 1024 * 10
EVALUATION_FLOP = 2 * WEIGHTS
UPDATE_FLOP = 2 * EVALUATION_FLOP + 2 * (1024 * 1024 + 1024 * 10)


def bsgap_worker(what: str, batch_size: int, runs: int) -> Task:
    """Measures the programs that `train` runs, called as it calls them."""
    import jax
    import numpy as np

    from bsgap import config, data
    from bsgap.training import step
    from bsgap.training.programs import Programs, inputs
    from bsgap.training.runs import cross
    from bsgap.training.watcher import Watcher

    jax.config.update('jax_default_matmul_precision', 'float32')

    if what == 'product':
        x = jax.random.normal(jax.random.key(0), (batch_size, batch_size))
        product = jax.jit(lambda x: x @ x)
        product(x).block_until_ready()

        def multiply(repetitions: int) -> float:
            began = time.perf_counter()
            for _ in range(repetitions):
                product(x).block_until_ready()
            return time.perf_counter() - began

        return multiply

    if what == 'products':
        return products(batch_size)

    settings = config.default()
    settings.mean, settings.std = (0.1307,), (0.3081,)
    settings.batch_size = batch_size or settings.batch_size
    settings.seeds = runs
    study = config.resolve(settings)
    (recipe,) = study.recipes
    datasets = data.load(study.data, [recipe.training_set])
    n = datasets[recipe.training_set].n
    programs = Programs(study, datasets, Watcher(), jax.devices()[0])
    planned = cross(study, {recipe.training_set: n})
    run, seeds = planned[0], [run.seed for run in planned]
    state_R = programs.init(run, seeds)
    if what == 'evaluation':
        evaluate = functools.partial(programs.evaluate, run, state_R, state_R.params, runs, full=True)
        return lambda repetitions: sum(evaluate()[-1] for _ in range(repetitions))

    order_RxN = programs.order(run, seeds, 0)
    inputs_R = jax.tree.map(lambda *leaves: np.stack(leaves), *[inputs(run, 0) for run in planned])
    states = [state_R]

    def update(repetitions: int) -> float:
        seconds = 0.0
        while repetitions:
            now = min(repetitions, n // batch_size)
            window = step.Window(np.int32(0), np.int32(now))
            states[0], taken = programs.segment(run, batch_size, window, order_RxN, inputs_R, states[0])
            seconds += taken
            repetitions -= now
        return seconds

    return update


def products(batch_size: int) -> Task:
    """The six matrix products of an update and nothing else, in a loop as the update's."""
    import jax
    import jax.numpy as jnp

    def six(_: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        x, w1, w2, w3 = carry
        h1 = x @ w1
        h2 = h1 @ w2
        d3 = h2 @ w3
        d2 = d3 @ w3.T
        d1 = d2 @ w2.T
        made = jax.lax.optimization_barrier((h2.T @ d3, h1.T @ d2, x.T @ d1))
        return x + 1e-30 * sum(gradient[0, 0] for gradient in made), w1, w2, w3  # the next loop waits for all three

    shapes = ((batch_size, 784), (784, 1024), (1024, 1024), (1024, 10))
    arrays = tuple(jax.random.normal(jax.random.key(i), shape) / 32 for i, shape in enumerate(shapes))
    loop = jax.jit(lambda repetitions, arrays: jax.lax.fori_loop(0, repetitions, six, arrays))

    def multiply(repetitions: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(loop(jnp.int32(repetitions), arrays))
        return time.perf_counter() - began

    return multiply


def serve(worker: Loop) -> None:
    """Reads measurements that are wanted from standard input, and answers with seconds a repetition, or what failed."""
    tasks: dict[tuple[str, int, int], tuple[Task, int]] = {}

    def measure(*key: Any) -> float:
        if key not in tasks:
            tasks.clear()  # one case at a time in memory
            task = worker(*key)
            task(1)
            repetitions = 1
            while (seconds := task(repetitions)) < SECONDS.value / 4:
                repetitions *= 2
            tasks[key] = task, max(1, round(repetitions * SECONDS.value / seconds))
        task, repetitions = tasks[key]
        return task(repetitions) / repetitions

    for line in sys.stdin:
        try:
            answer: float | str = measure(*json.loads(line))
        except Exception as error:
            lines = str(error).strip().splitlines()
            answer = ': '.join([type(error).__name__, *lines[:1]])
        print(json.dumps(answer), flush=True)


class WorkerError(Exception):
    """What a library could not do."""


@dataclasses.dataclass
class Worker:
    """A library in a process of its own."""

    process: subprocess.Popen[str]

    def measure(self, *key: str | int) -> float:
        assert self.process.stdin
        assert self.process.stdout
        try:
            print(json.dumps(key), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise WorkerError(f'its process ended with {self.process.wait()}') from error
        if isinstance(answer, str):
            raise WorkerError(answer)
        return answer


def start(name: str) -> Worker:
    command = [sys.executable, __file__, f'--worker={name}', f'--seconds={SECONDS.value}']
    return Worker(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


def main(_: list[str]) -> None:
    if WORKER.value:
        serve({'bsgap': bsgap_worker, **LOOPS}[WORKER.value])
        return
    workers = {name: start(name) for name in ('bsgap', *BESIDE.value)}

    def compare(what: str, batch_size: int, runs: int) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Seconds for each run, a round each, and what failed."""
        of = {name: runs if name == 'bsgap' else BESIDE_RUNS.value or runs for name in workers}
        times, failed = dict[str, list[float]](), dict[str, str]()
        for name, worker in workers.items():
            try:
                worker.measure(what, batch_size, of[name])
                times[name] = []
            except WorkerError as error:
                failed[name] = str(error)
        for _ in range(ROUNDS.value):
            for name in times:
                times[name].append(workers[name].measure(what, batch_size, of[name]) / of[name])
        return times, failed

    def alone(batch_size: int) -> str:
        """The median time of an update's products."""
        if not batch_size:
            return '–'
        workers['bsgap'].measure('products', batch_size, 1)
        times = [workers['bsgap'].measure('products', batch_size, 1) for _ in range(ROUNDS.value)]
        return short(1e3 * statistics.median(times))

    n, product = PRODUCT.value, workers['bsgap']
    product.measure('product', n, 1)
    peak = 2 * n**3 / min(product.measure('product', n, 1) for _ in range(ROUNDS.value))
    print(f'{describe()}\n{ROUNDS.value} rounds; median [min – max] of the rounds; ratio = its time / bsgap time')
    print(f'measured matrix-product rate ({n} × {n} × {n}, float32): {peak / 1e9:,.0f} GFLOP/s\n')
    print('| what | runs | bsgap ms | its products alone | share of the product rate | beside | its ms | ratio |')
    print('|---|--:|--:|--:|--:|---|--:|--:|')
    evaluated = EVALUATION.value and set(BESIDE.value) <= EVALUATED
    cases = [('evaluation', 0, int(runs)) for runs in COHORT_SIZES.value if evaluated]
    cases += [('update', int(size), int(runs)) for size in BATCH_SIZES.value for runs in COHORT_SIZES.value]
    measured = list[dict[str, Any]]()
    for what, batch_size, runs in cases:
        times, failed = compare(what, batch_size, runs)
        rate = statistics.median((batch_size or 70000) / seconds for seconds in times.get('bsgap', [math.nan]))
        share = rate * (UPDATE_FLOP if batch_size else EVALUATION_FLOP) / peak
        about = {'what': what, 'batch_size': batch_size, 'runs': runs, 'examples_per_second': rate, 'share': share}
        measured.append({**about, 'failed': failed, **times})
        name = f'update, batch {batch_size}' if batch_size else 'evaluation of 70,000'
        own = f'| {name} | {runs} | {milliseconds(times, "bsgap")} | {alone(batch_size)} | {share:.0%} |'
        for beside in BESIDE.value or ['–']:
            both = {'bsgap', beside} <= set(times)
            ratio = spread(ratios(times, beside)) if both else failed.get(beside, failed.get('bsgap', '–'))
            print(f'{own} {beside} | {milliseconds(times, beside)} | {ratio} |', flush=True)
        if OUT.value:  # after each case, so that whoever ends this has what was measured
            content = {'machine': describe(), 'product_flops': peak, 'cases': len(cases), 'measured': measured}
            write_json(Path(OUT.value), content)
    sweep(measured)


def milliseconds(times: dict[str, list[float]], name: str) -> str:
    return spread(times[name], 1e3) if name in times else '–'


def ratios(times: dict[str, list[float]], beside: str) -> list[float]:
    return [its / own for its, own in zip(times[beside], times['bsgap'], strict=True)]


def sweep(measured: list[dict[str, Any]]) -> None:
    """The main study's epoch, put together from the rounds: batch sizes 64, 256 and 1024, each evaluated in full."""
    for runs in sorted({case['runs'] for case in measured}):
        cases = {case['batch_size']: case for case in measured if case['runs'] == runs}
        for beside in BESIDE.value:
            if not all({'bsgap', beside} <= set(cases.get(size, {})) for size in (0, 64, 256, 1024)):
                continue
            seconds = {
                name: [
                    sum(-(-60000 // size) * cases[size][name][i] + cases[0][name][i] for size in (64, 256, 1024))
                    for i in range(ROUNDS.value)
                ]
                for name in ('bsgap', beside)
            }
            ratio = spread(ratios(seconds, beside))
            print(f'\nwhole sweep (64, 256, 1024) with evaluation, {runs} runs each, beside {beside}: ratio {ratio}')


def describe() -> str:
    return machine('jax', 'flax', 'optax', 'torch', *({'lightning', 'keras'} & {name.lower() for name in BESIDE.value}))


if __name__ == '__main__':
    app.run(main)
