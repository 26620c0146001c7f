"""Checkpoints of one run: Orbax, with a checksum, because a flipped byte in the data loads silently."""

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
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging as absl_logging
from orbax.checkpoint import v1 as ocp

_ORBAX = threading.Lock()  # two operations that begin at once take the same of its numbers
PATIENCE_SECONDS = 10**7  # with a save; Orbax tells time by the wall clock, which may jump ahead
KEEP = 2  # checkpoints a run, so that there is one to fall back to

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
    """The checkpoints in one run's folder, by the number of updates made.

    Only the launch that holds the workdir's lock may delete what is half written: others are `reading`.
    """

    def __init__(self, folder: Path, reading: bool = False) -> None:
        _drop_late_complaints()
        context = ocp.Context()
        context.asynchronous.timeout_secs = PATIENCE_SECONDS
        self.folder = folder
        self._saving: Any = None
        latest = ocp.training.preservation_policies.LatestN(KEEP)
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(), preservation_policy=latest, cleanup_tmp_directories=not reading, context=context
        )

    def updates(self) -> list[int]:
        """The updates at which the run was saved, ascending."""
        return sorted(int(checkpoint.step) for checkpoint in self._checkpointer.checkpoints)

    def save(self, update: int, saved: Saved) -> None:
        """Saves in the background, once the last save has ended; raises NotSavedError, also if the last one failed.
        The arrays must not change any more."""
        self.wait()
        leaves = _leaves(saved.state)
        facts = saved._replace(state=None)._asdict()
        metadata = {'sha256': _checksum(leaves, facts), 'facts': facts}
        folder = Path(self._checkpointer.directory)
        with _ORBAX, _as_not_saved(folder / str(update)):
            _writable(folder, sum(leaf.nbytes for leaf in leaves.values()))
            self._saving = self._checkpointer.save_async(update, leaves, force=True, custom_metadata=metadata)

    def wait(self) -> None:
        """Returns when all is written; raises NotSavedError if it could not be."""
        saving, self._saving = self._saving, None
        if saving:
            with _as_not_saved(self._checkpointer.directory):
                saving.result()

    def load(self, update: int, like: Any) -> Saved:
        """Loads what was saved, a state of the structure, shapes and dtypes of `like`; raises DamagedError."""
        leaves, facts = self._read(update)
        if leaves.keys() != _leaves(like).keys():
            raise DamagedError('it holds another model')
        return Saved(**{**facts, 'state': _pick(leaves, like)})

    def load_part(self, update: int, like: Any) -> Any:
        """As `load`, but only the fields of the state that the mapping `like` has."""
        return _pick(self._read(update)[0], like)

    def cohort(self, update: int) -> list[str]:
        """The runs that were saved together with this one at `update`; none if that can't be read."""
        with contextlib.suppress(Exception):  # `load` tells what is the matter
            return list(self._checkpointer.checkpointables_metadata(update).custom_metadata['facts']['cohort'])
        return []

    def _read(self, update: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reads leaves and facts, whatever is the matter with the files."""
        try:
            with _ORBAX:
                leaves = self._checkpointer.load(update)
                metadata = dict(self._checkpointer.checkpointables_metadata(update).custom_metadata)
        except Exception as error:  # whatever Orbax, TensorStore or JSON meet in damaged files
            raise DamagedError(str(error.__cause__ or error).partition('\n')[0][:200]) from error
        facts = metadata.get('facts', {})
        if metadata.get('sha256') != _checksum(leaves, facts):
            raise DamagedError('its checksum does not match')
        return leaves, facts

    def delete_after(self, update: int) -> None:
        for later in self.updates():
            if later > update:
                self._checkpointer.delete(later)

    def close(self) -> None:
        """Returns when nothing is being written any more."""
        with contextlib.suppress(Exception):  # `wait` tells
            self._checkpointer.close()


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


def _writable(folder: Path, size: int) -> None:
    """Raises what is the matter with a folder; Orbax would wait for minutes before it does."""
    (folder.parent / 'run.json').stat()  # or else a folder that is gone would come again, with nothing in it
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
    """The leaves of a state by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in leaves}


def _pick(leaves: dict[str, np.ndarray], like: Any) -> Any:
    """The leaves that the tree `like` has, as such a tree; raises DamagedError."""
    expected = _leaves(like)
    for name, leaf in expected.items():
        if name not in leaves or (leaves[name].shape, leaves[name].dtype) != (leaf.shape, leaf.dtype):
            raise DamagedError('it holds another model')
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in expected])


def _checksum(leaves: dict[str, np.ndarray], facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, leaf in sorted(leaves.items()):
        digest.update(f'{name} {leaf.dtype} {leaf.shape} '.encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
