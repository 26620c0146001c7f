"""One launch at a time in a workdir, however the one before ended."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import tiny

import bsgap
from benchmarks.kill import rows, start
from bsgap.errors import UserError
from bsgap.launch.lock import locked


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A launch that is training in the workdir."""
    (process,) = start(tmp_path, 1, '--config.epochs=1000')
    try:
        while not rows(tmp_path):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_second_launch_is_refused_while_the_first_lives(tmp_path: Path, at_work: subprocess.Popen[str]) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob('run.json')}
    assert before
    with pytest.raises(UserError, match=rf'--workdir: .* is in use by process {at_work.pid} on ') as told:
        bsgap.train(tiny(), tmp_path)
    assert len(str(told.value).splitlines()) == 1
    assert before == {path: path.read_bytes() for path in tmp_path.rglob('run.json')}
    at_work.send_signal(signal.SIGKILL)
    at_work.communicate()
    with locked(tmp_path):
        pass


def test_it_names_who_has_it_and_ends_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / 'some' / 'where'  # made if need be
    with locked(folder):
        says = f'is in use by process {os.getpid()} on {re.escape(socket.gethostname())}; wait for its end'
        with pytest.raises(UserError, match=says), locked(folder):
            pass
        with locked(tmp_path / 'another'):
            pass
    for _ in range(2):
        with locked(folder):
            assert (folder / 'lock').read_text() == f'process {os.getpid()} on {socket.gethostname()}\n'
    with pytest.raises(ZeroDivisionError), locked(folder):
        raise ZeroDivisionError
    with locked(folder):
        pass


def test_a_workdir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'--workdir: .*file/x cannot be used: Not a directory'):
        bsgap.train(tiny(), tmp_path / 'file' / 'x')
    (tmp_path / 'lock').mkdir()
    with pytest.raises(UserError, match=r'--workdir: .* cannot be used: Is a directory'), locked(tmp_path):
        pass


def refuse(number: int) -> Callable[..., None]:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def test_a_file_system_without_locks_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some that are mounted from elsewhere; those that have them may refuse in another way (NFS: EACCES)."""
    monkeypatch.setattr(fcntl, 'flock', refuse(errno.ENOTSUP))
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / 'lock').read_text()
    monkeypatch.setattr(fcntl, 'flock', refuse(errno.EACCES))
    with pytest.raises(UserError, match=f'is in use by process {os.getpid()}'), locked(tmp_path):
        pass
    (tmp_path / 'lock').write_text('')
    with pytest.raises(UserError, match='is in use by another launch'), locked(tmp_path):
        pass
