"""Tables: CSV and Parquet files, a column of which is the target."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bsgap.config import Data
from bsgap.config.checks import require
from bsgap.data.examples import Source, reading
from bsgap.files import expanded

if TYPE_CHECKING:
    import pandas as pd

MOST_TEXTS = 100  # different ones in a column; more is a name or a free text


def read(where: str, settings: Data) -> Source:
    """Reads a file of comma-separated values with a heading (csv:FILE), or a Parquet file; see `encode`."""
    import pandas as pd  # 0.3 s, so only where it is needed

    kind, path = settings.dataset.partition(':')[0], expanded(where)
    with reading(f'{kind}:{path}'), warnings.catch_warnings():
        warnings.simplefilter('error', pd.errors.ParserWarning)  # rows with more fields than the heading
        frame = pd.read_csv(path, index_col=False) if kind == 'csv' else pd.read_parquet(path)
        first = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0] if kind == 'csv' else frame.columns
        heading = pd.Series(first)
    blank, twice = np.flatnonzero(heading.isna()), heading[heading.duplicated()]
    needs = 'name it, or write the table without its index (index=False)'
    require(not len(blank), 'dataset', f'{kind}:{path}: column {[*blank, 0][0] + 1} has no name; {needs}')
    require(not len(twice), 'dataset', f'{kind}:{path} has two columns {[*twice, ""][0]}; names must differ')
    return encode(f'{kind}:{path}', frame, None, settings.target)


def encode(what: str, train: 'pd.DataFrame', test: 'pd.DataFrame | None', target: str) -> Source:
    """The columns as numbers [N, F]: numbers and booleans as they are, texts one-hot, in the order of their values."""
    import pandas as pd

    whole = pd.concat([train, test]) if test is not None else train
    columns = ', '.join(map(str, train.columns))
    require(target in whole, 'target', f'{target!r} is not known; {what} has the columns {columns}')
    for name, column in whole.items():
        lacks = np.flatnonzero(column.isna())
        where = f'column {name} has {len(lacks)} missing values (blank, NA, …), the first in row {[*lacks, 0][0] + 1}'
        require(not len(lacks), 'dataset', f'{what}: {where}; fill them, or leave the column out')
    features, texts = list[Any](), list[str]()
    for name, column in whole.drop(columns=target).items():
        values_N = _numbers_or_texts('dataset', what, column)
        if values_N.dtype.kind != 'U':
            features.append(values_N.astype(np.float64)[:, None])
            continue
        names, index_N = np.unique(values_N, return_inverse=True)
        many = f'column {name} has {len(names)} different texts; a class has {MOST_TEXTS} at most, so leave it out'
        require(len(names) <= MOST_TEXTS, 'dataset', f'{what}: {many}')
        features.append(np.eye(len(names))[index_N])
        texts.append(str(name))
    require(features, 'dataset', f'{what} has no column beside {target}')
    x_NxF, y_N = np.concatenate(features, 1), _numbers_or_texts('target', what, whole[target])
    notes = (f'texts are one-hot: {", ".join(texts)}',) if texts else ()
    n = len(train)
    return Source((x_NxF[:n], y_N[:n]), (x_NxF[n:], y_N[n:]) if test is not None else None, notes)


def _numbers_or_texts(field: str, what: str, column: 'pd.Series') -> np.ndarray:
    from pandas.api import types

    if types.is_bool_dtype(column) or types.is_numeric_dtype(column):
        return column.to_numpy()
    values = column.astype(str) if column.dtype.name == 'category' else column
    if all(isinstance(value, int) for value in values):  # Python's own, as they are too large for 64 bits
        return values.to_numpy(float)
    ok = all(isinstance(value, str) for value in values)
    require(ok, field, f'{what}: column {column.name} is {column.dtype}; it must be of numbers or texts')
    return values.to_numpy(str)
