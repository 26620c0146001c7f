"""Interrupted and resumed equals uninterrupted, leaf for leaf and row for row; damage costs time, never results."""

import math
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import pytest
from conftest import assert_same, final_leaves, rows, tiny
from flax import nnx

from benchmarks.kill import finish, start
from bsgap import checkpoint, metrics, train
from bsgap import study as study_lib

GROW = {
    'grow': {
        'stages': (
            {'epochs': 1, 'batch_size': 25, 'learning_rate': 0.1},
            {'updates': 25, 'batch_size': 100, 'learning_rate': 0.2},
        ),
        'momentum': 0.9,
    }
}


def settings(checkpoint_seconds: float = 30.0) -> Any:
    """Momentum, two cohorts, one of which changes its batch size, and segments of one update but for the first."""
    changes = {'checkpoint_seconds': checkpoint_seconds, 'segment_seconds': 1e-6}
    return tiny(batch_size=(20,), momentum=(0.9,), epochs=3, recipes=GROW, **changes)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp('uninterrupted')
    train.train(settings(), workdir)
    return workdir


def stop_after(monkeypatch: pytest.MonkeyPatch, segments: int) -> None:
    """Sends this process SIGTERM when that many segments have been made."""
    made = []
    trained = train.progress.View.trained

    def count(self: Any, *arguments: Any) -> None:
        trained(self, *arguments)
        made.append(1)
        if len(made) == segments:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train.progress.View, 'trained', count)


@pytest.mark.parametrize('segments', [1, 8, 30, 60])
def test_stopped_by_a_signal(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, segments: int
) -> None:
    """8 falls into the first stage of the growing recipe, 30 into its second, 60 where it is alone."""
    with monkeypatch.context() as patch:
        stop_after(patch, segments)
        with pytest.raises(train.Interrupted, match='SIGTERM'):
            train.train(settings(), tmp_path)
    made = sum(checkpoint.Checkpoints(folder).updates()[-1:] != [] for folder in tmp_path.glob('runs/*/checkpoints'))
    assert made
    train.train(settings(), tmp_path)
    assert_same(tmp_path, uninterrupted)


class Net(nnx.Module):
    """A model of the user's own, with dropout."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, width: int, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(math.prod(image_shape), width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x_BxI = nnx.relu(self.first(images_BxHxWxC.reshape(len(images_BxHxWxC), -1)))
        return self.last(self.dropout(x_BxI))


def various() -> Any:
    """Batch normalization, dropout, a batch that grows, Adam under a cosine: all that has a state, a key or a place."""
    recipes: dict[str, Any] = {
        'norm': {'batch_norm': True},
        'ghost': {
            'batch_norm': True,
            'ghost_batch': 16,
            'optimizer': 'adam',
            'learning_rate': 0.01,
            'schedule': 'cosine',
        },
        'grow': {'schedule': 'grow_batch', 'milestones': (1,), 'factor': 3.0, 'momentum': 0.9},
        'own': {'model': 'test_resume:Net', 'model_arguments': {'width': 16}, 'clip': 1.0},
    }
    return tiny(batch_size=(), recipes={k: {'batch_size': 40, **v} for k, v in recipes.items()}, segment_seconds=1e-6)


@pytest.fixture(scope='module')
def various_uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp('various')
    train.train(various(), workdir)
    return workdir


@pytest.mark.parametrize(('segments', 'saved'), [(14, 7), (38, 10)])
def test_models_and_schedules_with_a_state_go_on(
    tmp_path: Path, various_uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, segments: int, saved: int
) -> None:
    """Stopped in the first epoch, and in the second, where the growing recipe is in its second stage."""
    with monkeypatch.context() as patch:
        stop_after(patch, segments)
        with pytest.raises(train.Interrupted):
            train.train(various(), tmp_path)
    assert checkpoint.Checkpoints(tmp_path / 'runs' / 'grow-seed0' / 'checkpoints').updates()[-1] == saved
    train.train(various(), tmp_path)
    assert_same(tmp_path, various_uninterrupted)
    ends = final_leaves(tmp_path)
    assert all(leaf.any() for name, leaf in ends['norm-seed0'].items() if name.startswith('model_state'))
    kinds = {run: {name.split('.')[0] for name in leaves} for run, leaves in ends.items()}
    assert 'model_state' in kinds['norm-seed0'] & kinds['ghost-seed1']
    assert 'model_state' not in kinds['own-seed0']  # dropout has no state: its key is a function of seed and update


def test_stopped_when_one_run_is_at_its_end_and_another_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last row must come all the same."""
    short = tiny(batch_size=(20, 100), epochs=1, segment_seconds=1e-6)
    train.train(short, tmp_path / 'uninterrupted')
    trained = train.progress.View.trained

    def stop(self: Any, seats: Any, *arguments: Any) -> None:
        trained(self, seats, *arguments)
        if seats[0].update == seats[0].run.updates:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(train.progress.View, 'trained', stop)
        with pytest.raises(train.Interrupted):
            train.train(short, tmp_path / 'stopped')
    assert {record.status for record in train.train(short, tmp_path / 'stopped')} == {'done'}
    assert_same(tmp_path / 'stopped', tmp_path / 'uninterrupted')


