"""What the figures of a study are drawn from: the table of runs, sorted out, and what its columns are called."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bsgap.config import Task
from bsgap.report import words

Lines = Sequence[Mapping[str, Any]]
SCORES = ['train_score', 'test_score']
SPLITS = 'train', 'validation', 'test'
TEXTS = {
    'epoch': 'epochs',
    'update': 'updates',
    'train_seconds': 'training time (s)',
    'examples': 'examples seen',
    'train_loss': 'train loss',
    'above_the_lowest': 'train loss above its minimum',
    'learning_rate_sum': 'learning rate × updates',
    'distance': 'distance ‖w − w₀‖ from the start',
    'sharpness_0.001': 'sharpness, box 0.001 (%)',
    'sharpness_0.0005': 'sharpness, box 0.0005 (%)',
    'top_eigenvalue': 'largest eigenvalue of the Hessian',
}


def text(column: str, task: Task) -> str:
    """What a column is called on an axis."""
    split, _, quantity = column.rpartition('_')
    if column == 'gap':
        return f'train − test {task.text}' + ' (points)' * task.is_share
    if quantity == 'score':
        return f'{split} {task.text}'.lstrip() + ' (%)' * task.is_share
    return f'{split} loss ({task.loss})'.lstrip() if quantity == 'loss' else TEXTS[column]


class Data(NamedTuple):
    """What there is to draw: of the runs that did not diverge, the rows for which all splits were evaluated.

    Both tables are the table of runs in the order of legends, with the task's scores as `train_score` and so on, and
    those that are shares, and their gaps, in per cent and points. Added are `row`, counted from the start of a run;
    `last`, up to which all runs of its recipe go; and of the recipe: its first batch size (`size`) and highest learning
    rate (`rate`), what else it is in words (`setting`), and whether it is a sweep's (`swept`), has finished with one
    batch size (`done`), and has a run that diverged (`diverged`).
    """

    rows: pd.DataFrame
    ends: pd.DataFrame  # the last row of each run
    lines: Lines
    diverged: int  # runs
    near_chance: int  # runs
    task: Task


def gather(runs: pd.DataFrame, task: Task, lines: Lines = ()) -> Data | None:
    """Sorts out what there is to draw, if anything; the arguments are `figures.draw`'s."""
    of_task = {name: f'{split}_score' for split in SPLITS if (name := f'{split}_{task.score}') in runs}
    of, scores = runs.groupby('recipe'), runs[[*of_task, 'gap']].rename(columns=of_task)
    running, diverged = (runs[runs['status'] == status] for status in ('running', 'diverged'))
    rows = runs.assign(
        size=of['batch_size'].transform('first'),
        rate=of['learning_rate'].transform('max'),
        swept=runs['recipe'].str.match(r'bs(?:\d+|whole)-lr'),  # how the names of a sweep's recipes begin
        done=(of['batch_size'].transform('nunique') == 1) & ~runs['recipe'].isin(running['recipe']),
        diverged=runs['recipe'].isin(diverged['recipe']),
        **{'recipe.subset': runs['n']},  # which may have been left open
        **task.scale * scores,
    )
    if 'lowest_loss' in rows:
        rows['above_the_lowest'] = rows['train_loss'] - rows['lowest_loss'].min()
    rows = rows[rows['status'] != 'diverged'].dropna(subset=SCORES)
    if rows.empty:
        return None
    numbers = rows.filter(like='recipe.').select_dtypes('number')
    rows = rows.sort_values(['size', *numbers], kind='stable').assign(setting=_settings)
    rows['row'] = rows.groupby('run').cumcount()
    rows['last'] = rows.groupby('run')['row'].transform('max').groupby(rows['recipe']).transform('min')
    return Data(
        rows,
        rows.groupby('run').tail(1),
        lines,
        diverged['run'].nunique(),
        len(runs.attrs.get('near_chance', ())),
        task,
    )


def _settings(rows: pd.DataFrame) -> pd.Series:
    """What recipes are besides their batch sizes: of a sweep's the fields that differ, in words; of others the name."""
    fields = rows[rows['swept']].filter(like='recipe.').drop(columns='recipe.batch_size')
    differ = fields.columns[fields.nunique(dropna=False) > 1]

    def named(recipe: pd.Series) -> str:
        if not recipe['swept']:
            return re.sub(rf'-bs{recipe["size"]}\b', '', recipe['recipe'])
        return words.in_words(recipe[differ]).replace('subset', 'training examples')

    recipes = rows.drop_duplicates('recipe').set_index('recipe', drop=False)
    return rows['recipe'].map(recipes.apply(named, axis=1))
