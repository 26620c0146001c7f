"""How fast are updates and evaluations, beside other libraries on the same machine?

    python -m pip install -e '.[bench]' && python benchmarks/throughput.py
    python benchmarks/throughput.py --beside=PyTorch,DataLoader,Lightning,Keras --batch_sizes=64 --cohort_sizes=1

All train the study's MLP (784-1024-1024-10, float32, SGD) on MNIST; `benchmarks/loops.py` says how. Worker processes,
one a library, work in turn and never at once; each measurement of one is followed by the others', `--rounds` times, and
the ratio is taken within a round, so that what the machine does besides hits all. Compilation and warm-up are apart.
Times are per run.
"""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import app, flags
from loops import LOOPS, Loop, Task

BATCH_SIZES = flags.DEFINE_list('batch_sizes', ['1', '2', '4', '8', '64', '256', '1024'], 'batch sizes')
COHORT_SIZES = flags.DEFINE_list('cohort_sizes', ['1', '3', '10'], 'runs in a cohort')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'alternations', lower_bound=1)
SECONDS = flags.DEFINE_float('seconds', 0.5, 'length of one measurement', lower_bound=0.01)
OUT = flags.DEFINE_string('out', None, 'also write the measurements to this JSON file')
BESIDE = flags.DEFINE_list('beside', ['PyTorch'], f'what to compare with: {", ".join(LOOPS)}')
WORKER = flags.DEFINE_string('worker', None, 'used by the benchmark itself')

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
        n = 2048
        x = jax.random.normal(jax.random.key(0), (n, n))
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
        call = programs.evaluate(run, state_R, state_R.params, runs, full=True)

        def evaluate(repetitions: int) -> float:
            began = time.perf_counter()
            for _ in range(repetitions):
                jax.device_get(call())
            return time.perf_counter() - began

        return evaluate

    order_RxN = programs.order(run, seeds, 0)
    inputs_R = jax.tree.map(lambda *leaves: np.stack(leaves), *[inputs(run, 0) for run in planned])
    states = [state_R]

    def update(repetitions: int) -> float:
        seconds = 0.0
        while repetitions:
            now = min(repetitions, n // batch_size)
            window = step.Window(np.int32(0), np.int32(now))
            segment = programs.segment(run, batch_size, window, order_RxN, inputs_R, states[0])
            began = time.perf_counter()
            states[0] = jax.block_until_ready(segment())
            seconds += time.perf_counter() - began
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
    """Reads measurements that are wanted from standard input, and answers with seconds a repetition."""
    tasks: dict[tuple[str, int, int], tuple[Task, int]] = {}
    for line in sys.stdin:
        key = tuple(json.loads(line))
        if key not in tasks:
            tasks.clear()  # one case at a time in memory
            task = worker(*key)
            task(1)
            repetitions = 1
            while (seconds := task(repetitions)) < SECONDS.value / 4:
                repetitions *= 2
            tasks[key] = task, max(1, round(repetitions * SECONDS.value / seconds))
        task, repetitions = tasks[key]
        print(json.dumps(task(repetitions) / repetitions), flush=True)


@dataclasses.dataclass
class Worker:
    """A library in a process of its own."""

    process: subprocess.Popen[str]

    def measure(self, *key: str | int) -> float:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(key), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def start(name: str) -> Worker:
    command = [sys.executable, __file__, f'--worker={name}', f'--seconds={SECONDS.value}']
    return Worker(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


def main(_: list[str]) -> None:
    if WORKER.value:
        serve({'bsgap': bsgap_worker, **LOOPS}[WORKER.value])
        return
    workers = {name: start(name) for name in ('bsgap', *BESIDE.value)}

    def compare(what: str, batch_size: int = 0, runs: int = 1) -> dict[str, list[float]]:
        key = (what, batch_size, runs)
        for worker in workers.values():
            worker.measure(*key)
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(ROUNDS.value):
            for name, worker in workers.items():
                times[name].append(worker.measure(*key) / runs)
        return times

    def alone(batch_size: int) -> str:
        """The median time of an update's products."""
        if not batch_size:
            return '–'
        workers['bsgap'].measure('products', batch_size, 1)
        times = [workers['bsgap'].measure('products', batch_size, 1) for _ in range(ROUNDS.value)]
        return short(1e3 * statistics.median(times))

    product = workers['bsgap']
    product.measure('product', 0, 1)
    peak = 2 * 2048**3 / min(product.measure('product', 0, 1) for _ in range(ROUNDS.value))
    print(f'{describe()}\n{ROUNDS.value} rounds; median [min – max] of the rounds; ratio = its time / bsgap time')
    print(f'measured matrix-product rate (2048 × 2048 × 2048, float32): {peak / 1e9:,.0f} GFLOP/s\n')
    print('| what | runs | bsgap ms | its products alone | share of the product rate | beside | its ms | ratio |')
    print('|---|--:|--:|--:|--:|---|--:|--:|')
    cases = [('evaluation', 0, int(runs)) for runs in COHORT_SIZES.value if set(BESIDE.value) <= {'PyTorch'}]
    cases += [('update', int(size), int(runs)) for size in BATCH_SIZES.value for runs in COHORT_SIZES.value]
    measured = []
    for what, batch_size, runs in cases:
        times = compare(what, batch_size, runs)
        measured.append({'what': what, 'batch_size': batch_size, 'runs': runs, **times})
        rate = statistics.median((batch_size or 70000) / seconds for seconds in times['bsgap'])
        flop = UPDATE_FLOP if batch_size else EVALUATION_FLOP
        name = f'update, batch {batch_size}' if batch_size else 'evaluation of 70,000'
        own = f'| {name} | {runs} | {spread(times["bsgap"], 1e3)} | {alone(batch_size)} | {rate * flop / peak:.0%} |'
        for beside in BESIDE.value:
            print(f'{own} {beside} | {spread(times[beside], 1e3)} | {spread(ratios(times, beside))} |', flush=True)
    sweep(measured)
    if OUT.value:
        content = {'machine': describe(), 'product_flops': peak, 'measured': measured}
        Path(OUT.value).write_text(json.dumps(content, indent=1))


def ratios(times: dict[str, list[float]], beside: str) -> list[float]:
    return [its / own for its, own in zip(times[beside], times['bsgap'], strict=True)]


def sweep(measured: list[dict[str, Any]]) -> None:
    """The main study's epoch, put together from the rounds: batch sizes 64, 256 and 1024, each evaluated in full."""
    for runs in sorted({case['runs'] for case in measured}):
        cases = {case['batch_size']: case for case in measured if case['runs'] == runs}
        if {0, 64, 256, 1024} <= set(cases):
            seconds = {
                name: [
                    sum(-(-60000 // size) * cases[size][name][i] + cases[0][name][i] for size in (64, 256, 1024))
                    for i in range(ROUNDS.value)
                ]
                for name in ('bsgap', 'PyTorch')
            }
            ratio = spread(ratios(seconds, 'PyTorch'))
            print(f'\nwhole sweep (64, 256, 1024) with evaluation, {runs} runs each: ratio {ratio}')


def spread(values: list[float], scale: float = 1.0) -> str:
    low, middle, high = (short(scale * f(values)) for f in (min, statistics.median, max))
    return f'{middle} [{low} – {high}]'


def short(value: float) -> str:
    """Three digits, without an exponent."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def describe() -> str:
    from importlib.metadata import version

    packages = ['jax', 'flax', 'optax', 'torch', *({'lightning', 'keras'} & {name.lower() for name in BESIDE.value})]
    versions = ', '.join(f'{package} {version(package)}' for package in packages)
    return f'{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}'


if __name__ == '__main__':
    app.run(main)
