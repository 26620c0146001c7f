"""How fast are runs over several devices, and what memory do they take?

    python benchmarks/devices.py --devices=1,2,4 --runs=1,3,4,10

An epoch of the study's MLP on a tenth of MNIST, at one batch size, for so many untrained runs, in two ways:

  cohorts: as bsgap does it, each device trains its share with programs of its own;
  axis: one program over all devices, whose runs axis is sharded and filled up to a multiple of the devices.

On a CPU each number of devices has a process of its own; they work in turn, `--rounds` times. On an accelerator:

    python benchmarks/devices.py --devices=1 --runs=1,4,16,64,256 --ways=cohorts
"""

import concurrent.futures
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from told import machine, spread

from bsgap.files import write_json

DEVICES = flags.DEFINE_list('devices', ['1', '2', '4'], 'numbers of devices')
RUNS = flags.DEFINE_list('runs', ['1', '3', '4', '10'], 'numbers of runs')
WAYS = flags.DEFINE_list('ways', ['cohorts', 'axis'], 'ways')
BATCH_SIZE = flags.DEFINE_integer('batch_size', 64, 'batch size')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'alternations', lower_bound=1)
PLOT = flags.DEFINE_string('plot', None, 'also draw the figure into this file')
OUT = flags.DEFINE_string('out', None, 'also write the measurements to this JSON file')
WORKER = flags.DEFINE_bool('worker', False, 'used by the benchmark itself')

Epoch = Callable[[], Any]  # makes one epoch of all runs


