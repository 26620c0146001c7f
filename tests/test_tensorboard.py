"""The event files hold what metrics.csv and run.json hold, nothing twice, at any moment."""

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
from conftest import ROOT, tiny
from tensorboardX.proto import api_pb2, event_pb2, plugin_hparams_pb2
from tensorboardX.record_writer import masked_crc32c

from bsgap import config, metrics, tensorboard, train

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


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done, one that diverged and one with two stages; some rows lack the train and test split."""
    folder = tmp_path_factory.mktemp('study')
    grow = (
        {'epochs': 1, 'batch_size': 50, 'learning_rate': 0.1},
        {'epochs': 1, 'batch_size': 100, 'learning_rate': 0.1},
    )
    settings = tiny(seeds=1, batch_size=(100,), learning_rate=(0.1, 1e8), recipes={'grow': {'stages': grow}})
    settings.validation, settings.noise_scale = 0.1, True
    settings.evaluate_at, settings.validate_at = (0, 4), (2, 5)
    train.train(settings, folder)
    return folder


@pytest.fixture
def records(trained: Path) -> dict[str, metrics.Record]:
    return {record.about['name']: record for record in metrics.read_runs(trained)}


def event_files(workdir: Path, name: str) -> list[Path]:
    """In the order in which TensorBoard reads them."""
    return sorted((workdir / 'tensorboard' / name).iterdir())


def events(workdir: Path, name: str) -> Iterator[Any]:
    """All events of a run; the file must hold whole records and nothing else."""
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


def hparams(workdir: Path, name: str) -> dict[str, list[Any]]:
    """What there is for TensorBoard's table of settings, by kind."""
    found = defaultdict(list)
    for event in events(workdir, name):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == 'hparams':
                content = plugin_hparams_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
                kind = content.WhichOneof('data')
                assert value.tag == f'_hparams_/{kind}'
                found[kind].append(getattr(content, kind))
    return dict(found)


def status(workdir: Path, name: str) -> list[str]:
    return [api_pb2.Status.Name(ended.status) for ended in hparams(workdir, name).get('session_end_info', [])]


def assert_rows(workdir: Path, name: str, rows: list[metrics.Row]) -> None:
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
        np.testing.assert_array_equal(np.float32(values), np.float32(found_values), tag)


def test_the_scalars_are_the_rows(trained: Path, records: dict[str, metrics.Record]) -> None:
    assert {record.status for record in records.values()} == {'done', 'diverged'}
    assert any(len(row) != len(records['grow-seed0'].rows[0]) for row in records['grow-seed0'].rows)
    assert {column for record in records.values() for row in record.rows for column in row} - {'update'} == {*TAGS}
    tensorboard.write(trained)
    for name, record in records.items():
        assert_rows(trained, name, record.rows)


def test_what_is_not_finite_is_shown_as_it_is(trained: Path, records: dict[str, metrics.Record]) -> None:
    tensorboard.write(trained)
    (name,) = (name for name, record in records.items() if record.status == 'diverged')
    last = {tag: pairs[-1][1] for tag, pairs in scalars(trained, name).items()}
    assert not np.isfinite([last['loss/train'], last['distance']]).any()
    assert 'grad_norm' in last
    assert status(trained, name) == ['STATUS_FAILURE']


def test_numbers_beyond_float32_and_a_gradient_that_is_nan(tmp_path: Path, records: dict[str, metrics.Record]) -> None:
    board, record = tensorboard.Board(tmp_path), records['grow-seed0']
    nan = float('nan')
    board.start(record.about, [{'update': 3, 'train_loss': 1e300, 'grad_norm': nan, 'distance': nan}])
    found = scalars(tmp_path, 'grow-seed0')
    assert found['loss/train'] == [(3, float('inf'))]
    assert found.keys() == {'loss/train', 'grad_norm', 'distance'}


def test_each_row_is_there_as_soon_as_it_is_added(tmp_path: Path, records: dict[str, metrics.Record]) -> None:
    board = tensorboard.Board(tmp_path)
    for name, record in records.items():
        board.start(record.about, record.rows[:1])
        for i, row in enumerate(record.rows[1:], start=2):
            board.add(name, row)
            assert_rows(tmp_path, name, record.rows[:i])
        board.end(record.about, record.rows)
        assert_rows(tmp_path, name, record.rows)


def test_a_resumed_run_keeps_only_the_rows_it_has(tmp_path: Path, records: dict[str, metrics.Record]) -> None:
    """Also for a TensorBoard that is open: it goes on to a file of a later name, which begins with a restart."""
    record = records['grow-seed0']
    tensorboard.Board(tmp_path).start(record.about, record.rows)
    for kept in (3, 1, 2):
        before = event_files(tmp_path, 'grow-seed0')
        board = tensorboard.Board(tmp_path)
        board.start(record.about, record.rows[:kept])
        assert_rows(tmp_path, 'grow-seed0', record.rows[:kept])
        board.add('grow-seed0', record.rows[kept])
        assert_rows(tmp_path, 'grow-seed0', record.rows[: kept + 1])
        *old, new = event_files(tmp_path, 'grow-seed0')
        assert old == before[-1:]
        assert old[0].stat().st_size == 0
        assert new > before[-1]
        first, second, *_ = events(tmp_path, 'grow-seed0')
        assert first.file_version == 'brain.Event:2'
        assert (second.session_log.status, second.step) == (event_pb2.SessionLog.START, 0)


