"""The event files hold what metrics.csv and run.json hold, nothing twice, whenever a run is saved."""

import concurrent.futures
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, tiny
from launching import After
from tensorboardX.proto import event_pb2, plugin_hparams_pb2
from tensorboardX.record_writer import masked_crc32c

import bsgap
from bsgap import config
from bsgap.errors import UserError
from bsgap.launch.tensorboard import Board, write
from bsgap.training.cohort import Member
from bsgap.training.rows import Record, Row, read_records
from bsgap.training.runs import Run, cross

pytestmark = pytest.mark.usefixtures('compiled_once')
TAGS = {
    'epoch': 'epoch',
    'examples': 'examples',
    'batch_size': 'batch_size',
    'learning_rate': 'learning_rate',
    'learning_rate_sum': 'learning_rate_sum',
    'train_loss': 'loss/train',
    'train_accuracy': 'accuracy/train',
    'validation_loss': 'loss/validation',
    'validation_accuracy': 'accuracy/validation',
    'test_loss': 'loss/test',
    'test_accuracy': 'accuracy/test',
    'gap': 'accuracy/gap',
    'distance': 'distance',
    'grad_norm': 'grad_norm',
    'gradient_square': 'noise/gradient_square',
    'gradient_variance': 'noise/gradient_variance',
    'train_seconds': 'seconds/train',
    'eval_seconds': 'seconds/eval',
}


def settings() -> Any:
    """A run that is done, one that diverges and one with two stages; some rows lack the train and test split."""
    two = (
        {'updates': 1, 'batch_size': 100, 'learning_rate': 0.2},
        {'updates': 5, 'batch_size': 100, 'learning_rate': 0.1},
    )
    recipes = {'two': {'stages': two}, 'alone': {'batch_size': 100, 'evaluate_on': 'validation'}}
    study = tiny(seeds=1, batch_size=(100,), learning_rate=(0.1, 1e8), recipes=recipes)
    study.validation, study.noise_scale = 0.1, True
    study.evaluate_at = (0, 2, 4, 5)
    study.tensorboard, study.checkpoint_seconds = True, 0.0
    return study


@pytest.fixture(scope='module')
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained with TensorBoard beside it, and interrupted once."""
    folder = tmp_path_factory.mktemp('study')

    def fail() -> None:
        raise UserError('stop')

    with pytest.raises(UserError):
        bsgap.train(settings(), folder, [After('evaluated', 5, fail)])
    bsgap.train(settings(), folder)
    return folder


@pytest.fixture(scope='module')
def records(watched: Path) -> dict[str, Record]:
    return {record.name: record for record in read_records(watched)}


@pytest.fixture(scope='module')
def runs() -> dict[str, Run]:
    study = config.resolve(settings())
    return {run.name: run for run in cross(study, {study.recipes[0].training_set: 300})}


def member(run: Run, rows: list[Row]) -> Member:
    last = int(rows[-1]['update']) if rows else 0
    return Member(run, Path(), None, rows, update=last)  # type: ignore[arg-type]


def event_files(workdir: Path, name: str) -> list[Path]:
    """In the order in which TensorBoard reads them."""
    return sorted((workdir / 'tensorboard' / name).iterdir())


def events(workdir: Path, name: str) -> Iterator[Any]:
    """All events of a run; the files must hold whole records and nothing else."""
    for path in event_files(workdir, name):
        content = path.read_bytes()
        while content:
            (length,), parts = struct.unpack('<Q', content[:8]), []
            for size in (8, length):
                part, crc, content = content[:size], content[size : size + 4], content[size + 4 :]
                assert struct.unpack('<I', crc) == (masked_crc32c(part),)
                parts.append(part)
            yield event_pb2.Event.FromString(parts[1])


def scalars(workdir: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of each tag."""
    found = defaultdict(list)
    for event in events(workdir, name):
        for value in event.summary.value:
            if value.HasField('simple_value'):
                found[value.tag].append((event.step, value.simple_value))
    return dict(found)


