"""What several tests need: a study that trains in seconds, and ways to compare what it left."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks.kill import final_leaves, finish, rows, start
from bsgap import config, data

ROOT = Path(__file__).parent.parent

# Whatever a test or its launches compile is kept for all workers and the next session, apart from the user's own.
COMPILED = str(ROOT / '.pytest_cache' / 'compiled')
os.environ |= {'JAX_COMPILATION_CACHE_DIR': COMPILED, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
jax.config.update('jax_compilation_cache_dir', COMPILED)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def tiny(**changes: Any) -> ConfigDict:
    """A study on real data that trains in a second; `changes` are fields, tuples for those that are swept."""
    study = config.default()
    study.name = 'tiny'
    study.subset, study.hidden, study.epochs, study.seeds = 300, (16,), 2, 2
    study.sweep.batch_size, study.learning_rate = (32, 100), 0.1
    study.segment_seconds = 0.02
    for field, value in changes.items():
        with study.ignore_type():
            swept = isinstance(value, tuple) and not isinstance(study[field], tuple)
            owner = study.sweep if swept else study
            owner[field] = value
    return study


def assert_same(first: Path, second: Path) -> None:
    """Two workdirs hold the same rows and the same parameters, bit for bit."""
    assert rows(first) == rows(second)
    one, other = final_leaves(first), final_leaves(second)
    assert one.keys() == other.keys()
    for run in one:
        assert one[run].keys() == other[run].keys()
        for name, leaf in one[run].items():
            np.testing.assert_array_equal(leaf, other[run][name], err_msg=f'{run} {name}')


@pytest.fixture(scope='session', autouse=True)
def mnist_once() -> Iterator[None]:
    """A worker reads the packaged MNIST once, not for each of its studies."""
    read, packaged = data._read_idx, data.MNIST
    kept = functools.cache(read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, '_read_idx', lambda path, md5: (kept if path.parent == packaged else read)(path, md5))
        yield


@pytest.fixture(scope='session')
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the small study of `benchmarks.kill` leaves where nothing happens to it."""
    workdir = tmp_path_factory.mktemp('small')
    assert finish(start(workdir)) == [0]
    return workdir


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


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
