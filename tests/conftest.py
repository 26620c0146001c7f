"""What several tests need: a study that trains in seconds, and ways to compare what it left."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from bsgap import checkpoint, config, metrics

ROOT = Path(__file__).parent.parent
WALL_CLOCK = ('train_seconds', 'eval_seconds')


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


def rows(workdir: Path) -> dict[str, list[dict[str, str]]]:
    """Each run's metrics.csv, wall-clock columns aside, as text, so that NaN equals NaN."""
    return {
        path.parent.name: [
            {column: repr(value) for column, value in row.items() if column not in WALL_CLOCK}
            for row in metrics.read(path)
        ]
        for path in sorted(workdir.glob('runs/*/metrics.csv'))
    }


def final_leaves(workdir: Path) -> dict[str, dict[str, np.ndarray]]:
    """Every leaf of each run's last checkpoint, as Orbax reads it; a run that diverged at once has none."""
    leaves = {}
    for folder in sorted(workdir.glob('runs/*/checkpoints')):
        checkpoints = checkpoint.Checkpoints(folder)
        if updates := checkpoints.updates():
            leaves[folder.parent.name] = checkpoints._checkpointer.load(updates[-1])
        checkpoints.close()
    return leaves


def assert_same(first: Path, second: Path) -> None:
    """Two workdirs hold the same rows and the same parameters, bit for bit."""
    assert rows(first) == rows(second)
    one, other = final_leaves(first), final_leaves(second)
    assert one.keys() == other.keys()
    for run in one:
        assert one[run].keys() == other[run].keys()
        for name, leaf in one[run].items():
            np.testing.assert_array_equal(leaf, other[run][name], err_msg=f'{run} {name}')


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