def prepare(way: str, runs: int) -> tuple[Epoch, int]:
    """The epoch, and the bytes that a device needs for it by XLA's count (of `cohorts` alone)."""
    import jax
    import numpy as np
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    from bsgap import config, data
    from bsgap.launch.share import deal_out
    from bsgap.training import memory, step
    from bsgap.training.programs import Programs, inputs, run_axis
    from bsgap.training.runs import Run, cross
    from bsgap.training.watcher import Watcher

    settings = config.default()
    settings.subset, settings.seeds, settings.batch_size, settings.epochs = 6000, runs, BATCH_SIZE.value, 1
    settings.mean, settings.std = (0.1307,), (0.3081,)
    made = config.resolve(settings)
    (recipe,) = made.recipes
    datasets = data.load(made.data, [recipe.training_set])
    planned = cross(made, {recipe.training_set: 6000})
    devices = jax.devices()
    window = step.Window(np.int32(0), np.int32(planned[0].updates))
    axis = run_axis(made)

    def stacked(share: list[Run]) -> step.Inputs:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[inputs(run, 0) for run in share])

    if way == 'cohorts':
        epochs, needs = list[Epoch](), 0
        for device, share in zip(devices, deal_out(planned, len(devices), axis == 'vmap'), strict=True):
            if share:
                programs = Programs(made, datasets, Watcher(), device)
                needs = max(needs, memory.needed(programs, share))
                cohorts = programs.cohorts(share, BATCH_SIZE.value)
                epochs.append(functools.partial(of_device, programs, cohorts, window, stacked))

        def cohorts_epoch() -> None:
            with concurrent.futures.ThreadPoolExecutor(len(epochs)) as pool:
                for future in [pool.submit(epoch) for epoch in epochs]:
                    future.result()

        return cohorts_epoch, needs

    programs = Programs(made, datasets, Watcher(), devices[0])
    padded = [planned[i % runs] for i in range(-(-runs // len(devices)) * len(devices))]
    mesh = jax.make_mesh((len(devices),), ('runs',), axis_types=(AxisType.Auto,))
    run = planned[0]
    one = functools.partial(step.segment, programs.model(recipe), recipe.kind, BATCH_SIZE.value, (1, BATCH_SIZE.value))

    def local(train_split: Any, *of_runs: Any) -> Any:
        return step.over_runs(functools.partial(one, False, train_split, window), axis)(*of_runs)

    sharded = jax.shard_map(local, mesh=mesh, in_specs=(P(), P('runs'), P('runs'), P('runs')), out_specs=P('runs'))
    program = jax.jit(sharded)
    everywhere, by_run = NamedSharding(mesh, P()), NamedSharding(mesh, P('runs'))
    seeds = [run.seed for run in padded]

    def begin() -> Any:
        of_runs = programs.order(run, seeds, 0), stacked(padded), programs.init(run, seeds)
        return jax.device_put(of_runs, (by_run, by_run, by_run))

    split = jax.device_put(programs.splits(run)['train'], everywhere)
    compiled = program.lower(split, *begin()).compile()
    return lambda: jax.block_until_ready(compiled(split, *begin())), 0


def of_device(programs: Any, cohorts: list[list[Any]], window: Any, stacked: Callable[..., Any]) -> None:
    """An epoch of a device's share."""
    for cohort in cohorts:
        run, seeds = cohort[0], [run.seed for run in cohort]
        state_R, order_RxN = programs.init(run, seeds), programs.order(run, seeds, 0)
        programs.segment(run, BATCH_SIZE.value, window, order_RxN, stacked(cohort), state_R)


def serve() -> None:
    """Reads (way, runs) from standard input, and answers with seconds, bytes by XLA's count, and the peak so far."""
    import jax

    jax.config.update('jax_default_matmul_precision', 'float32')
    made: dict[tuple[str, int], tuple[Epoch, int]] = {}
    for line in sys.stdin:
        way, runs = json.loads(line)
        if (way, runs) not in made:
            made.clear()  # one case at a time in memory
            made[way, runs] = prepare(way, runs)
            made[way, runs][0]()
        epoch, needs = made[way, runs]
        began = time.perf_counter()
        epoch()
        seconds = time.perf_counter() - began
        stats = jax.devices()[0].memory_stats() or {}
        peak = stats.get('peak_bytes_in_use', 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(json.dumps([seconds, needs, peak, jax.devices()[0].device_kind]), flush=True)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if WORKER.value:
        serve()
        return
    own = [f'--{flag.name}={flag.value}' for flag in (BATCH_SIZE,)]
    workers = {
        int(number): subprocess.Popen(
            [sys.executable, __file__, '--worker', *own],
            env={**os.environ, 'JAX_NUM_CPU_DEVICES': number},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in DEVICES.value
    }

    def measure(devices: int, way: str, runs: int) -> list[Any]:
        pipes = workers[devices]
        assert pipes.stdin
        assert pipes.stdout
        print(json.dumps([way, runs]), file=pipes.stdin, flush=True)
        return json.loads(pipes.stdout.readline())

    kind, rows = '', list[Any]()
    for runs in map(int, RUNS.value):
        for way in WAYS.value:
            for worker in workers:
                measure(worker, way, runs)
            times: dict[int, list[float]] = {worker: [] for worker in workers}
            memory: dict[int, list[int]] = {}
            for _round in range(ROUNDS.value):
                for worker in workers:
                    answer = measure(worker, way, runs)
                    seconds, needs, peak, kind = answer
                    times[worker].append(seconds / runs)
                    memory[worker] = [needs, peak]
            rows += [(runs, way, worker, times[worker], times[min(workers)], *memory[worker]) for worker in workers]
            if OUT.value:  # after each case, so that whoever ends this has what was measured
                write_json(Path(OUT.value), rows)
            if PLOT.value:
                draw(rows, Path(PLOT.value), f'{kind}, batch size {BATCH_SIZE.value}')
    about = f'batch size {BATCH_SIZE.value}, {ROUNDS.value} rounds; median [min – max]'
    print(f'{kind}; {machine("jax", "flax", "optax")}; {about}\n')
    print('| runs | way | devices | s a run-epoch | speed-up | MiB a device needs | MiB of the process |')
    print('|--:|---|--:|--:|--:|--:|--:|')
    for runs, way, devices, times_, base, needs, peak in rows:
        ratios = [one / many for one, many in zip(base, times_, strict=True)]
        needed = f'{needs / 2**20:,.0f}' if needs else '–'
        cells = f'{spread(times_)} | {spread(ratios)} | {needed} | {peak / 2**20:,.0f}'
        print(f'| {runs} | {way} | {devices} | {cells} |')


def draw(rows: list[Any], path: Path, title: str) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout='constrained')
    for way in dict.fromkeys(row[1] for row in rows):
        for number in dict.fromkeys(row[2] for row in rows):
            cases = [row for row in rows if row[1:3] == (way, number)]
            x = [case[0] for case in cases]
            style = {'label': f'{way}, {number} device{"s"[: number > 1]}', 'ls': '-' if way == 'cohorts' else ':'}
            middle = [statistics.median(case[3]) for case in cases]
            ends = [[f(case[3]) for case in cases] for f in (min, max)]
            errors = [[abs(m - e) for m, e in zip(middle, side, strict=True)] for side in ends]
            color = f'C{list(dict.fromkeys(row[2] for row in rows)).index(number)}'
            left.errorbar(x, middle, errors, marker='o', capsize=2, color=color, **style)
            if way == 'cohorts':
                right.plot(x, [case[5] / 2**20 for case in cases], marker='o', color=color, **style)
    left.set(xlabel='runs', ylabel='seconds a run-epoch', title=title, ylim=(0, None))
    right.set(xlabel='runs', ylabel='MiB a device needs', ylim=(0, None))
    for axes in (left, right):
        axes.set_xscale('log', base=2)
        axes.set_xticks(ticks := sorted({row[0] for row in rows}), map(str, ticks))
        axes.xaxis.set_minor_locator(plt.NullLocator())
        axes.legend(fontsize=7, frameon=False)
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == '__main__':
    app.run(main)
