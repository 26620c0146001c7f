"""How fast are updates and evaluations, beside a careful PyTorch loop on the same machine?

    python -m pip install -e '.[bench]' && python benchmarks/throughput.py

Both sides train the study's MLP (784-1024-1024-10, float32, SGD) on MNIST held in memory. Two worker processes, one a
library, work in turn and never at once; each measurement of one is followed by the other's, `--rounds` times, and the
ratio is taken within a round, so that what the machine does besides hits both. Compilation and warm-up are apart.
PyTorch trains a cohort's runs one after the other: that is what a loop over seeds does. Times are per run.
"""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

BATCH_SIZES = flags.DEFINE_list('batch_sizes', ['1', '2', '4', '8', '64', '256', '1024'], 'batch sizes')
COHORT_SIZES = flags.DEFINE_list('cohort_sizes', ['1', '3', '10'], 'runs in a cohort')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'alternations', lower_bound=1)
SECONDS = flags.DEFINE_float('seconds', 0.5, 'length of one measurement', lower_bound=0.01)
OUT = flags.DEFINE_string('out', None, 'also write the measurements to this JSON file')
WORKER = flags.DEFINE_enum('worker', None, ['bsgap', 'torch'], 'used by the benchmark itself')

# A multiplication and an addition each, per example and weight: forward; backward to the weights; backward to the
# inputs of the second and third layer.
WEIGHTS = 784 * 1024 + 1024 * 1024 + 1024 * 10
EVALUATION_FLOP = 2 * WEIGHTS
UPDATE_FLOP = 2 * EVALUATION_FLOP + 2 * (1024 * 1024 + 1024 * 10)

Task = Callable[[int], float]  # makes so many repetitions, returns the seconds they took


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