@pytest.fixture(scope='module')
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir that was left in the second stage of the growing recipe, with checkpoints one segment apart."""
    folder = tmp_path_factory.mktemp('stopped')
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 45)
        with pytest.raises(train.Interrupted):
            train.train(settings(checkpoint_seconds=0.0), folder)
    return folder


@pytest.fixture
def interrupted(tmp_path: Path, stopped: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(stopped, tmp_path / 'interrupted')


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage(last: Path, how: str) -> None:
    data = max((path for path in last.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
    match how:
        case 'flipped byte':
            flip(data)
        case 'truncated file':
            data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        case 'emptied file':
            data.write_bytes(b'')
        case 'empty step folder':
            shutil.rmtree(last)
            last.mkdir()
        case 'no metadata':
            (last / '_CHECKPOINT_METADATA').unlink()
        case 'changed metadata':
            path = last / '_CHECKPOINT_METADATA'
            path.write_text(path.read_text().replace('"train_seconds":', '"train_seconds":1'))


@pytest.mark.parametrize(
    'how', ['flipped byte', 'truncated file', 'emptied file', 'empty step folder', 'no metadata', 'changed metadata']
)
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    interrupted: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    workdir = interrupted
    folder = workdir / 'runs' / 'grow-seed1' / 'checkpoints'
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    assert len(steps) == checkpoint.KEEP
    damage(folder / str(steps[-1]), how)
    capsys.readouterr()
    train.train(settings(), workdir)
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith('warning')]
    assert len(warnings) == 1
    assert f'grow-seed1/checkpoints/{steps[-1]} is damaged' in warnings[0]
    assert_same(workdir, uninterrupted)


def test_a_run_whose_checkpoints_are_all_damaged_starts_anew(interrupted: Path, uninterrupted: Path) -> None:
    workdir = interrupted
    for step_folder in (workdir / 'runs' / 'grow-seed1' / 'checkpoints').iterdir():
        damage(step_folder, 'emptied file')
    train.train(settings(0.0), workdir)
    assert_same(workdir, uninterrupted)


def test_a_cohort_killed_between_two_saves_goes_on_together(
    interrupted: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run's last checkpoint is missing: the other goes back to where that one is."""
    workdir = interrupted
    one, other = (workdir / 'runs' / f'grow-seed{seed}' / 'checkpoints' for seed in (0, 1))
    last = max((path for path in one.iterdir()), key=lambda path: int(path.name))
    shutil.rmtree(last)
    began: dict[str, int] = {}

    def start(_: Any, seats: list[Any]) -> None:
        began.update({seat.run.name: seat.update for seat in seats})

    with monkeypatch.context() as patch:
        patch.setattr(train.progress.View, 'add', start)
        patch.setattr(train.progress.View, 'trained', lambda *_: None)
        patch.setattr(train.progress.View, 'evaluated', lambda *_: None)
        train.train(settings(), workdir)
    assert began['grow-seed0'] == began['grow-seed1'] < int(last.name)
    assert other.exists()
    assert_same(workdir, uninterrupted)


@pytest.mark.parametrize(
    'how', ['half a line', 'a row missing', 'flipped byte', 'emptied', 'deleted', 'changed header']
)
def test_a_damaged_metrics_file_is_made_whole(interrupted: Path, uninterrupted: Path, how: str) -> None:
    workdir = interrupted
    path = workdir / 'runs' / 'grow-seed0' / 'metrics.csv'
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) > 2
    match how:
        case 'half a line':
            path.write_text(''.join(lines[:-1]) + lines[-1][:20])
        case 'a row missing':
            path.write_text(''.join(lines[:1] + lines[2:]))
        case 'flipped byte':
            flip(path)
        case 'emptied':
            path.write_text('')
        case 'deleted':
            path.unlink()
        case 'changed header':
            path.write_text(path.read_text().replace('train_loss', 'train_lost', 1))
    train.train(settings(), workdir)
    assert_same(workdir, uninterrupted)


