"""Damage costs time, never results: what was trained before is gone on with as if nothing had happened."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import assert_same, flip, tiny
from launching import Noting
from trainings import runs_of, stop, train, two_cohorts

from bsgap import config
from bsgap.errors import Interrupted
from bsgap.training import rows
from bsgap.training.checkpoint import KEEP
from bsgap.training.cohort import Member
from bsgap.training.restore import is_done, start_updates
from bsgap.training.runs import Run
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import saved_updates


@pytest.fixture(scope='module')
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir that was left in the second stage of the growing recipe, with checkpoints one segment apart."""
    folder = tmp_path_factory.mktemp('stopped')
    with pytest.raises(Interrupted):
        train(two_cohorts(checkpoint_seconds=0.0), folder, check=stop(30))
    assert 12 < max(saved_updates(folder, 'grow-seed1')) < 22
    return folder


@pytest.fixture
def interrupted(tmp_path: Path, stopped: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(stopped, tmp_path / 'interrupted')


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
        case 'changed key':
            path = last / '_CHECKPOINT_METADATA'
            path.write_text(path.read_text().replace('item_handlers', 'item_iandlers'))


@pytest.mark.parametrize(
    'how',
    [
        'flipped byte',
        'truncated file',
        'emptied file',
        'empty step folder',
        'no metadata',
        'changed metadata',
        'changed key',
    ],
)
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    interrupted: Path, uninterrupted: Path, how: str
) -> None:
    folder = interrupted / 'runs' / 'grow-seed1' / 'checkpoints'
    steps = saved_updates(interrupted, 'grow-seed1')
    assert len(steps) == KEEP
    damage(folder / str(steps[-1]), how)
    watcher = Noting()
    train(two_cohorts(), interrupted, watcher)
    (warning,) = [event.said[0] for event in watcher.events if event.what == 'warned']
    assert f'grow-seed1/checkpoints/{steps[-1]} is damaged' in warning
    assert '\n' not in warning
    assert_same(interrupted, uninterrupted)


def test_a_run_whose_checkpoints_are_all_damaged_starts_anew(interrupted: Path, uninterrupted: Path) -> None:
    for step_folder in (interrupted / 'runs' / 'grow-seed1' / 'checkpoints').iterdir():
        damage(step_folder, 'emptied file')
    train(two_cohorts(), interrupted)
    assert_same(interrupted, uninterrupted)


def test_a_cohort_killed_between_two_saves_goes_on_together(interrupted: Path, uninterrupted: Path) -> None:
    """One run's last checkpoint is missing: the other goes back to where that one is."""
    last = saved_updates(interrupted, 'grow-seed0')[-1]
    shutil.rmtree(interrupted / 'runs' / 'grow-seed0' / 'checkpoints' / str(last))
    began, left = dict[str, int](), dict[str, int]()

    class Looking(Watcher):
        def began(self, members: Sequence[Member]) -> None:
            began.update({member.run.name: member.update for member in members})
            left.update({member.run.name: saved_updates(interrupted, member.run.name)[-1] for member in members})

    train(two_cohorts(), interrupted, Looking())
    assert began['grow-seed0'] == began['grow-seed1'] == last - 1  # segments are of one update
    assert left == began  # what was saved later would be in the way of a save at the same update
    assert_same(interrupted, uninterrupted)


@pytest.mark.parametrize(
    'how', ['half a line', 'a row missing', 'flipped byte', 'emptied', 'deleted', 'changed header']
)
def test_a_damaged_metrics_file_is_made_whole(interrupted: Path, uninterrupted: Path, how: str) -> None:
    path = interrupted / 'runs' / 'grow-seed0' / 'metrics.csv'
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
    train(two_cohorts(), interrupted)
    assert_same(interrupted, uninterrupted)