def shown_settings(workdir: Path, name: str) -> dict[str, Any]:
    """What there is for TensorBoard's table of settings."""
    found = []
    for event in events(workdir, name):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == 'hparams':
                content = plugin_hparams_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
                if content.HasField('session_start_info'):
                    found.append(content.session_start_info.hparams)
    (hparams,) = found
    return {key: getattr(value, value.WhichOneof('kind')) for key, value in hparams.items()}


def assert_rows(workdir: Path, name: str, rows: list[Row], rtol: float = 0.0) -> None:
    """The scalars of a run are `rows`, to float32, in their order; what was not measured is not there."""
    want = defaultdict(list)
    for row in rows:
        for column, value in row.items():
            if column != 'update' and not (column == 'grad_norm' and row['update'] == 0):
                want[TAGS[column]].append((row['update'], value))
    found = scalars(workdir, name)
    assert found.keys() == want.keys()
    for tag, pairs in want.items():
        (steps, values), (found_steps, found_values) = zip(*pairs, strict=True), zip(*found[tag], strict=True)
        assert steps == found_steps, tag
        np.testing.assert_allclose(np.float32(found_values), np.float32(values), rtol, err_msg=tag)


def test_the_scalars_are_the_rows_live_and_from_the_files(watched: Path, records: dict[str, Record]) -> None:
    assert {record.status for record in records.values()} == {'done', 'diverged'}
    assert any(len(row) != len(records['two-seed0'].rows[0]) for row in records['two-seed0'].rows)
    assert {column for record in records.values() for row in record.rows for column in row} - {'update'} == {*TAGS}
    for name, record in records.items():
        assert_rows(watched, name, record.rows, rtol=1e-6)  # metrics.csv has nine digits
    for _ in range(2):
        write(watched)
        for name, record in records.items():
            assert_rows(watched, name, record.rows)


def test_what_is_not_finite_is_shown_as_it_is(watched: Path, records: dict[str, Record]) -> None:
    (name,) = (name for name, record in records.items() if record.status == 'diverged')
    last = {tag: pairs[-1][1] for tag, pairs in scalars(watched, name).items()}
    assert not np.isfinite([last['loss/train'], last['distance']]).any()
    assert 'grad_norm' in last


def test_numbers_beyond_float32_and_a_gradient_that_is_nan(tmp_path: Path, records: dict[str, Record]) -> None:
    nan = float('nan')
    row = {'update': 3, 'train_loss': 1e300, 'grad_norm': nan, 'distance': nan}
    Board(tmp_path).begin(records['two-seed0'].about, [row])
    found = scalars(tmp_path, 'two-seed0')
    assert found['loss/train'] == [(3, float('inf'))]
    assert found.keys() == {'loss/train', 'grad_norm', 'distance'}


def test_rows_are_there_when_they_are_saved(tmp_path: Path, records: dict[str, Record], runs: dict[str, Run]) -> None:
    """Several times a second too; and of a run that ends or diverges at once."""
    board = Board(tmp_path)
    for name, record in records.items():
        rows = record.rows[:1]
        board.began([made := member(runs[name], rows)])
        assert_rows(tmp_path, name, rows)
        for i, row in enumerate(record.rows[1:], start=2):
            rows.append(row)
            made.update = int(row['update'])
            board.evaluated([made])
            if i == len(record.rows):
                assert_rows(tmp_path, name, record.rows)
            board.saved([made])
            assert_rows(tmp_path, name, record.rows[:i])
    assert {name: len(record.rows) for name, record in records.items()}['two-seed0'] > 3


def test_a_resumed_run_keeps_only_the_rows_it_has(
    tmp_path: Path, records: dict[str, Record], runs: dict[str, Run]
) -> None:
    name, rows = 'two-seed0', records['two-seed0'].rows
    Board(tmp_path).began([member(runs[name], list(rows))])
    for kept in (3, 1, 2):
        board = Board(tmp_path)
        board.began([made := member(runs[name], rows[:kept])])
        assert_rows(tmp_path, name, rows[:kept])
        made.rows.append(rows[kept])
        board.saved([made])
        assert_rows(tmp_path, name, rows[: kept + 1])


