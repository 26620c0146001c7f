"""Numbers in words, and what a study's runs say of the batch size."""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bsgap.analysis.statistics import at_common_x, difference, interval, level, plural
from bsgap.config import Task


def full(runs: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The rows in which all splits were evaluated, of the runs that did not diverge."""
    return runs[runs['status'] != 'diverged'].dropna(subset=[f'{split}_{task.score}' for split in ('train', 'test')])


def sentences(runs: pd.DataFrame, statuses: Mapping[str, str], task: Task) -> list[str]:
    """A few sentences on what the batch size did; `statuses` are by run, and some may have no row in `runs` yet."""

    def recipes(status: str) -> list[str]:
        return [name.rpartition('-seed')[0] for name, found in statuses.items() if found == status]

    unfinished, rows = recipes('running'), full(runs, task)
    settings = _settings(rows[~rows['recipe'].isin(unfinished)])
    others = settings.columns.drop('batch_size')
    told = [field for field in others if field == 'recipe.learning_rate' or settings[field].nunique(dropna=False) > 1]
    said: list[str] = []
    for _, alike in settings.groupby([*others], dropna=False, sort=False):
        if len(alike) > 1:
            said += _compared(rows, alike['batch_size'], in_words(alike.iloc[0][told]), task)
    if lost := collections.Counter(recipes('diverged')):
        counts = ', '.join(f'{name} ({count})' for name, count in lost.items())
        said.append(f'Runs that diverged, which no mean includes: {counts}.')
    if unfinished:
        said.append(f'Not finished: {plural(len(unfinished), "run")}.')
    needs = 'give at least two batch sizes' if len(rows) else 'no run was evaluated on test data'
    return said or [f'There is nothing to compare: {needs}.']


def _settings(rows: pd.DataFrame) -> pd.DataFrame:
    """All fields, a row a recipe whose batch size stays and that has a schedule, by batch size."""
    stays = rows.groupby('recipe')['batch_size'].transform('nunique') == 1
    scheduled = rows.reindex(columns=['recipe.schedule']).notna().all(axis=1)
    recipes = rows[stays & scheduled].drop_duplicates('recipe').set_index('recipe')
    fields = recipes.filter(like='recipe.').drop(columns='recipe.batch_size', errors='ignore')
    return fields.assign(batch_size=recipes['batch_size']).sort_values('batch_size', kind='stable')


def in_words(fields: pd.Series) -> str:
    """Fields of a recipe, such as 'learning rate 0.1, momentum 0'."""
    texts = ('None' if pd.isna(value) else f'{value:.12g}' if isinstance(value, float) else value for value in fields)
    names = (name.removeprefix('recipe.').replace('_', ' ') for name in fields.index)
    return ', '.join(f'{name} {text}' for name, text in zip(names, texts, strict=True))


def _compared(rows: pd.DataFrame, sizes: pd.Series, setting: str, task: Task) -> list[str]:
    """What is said of recipes that differ in nothing but their batch size, which ascends in `sizes`, by recipe."""
    rows = rows[rows['recipe'].isin(sizes.index)]
    tested, unit = f'test_{task.score}', ' points' * task.is_share
    last = rows.groupby('run').tail(1).pivot(index='seed', columns='recipe', values=[tested, 'gap'])
    tests, gaps = ([interval(last[of, name].dropna()) for name in sizes.index] for of in (tested, 'gap'))
    by_size = '; '.join(f'{size}: {level(test, task.is_share)}' for size, test in zip(sizes, tests, strict=True))
    said = [f'With {setting}, test {task.text} by batch size is {by_size}.']
    small, large = sizes.index[[0, -1]]
    differences = (last[tested, small] - last[tested, large]).dropna()
    if len(differences) > 1:
        of_two = interval(differences)
        verdict = 'the interval holds zero, so these runs do not tell them apart'
        if not of_two.low <= 0 <= of_two.high:
            verdict = f'the {"smaller" if of_two.low > 0 else "larger"} batch ends higher'
        said.append(
            f'From batch size {sizes[small]} to {sizes[large]} that is a difference of'
            f' {difference(of_two, task.is_share)} (paired by seed, n = {len(differences)}): {verdict}.'
        )
    each = (f'{size}: {difference(gap, task.is_share)}' for size, gap in zip(sizes, gaps, strict=True))
    by_size = '; '.join(text.removesuffix(unit) for text in each) + unit
    said.append(f'The generalization gap (train − test {task.text}) by batch size is {by_size}.')
    curves = []
    for _, of_recipe in rows.groupby('recipe'):
        by_point = of_recipe.groupby(of_recipe.groupby('run').cumcount())[['learning_rate_sum', tested]]
        means = by_point.mean()[by_point.size() == of_recipe['run'].nunique()]  # the points that all runs have
        curves.append((means['learning_rate_sum'], means[tested]))
    if not (together := at_common_x(curves)):
        where = 'the evaluations are too far apart to compare them where learning rate × updates is the same'
        return [*said, f'The runs have not made the same number of updates, and {where}.']
    at_the_end = [test.value for test in tests]
    apart, end = (f'{task.scale * np.ptp(of):{".2f" if task.is_share else ".3f"}}' for of in (together[1], at_the_end))
    said.append(
        f'But the runs have not made the same number of updates. Where learning rate × updates is the same'
        f' ({together[0]:.3g}, the most that all have made), the batch sizes are {apart}{unit} of test {task.text}'
        f' apart; at the end they are {end}.'
    )
    return said


def budget_text(budget: Mapping[str, Any]) -> str:
    amount = budget['amount']
    if budget['unit'] == 'seconds':
        return f'{float(f"{amount:.3g}"):.12g} s on this device'  # without an exponent up to 10¹²
    return f'{amount:.12g} {budget["unit"][:-1] if amount == 1 else budget["unit"]}'


def listed(words: Iterable[Any]) -> str:
    *most, last = [str(word) for word in words] or ['']
    return f'{", ".join(most)} and {last}' if most else last
