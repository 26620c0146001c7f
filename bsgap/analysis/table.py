"""The table of runs, a row an evaluation, and results.csv, a row a run."""

import collections
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bsgap.config.task import Task
from bsgap.files import of_study, replace
from bsgap.training.rows import COUNTS, Record, columns, read_records, score_of

if TYPE_CHECKING:  # pandas takes a fifth of a second to load, which training need not wait for
    import pandas as pd

OF_A_RUN = 'run', 'recipe', 'batch_size', 'learning_rate', 'momentum', 'seed', 'epochs', 'updates', 'examples'


def runs(workdir: str | Path) -> 'pd.DataFrame':
    """All evaluations of all runs of a workdir, a row each: by batch size at the start, recipe, seed, update.

    `runs(workdir).groupby('run').tail(1)` is how each run ended.

    Returns:
      A table with the index 0, 1, …; a run that was not evaluated yet has no row. Its columns are
      `run`, `recipe`, `status` (text): the run's name, its recipe's, and done | diverged | running.
      `seed`, `n` (int64): `n` is the number of training examples.
      `update`, `examples`, `batch_size` (int64): where the row was measured, and the batch size from there on.
      `epoch`, `learning_rate`, `learning_rate_sum` (of all updates until then), losses, accuracies, `gap`, `distance`
        (from the weights at the start), `grad_norm` and others (float64), as in metrics.csv; NaN where not measured.
        Accuracies and the gap are fractions; `train_seconds` and `eval_seconds` are seconds since the start.
      `recipe.FIELD`: the fields of the recipe: a number (float64), a text, True or False, a list as its JSON; NaN where
        it has none. `recipe.batch_size` and `recipe.learning_rate` are those of the first stage if no others are given.
      What was measured of the weights at the end (float64), such as `sharpness_0.001`, in the run's last row; else NaN.

    Raises:
      UserError: `workdir` holds no study, or a file is damaged.
    """
    return table(read_records(of_study(workdir)))


def table(records: Iterable[Record], score: str = '') -> 'pd.DataFrame':
    """The table of `runs`, from records in their order; `score` is the task's, which no row may tell yet."""
    import pandas as pd

    records = list(records)
    score = score or score_of(records)
    validated = any(f'validation_{score}' in row for record in records for row in record.rows)
    measures = columns(('train', 'validation', 'test') if validated else ('train', 'test'), score)
    measured = list(dict.fromkeys(name for record in records for name in record.measured))
    texts, whole = ['run', 'recipe', 'status'], ['seed', 'n', *(name for name in measures if name in COUNTS)]
    rows: list[dict[str, Any]] = []
    for record in records:
        about = {'run': record.name, 'status': record.status, **{k: record.about[k] for k in ('recipe', 'seed', 'n')}}
        rows += [{**about, **row} for row in record.rows]
        if record.rows:
            rows[-1] |= record.measured
    made = pd.DataFrame(rows, columns=[*texts, 'seed', 'n', *measures, *measured])
    made = made.astype(dict.fromkeys(made, np.float64) | dict.fromkeys(texts, str) | dict.fromkeys(whole, np.int64))
    names = pd.Index([record.name for record in records], dtype=str)
    fields = pd.DataFrame([_fields(record.about) for record in records], names)
    return made.join(fields.apply(_as_numbers), on='run')[[*texts, 'seed', 'n', *measures, *fields, *measured]]


def near_chance(runs: 'pd.DataFrame', about: Mapping[str, Any], task: Task) -> list[str]:
    """The runs that are done and have learned next to nothing: on the training split less than a tenth of the way from
    the best constant answer to a perfect one. None where the score is no share; `about` is study.json."""
    known = [of.get('baseline', of.get('most_frequent', {})) for of in about.get('training_sets', ())]
    chance = max((of.get('train', -math.inf) for of in known), default=-math.inf) if task.is_share else -math.inf
    ends = runs[runs['status'] == 'done'].groupby('run').tail(1)
    return ends.loc[ends[f'train_{task.score}'] < chance + 0.1 * (1 - chance), 'run'].tolist()


def _fields(about: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run's recipe, lists and mappings as their JSON."""
    fields = {name: about['stages'][0][name] for name in ('batch_size', 'learning_rate')} | about['fields']
    return {f'recipe.{k}': json.dumps(v) if isinstance(v, list | dict) else v for k, v in fields.items()}


def _as_numbers(column: 'pd.Series') -> 'pd.Series':
    """As float64 if all that it has are numbers."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in column.dropna()]
    return column.astype(np.float64) if all(numbers) else column


def write_results(workdir: Path, records: Sequence[Record]) -> None:
    """Writes results.csv: each run's last row, or blanks where there is none yet. Its batch size and learning rate are
    the recipe's own; other fields in which the recipes differ have a column each, as JSON."""
    train, validation, test = (f'{split}_{score_of(records)}' for split in ('train', 'validation', 'test'))
    fixed = [*OF_A_RUN, 'train_loss', train, validation, 'test_loss', test, 'gap', 'status', 'seconds']
    text, known = io.StringIO(), {*fixed, 'evaluate_at', 'evaluate_on'}
    whole = [json.dumps(record.about['fields']) for record in records]  # most are alike, and their parts take longer
    made = {text: record.about['fields'] for text, record in zip(whole, records, strict=True)}
    given = {text: {name: json.dumps(value) for name, value in fields.items()} for text, fields in made.items()}
    of_all = (item for fields in given.values() for item in fields.items())
    values = dict.fromkeys((name, value) for name, value in of_all if name not in known)
    varied = [name for name, count in collections.Counter(name for name, _ in values).items() if count > 1]
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*fixed, *varied])
    for record, fields in zip(records, whole, strict=True):
        about, row = record.about, dict[str, Any]()
        if record.rows:
            row |= record.rows[-1]
            row |= {'epochs': row['epoch'], 'updates': row['update']}
            row['seconds'] = row['train_seconds'] + row['eval_seconds']
        row |= {name: about['fields'].get(name, about['stages'][0][name]) for name in ('batch_size', 'learning_rate')}
        row |= {'run': record.name, 'recipe': about['recipe'], 'seed': about['seed'], 'status': record.status}
        row |= {'momentum': about['stages'][-1]['momentum']}
        row |= {name: given[fields].get(name, '') for name in varied}
        cells = [row.get(column, '') for column in (*fixed, *varied)]
        writer.writerow([f'{cell:.9g}' if isinstance(cell, float) else cell for cell in cells])
    replace(workdir / 'results.csv', text.getvalue())
