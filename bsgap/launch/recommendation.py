"""The answer for arrays: a search on them, and what it recommends as an object."""

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsgap import config
from bsgap.config.fields import find
from bsgap.data import arrays
from bsgap.data.examples import Source
from bsgap.errors import UserError, said
from bsgap.files import expanded, of_study, read_json, whole
from bsgap.launch import job
from bsgap.report import page
from bsgap.training.workdir import unusable

BATCH_SIZES = 4, 16, 64, 256, 1024, 4096  # that are tried unless others are given, as far as an epoch has
LEAST_UPDATES = 16  # so many updates
# The fields that are arguments, by their names.
ARGUMENTS = {'dataset': 'train and test', 'model': 'model', 'search.budget_epochs': 'budget_epochs'}
SCORES = ('validation_score', 'test_score', 'train_score', 'gap')
COLUMNS = (
    *('unit', 'amount', 'batch_size', 'learning_rate', 'updates', 'seconds'),
    *(f'{name}{end}' for name in SCORES for end in ('', '_low', '_high')),
    *('verdict', 'recommended'),
)


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What a search recommends for its budget in epochs; None where nothing trained.

    `table` has a row for each budget (`unit`, `amount`) and batch size: its best `learning_rate`, `updates`, `seconds`
    on this device, the scores (accuracies are fractions) and the `gap`, with their 95 % intervals, `verdict`, whether
    it is `recommended`. `text` is all of the answer in words, `report` the page with its figures.
    """

    batch_size: int | None
    learning_rate: float | None
    table: pd.DataFrame
    text: str
    report: Path

    @classmethod
    def read(cls, workdir: str | Path) -> 'Recommendation':
        """That of a workdir which was searched and reported on."""
        path = of_study(workdir) / 'recommendation.json'
        if not path.exists():
            raise UserError(f'workdir: {path.parent} has no answer; bsgap.report writes it, of a search')
        found = read_json(path, 'budgets', 'text')
        rows = []
        for budget in found['budgets']:
            chosen = (budget['recommended'] or {}).get('batch_size')
            of_all = {'unit': budget['unit'], 'amount': budget['amount']}
            rows += [{**row, **of_all, 'recommended': row['batch_size'] == chosen} for row in budget['rows']]
        table = pd.json_normalize(rows, sep='_').rename(columns=lambda name: name.removesuffix('_value'))
        chosen = found['budgets'][0]['recommended'] or {}
        answer = chosen.get('batch_size'), chosen.get('learning_rate')
        return cls(*answer, table.reindex(columns=COLUMNS), found['text'], path.with_name('report.html'))


def recommend(
    train: Sequence[Any],
    test: Sequence[Any] | None,
    model: str | type,
    budget_epochs: float,
    workdir: str | Path,
    fields: Mapping[str, Any],
) -> Recommendation:
    """See `bsgap.recommend`."""
    folder = expanded(workdir).absolute()
    if not isinstance(model, str | type):
        given = f'a {type(model).__name__} is not allowed'
        raise UserError(f'model: {given}; it must be mlp, cnn, module:Class, or a class of Flax NNX modules')
    for field, instead in ARGUMENTS.items():
        if field in fields:
            raise UserError(f'fields: {field} is not allowed; give {instead}')
    settings = config.searching()
    settings.model = model if isinstance(model, str) else f'{model.__module__}:{model.__qualname__}'
    changes = {'search.budget_epochs': budget_epochs, **fields}
    plain = dict[str, Any]()
    for key, value in changes.items():
        plain[key] = value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        if key.startswith('sweep.') and not isinstance(value, tuple):
            plain[key] = tuple(value) if isinstance(value, list) else (value,)
    try:
        settings.update_from_flattened_dict(plain)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        for key, value in plain.items():
            if known := find(key):
                known.check(key, value)  # says what is allowed
        raise UserError(f'fields: {error}') from error
    if not settings.search.rungs:
        raise UserError('fields: search.rungs 0 is not allowed; it must be at least 1')
    source = Source(_pair('train', train), _pair('test', test) if test is not None else None)
    of_data = config.Data('train, test', 0.0, test_share=settings.test_share, task=settings.task)
    examples = len(arrays.splits(source, of_data, fields)[0].labels_N)
    if not settings.sweep.batch_size:
        n = min(settings.subset or examples, examples - round(settings.validation * examples))
        if n < BATCH_SIZES[1]:
            few = f'{examples} examples, {n} of them to train on, are not allowed'
            raise UserError(f'train: {few}; there must be at least {BATCH_SIZES[1]}, or give fields sweep.batch_size')
        most = max(n / LEAST_UPDATES, BATCH_SIZES[1])
        settings.sweep.batch_size = tuple(size for size in BATCH_SIZES if size <= most)
    settings.dataset = f'npz:{_kept(source, folder / "data.npz")}'
    job.train(settings, folder, given=fields)
    page.report(folder)
    return Recommendation.read(folder)


def _pair(name: str, given: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UserError(f'{name}: {type(given).__name__} is not allowed; it must be a pair, (x, y)')
    try:
        pair = [np.asanyarray(array) for array in given]  # any, as a mask would be lost
        # Of pandas, which has objects for texts and for what may be missing; no file of arrays holds them.
        x, y = (np.array(array.tolist()) if array.dtype == object else array for array in pair)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f'{name}: {said(error)}') from error
    return x, y


def _kept(source: Source, path: Path) -> Path:
    """Writes the arrays as a file that the launch reads, then and when it goes on."""
    splits = {'train': source.train} | ({'test': source.test} if source.test else {})
    made = {f'{what}_{split}': array for split, pair in splits.items() for what, array in zip('xy', pair, strict=True)}
    try:
        if not (path.exists() and (path.parent / 'study.json').exists()):  # nothing was trained with it yet
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as part, part.open('wb') as file:
                np.savez(file, allow_pickle=False, **made)
            return path
        with np.load(path, allow_pickle=False) as kept:
            before = dict(kept)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise UserError(f'workdir: {path} is damaged; restore it or use another workdir') from error
    except OSError as error:
        raise unusable(path.parent, error) from error
    same = before.keys() == made.keys() and all(
        before[name].dtype == made[name].dtype and np.array_equal(before[name], made[name]) for name in made
    )
    if not same:
        raise UserError(f'workdir: {path.parent} has other data; give each question its own workdir')
    return path
