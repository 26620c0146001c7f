"""The trials of a search as a table, and how they score each example."""

import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsgap.training.rows import NOISE, Record, read_answers
from bsgap.training.workdir import run_folder

SETTING = ('batch_size', 'learning_rate', 'momentum', 'weight_decay', 'beta2')


def table(records: Iterable[Record], search: Mapping[str, Any], score: str) -> pd.DataFrame:
    """A row a run that is over, those with fresh seeds apart; `score` is what the task's is called.

    Returns:
      A table with the columns `run` (text); `batch_size`, `updates` (its length), `examples` (int64); the rest of
      `SETTING` (float64); `seconds` (float64: its updates alone on the device, at the median of the times that were
      measured); `diverged`, `fresh` (bool); `validation_error` (1 − the score), `validation_loss`, `train_score`,
      `gap`, `gradient_square`, `gradient_variance` (float64, NaN if not measured, or if it diverged).
    """
    rows, per_update = [], seconds_per_update(search)
    for record in records:
        about, fields = record.about, record.about['fields']
        row: dict[str, Any] = {'fresh': fields['data_seed'] != search['data_seed']}
        # What grows has no one batch size; others may be of an earlier launch with more seeds, sizes or settings.
        asked = str(fields.get('batch_size')) in search['updates']['epochs']
        asked &= row['fresh'] or about['seed'] < search['seeds']
        if record.status == 'running' or not asked or any(fields[f] not in v for f, v in search['settings'].items()):
            continue
        row |= {'run': record.name, 'diverged': record.status == 'diverged'}
        row |= {field: fields[field] for field in SETTING} | {name: about[name] for name in ('updates', 'examples')}
        row['seconds'] = about['updates'] * per_update[row['batch_size']]
        last = {} if row['diverged'] else record.rows[-1]
        row |= {name: last.get(name, math.nan) for name in ('validation_loss', 'gap', *NOISE)}
        row['validation_error'] = 1 - last.get(f'validation_{score}', math.nan)
        row['train_score'] = last.get(f'train_{score}', math.nan)
        rows.append(row)
    columns = ['run', *SETTING, 'updates', 'examples', 'seconds', 'diverged', 'fresh']
    columns += ['validation_error', 'validation_loss', 'train_score', 'gap', *NOISE]
    return pd.DataFrame(rows, columns=columns).astype({'fresh': bool, 'diverged': bool})  # also of no rows


def seconds_per_update(search: Mapping[str, Any]) -> dict[int, float]:
    """The median of the times that were measured, by batch size."""
    return {int(size): statistics.median(times) for size, times in search['seconds_per_update'].items()}


def answers(workdir: Path, runs: Iterable[str], split: str) -> np.ndarray:
    """How each of these runs scores the examples of a split, `score_SxN`, bool or float32. UserError if not kept."""
    return np.stack([read_answers(run_folder(workdir, run), split) for run in runs])
