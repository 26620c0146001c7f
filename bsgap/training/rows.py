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
NOISE = ('gradient_square', 'gradient_variance')  # blank where they were not measured


def columns(splits: Iterable[str]) -> list[str]:
    """What metrics.csv has for a dataset with these splits, besides the checksum."""
    place = ['epoch', 'update', 'examples', 'batch_size', 'learning_rate', 'learning_rate_sum']
    measured = [f'{split}_{quantity}' for split in splits for quantity in ('loss', 'accuracy')]
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


def write_answers(folder: Path, correct: Mapping[str, np.ndarray]) -> None:
    """Keeps which examples of each split but the training one a run answers correctly at its end: bool [N] each."""
    kept = {name: correct_N for name, correct_N in correct.items() if name != 'train'}
    bits = {name: [len(correct_N), np.packbits(correct_N).tobytes().hex()] for name, correct_N in kept.items()}
    write_json(folder / 'answers.json', bits)


def read_answers(folder: Path, split: str) -> np.ndarray:
    """Likewise, of one split. UserError if that was not kept."""
    path = folder / 'answers.json'
    try:
        n, bits = read_json(path, split)[split]
        return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=n).astype(bool)
    except (TypeError, ValueError) as error:
        raise UserError(f'workdir: {path} is damaged: {error}; restore it or use another workdir') from error


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
    measured: dict[str, float]  # at its end, empty before

    @property
    def name(self) -> str:
        return self.about['name']

    @property
    def status(self) -> Status:
        return status(self.rows, self.about['updates'])


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
