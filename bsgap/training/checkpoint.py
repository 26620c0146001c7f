"""Checkpoints of one run: Orbax, with a checksum, because a flipped byte in the data loads silently."""

import collections
import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging as absl_logging
from orbax.checkpoint import v1 as ocp

from bsgap import output
from bsgap.training.workdir import run_folder, saved_updates

_ORBAX = threading.Lock()  # two operations that begin at once take the same of its numbers
PATIENCE_SECONDS = 10**7  # with a save; Orbax tells time by the wall clock, which may jump ahead
KEEP = 2  # checkpoints a run, so that there is one to fall back to; a third one until the next save
PLAIN = r'[a-zA-Z0-9_/.+-]+'  # a path in which nothing means something to Orbax or TensorStore
MOST_AT_ONCE = 4  # being written by a thread; each takes some threads and open files

# Orbax tells each of its steps, many lines a save, and an error with several tracebacks; what goes wrong is raised too.
# It handles leaves concurrently: when one fails, the others are left as tasks, which complain when they are collected.
absl_logging.get_absl_logger().addFilter(lambda record: 'orbax' not in record.pathname)
logging.getLogger('asyncio').addFilter(lambda record: not re.search('orbax|OCDBT|zarr', record.getMessage()))


class DamagedError(Exception):
    """A checkpoint can't be read, or is not what was written."""


class NotSavedError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class Saved(NamedTuple):
    """What a checkpoint holds: a run's state, as host arrays, and what the host knows of it."""

    state: Any
    train_seconds: float
    eval_seconds: float
    cohort: list[str]  # the names of the runs that were saved with it


