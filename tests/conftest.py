"""Studies that train in seconds, made once for all workers, and what all tests are run with."""

import fcntl
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from helpers import ROOT, tiny

import bsgap
from benchmarks.kill import finish, start
from bsgap.data import idx

# Whatever a test or its launches compile is kept for all workers and the next session, apart from the user's own.
COMPILED = str(ROOT / '.pytest_cache' / 'compiled')
os.environ |= {'JAX_COMPILATION_CACHE_DIR': COMPILED, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
jax.config.update('jax_compilation_cache_dir', COMPILED)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


@pytest.fixture(scope='session', autouse=True)
def mnist_once() -> Iterator[None]:
    """A worker reads the packaged MNIST once, not for each of its studies."""
    read, packaged = idx._read_file, idx.MNIST
    kept = functools.cache(read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idx, '_read_file', lambda path, md5: (kept if path.parent == packaged else read)(path, md5))
        yield


@pytest.fixture(scope='session')
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`once(name, make)` is a workdir that `make(workdir)` filled, once for all workers of the session; to be read."""
    common = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        common = common.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        with (common / f'{name}.lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            workdir, made = common / name, common / f'{name}.made'
            if not made.exists():
                workdir.mkdir()
                make(workdir)
                made.touch()
        return workdir

    return get


@pytest.fixture(scope='session')
def trained(once: Callable[..., Path]) -> Path:
    """The workdir of `tiny()`, trained and reported; to be read, or copied."""

    def make(workdir: Path) -> None:
        bsgap.train(tiny(), workdir)
        bsgap.report(workdir)

    return once('trained', make)


@pytest.fixture(scope='session')
def small(once: Callable[..., Path]) -> Path:
    """What the small study of `benchmarks.kill` leaves where nothing happens to it; to be read, or copied."""

    def make(workdir: Path) -> None:
        assert finish(start(workdir)) == [0]

    return once('small', make)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts launch.py, as a user does, in a process of its own."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, 'launch.py', *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'COLUMNS': '200'},
        )

    return start
