"""What the tests of launches have in common: watchers, a model of the user's own, and waiting for rows."""

import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from flax import nnx

from benchmarks.kill import rows
from bsgap import config
from bsgap.launch import job
from bsgap.training.cohort import Member
from bsgap.training.programs import Programs, run_axis
from bsgap.training.watcher import Watcher

LONG = {'batch_size': (20, 100), 'epochs': 6, 'checkpoint_seconds': 0.0}  # of a `tiny` study that is saved often
ROWS = 8  # of it, after which something happens: on the way, with some runs saved


_kept: dict[Any, Programs] = {}


class Event(NamedTuple):
    """What a watcher was told, and by which thread."""

    thread: int
    what: str
    runs: dict[str, tuple[int, int]]  # by name: the update that each stands at, and how many rows it has
    said: tuple[Any, ...]


class Noting(Watcher):
    """Notes all that it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def _note(self, what: str, members: Sequence[Member] = (), *said: Any) -> None:
        runs = {member.run.name: (member.update, len(member.rows)) for member in members}
        self.events.append(Event(threading.get_ident(), what, runs, said))

    def compiling(self, what: str) -> None:
        self._note('compiling', (), what)

    def compiled(self, what: str, seconds: float) -> None:
        self._note('compiled', (), what, seconds)

    def began(self, members: Sequence[Member]) -> None:
        self._note('began', members)

    def trained(self, members: Sequence[Member], examples: int, seconds: float) -> None:
        self._note('trained', members, examples, seconds)

    def evaluated(self, members: Sequence[Member]) -> None:
        self._note('evaluated', members)

    def saved(self, members: Sequence[Member]) -> None:
        self._note('saved', members)

    def warned(self, message: str) -> None:
        self._note('warned', (), message)

    def noted(self, message: str) -> None:
        self._note('noted', (), message)


class After(Watcher):
    """Does something once, after so many calls of `event`; all devices' calls count."""

    def __init__(self, event: str, number: int, do: Callable[[], Any]) -> None:
        self._left, self._do, self._counting = number, do, threading.Lock()
        setattr(self, event, self._count)

    def _count(self, *_: Any) -> None:
        with self._counting:
            self._left -= 1
            now = not self._left
        if now:
            self._do()


def stop_after(segments: int) -> Watcher:
    """Sends this process SIGTERM when that many segments have been made."""
    return After('trained', segments, lambda: os.kill(os.getpid(), signal.SIGTERM))


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Launches in this process share their compiled programs, where compilation is not the point."""

    def keep(study: config.Study, datasets: Mapping[Any, Any], watcher: Watcher, device: jax.Device) -> Programs:
        axis = run_axis(study)
        key = study.data, tuple(datasets), study.max_physical_batch, axis, study.precision, device
        if key not in _kept:
            _kept[key] = Programs(study, datasets, watcher, device)
        _kept[key]._watcher = watcher
        return _kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, 'Programs', keep)
        yield


class Net(nnx.Module):
    """A model of the user's own, with dropout."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, width: int, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(math.prod(image_shape), width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x_BxI = nnx.relu(self.first(images_BxHxWxC.reshape(len(images_BxHxWxC), -1)))
        return self.last(self.dropout(x_BxI))


def wait_for_rows(workdir: Path, number: int, process: subprocess.Popen[str]) -> None:
    """Until so many evaluations have been written."""
    for _ in range(2400):
        if sum(map(len, rows(workdir).values())) >= number:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError('no rows came')
