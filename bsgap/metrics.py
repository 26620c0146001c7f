"""The files of numbers: each run's metrics.csv and the study's results.csv."""

import csv
import io
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from bsgap import study

Row = dict[str, float]
Status = Literal['done', 'diverged', 'stopped', 'running']
COUNTS = frozenset({'update', 'examples', 'batch_size'})
CHECKSUM = 'checksum'  # the last column: CRC-32 of the header and the row, as a changed digit is a number too
NOISE = ('gradient_square', 'gradient_variance')  # blank where they were not measured
RESULT_COLUMNS = (
    *('run', 'recipe', 'batch_size', 'learning_rate', 'momentum', 'seed', 'epochs', 'updates', 'examples'),
    *('train_loss', 'train_accuracy', 'validation_accuracy', 'test_loss', 'test_accuracy', 'gap', 'status', 'seconds'),
)


def columns(splits: Iterable[str]) -> list[str]:
    """What metrics.csv has for a dataset with these splits, besides the checksum."""
    measured = [f'{split}_{quantity}' for split in splits for quantity in ('loss', 'accuracy')]
    return [
        *('epoch', 'update', 'examples', 'batch_size', 'learning_rate', 'learning_rate_sum'),
        *measured,
        *('gap', 'distance', 'grad_norm', *NOISE, 'train_seconds', 'eval_seconds'),
    ]


def read(path: Path) -> list[Row]:
    """Reads a metrics.csv up to its first row that is not as it was written (a killed process may leave half of one).

    A row has the columns that were measured: not all splits are evaluated each time.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().decode(errors='replace').split('\n')
    titles = lines[0].split(',') if lines else []
    rows: list[Row] = []
    for line in lines[1:]:
        *cells, checksum = line.split(',')
        if checksum != _checksum(titles, cells):
            break
        rows.append({k: int(v) if k in COUNTS else float(v) for k, v in zip(titles, cells, strict=False) if v})
    return rows


def write(path: Path, rows: Sequence[Row], header: Sequence[str]) -> None:
    """Writes a metrics.csv as a whole."""
    study.replace(path, _text([[*header, CHECKSUM], *(_cells(row, header) for row in rows)]))


def append(path: Path, row: Row, header: Sequence[str]) -> None:
    """Adds a row to a metrics.csv."""
    with path.open('a') as file:
        file.write(_text([_cells(row, header)]))


def _cells(row: Row, header: Sequence[str]) -> list[str]:
    cells = [_cell(row.get(column, '')) for column in header]
    return [*cells, _checksum([*header, CHECKSUM], cells)]


def _checksum(titles: Sequence[str], cells: Sequence[str]) -> str:
    return f'{zlib.crc32(",".join([*titles, *cells]).encode()):08x}'


def status(rows: Sequence[Row], updates: int) -> Status:
    """A run diverged when its loss or its weights stopped being finite; it is done after all its updates."""
    watched = ('train_loss', 'validation_loss', 'distance')
    if rows and not all(math.isfinite(rows[-1].get(column, 0)) for column in watched):
        return 'diverged'
    return 'done' if rows and rows[-1]['update'] == updates else 'running'


class Record(NamedTuple):
    """What the files say of a run: its run.json and its metrics.csv."""

    about: dict[str, Any]
    rows: list[Row]
    measured: dict[str, float]  # at its end, by bsgap.measure; empty before
    stopped: bool = False  # by a search
    ended: Status | None = None  # its status, where not all of its rows are here

    @property
    def status(self) -> Status:
        if self.ended:
            return self.ended
        found = status(self.rows, self.about['updates'])
        return 'stopped' if found == 'running' and self.stopped else found

    @property
    def full(self) -> 'Record':
        """The record with only those rows for which all splits were evaluated."""
        rows = [row for row in self.rows if 'test_accuracy' in row and 'train_accuracy' in row]
        return self._replace(rows=rows, ended=self.status)


def read_runs(workdir: Path) -> list[Record]:
    """Reads all runs of a workdir, by batch size, then name; a folder that was renamed or copied is none."""
    records = []
    search = workdir / 'search.json'
    stopped = study.read_json(search, 'stopped')['stopped'] if search.exists() else []
    for path in (workdir / 'runs').glob('*/run.json'):
        about = study.read_json(path, 'name', 'recipe', 'seed', 'n', 'updates', 'examples', 'fields', 'stages')
        if about['name'] == path.parent.name:
            measured = path.parent / 'measurements.json'
            values = study.read_json(measured) if measured.exists() else {}
            rows = read(path.parent / 'metrics.csv')
            records.append(Record(about, rows, values, about['name'] in stopped))
    return sorted(records, key=lambda r: (r.about['stages'][0]['batch_size'], r.about['recipe'], r.about['seed']))


def arrays(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """All rows of all runs as columns, one run after the other: `pandas.DataFrame(arrays(records))` is a data frame.

    Returns:
      `run`, `recipe`, `status`: texts [P]; the same in all rows of a run, as are the next three.
      `seed`, `start_batch_size`: int64 [P]; the batch size of the recipe's first stage.
      `start_learning_rate`: float64 [P]; at the start of that stage.
      `update`, `examples`, `batch_size`: int64 [P]; where the row was measured, and the batch size from there on.
      All other columns of metrics.csv: float64 [P]; NaN where not measured. Accuracies and `gap` are fractions.
    """
    rows = [row for record in records for row in record.rows]
    runs = [record for record in records for _ in record.rows]
    starts = [run.about['stages'][0] for run in runs]
    splits = ('train', 'validation', 'test') if any('validation_loss' in row for row in rows) else ('train', 'test')

    def of_rows(column: str) -> np.ndarray:
        if column in COUNTS:
            return np.array([row[column] for row in rows], np.int64)
        return np.array([row.get(column, math.nan) for row in rows], np.float64)

    return {
        'run': np.array([run.about['name'] for run in runs], np.str_),
        'recipe': np.array([run.about['recipe'] for run in runs], np.str_),
        'status': np.array([run.status for run in runs], np.str_),
        'seed': np.array([run.about['seed'] for run in runs], np.int64),
        'start_batch_size': np.array([start['batch_size'] for start in starts], np.int64),
        'start_learning_rate': np.array([start['learning_rate'] for start in starts], np.float64),
        **{column: of_rows(column) for column in columns(splits)},
    }


def write_results(workdir: Path, records: Iterable[Record]) -> None:
    """Writes results.csv: each run's last row, or blanks where there is none yet."""
    table: list[Sequence[Any]] = [RESULT_COLUMNS]
    for record in records:
        about = record.about
        row: dict[str, Any] = dict(record.rows[-1]) if record.rows else {}
        if row:
            row.update(epochs=row['epoch'], updates=row['update'], seconds=row['train_seconds'] + row['eval_seconds'])
        row.setdefault('batch_size', about['stages'][0]['batch_size'])
        row.setdefault('learning_rate', about['stages'][0]['learning_rate'])
        row.update(
            run=about['name'],
            recipe=about['recipe'],
            momentum=about['stages'][-1]['momentum'],
            seed=about['seed'],
            status=record.status,
        )
        table.append([_cell(row.get(column, '')) for column in RESULT_COLUMNS])
    study.replace(workdir / 'results.csv', _text(table))


def _cell(value: Any) -> str:
    return f'{value:.9g}' if isinstance(value, float) else str(value)


def _text(table: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(table)
    return text.getvalue()