def test_rows_after_the_restored_update_are_dropped(interrupted: Path, uninterrupted: Path) -> None:
    workdir = interrupted
    for run in ('grow-seed0', 'grow-seed1'):
        folder = workdir / 'runs' / run
        row = {**metrics.read(uninterrupted / 'runs' / run / 'metrics.csv')[-2], 'train_loss': 123.0}
        metrics.append(folder / 'metrics.csv', row, metrics.columns(['train', 'test']))
        assert metrics.read(folder / 'metrics.csv')[-1] == row
    train.train(settings(), workdir)
    assert_same(workdir, uninterrupted)


def test_a_run_folder_deleted_by_hand_is_trained_again(tmp_path: Path, uninterrupted: Path) -> None:
    workdir = tmp_path / 'study'
    shutil.copytree(uninterrupted, workdir)
    shutil.rmtree(workdir / 'runs' / 'grow-seed1')
    train.train(settings(), workdir)
    assert_same(workdir, uninterrupted)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until training has begun."""
    for _ in range(600):
        if path.exists() and len(path.read_text().splitlines()) > 1:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError(f'{path} did not come')


def test_killed_at_random_moments(tmp_path: Path, small: Path) -> None:
    """kill −9 of the real process, three times, then to the end."""
    seed = random.randrange(10**6)
    print(f'seed {seed}')
    rng = random.Random(seed)
    killed = 0
    for _ in range(3):
        (process,) = start(tmp_path)
        wait_for(tmp_path / 'runs' / 'bs1-lr0.01-m0.5-seed0' / 'metrics.csv', process)
        time.sleep(rng.uniform(0, 1.5))
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed
    assert finish(start(tmp_path)) == [0]
    assert_same(tmp_path, small)
    assert len(rows(small)) == 4


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, small: Path) -> None:
    (process,) = start(tmp_path)
    wait_for(tmp_path / 'runs' / 'bs1-lr0.01-m0.5-seed1' / 'metrics.csv', process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    last = errors.splitlines()[-1]
    assert last.startswith('stopped by SIGINT; all runs are saved. To go on: python launch.py')
    assert f'--workdir={tmp_path}' in last
    assert finish(start(tmp_path)) == [0]
    assert_same(tmp_path, small)


def test_where_runs_go_on() -> None:
    """By hand: runs of one cohort, saved every 10 updates, some killed before they were saved with the others."""
    study = train.config.resolve(tiny(batch_size=(10,), seeds=3))
    zero, one, two = study_lib.runs(study, {study.recipes[0].variant: 300})

    def starts(*saved: list[int], mates: tuple[study_lib.Run, ...] = (zero, one, two)) -> list[int]:
        runs = (zero, one, two)[: len(saved)]
        names = [run.name for run in mates]
        return list(study_lib.start_updates(dict(zip(runs, saved, strict=True)), lambda *_: names).values())

    assert starts([10, 20], [10, 20]) == [20, 20]
    assert starts([10, 20], [10]) == [10, 10]
    assert starts([10], []) == [0, 0]  # killed in the very first save
    assert starts([20, 30], [20, 30], [10, 20]) == [20, 20, 20]
    assert starts([20, 30], [10, 20], [10]) == [20, 10, 10]  # two's at 20 was damaged; zero has none at 10
    assert starts([10, 20], []) == [20, 0]  # all of the other one's were damaged: it starts anew, alone
    assert starts([10, 20], [10], mates=(zero,)) == [20, 10]  # at the same place, but never in one cohort


def test_a_save_that_was_killed_is_in_nobodys_way(uninterrupted: Path, tmp_path: Path) -> None:
    """Orbax writes into a folder with the step and a suffix in its name."""
    workdir = tmp_path / 'killed'
    shutil.copytree(uninterrupted, workdir)
    for folder in workdir.glob('runs/*/checkpoints'):
        (folder / '33.orbax-checkpoint-tmp').mkdir()
    train.train(settings(), workdir)
    assert_same(uninterrupted, workdir)


def test_a_signal_in_the_last_save_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = train._Training._save, list[Any]()

    def signalled(self: Any, cohort: Any) -> None:
        save(self, cohort)
        if not saved:
            saved.append(cohort)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train._Training, '_save', signalled)
    with pytest.raises(train.Interrupted):
        train.train(tiny(batch_size=(100,), epochs=1), tmp_path)
    assert {record.status for record in metrics.read_runs(tmp_path)} == {'done'}


def test_final_leaves_hold_all_that_decides_the_future(uninterrupted: Path) -> None:
    leaves = final_leaves(uninterrupted)['grow-seed0']
    kinds = {name.split('.')[0] for name in leaves}
    assert kinds == {'params', 'opt_state', 'update', 'sums'}
