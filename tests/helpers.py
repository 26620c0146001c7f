"""What several tests need: a study that trains in seconds, and ways to compare what studies left."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import bsgap
from benchmarks.kill import final_leaves, rows

ROOT = Path(__file__).parent.parent


def tiny(**changes: Any) -> ConfigDict:
    """A study on real data that trains in a second; `changes` are fields, tuples for those that are swept."""
    study = bsgap.default_config()
    study.name = 'tiny'
    study.subset, study.hidden, study.epochs, study.seeds = 300, (16,), 2, 2
    study.sweep.batch_size, study.learning_rate = (32, 100), 0.1
    study.segment_seconds = 0.02
    study.figures = ('learning_rate_sum',)
    for field, value in changes.items():
        with study.ignore_type():
            swept = isinstance(value, tuple) and not isinstance(study[field], tuple)
            owner = study.sweep if swept else study
            owner[field] = value
    return study


def assert_close(first: Path, second: Path, rtol: float, atol: float) -> None:
    """All that is saved of the runs that both have is equal to rounding."""
    one, other = final_leaves(first), final_leaves(second)
    assert one.keys() & other.keys()
    for run in one.keys() & other.keys():
        assert one[run].keys() == other[run].keys()
        for name, leaf in one[run].items():
            np.testing.assert_allclose(leaf, other[run][name], rtol=rtol, atol=atol, err_msg=f'{run} {name}')


def assert_same(first: Path, second: Path) -> None:
    """Two workdirs hold the same rows and the same parameters, bit for bit."""
    assert rows(first) == rows(second)
    one, other = final_leaves(first), final_leaves(second)
    assert one.keys() == other.keys()
    for run in one:
        assert one[run].keys() == other[run].keys()
        for name, leaf in one[run].items():
            np.testing.assert_array_equal(leaf, other[run][name], err_msg=f'{run} {name}')


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def flip(path: Path) -> None:
    """Flips a bit at each of three places; a checkpoint's data has a few bytes that mean nothing, between its arrays,
    and where they lie depends on which array was written first."""
    content = bytearray(path.read_bytes())
    for quarter in (1, 2, 3):
        content[len(content) * quarter // 4] ^= 1
    path.write_bytes(content)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Unsigned bytes as an IDX file."""
    path.write_bytes(
        struct.pack(f'>I{array.ndim}I', 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_pictures(folder: Path, seed: int = 0) -> Path:
    """An IDX folder of 40 + 20 random pictures of 2×2, whose mean tells their class of 3."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, n in (('train', 40), ('t10k', 20)):
        labels_N = rng.integers(0, 3, n, dtype=np.uint8)
        images_NxHxW = (80 * labels_N[:, None, None] + rng.integers(0, 80, (n, 2, 2))).astype(np.uint8)
        for what, array in (('images-idx3', images_NxHxW), ('labels-idx1', labels_N)):
            write_idx(folder / f'{name}-{what}-ubyte', array)
    return folder
