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
      A table with the columns `run`, `recipe` (text); `batch_size`, `updates` (its length), `examples`, `seed` (int64);
      `learning_rate`, `momentum`, `weight_decay`, `beta2` (float64); `seconds` (float64: its updates alone on the
      device, at the median of the times that were measured); `diverged`, `fresh` (bool); `validation_error` (float64, 1
      − the score) and `validation_loss` (float64), NaN if it diverged; `train_score`, `gap`, `gradient_square`,
      `gradient_variance` (float64, NaN where not measured).
    """
    rows = []
    per_update = {int(size): statistics.median(times) for size, times in search['seconds_per_update'].items()}
    for record in records:
        about, last = record.about, record.rows[-1] if record.rows else {}
        fields = about['fields']
        fresh = fields['data_seed'] != search['data_seed']
        # What grows has no one batch size; others may be of an earlier launch with more seeds, sizes or settings.
        asked = str(fields.get('batch_size')) in search['updates']['epochs'] and (
            fresh or about['seed'] < search['seeds']
        )
        if record.status == 'running' or not asked or any(fields[f] not in v for f, v in search['settings'].items()):
            continue
        row: dict[str, Any] = {'run': record.name, 'recipe': about['recipe'], 'seed': about['seed']}
        row |= {field: fields[field] for field in SETTING}
        row |= {'updates': about['updates'], 'examples': about['examples']}
        row['seconds'] = about['updates'] * per_update[row['batch_size']]
        row['diverged'] = record.status == 'diverged'
        row['fresh'] = fresh
        row['validation_error'] = math.nan if row['diverged'] else 1 - last[f'validation_{score}']
        row['validation_loss'] = math.nan if row['diverged'] else last['validation_loss']
        row |= {name: last.get(name, math.nan) for name in ('gap', *NOISE)}
        row['train_score'] = last.get(f'train_{score}', math.nan)
        rows.append(row)
    columns = ['run', 'recipe', 'seed', *SETTING, 'updates', 'examples', 'seconds', 'diverged', 'fresh']
    columns += ['validation_error', 'validation_loss', 'train_score', 'gap', *NOISE]
    return pd.DataFrame(rows, columns=columns).astype({'fresh': bool, 'diverged': bool})  # also of no rows


def answers(workdir: Path, runs: Iterable[str], split: str) -> np.ndarray:
    """How each of these runs scores the examples of a split, `score_SxN`, bool or float32. UserError if not kept."""
    return np.stack([read_answers(run_folder(workdir, run), split) for run in runs])
