"""Is anything lost when training is killed at random moments?

    python benchmarks/kill.py --kills=25

Trains a small study once without interruption. Then again, in one process and in two: each time some process is killed
(SIGKILL) at a random moment between its start and the end of the training, and the study started again, until it ends;
then it begins anew, until there were so many kills. Counts what is lost: rows of metrics.csv that are missing at the
end or are not those of the uninterrupted study, and values of the last checkpoints that differ, bit for bit. Two
processes are killed once they have found each other; one that waits for the other in vain ends after two minutes.
"""

import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging

from bsgap.training.checkpoint import Checkpoints
from bsgap.training.rows import read

KILLS = flags.DEFINE_integer('kills', 25, 'for each number of processes', lower_bound=1)
PROCESSES = flags.DEFINE_list('processes', ['1', '2'], 'numbers of processes')
SEED = flags.DEFINE_integer('seed', None, 'of the random moments; default: another one each time')
ROOT = Path(__file__).parent.parent
WALL_CLOCK = ('train_seconds', 'eval_seconds')
SMALL = (
    '--config=experiments/mnist.py:smoke',
    '--config.subset=1000',
    '--config.hidden=64,64',
    '--config.sweep.batch_size=1,16',
    '--config.sweep.momentum=0.5',
    '--config.epochs=3',
    '--config.segment_seconds=0.05',
    '--config.checkpoint_seconds=0',
    '--config.figures=learning_rate_sum',
)


class Toll(NamedTuple):
    """What some kills cost."""

    kills: int
    launches: int
    studies: int  # that were trained to their end
    rows: int  # lost or changed
    values: int  # of parameters and the rest of the state, that differ
    ended: list[float]  # seconds from a kill until the other process had ended


def start(
    workdir: Path, processes: int = 1, *arguments: str, of_last: Sequence[str] = ()
) -> list[subprocess.Popen[str]]:
    """Starts launch.py on the small study, in some processes that form one launch."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    command = [sys.executable, 'launch.py', *SMALL, *arguments, f'--workdir={workdir}']
    started = []
    for index in range(processes):
        together = {
            'JAX_COORDINATOR_ADDRESS': address,
            'JAX_NUM_PROCESSES': str(processes),
            'JAX_PROCESS_ID': str(index),
        }
        started.append(
            subprocess.Popen(
                [*command, *(of_last if index == processes - 1 else ())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, 'COLUMNS': '200', **(together if processes > 1 else {})},
            )
        )
    return started


def rows(workdir: Path) -> dict[str, list[dict[str, str]]]:
    """Each run's metrics.csv, wall-clock columns aside, as text, so that NaN equals NaN."""
    return {
        path.parent.name: [
            {column: repr(value) for column, value in row.items() if column not in WALL_CLOCK} for row in read(path)
        ]
        for path in sorted(workdir.glob('runs/*/metrics.csv'))
    }


def final_leaves(workdir: Path) -> dict[str, dict[str, np.ndarray]]:
    """Every leaf of each run's last checkpoint, as Orbax reads it; a run that diverged at once has none."""
    leaves = {}
    for folder in sorted(workdir.glob('runs/*/checkpoints')):
        checkpoints = Checkpoints(workdir, folder.parent.name)
        if updates := checkpoints.updates():
            leaves[checkpoints.run] = checkpoints._read(updates[-1])[0]
    return leaves


def rows_that_differ(workdir: Path, whole: Path) -> int:
    """How many rows are not those of the uninterrupted study at the same place."""
    return sum(
        row not in expected[i : i + 1]
        for run, expected in rows(whole).items()
        for i, row in enumerate(rows(workdir).get(run, []))
    )


def values_that_differ(found: dict[str, dict[str, np.ndarray]], expected: dict[str, dict[str, np.ndarray]]) -> int:
    """How many values of the runs' last checkpoints are not those that are expected."""
    return sum(
        int((leaf != found.get(run, {}).get(name, np.nan)).sum())
        for run, leaves in expected.items()
        for name, leaf in leaves.items()
    )


def finish(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Waits for the end of processes, and returns their exit codes."""
    for process in processes:
        process.communicate(timeout=200)
    return [process.returncode for process in processes]


class Hit(NamedTuple):
    """What came of a launch."""

    killed: bool  # or the study ended before
    done: bool  # the study; a process may also be killed after that
    ended: list[float]  # seconds from the kill until the others had ended


def kill_at_random(workdir: Path, processes: int, rng: random.Random, seconds: float) -> Hit:
    """Launches once, and kills one of the processes within `seconds`."""
    launched = start(workdir, processes)
    victim = rng.randrange(processes)
    if processes > 1 and (output := launched[victim].stdout):
        output.readline()
    try:
        launched[victim].wait(rng.uniform(0, seconds))
    except subprocess.TimeoutExpired:
        launched[victim].kill()
    died = time.monotonic()
    codes = finish(launched)
    killed = codes[victim] == -9
    if not killed and any(codes):
        raise RuntimeError(f'process {victim} of {processes} was not killed, but they ended with {codes}')
    return Hit(killed, 0 in codes, [time.monotonic() - died] if killed and processes > 1 else [])


def kill(kills: int, processes: int, room: Path, rng: random.Random) -> Toll:
    """Kills so often, and compares each study that came to its end with one that was never interrupted."""
    whole = room / f'whole{processes}'
    began = time.monotonic()
    if any(codes := finish(start(whole, processes))):
        raise RuntimeError(f'the uninterrupted study ended with {codes}')
    seconds = time.monotonic() - began
    expected = final_leaves(whole)
    killed = studies = launches = lost = values = 0
    ended: list[float] = []
    workdir = room / 'killed'
    while killed < kills:
        hit = kill_at_random(workdir, processes, rng, seconds)
        launches, killed, ended = launches + 1, killed + hit.killed, ended + hit.ended
        lost += rows_that_differ(workdir, whole)
        if hit.done or killed == kills:
            if not hit.done and any(codes := finish(start(workdir, processes))):
                raise RuntimeError(f'started again, the study ended with {codes}')
            values += values_that_differ(final_leaves(workdir), expected)
            lost += sum(len(r) for r in rows(whole).values()) - sum(len(r) for r in rows(workdir).values())
            studies += 1
            shutil.rmtree(workdir)
    return Toll(killed, launches, studies, lost, values, ended)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    seed = random.randrange(10**6) if SEED.value is None else SEED.value
    print(f'{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}; seed {seed}\n')
    print('| processes | kills | launches | studies ended | rows lost | values that differ | others ended after (s) |')
    print('|--:|--:|--:|--:|--:|--:|--:|')
    for processes in map(int, PROCESSES.value):
        with tempfile.TemporaryDirectory() as room:
            toll = kill(KILLS.value, processes, Path(room), random.Random(seed))
        after = f'{statistics.median(toll.ended):.0f}, at most {max(toll.ended):.0f}' if toll.ended else '–'
        print(f'| {processes} | {" | ".join(map(str, toll[:5]))} | {after} |', flush=True)


if __name__ == '__main__':
    app.run(main)
