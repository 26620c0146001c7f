"""The files of numbers, by hand."""

from pathlib import Path

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


def test_results_hold_the_last_row_or_blanks(tmp_path: Path) -> None:
    stage = {'batch_size': 7, 'learning_rate': 0.1, 'momentum': 0.9}
    about = {'name': 'a-seed1', 'recipe': 'a', 'seed': 1, 'updates': 9, 'stages': [stage]}
    done = metrics.Record(about, [row(0), row(9, train_seconds=2.0, eval_seconds=0.25)], {})
    new = metrics.Record({**about, 'name': 'b-seed1', 'recipe': 'b'}, [], {})
    metrics.write_results(tmp_path, [done, new])
    lines = (tmp_path / 'results.csv').read_text().splitlines()
    assert lines[1] == 'a-seed1,a,10,0.5,0.9,1,0.5,9,90,0.5,0.5,,0.5,0.5,0.5,done,2.25'
    assert lines[2] == 'b-seed1,b,7,0.1,0.9,1,,,,,,,,,,running,'
