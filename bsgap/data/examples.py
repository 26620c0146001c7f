"""What a dataset is made of."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bsgap.errors import UserError, said


class Split(NamedTuple):
    """Examples and their labels.

    `labels_N` are int32 from 0 to the number of classes − 1, one an example or of any shape, [N, …]; or float32 targets
    [N, K]. `examples_N` has any shape after its first axis, and one of three dtypes: uint8 (images [N, H, W, C], or
    other bytes), float32 (numbers), int32 (tokens, which no constants normalise).
    """

    examples_N: Any
    labels_N: Any


class Source(NamedTuple):
    """What a dataset's files or functions hold: arrays [N, …] and [N] of any kind; a test split may be missing."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None
    notes: tuple[str, ...] = ()  # sentences that say what was changed


@contextlib.contextmanager
def reading(what: str, remedy: str = '') -> Iterator[None]:
    """Around what reads a user's files: whatever a library meets there is told in one line."""
    try:
        yield
    except (MemoryError, UserError):
        raise
    except Exception as error:
        reason = getattr(error, 'strerror', None) or said(error)
        raise UserError(f'config.dataset: {what} cannot be read: {reason}{remedy}') from error
