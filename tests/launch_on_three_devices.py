"""What launch/test_job.py wants done where there are three devices: python tests/launch_on_three_devices.py FOLDER"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from helpers import tiny
from launching import Noting, compiled_once, stop_after

import bsgap
from bsgap.errors import Interrupted, UserError
from bsgap.launch import job
from bsgap.launch.signals import Stop
from bsgap.training import rows
from bsgap.training.cohort import Member
from bsgap.training.watcher import Watcher

COHORTS = (1, 2, 3, 4)  # fewer than there are devices, as many, and more, which are no multiple
FAILING: dict[str, Any] = {'batch_size': (32,), 'seeds': 2}
STOPPED: dict[str, Any] = {'batch_size': (32,), 'seeds': 4, 'epochs': 4, 'segment_seconds': 1e-6}


def cohort(runs: int, how: str) -> Any:
    return tiny(batch_size=(32,), seeds=runs, run_axis=how, epochs=1, checkpoint_seconds=0.0)


class Results(Watcher):
    """Compares results.csv with the rows that there are, at each evaluation."""

    def __init__(self, workdir: Path) -> None:
        self.path, self.behind, self.seen = workdir / 'results.csv', list[str](), set[int]()

    def evaluated(self, members: Sequence[Member]) -> None:
        header, *lines = self.path.read_text().splitlines()
        at = {line.split(',')[0]: line.split(',')[header.split(',').index('updates')] for line in lines}
        for member in members:
            if int(at[member.run.name]) < member.update:
                self.behind.append(f'{member.run.name} is at {member.update}, not {at[member.run.name]}')
        self.seen.add(len(lines))


class Twice(Watcher):
    """Interrupts twice, as an impatient user does."""

    interrupted = False

    def trained(self, members: Sequence[Member], examples: int, seconds: float) -> None:
        if not self.interrupted:
            self.interrupted = True
            os.kill(os.getpid(), signal.SIGINT)
            while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)


def fail(workdir: Path) -> str:
    """One device's training ends with a full disk, when the other is under way, which waits until the launch knows."""
    append, failing, stops = rows.append, threading.Event(), list[Stop]()
    under_way = threading.Event()

    def on_one(path: Path, row: rows.Row, header: Sequence[str]) -> None:
        if row['epoch'] == 1:
            if 'seed1' in str(path):
                under_way.wait()
                failing.set()
                raise OSError(28, 'No space left on device')
            under_way.set()
            failing.wait()
            for _ in range(1000):
                if not stops[-1].failed:
                    time.sleep(0.01)
        append(path, row, header)

    class Noted(Stop):
        def __init__(self) -> None:
            super().__init__()
            stops.append(self)

    rows.append, job.Stop = on_one, Noted
    try:
        bsgap.train(tiny(**FAILING), workdir)
    except UserError as error:
        return str(error)
    finally:
        rows.append, job.Stop = append, Stop
    return 'nothing failed'


def main(folder: Path) -> None:
    assert len(jax.devices()) == 3
    found: dict[str, Any] = {}
    for runs in COHORTS:
        for how in ('map', 'vmap'):
            workdir = folder / f'{how}{runs}'
            watching = noting, results = Noting(), Results(workdir)
            bsgap.train(cohort(runs, how), workdir, watching)
            found[workdir.name] = {'events': noting.events, 'behind': results.behind, 'seen': list(results.seen)}
    found['failed'] = fail(folder / 'failed')
    for name, watcher in (('stopped', stop_after(9)), ('twice', Twice())):
        with contextlib.suppress(KeyboardInterrupt):
            try:
                bsgap.train(tiny(**STOPPED), folder / name, [watcher])
            except Interrupted as stop:
                found[name] = str(stop)
    (folder / 'found.json').write_text(json.dumps(found))


if __name__ == '__main__':
    with compiled_once():
        main(Path(sys.argv[1]))
