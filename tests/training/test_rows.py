"""The files of numbers, by hand."""

import shutil
from pathlib import Path

import pytest

from bsgap.errors import UserError
from bsgap.files import write_json
from bsgap.training import rows

HEADER = rows.columns(['train', 'test'], 'accuracy')


def row(update: int, **changes: float) -> rows.Row:
    values = dict.fromkeys(HEADER, 0.5)
    return {**values, 'update': update, 'examples': 10 * update, 'batch_size': 10, **changes}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / 'metrics.csv'
    written = [row(0, train_loss=1 / 3), row(5, test_accuracy=0.1234567), row(9, distance=1e-9)]
    rows.write(path, written[:2], HEADER)
    rows.append(path, written[2], HEADER)
    for read, wrote in zip(rows.read(path), written, strict=True):
        assert read == pytest.approx(wrote, rel=1e-8)
        assert isinstance(read['update'], int)


@pytest.mark.parametrize('tail', ['1,2', '1,2,3\n', 'x' * 50 + '\n', '\x00\n', '\n'])
def test_reading_stops_at_the_first_line_that_is_not_whole(tmp_path: Path, tail: str) -> None:
    path = tmp_path / 'metrics.csv'
    rows.write(path, [row(0), row(5)], HEADER)
    with path.open('a') as file:
        file.write(tail)
    assert [r['update'] for r in rows.read(path)] == [0, 5]


def test_no_flipped_bit_is_read_as_another_number(tmp_path: Path) -> None:
    """Each bit of the file in turn: what is left is the rows before it, and nothing else."""
    path = tmp_path / 'metrics.csv'
    rows.write(path, [row(0, train_loss=1 / 3), row(5)], HEADER)
    whole, written = path.read_bytes(), rows.read(path)
    last_row = whole[:-1].rindex(b'\n') + 1
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert rows.read(path) == written[: place >= last_row], (place, bit)


def test_what_was_not_measured_is_blank_and_not_read(tmp_path: Path) -> None:
    header = rows.columns(['train', 'validation', 'test'], 'accuracy')
    dense = {'update': 5, 'examples': 50, 'batch_size': 10, 'validation_accuracy': 0.25, 'distance': 1.0}
    rows.write(tmp_path / 'metrics.csv', [dense], header)
    assert rows.read(tmp_path / 'metrics.csv') == [dense]


def test_no_file_and_an_empty_file_have_no_rows(tmp_path: Path) -> None:
    assert rows.read(tmp_path / 'metrics.csv') == []
    (tmp_path / 'metrics.csv').write_text('')
    assert rows.read(tmp_path / 'metrics.csv') == []


def test_status() -> None:
    nan, inf = float('nan'), float('inf')
    assert rows.status([], 9) == 'running'
    assert rows.status([row(0), row(5)], 9) == 'running'
    assert rows.status([row(0), row(9)], 9) == 'done'
    assert rows.status([row(0), row(5, train_loss=nan)], 9) == 'diverged'
    assert rows.status([row(0), row(9, distance=inf)], 9) == 'diverged'


def test_records_are_read_in_order_and_a_copied_folder_is_none(tmp_path: Path) -> None:
    """By the batch size at the start, recipe and seed."""
    for batch_size, recipe, seed in ((100, 'a', 0), (8, 'c', 10), (8, 'c', 9), (8, 'b', 0)):
        name = f'{recipe}-seed{seed}'
        about = {'name': name, 'recipe': recipe, 'seed': seed, 'n': 300, 'updates': 9, 'examples': 90, 'fields': {}}
        folder = tmp_path / 'runs' / name
        folder.mkdir(parents=True)
        write_json(folder / 'run.json', {**about, 'stages': [{'batch_size': batch_size}]})
    rows.write(tmp_path / 'runs' / 'c-seed9' / 'metrics.csv', [row(0), row(5)], HEADER)
    write_json(tmp_path / 'runs' / 'c-seed10' / 'measurements.json', {'sharpness_0.1': 0.25})
    shutil.copytree(tmp_path / 'runs' / 'a-seed0', tmp_path / 'runs' / 'a-seed0 copy')
    records = rows.read_records(tmp_path)
    assert [record.name for record in records] == ['b-seed0', 'c-seed9', 'c-seed10', 'a-seed0']
    assert [record.status for record in records] == ['running', 'running', 'running', 'running']
    assert [len(record.rows) for record in records] == [0, 2, 0, 0]
    assert [record.measured for record in records] == [{}, {}, {'sharpness_0.1': 0.25}, {}]
    (tmp_path / 'runs' / 'b-seed0' / 'run.json').write_text('{"name": "b-seed0"}')
    with pytest.raises(UserError, match=r'b-seed0/run.json is damaged'):
        rows.read_records(tmp_path)


def test_a_workdir_without_runs_has_no_records(tmp_path: Path) -> None:
    assert rows.read_records(tmp_path) == []
