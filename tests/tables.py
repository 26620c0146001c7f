"""Runs made by hand, for what is computed from the table of runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bsgap.analysis.table import table
from bsgap.training.rows import Record

WIDE = (-1e6, 1e6)  # a bound that is kept


def record(
    recipe: str,
    seed: int,
    tests: Sequence[float],
    diverged: bool = False,
    unfinished: bool = False,
    fields: Mapping[str, Any] | None = None,
    measured: Mapping[str, float] | None = None,
    **columns: Sequence[float],
) -> Record:
    """A run that is evaluated after each of its epochs of 10 updates; `tests` and `columns` have a value a row."""
    rows = [
        {
            'epoch': float(i), 'update': 10 * i, 'examples': 640 * i, 'batch_size': 64, 'learning_rate': 0.01,
            'learning_rate_sum': float(i), 'train_loss': 1.0, 'train_accuracy': 1.0, 'distance': 1.0,
            'test_accuracy': test, 'train_seconds': 2.0 * i, 'eval_seconds': 1.0 * i,
            **{column: values[i] for column, values in columns.items()},
        }
        for i, test in enumerate(tests)
    ]  # fmt: skip
    if diverged:
        rows[-1]['train_loss'] = math.nan
    about = {
        'name': f'{recipe}-seed{seed}', 'recipe': recipe, 'seed': seed, 'n': 640, 'fields': dict(fields or {}),
        'updates': 10 * (len(rows) - 1) + unfinished, 'stages': [{'batch_size': 64, 'learning_rate': 0.5}],
    }  # fmt: skip
    return Record(about, rows, dict(measured or {}))


def ends(recipe: str, finals: Sequence[float], **changes: Any) -> list[Record]:
    """A run a seed, each with the accuracy that it ends with."""
    return [record(recipe, seed, [0.1, final], **changes) for seed, final in enumerate(finals)]


def runs(*records: Record | Sequence[Record]) -> pd.DataFrame:
    """The table of records, and of lists of them."""
    return table([one for some in records for one in ([some] if isinstance(some, Record) else some)])
