"""The files of numbers, by hand."""

from pathlib import Path

import numpy as np
import pytest

from bsgap import metrics

HEADER = metrics.columns(['train', 'test'])


def row(update: int, **changes: float) -> metrics.Row:
    values = dict.fromkeys(HEADER, 0.5)
    return {**values, 'update': update, 'examples': 10 * update, 'batch_size': 10, **changes}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / 'metrics.csv'
    rows = [row(0, train_loss=1 / 3), row(5, test_accuracy=0.1234567), row(9, distance=1e-9)]
    metrics.write(path, rows[:2], HEADER)
    metrics.append(path, rows[2], HEADER)
    for read, written in zip(metrics.read(path), rows, strict=True):
        assert read == pytest.approx(written, rel=1e-8)
        assert isinstance(read['update'], int)


@pytest.mark.parametrize('tail', ['1,2', '1,2,3\n', 'x' * 50 + '\n', '\x00\n', '\n'])
def test_reading_stops_at_the_first_line_that_is_not_whole(tmp_path: Path, tail: str) -> None:
    path = tmp_path / 'metrics.csv'
    metrics.write(path, [row(0), row(5)], HEADER)
    with path.open('a') as file:
        file.write(tail)
    assert [r['update'] for r in metrics.read(path)] == [0, 5]


def test_no_flipped_bit_is_read_as_another_number(tmp_path: Path) -> None:
    """Each bit of the file in turn: what is left is the rows before it, and nothing else."""
    path = tmp_path / 'metrics.csv'
    metrics.write(path, [row(0, train_loss=1 / 3), row(5)], HEADER)
    whole, rows = path.read_bytes(), metrics.read(path)
    last_row = whole[:-1].rindex(b'\n') + 1
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert metrics.read(path) == rows[: place >= last_row], (place, bit)


def test_what_was_not_measured_is_blank_and_not_read(tmp_path: Path) -> None:
    header = metrics.columns(['train', 'validation', 'test'])
    dense = {'update': 5, 'examples': 50, 'batch_size': 10, 'validation_accuracy': 0.25, 'distance': 1.0}
    metrics.write(tmp_path / 'metrics.csv', [dense], header)
    assert metrics.read(tmp_path / 'metrics.csv') == [dense]
    about = {'name': 'a-seed1', 'recipe': 'a', 'seed': 1, 'updates': 9, 'stages': []}
    record = metrics.Record(about, [row(0), dense, row(9)], {})
    assert [r['update'] for r in record.full.rows] == [0, 9]


def test_a_run_that_a_search_stopped_is_not_running() -> None:
    about = {'name': 'a-seed1', 'recipe': 'a', 'seed': 1, 'updates': 9, 'stages': []}
    nan = float('nan')
    assert metrics.Record(about, [row(5)], {}, stopped=True).status == 'stopped'
    assert metrics.Record(about, [row(9)], {}, stopped=True).status == 'done'
    assert metrics.Record(about, [{'update': 5, 'validation_loss': nan}], {}, stopped=True).status == 'diverged'


def test_no_file_and_an_empty_file_have_no_rows(tmp_path: Path) -> None:
    assert metrics.read(tmp_path / 'metrics.csv') == []
    (tmp_path / 'metrics.csv').write_text('')
    assert metrics.read(tmp_path / 'metrics.csv') == []


def test_status() -> None:
    nan, inf = float('nan'), float('inf')
    assert metrics.status([], 9) == 'running'
    assert metrics.status([row(0), row(5)], 9) == 'running'
    assert metrics.status([row(0), row(9)], 9) == 'done'
    assert metrics.status([row(0), row(5, train_loss=nan)], 9) == 'diverged'
    assert metrics.status([row(0), row(9, distance=inf)], 9) == 'diverged'


def test_arrays_are_the_rows_of_all_runs_as_columns() -> None:
    """Of one run that was validated in between and grew its batch, and of one that diverged at once."""
    stages = [{'batch_size': 10, 'learning_rate': 0.1}, {'batch_size': 20, 'learning_rate': 0.2}]
    about = {'name': 'grow-seed1', 'recipe': 'grow', 'seed': 1, 'updates': 9, 'stages': stages}
    dense = {'update': 5, 'examples': 50, 'batch_size': 20, 'validation_loss': 2.0, 'validation_accuracy': 0.25}
    grown = metrics.Record(about, [row(0), dense, row(9, examples=130, batch_size=20)], {})
    flat = {'name': 'flat-seed0', 'recipe': 'flat', 'seed': 0, 'updates': 9, 'stages': stages[1:]}
    diverged = metrics.Record(flat, [row(1, batch_size=20, learning_rate=0.2, train_loss=float('inf'))], {})
    columns = metrics.arrays([grown, diverged])
    first = ['run', 'recipe', 'status', 'seed', 'start_batch_size', 'start_learning_rate']
    assert list(columns) == first + metrics.columns(['train', 'validation', 'test'])
    whole = {'seed', 'start_batch_size', 'update', 'examples', 'batch_size'}
    for name, column in columns.items():
        assert column.shape == (4,)
        assert column.dtype.kind == ('U' if name in first[:3] else 'i' if name in whole else 'f'), name
    nan = float('nan')
    for name, expected in {
        'run': ['grow-seed1'] * 3 + ['flat-seed0'],
        'recipe': ['grow'] * 3 + ['flat'],
        'status': ['done'] * 3 + ['diverged'],
        'seed': [1, 1, 1, 0],
        'start_batch_size': [10, 10, 10, 20],
        'start_learning_rate': [0.1, 0.1, 0.1, 0.2],
        'update': [0, 5, 9, 1],
        'examples': [0, 50, 130, 10],
        'batch_size': [10, 20, 20, 20],
        'learning_rate': [0.5, nan, 0.5, 0.2],
        'train_loss': [0.5, nan, 0.5, float('inf')],
        'validation_accuracy': [nan, 0.25, nan, nan],
        'test_accuracy': [0.5, nan, 0.5, 0.5],
    }.items():
        np.testing.assert_array_equal(columns[name], expected, err_msg=name)


def test_arrays_of_no_rows_have_the_same_columns() -> None:
    assert [list(column) for column in metrics.arrays([]).values()] == [[]] * len(metrics.arrays([]))
    assert set(metrics.arrays([])) > set(HEADER)


def test_results_hold_the_last_row_or_blanks(tmp_path: Path) -> None:
    stage = {'batch_size': 7, 'learning_rate': 0.1, 'momentum': 0.9}
    about = {'name': 'a-seed1', 'recipe': 'a', 'seed': 1, 'updates': 9, 'stages': [stage]}
    done = metrics.Record(about, [row(0), row(9, train_seconds=2.0, eval_seconds=0.25)], {})
    new = metrics.Record({**about, 'name': 'b-seed1', 'recipe': 'b'}, [], {})
    metrics.write_results(tmp_path, [done, new])
    lines = (tmp_path / 'results.csv').read_text().splitlines()
    assert lines[1] == 'a-seed1,a,10,0.5,0.9,1,0.5,9,90,0.5,0.5,,0.5,0.5,0.5,done,2.25'
    assert lines[2] == 'b-seed1,b,7,0.1,0.9,1,,,,,,,,,,running,'