def test_the_settings_are_those_of_run_json(tmp_path: Path, records: dict[str, metrics.Record]) -> None:
    board = tensorboard.Board(tmp_path)
    shown = {}
    for name, record in records.items():
        board.start(record.about, [])
        found = hparams(tmp_path, name)
        assert found.keys() == {'session_start_info'}  # an experiment would hide what other runs have
        (begun,) = found['session_start_info']
        shown[name] = {key: getattr(value, value.WhichOneof('kind')) for key, value in begun.hparams.items()}
        plain = {k: v for k, v in record.about['fields'].items() if isinstance(v, bool | int | float | str)}
        assert plain.items() <= shown[name].items()
        assert shown[name].keys() == record.about['fields'].keys() | {'recipe', 'seed', 'batch_size', 'learning_rate'}
        assert (shown[name]['recipe'], shown[name]['seed']) == (record.about['recipe'], 0)
        assert (shown[name]['nesterov'], shown[name]['optimizer'], shown[name]['hidden']) == (False, 'sgd', '[16]')
        assert shown[name]['nesterov'] is False
    assert shown['bs100-lr0.1-seed0']['batch_size'] == 100
    assert shown['grow-seed0']['batch_size'] == 50


def test_a_setting_that_is_unset_is_not_shown(tmp_path: Path, records: dict[str, metrics.Record]) -> None:
    about = records['grow-seed0'].about
    about = {**about, 'fields': {**about['fields'], 'subset': None}}
    tensorboard.Board(tmp_path).start(about, [])
    (begun,) = hparams(tmp_path, 'grow-seed0')['session_start_info']
    assert 'subset' not in begun.hparams
    assert 'hidden' in begun.hparams


def test_a_run_has_ended_once_it_is_done(tmp_path: Path, records: dict[str, metrics.Record]) -> None:
    """However often it is written."""
    board, record = tensorboard.Board(tmp_path), records['grow-seed0']
    board.start(record.about, record.rows[:2])
    board.end(record.about, record.rows[:2])
    assert status(tmp_path, 'grow-seed0') == []
    written = []
    for _ in range(2):
        board.start(record.about, record.rows)
        board.end(record.about, record.rows)
        assert status(tmp_path, 'grow-seed0') == ['STATUS_SUCCESS']
        written.append([])
        for event in events(tmp_path, 'grow-seed0'):
            event.ClearField('wall_time')
            written[-1].append(event)
    assert written[0] == written[1]


def test_the_last_values_are_those_of_the_last_row_that_has_them(
    trained: Path, records: dict[str, metrics.Record]
) -> None:
    """TensorBoard's table of settings takes them from the scalars."""
    tensorboard.write(trained)
    record = records['grow-seed0']
    assert 'gap' not in record.rows[-1]
    last = record.full.rows[-1]
    found = scalars(trained, 'grow-seed0')
    for column in ('gap', 'train_accuracy', 'test_accuracy'):
        assert found[TAGS[column]][-1] == (last['update'], np.float32(last[column]))
    assert found['accuracy/validation'][-1][0] == record.about['updates']


def test_runs_are_written_from_several_threads(tmp_path: Path, records: dict[str, metrics.Record]) -> None:
    board, record = tensorboard.Board(tmp_path), records['grow-seed0']
    rows: dict[str, list[metrics.Row]] = {
        f'run{i}': [{**record.rows[1], 'update': u, 'distance': i} for u in range(1, 100)] for i in range(8)
    }

    def one(name: str) -> None:
        board.start({**record.about, 'name': name}, rows[name][:1])
        for row in rows[name][1:]:
            board.add(name, row)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, rows))
    for name in rows:
        assert_rows(tmp_path, name, rows[name])


def test_without_tensorboardx_the_field_and_the_way_out_are_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with pytest.raises(
        config.UserError, match=r"^config\.tensorboard: .*python -m pip install -e '\.\[tensorboard\]'$"
    ):
        tensorboard.Board(trained)


def test_the_command_writes_all_runs(trained: Path, records: dict[str, metrics.Record]) -> None:
    for name in records:
        for path in (trained / 'tensorboard' / name).glob('*'):
            path.unlink()
    done = subprocess.run(
        [sys.executable, '-m', 'bsgap.tensorboard', str(trained)], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'tensorboard --logdir {trained}/tensorboard\n'
    for name, record in records.items():
        assert_rows(trained, name, record.rows)


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ([], 'usage: python -m bsgap.tensorboard WORKDIR'),
        (['a', 'b'], 'usage'),
        (['nowhere'], 'nowhere holds no study'),
        (['blocked'], 'blocked cannot be written'),
    ],
)
def test_what_the_command_cannot_do_is_said_in_one_line(
    arguments: list[str],
    says: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    blocked = tmp_path / 'blocked'
    blocked.mkdir()
    (blocked / 'study.json').write_bytes((trained / 'study.json').read_bytes())
    (blocked / 'runs').symlink_to(trained / 'runs')
    (blocked / 'tensorboard').write_text('a file where the folder should be')
    monkeypatch.setattr(sys, 'argv', ['tensorboard.py', *arguments])
    with pytest.raises(SystemExit) as exited:
        tensorboard.main()
    error = capsys.readouterr().err
    assert exited.value.code == 2
    assert error.startswith('error: ')
    assert says in error
    assert len(error.splitlines()) == 1