def test_rows_after_the_restored_update_are_dropped(interrupted: Path, uninterrupted: Path) -> None:
    for run in ('grow-seed0', 'grow-seed1'):
        path = interrupted / 'runs' / run / 'metrics.csv'
        row = {**rows.read(uninterrupted / 'runs' / run / 'metrics.csv')[-2], 'train_loss': 123.0}
        rows.append(path, row, rows.columns(['train', 'test'], 'accuracy'))
        assert rows.read(path)[-1] == row
    train(two_cohorts(), interrupted)
    assert_same(interrupted, uninterrupted)


def test_a_run_folder_deleted_by_hand_is_trained_again(tmp_path: Path, uninterrupted: Path) -> None:
    workdir = shutil.copytree(uninterrupted, tmp_path / 'study')
    shutil.rmtree(workdir / 'runs' / 'grow-seed1')
    watcher = Noting()
    train(two_cohorts(), workdir, watcher)
    (began,) = [event.runs for event in watcher.events if event.what == 'began']
    assert began == {'grow-seed1': (0, 0)}
    assert_same(workdir, uninterrupted)


def test_a_save_that_was_killed_is_in_nobodys_way(interrupted: Path, uninterrupted: Path) -> None:
    """Orbax writes into a folder with the step and a suffix in its name."""
    for folder in interrupted.glob('runs/*/checkpoints'):
        (folder / '33.orbax-checkpoint-tmp').mkdir()
    train(two_cohorts(), interrupted)
    assert_same(interrupted, uninterrupted)
    assert not list(interrupted.glob('runs/*/checkpoints/*tmp*'))


def test_where_runs_go_on() -> None:
    """By hand: runs of one cohort, saved every 10 updates, some killed before they were saved with the others."""
    zero, one, two = runs_of(config.resolve(tiny(batch_size=(10,), seeds=3)))

    def starts(*saved: list[int], mates: tuple[Run, ...] = (zero, one, two)) -> list[int]:
        runs = (zero, one, two)[: len(saved)]
        names = [run.name for run in mates]
        return list(start_updates(dict(zip(runs, saved, strict=True)), lambda *_: names).values())

    assert starts([10, 20], [10, 20]) == [20, 20]
    assert starts([10, 20], [10]) == [10, 10]
    assert starts([10], []) == [0, 0]  # killed in the very first save
    assert starts([20, 30], [20, 30], [10, 20]) == [20, 20, 20]
    assert starts([20, 30], [10, 20], [10]) == [20, 10, 10]  # two's at 20 was damaged; zero has none at 10
    assert starts([10, 20], []) == [20, 0]  # all of the other one's were damaged: it starts anew, alone
    assert starts([10, 20], [10], mates=(zero,)) == [20, 10]  # at the same place, but never in one cohort


def test_a_run_is_done_with_all_rows_and_a_checkpoint_or_by_diverging(tmp_path: Path) -> None:
    """By hand: rows at 0, 15 and 30. One whose weights are not kept needs no checkpoint."""
    (run,) = runs_of(config.resolve(tiny(batch_size=(20,), seeds=1)))

    def done(have: list[int], saved: list[int], loss: float = 1.0, keep: bool = True) -> bool:
        folder = tmp_path / 'runs' / run.name / 'checkpoints'
        shutil.rmtree(folder, ignore_errors=True)
        for update in saved:
            (folder / str(update)).mkdir(parents=True)
        made = [{'update': update, 'train_loss': loss} for update in have]
        record = rows.Record({'name': run.name, 'updates': run.updates}, made, {})
        return is_done(dataclasses.replace(run, keep=keep), tmp_path, {run.name: record})

    assert done([0, 15, 30], [30])
    assert not done([0, 15, 30], [15])
    assert not done([0, 30], [30])
    assert not done([0, 15], [30])
    assert done([0], [], loss=float('nan'))
    assert not done([0, 15, 30], [], keep=False)
    rows.write_answers(tmp_path / 'runs' / run.name, {})
    assert done([0, 15, 30], [], keep=False)
    assert not done([0, 15], [15], keep=False)
    assert not is_done(run, tmp_path, {})