def test_the_settings_are_those_of_run_json(tmp_path: Path, records: dict[str, Record]) -> None:
    board = Board(tmp_path)
    shown = {}
    for name, record in records.items():
        board.begin(record.about, [])
        shown[name] = shown_settings(tmp_path, name)
        plain = {k: v for k, v in record.about['fields'].items() if isinstance(v, bool | int | float | str)}
        assert plain.items() <= shown[name].items()
        assert shown[name].keys() == record.about['fields'].keys() | {'recipe', 'seed', 'batch_size', 'learning_rate'}
        assert (shown[name]['recipe'], shown[name]['seed']) == (record.about['recipe'], 0)
        assert (shown[name]['nesterov'], shown[name]['optimizer'], shown[name]['hidden']) == (False, 'sgd', '[16]')
        assert shown[name]['nesterov'] is False
    assert {made['batch_size'] for made in shown.values()} == {100}
    assert [shown[name]['learning_rate'] for name in ('bs100-lr0.1-seed0', 'two-seed0')] == [0.1, 0.2]


def test_a_setting_that_is_unset_is_not_shown(tmp_path: Path, records: dict[str, Record]) -> None:
    about = records['two-seed0'].about
    Board(tmp_path).begin({**about, 'fields': {**about['fields'], 'subset': None}}, [])
    shown = shown_settings(tmp_path, 'two-seed0')
    assert 'subset' not in shown
    assert 'hidden' in shown


def test_a_run_may_be_written_as_often_as_one_likes(tmp_path: Path, records: dict[str, Record]) -> None:
    written: list[list[Any]] = []
    for _ in range(2):
        Board(tmp_path).begin(records['two-seed0'].about, records['two-seed0'].rows)
        written.append(list(events(tmp_path, 'two-seed0')))
        for event in written[-1]:
            event.ClearField('wall_time')
    assert written[0] == written[1]


def test_what_was_not_measured_is_not_shown(watched: Path, records: dict[str, Record]) -> None:
    assert 'gap' not in records['alone-seed0'].rows[-1]
    found = scalars(watched, 'alone-seed0')
    assert not {TAGS[column] for column in ('gap', 'train_accuracy', 'test_accuracy')} & set(found)
    assert found['accuracy/validation'][-1][0] == records['alone-seed0'].about['updates']


def test_several_threads_write_at_once(tmp_path: Path, runs: dict[str, Run], records: dict[str, Record]) -> None:
    board, row = Board(tmp_path), records['two-seed0'].rows[1]
    rows: dict[str, list[Row]] = {name: [{**row, 'update': u, 'distance': u} for u in range(1, 30)] for name in runs}

    def one(name: str) -> None:
        board.began([made := member(runs[name], rows[name][:1])])
        for row in rows[name][1:]:
            made.rows.append(row)
            board.saved([made])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, rows))
    for name in rows:
        assert_rows(tmp_path, name, rows[name])


def test_without_tensorboardx_the_field_and_the_way_out_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with pytest.raises(UserError, match=r"^config\.tensorboard: .*python -m pip install -e '\.\[tensorboard\]'$"):
        bsgap.train(settings(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_all_runs(watched: Path, records: dict[str, Record]) -> None:
    for name in records:
        for path in (watched / 'tensorboard' / name).glob('*'):
            path.unlink()
    command = [sys.executable, '-m', 'bsgap.launch.tensorboard', str(watched)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'tensorboard --logdir {watched}/tensorboard\n'
    for name, record in records.items():
        assert_rows(watched, name, record.rows)


def test_what_the_command_cannot_do_is_said_in_one_line(watched: Path, tmp_path: Path) -> None:
    blocked = tmp_path / 'blocked'
    blocked.mkdir()
    (blocked / 'study.json').write_bytes((watched / 'study.json').read_bytes())
    (blocked / 'runs').symlink_to(watched / 'runs')
    (blocked / 'tensorboard').write_text('a file where the folder should be')
    for workdir, says in (('nowhere', 'nowhere holds no study'), (blocked, 'blocked cannot be used: ')):
        with pytest.raises(UserError, match=says):
            write(workdir)
    command = [sys.executable, '-m', 'bsgap.launch.tensorboard', 'a', 'b']
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'error: usage: python -m bsgap.launch.tensorboard WORKDIR\n'