def torch_worker(what: str, batch_size: int, runs: int) -> Task:
    """The loop of a careful user of PyTorch: tensors in memory, no data loader, a multi-tensor optimizer step."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    from bsgap import config, data

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cuda.matmul.allow_tf32 = False

    def wait() -> None:
        if device == 'cuda':
            torch.cuda.synchronize()

    if what == 'product':
        x = torch.randn(2048, 2048, device=device)

        def multiply(repetitions: int) -> float:
            began = time.perf_counter()
            for _ in range(repetitions):
                x @ x
            wait()
            return time.perf_counter() - began

        return multiply

    study = config.resolve(config.default())
    (dataset,) = data.load(study.data, [study.recipes[0].training_set]).values()
    splits = {
        name: (
            ((torch.tensor(split.images_NxHxWxC).float() / 255 - 0.1307) / 0.3081).flatten(1).to(device),
            torch.tensor(split.labels_N).long().to(device),
        )
        for name, split in dataset.splits.items()
    }
    models = [
        torch.nn.Sequential(
            torch.nn.Linear(784, 1024),
            torch.nn.ReLU(),
            torch.nn.Linear(1024, 1024),
            torch.nn.ReLU(),
            torch.nn.Linear(1024, 10),
        ).to(device)
        for _ in range(runs)
    ]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01, foreach=True) for model in models]
    if what == 'evaluation':

        def evaluate(repetitions: int) -> float:
            began = time.perf_counter()
            with torch.no_grad():
                for _ in range(repetitions):
                    for model in models:
                        for images, labels in splits.values():
                            loss = correct = torch.zeros((), device=device)
                            for x, y in zip(images.split(2000), labels.split(2000), strict=True):
                                logits = model(x)
                                loss = loss + F.cross_entropy(logits, y, reduction='sum')
                                correct = correct + (logits.argmax(1) == y).sum()
                            (loss / len(labels)).item(), (correct / len(labels)).item()
            return time.perf_counter() - began

        return evaluate

    images, labels = splits['train']

    def update(repetitions: int) -> float:
        wait()
        began = time.perf_counter()
        for model, optimizer in zip(models, optimizers, strict=True):
            order = torch.randperm(len(labels), device=device)
            for i in range(repetitions):
                start = i * batch_size % (len(labels) - batch_size + 1)
                index = order[start : start + batch_size]
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(model(images[index]), labels[index]).backward()
                optimizer.step()
        wait()
        return time.perf_counter() - began

    return update


def serve(worker: Callable[[str, int, int], Task]) -> None:
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
        serve({'bsgap': bsgap_worker, 'torch': torch_worker}[WORKER.value])
        return
    workers = {name: start(name) for name in ('bsgap', 'torch')}

    def compare(what: str, batch_size: int = 0, runs: int = 1) -> dict[str, list[float]]:
        key = (what, batch_size, runs)
        for worker in workers.values():
            worker.measure(*key)
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(ROUNDS.value):
            for name, worker in workers.items():
                times[name].append(worker.measure(*key) / runs)
        return times

    products = compare('product')
    peak = max(2 * 2048**3 / min(times) for times in products.values())
    print(f'{describe()}\n{ROUNDS.value} rounds; median [min – max] of the rounds; ratio = PyTorch time / bsgap time')
    print(f'measured matrix-product rate (2048 × 2048 × 2048, float32): {peak / 1e9:,.0f} GFLOP/s\n')
    print('| what | runs | bsgap ms | PyTorch ms | ratio | examples/s | share of the product rate |')
    print('|---|--:|--:|--:|--:|--:|--:|')
    cases = [('evaluation', 0, int(runs)) for runs in COHORT_SIZES.value]
    cases += [('update', int(size), int(runs)) for size in BATCH_SIZES.value for runs in COHORT_SIZES.value]
    measured = []
    for what, batch_size, runs in cases:
        times = compare(what, batch_size, runs)
        measured.append({'what': what, 'batch_size': batch_size, 'runs': runs, **times})
        examples = batch_size or 70000
        rate = [examples / seconds for seconds in times['bsgap']]
        flop = UPDATE_FLOP if batch_size else EVALUATION_FLOP
        ratios = [torch / bsgap for torch, bsgap in zip(times['torch'], times['bsgap'], strict=True)]
        name = f'update, batch {batch_size}' if batch_size else 'evaluation of 70,000'
        print(
            f'| {name} | {runs} | {spread(times["bsgap"], 1e3)} | {spread(times["torch"], 1e3)} | {spread(ratios)} |'
            f' {statistics.median(rate):,.0f} | {statistics.median(rate) * flop / peak:.0%} |',
            flush=True,
        )
    sweep(measured)
    if OUT.value:
        content = {'machine': describe(), 'product_flops': peak, 'measured': measured}
        Path(OUT.value).write_text(json.dumps(content, indent=1))


def sweep(measured: list[dict[str, Any]]) -> None:
    """The main study's epoch, put together from the rounds: batch sizes 64, 256 and 1024, each evaluated in full."""
    for runs in sorted({case['runs'] for case in measured}):
        cases = {case['batch_size']: case for case in measured if case['runs'] == runs}
        if {0, 64, 256, 1024} <= set(cases):
            ratios = []
            for i in range(ROUNDS.value):
                seconds = {
                    name: sum(-(-60000 // size) * cases[size][name][i] + cases[0][name][i] for size in (64, 256, 1024))
                    for name in ('bsgap', 'torch')
                }
                ratios.append(seconds['torch'] / seconds['bsgap'])
            print(f'\nwhole sweep (64, 256, 1024) with evaluation, {runs} runs each: ratio {spread(ratios)}')


def spread(values: list[float], scale: float = 1.0) -> str:
    low, middle, high = (short(scale * f(values)) for f in (min, statistics.median, max))
    return f'{middle} [{low} – {high}]'


def short(value: float) -> str:
    """Three digits, without an exponent."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def describe() -> str:
    from importlib.metadata import version

    versions = ', '.join(f'{package} {version(package)}' for package in ('jax', 'flax', 'optax', 'torch'))
    return f'{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}'


if __name__ == '__main__':
    app.run(main)