class Checkpoints:
    """One run's checkpoints, by the number of updates made. Nothing is open but while one is written."""

    def __init__(self, workdir: Path, run: str) -> None:
        _drop_late_complaints()
        self.workdir, self.run, self.folder = workdir, run, run_folder(workdir, run) / 'checkpoints'
        self._saving: Any = None
        self._waiting = threading.Lock()  # other devices' threads may wait for it, too
        self._sha256 = ''  # of what was saved last

    def updates(self) -> list[int]:
        """The updates at which the run was saved, ascending."""
        return saved_updates(self.workdir, self.run)

    def clear(self) -> None:
        """Deletes what is half written or half deleted; for the launch that holds the workdir's lock alone."""
        for path in self.folder.glob('[0-9]*.*'):
            shutil.rmtree(path, ignore_errors=True)

    def save(self, update: int, saved: Saved) -> None:
        """Saves in the background, once the last save has ended; raises NotSavedError, also if the last one failed.
        The arrays must not change any more."""
        self.wait()
        with contextlib.suppress(IndexError):  # another thread may have been quicker
            while len(_in_flight) >= MOST_AT_ONCE:
                _in_flight.popleft().wait()
        leaves = _leaves(saved.state)
        facts = saved._replace(state=None)._asdict()
        self._sha256 = _checksum(leaves, facts)
        metadata = {'sha256': self._sha256, 'facts': facts}
        context = ocp.Context()
        context.asynchronous.timeout_secs = PATIENCE_SECONDS
        with _ORBAX, _as_not_saved(self.folder / str(update)), context:
            _writable(self.folder, str(update), sum(leaf.nbytes for leaf in leaves.values()))
            self._saving = ocp.save_async(_plain(self.folder) / str(update), leaves, custom_metadata=metadata)
        _in_flight.append(self)

    def wait(self) -> None:
        """Returns when all is written; raises NotSavedError if it could not be."""
        with self._waiting:
            saving, self._saving = self._saving, None
            if saving:
                with _as_not_saved(self.folder):
                    saving.result()
                self._delete(self.updates()[:-KEEP])

    def read_back(self, update: int) -> None:
        """Raises NotSavedError unless what was saved last is what can be read of it."""
        self.wait()
        with _as_not_saved(self.folder / str(update)):
            if _checksum(*self._read(update)) != self._sha256:
                raise DamagedError('what is read is not what was written')

    def load(self, update: int, like: Any, whole: bool = True) -> Saved:
        """Loads what was saved, a state of the structure, shapes and dtypes of `like`; if not the `whole`, only the
        fields that the mapping `like` has. Raises DamagedError."""
        leaves, facts = self._read(update)
        wanted = _leaves(like)
        if not whole:
            leaves = {name: leaf for name, leaf in leaves.items() if name in wanted}
        looks, needs = ({k: (leaf.shape, leaf.dtype) for k, leaf in each.items()} for each in (leaves, wanted))
        if looks != needs:
            raise DamagedError('it holds another model')
        found = (leaves[name] for name in wanted)
        state = jax.tree.map(lambda leaf: next(found) if leaf.size else np.zeros(leaf.shape, leaf.dtype), like)
        return Saved(**facts)._replace(state=state)

    def cohort(self, update: int) -> list[str]:
        """The runs that were saved together with this one at `update`; none if that can't be read."""
        with contextlib.suppress(Exception):  # `load` tells what is the matter
            return list(self._metadata(update)['facts']['cohort'])
        return []

    def _metadata(self, update: int) -> dict[str, Any]:
        return dict(ocp.checkpointables_metadata(_plain(self.folder) / str(update)).custom_metadata)

    def _read(self, update: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reads leaves and facts, whatever is the matter with the files."""
        path = _plain(self.folder) / str(update)
        try:
            with _ORBAX:
                leaves = ocp.load(path)
                metadata = self._metadata(update)
        except Exception as error:  # whatever Orbax, TensorStore or JSON meet in damaged files
            raise DamagedError(str(error.__cause__ or error).partition('\n')[0][:200]) from error
        facts = metadata.get('facts', {})
        if metadata.get('sha256') != _checksum(leaves, facts):
            raise DamagedError('its checksum does not match')
        return leaves, facts

    def delete_after(self, update: int) -> None:
        self._delete([later for later in self.updates() if later > update])

    def _delete(self, updates: Iterable[int]) -> None:
        """Takes its name from each first, so that half of one is none."""
        for update in updates:
            path = self.folder / str(update)
            shutil.rmtree(path.rename(path.with_name(f'{update}.deleted')), ignore_errors=True)


_in_flight = collections.deque[Checkpoints]()


def _plain(folder: Path) -> Path:
    """A path to a folder that Orbax may glob, and TensorStore take for an address."""
    folder = folder.absolute()
    if re.fullmatch(PLAIN, str(folder)):
        return folder
    link = Path(_links().name) / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    if not link.is_symlink():
        link.parent.mkdir(exist_ok=True)  # it may have been tidied away
        link.symlink_to(folder)
    return link


@functools.cache
def _links() -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory(dir=None if re.fullmatch(PLAIN, tempfile.gettempdir()) else '/tmp')
    output.at_the_end.append(made.cleanup)
    return made


@contextlib.contextmanager
def _as_not_saved(what: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever Orbax, TensorStore or the file system meet
        raise NotSavedError(f'checkpoint {what} could not be written ({_cause(error)})') from error


def _cause(error: BaseException) -> str:
    """What lies behind an error, in a few words: what the file system said, if it was that."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = ' '.join(str(error.__cause__ or error).split())
    said = re.search(r'([^:]+) \[os_error_code', text)
    return said[1].strip() if said else text[:200]


def _writable(folder: Path, name: str, size: int) -> None:
    """Raises what is the matter with a folder; Orbax would wait for minutes before it does, or leave things undone."""
    (folder.parent / 'run.json').stat()  # or else a folder that is gone would come again, with nothing in it
    folder.mkdir(exist_ok=True)
    for wrong, number in (
        (not os.access(folder, os.W_OK), errno.EACCES),
        (shutil.disk_usage(folder).free < size, errno.ENOSPC),
        ((folder / name).exists(), errno.EEXIST),
    ):
        if wrong:
            raise OSError(number, os.strerror(number))


def _drop_late_complaints() -> None:
    """A thread of TensorStore may end its work after the event loop was closed, and complain at any later time."""
    for name in ('unraisablehook', 'excepthook'):
        hook = getattr(sys, name)
        if getattr(hook, 'func', None) is not _unless_late:
            setattr(sys, name, functools.partial(_unless_late, hook))


def _unless_late(hook: Callable[..., Any], *complaint: Any) -> None:
    error = complaint[0].exc_value if len(complaint) == 1 else complaint[1]
    if str(error) != 'Event loop is closed':
        hook(*complaint)


def _leaves(state: Any) -> dict[str, Any]:
    """The leaves of a state that have elements, by names that are made of their paths, so that no two have one name."""

    def name(key: Any) -> str:
        text = jax.tree_util.keystr((key,), simple=True)
        text = re.sub('[%./]', lambda match: f'%{ord(match[0]):02X}', text)
        return f'%{ord(text[0]):02X}{text[1:]}' if text.isdigit() and isinstance(getattr(key, 'key', 0), str) else text

    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {'.'.join(map(name, path)): leaf for path, leaf in leaves if leaf.size}


def _checksum(leaves: dict[str, np.ndarray], facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, leaf in sorted(leaves.items()):
        digest.update(f'{name} {leaf.dtype} {leaf.shape} '.encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
