"""One launch at a time in a workdir."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from bsgap.errors import UserError
from bsgap.launch import processes
from bsgap.training.workdir import unusable


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other launches out of a workdir, which is made if need be; the lock ends with the process.

    The processes of a launch hold it together: the last one that lives keeps others out.
    """
    with contextlib.ExitStack() as stack:
        with processes.first_goes_first():
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((workdir / 'lock').open('a+'))
            except OSError as error:
                raise unusable(workdir, error) from error
            _lock(workdir, file)
        yield


def _lock(workdir: Path, file: TextIO) -> None:
    try:
        if not processes.index():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if processes.count() > 1:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        used = f'{workdir} is in use by {file.read().strip() or "another launch"}'
        raise UserError(f'--workdir: {used}; wait for its end, stop it, or use another') from error
    except OSError:  # a file system without locks, as some that are mounted from elsewhere
        pass
    if not processes.index():
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
            file.flush()
