"""Tables: CSV and Parquet files, a column of which is the target."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsgap.config import Data
from bsgap.config.checks import require
from bsgap.data.examples import Source
from bsgap.errors import UserError, said
from bsgap.files import expanded

MOST_TEXTS = 100  # different ones in a column; more is a name or a free text


def csv(where: str, settings: Data) -> Source:
    """Reads a file of comma-separated values with a heading; see `encode`."""
    return _read(where, 'csv', settings)


def parquet(where: str, settings: Data) -> Source:
    """Likewise a Parquet file."""
    return _read(where, 'parquet', settings)


def _read(where: str, kind: str, settings: Data) -> Source:
    path: Path = expanded(where)
    try:
        frame = pd.read_csv(path) if kind == 'csv' else pd.read_parquet(path)
        heading = (
            pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0] if kind == 'csv' else pd.Series(frame.columns)
        )
    except (OSError, ValueError) as error:  # what pandas and Arrow raise are such
        reason = error.strerror if isinstance(error, OSError) and error.strerror else said(error)
        raise UserError(f'config.dataset: {kind}:{path} cannot be read: {reason}') from error
    blank, twice = np.flatnonzero(heading.isna()), heading[heading.duplicated()]
    needs = 'name it, or write the table without its index (index=False)'
    require(not len(blank), 'dataset', f'{kind}:{path}: column {[*blank, 0][0] + 1} has no name; {needs}')
    require(not len(twice), 'dataset', f'{kind}:{path} has two columns {[*twice, ""][0]}; names must differ')
    return encode(f'{kind}:{path}', frame, None, settings.target)


def encode(what: str, train: pd.DataFrame, test: pd.DataFrame | None, target: str) -> Source:
    """The columns as numbers [N, F]: numbers and booleans as they are, texts one-hot, in the order of their values.

    Raises:
      UserError: there is no column `target` or no other one; one has missing values, is neither numbers nor texts, or
        has too many different texts.
    """
    whole = pd.concat([train, test]) if test is not None else train
    columns = ', '.join(map(str, train.columns))
    require(target in whole, 'target', f'{target!r} is not known; {what} has the columns {columns}')
    for name, column in whole.items():
        lacks = np.flatnonzero(column.isna())
        where = f'column {name} has {len(lacks)} missing values, the first in row {[*lacks, 0][0] + 1}'
        require(not len(lacks), 'dataset', f'{what}: {where}; fill them, or leave the column out')
    features, texts = list[Any](), list[str]()
    for name, column in whole.drop(columns=target).items():
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
            features.append(column.to_numpy(np.float64)[:, None])
            continue
        values = column.astype(str) if isinstance(column.dtype, pd.CategoricalDtype) else column
        is_text = all(isinstance(value, str) for value in values)
        require(is_text, 'dataset', f'{what}: column {name} is {column.dtype}; it must be of numbers or texts')
        names, index_N = np.unique(values.to_numpy(str), return_inverse=True)
        many = f'column {name} has {len(names)} different texts; a class has {MOST_TEXTS} at most, so leave it out'
        require(len(names) <= MOST_TEXTS, 'dataset', f'{what}: {many}')
        features.append(np.eye(len(names))[index_N])
        texts.append(str(name))
    require(features, 'dataset', f'{what} has no column beside {target}')
    x_NxF, y = np.concatenate(features, 1), whole[target]
    is_number = pd.api.types.is_numeric_dtype(y) or pd.api.types.is_bool_dtype(y)
    y = y.astype(str) if isinstance(y.dtype, pd.CategoricalDtype) else y
    is_text = is_number or all(isinstance(value, str) for value in y)
    require(is_text, 'target', f'{target} is {y.dtype}, in {what}; it must be of numbers or texts')
    y_N = y.to_numpy() if is_number else y.to_numpy(str)
    notes = (f'texts are one-hot: {", ".join(texts)}',) if texts else ()
    n = len(train)
    return Source((x_NxF[:n], y_N[:n]), (x_NxF[n:], y_N[n:]) if test is not None else None, notes)
