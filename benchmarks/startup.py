"""How long does a launch take from the command to its first trained epoch, and what goes into it?

    python benchmarks/startup.py --rounds=5
    python benchmarks/startup.py --beside=FOLDER    # also another checkout, in turn, and its times over this one's

Each round launches a study twice, each time in a new folder: cold, with no compiled program kept, and warm, with those
that the cold launch has kept. The first epoch ends with the first row of metrics.csv at an epoch of 1 or more. What
comes after `--` goes to launch.py in place of the smoke study.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from absl import app, flags

ROUNDS = flags.DEFINE_integer('rounds', 5, 'how often both are launched', lower_bound=1)
BESIDE = flags.DEFINE_string('beside', None, 'another checkout')
ROOT = Path(__file__).resolve().parent.parent
FIRST, EXIT, OTHER = 'total to the first epoch', 'total to the exit', 'all else'
HOW = 'cold', 'warm'

Times = list[dict[str, float]]  # seconds by part, a round each


def measure(checkout: Path, cache: str, given: Sequence[str]) -> dict[str, float]:
    """Seconds by part of one launch until its first epoch, and the totals."""
    with tempfile.TemporaryDirectory() as folder:
        marks, began = Path(folder, 'marks'), time.monotonic()
        command = [sys.executable, str(ROOT / 'benchmarks' / 'marked_launch.py'), str(began), str(marks)]
        command += [*(given or ['--config=experiments/mnist.py:smoke']), f'--workdir={folder}/runs']
        environment = {**os.environ, 'PYTHONPATH': str(checkout), 'XDG_CACHE_HOME': cache}
        subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - began
        told = [line.split('\t') for line in marks.read_text().splitlines()]
    seconds: dict[str, float] = {}
    for what, number in told:
        if what == FIRST:
            return {**seconds, OTHER: float(number) - sum(seconds.values()), FIRST: float(number), EXIT: whole}
        seconds[what] = seconds.get(what, 0.0) + float(number)
    raise ValueError('no epoch was trained')


def main(argv: list[str]) -> None:
    checkouts = {'this': ROOT, **({'other': Path(BESIDE.value).resolve()} if BESIDE.value else {})}
    times: dict[str, dict[str, Times]] = {name: {how: [] for how in HOW} for name in checkouts}
    for round_ in range(ROUNDS.value):
        for name in sorted(checkouts, reverse=bool(round_ % 2)):  # neither is always the first
            with tempfile.TemporaryDirectory() as cache:
                for how in HOW:
                    times[name][how].append(measure(checkouts[name], cache, argv[1:]))
    packages = ', '.join(f'{name} {version(name)}' for name in ('jax', 'flax', 'optax', 'orbax-checkpoint'))
    print(f'{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, {packages}')
    print(f'{ROUNDS.value} rounds; seconds, median [min – max] of the rounds')
    for name in checkouts:
        print('\n' + '\n'.join(table(name, times[name])))
    for total in (FIRST, EXIT) if BESIDE.value else ():
        for how in HOW:
            pairs = zip(times['other'][how], times['this'][how], strict=True)
            print(f'{total}, {how}: other / this {spread([other[total] / this[total] for other, this in pairs])}')


def table(name: str, times: dict[str, Times]) -> Iterator[str]:
    yield f'| {name} checkout | cold | warm |\n|---|--:|--:|'
    for part in times['cold'][0]:
        yield f'| {part} | {" | ".join(spread([one.get(part, 0.0) for one in times[how]]) for how in HOW)} |'


def spread(values: list[float]) -> str:
    return f'{statistics.median(values):.2f} [{min(values):.2f} – {max(values):.2f}]'


if __name__ == '__main__':
    app.run(main)
