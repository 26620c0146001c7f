"""The rows of metrics.csv, one an evaluation, and what the files say of a run."""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from bsgap.errors import UserError
from bsgap.files import read_json, replace, write_json

Row = dict[str, float]
Status = Literal['done', 'diverged', 'running']
COUNTS = frozenset({'update', 'examples', 'batch_size'})
CHECKSUM = 'checksum'  # the last column: CRC-32 of the header and the row, as a changed digit is a number too
SCORED = ('train_', 'validation_', 'test_')  # what the names of scores and losses begin with
NOISE = ('gradient_square', 'gradient_variance')  # blank where they were not measured


def columns(splits: Iterable[str], score: str) -> list[str]:
    """What metrics.csv has for a dataset with these splits and a task with this score, besides the checksum."""
    place = ['epoch', 'update', 'examples', 'batch_size', 'learning_rate', 'learning_rate_sum']
    measured = [f'{split}_{quantity}' for split in splits for quantity in ('loss', score)]
    return [*place, *measured, 'gap', 'distance', 'grad_norm', *NOISE, 'train_seconds', 'eval_seconds']


def read(path: Path) -> list[Row]:
    """Reads a metrics.csv up to its first row that is not as it was written (a killed process may leave half of one).
    A row has the columns that were measured: not all splits are evaluated each time."""
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
    lines = (_line(row, header) for row in rows)
    replace(path, ''.join([','.join([*header, CHECKSUM]) + '\n', *lines]))


def append(path: Path, row: Row, header: Sequence[str]) -> None:
    with path.open('a', encoding='utf-8') as file:
        file.write(_line(row, header))


def _line(row: Row, header: Sequence[str]) -> str:
    values = [row.get(column, '') for column in header]
    cells = [f'{value:.9g}' if isinstance(value, float) else str(value) for value in values]
    return ','.join([*cells, _checksum([*header, CHECKSUM], cells)]) + '\n'


def _checksum(titles: Sequence[str], cells: Sequence[str]) -> str:
    return f'{zlib.crc32(",".join([*titles, *cells]).encode()):08x}'


def write_answers(folder: Path, scores: Mapping[str, np.ndarray]) -> None:
    """Keeps the scores at a run's end of the examples of each split but the training one: [N] each, as bits where they
    say which answers are right (bool), else as float32."""
    kept = {name: score_N for name, score_N in scores.items() if name != 'train'}
    packed = {name: np.packbits(of) if of.dtype == bool else of.astype('<f4') for name, of in kept.items()}
    write_json(folder / 'answers.json', {name: [len(kept[name]), of.tobytes().hex()] for name, of in packed.items()})


def read_answers(folder: Path, split: str) -> np.ndarray:
    """Likewise, of one split. UserError if that was not kept."""
    path = folder / 'answers.json'
    try:
        n, packed = read_json(path, split)[split]
        content = bytes.fromhex(packed)
        if len(content) != -(-n // 8):
            return np.frombuffer(content, '<f4', count=n)
        return np.unpackbits(np.frombuffer(content, np.uint8), count=n).astype(bool)
    except (TypeError, ValueError) as error:
        raise UserError(f'workdir: {path} is damaged: {error}; restore it or use another workdir') from error


def status(rows: Sequence[Row], updates: int) -> Status:
    """A run diverged when its loss, a score of the user's own, or its weights stopped being finite; it is done after
    all its updates."""
    watched = ('train_loss', 'train_score', 'validation_loss', 'validation_score', 'distance')
    if rows and not all(math.isfinite(rows[-1].get(column, 0)) for column in watched):
        return 'diverged'
    return 'done' if rows and rows[-1]['update'] == updates else 'running'


class Record(NamedTuple):
    """What the files say of a run: its run.json and its metrics.csv."""

    about: dict[str, Any]
    rows: list[Row]
    measured: dict[str, float]  # at its end, empty before

    @property
    def name(self) -> str:
        return self.about['name']

    @property
    def status(self) -> Status:
        return status(self.rows, self.about['updates'])


def score_of(records: Iterable[Record]) -> str:
    """What the task's score is called in their columns."""
    names = (name for record in records for row in record.rows for name in row if name.startswith(SCORED))
    return next((name.partition('_')[2] for name in names if not name.endswith(('_loss', '_seconds'))), 'accuracy')


def read_records(workdir: Path) -> list[Record]:
    """Reads all runs of a workdir, by batch size, then name; a folder that was renamed or copied is none."""
    records = []
    for path in (workdir / 'runs').glob('*/run.json'):
        about = read_json(path, 'name', 'recipe', 'seed', 'n', 'updates', 'examples', 'fields', 'stages')
        if about['name'] == path.parent.name:
            measured = path.parent / 'measurements.json'
            values = read_json(measured) if measured.exists() else {}
            records.append(Record(about, read(path.parent / 'metrics.csv'), values))
    return sorted(records, key=lambda r: (r.about['stages'][0]['batch_size'], r.about['recipe'], r.about['seed']))
