"""What a machine does to a job, done to it: nothing may be lost but what was trained since the last save.

Killed processes: test_resume, test_cluster, benchmarks/kill.py. Damaged files: test_resume.
"""

import ast
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, assert_same, rows, tiny

from benchmarks.kill import SMALL, finish, start
from bsgap import checkpoint, config, metrics, progress, study, train

LONG = {'batch_size': (20, 100), 'epochs': 6, 'checkpoint_seconds': 0.0}


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that nothing happened to."""
    workdir = tmp_path_factory.mktemp('whole')
    train.train(tiny(**LONG), workdir)
    return workdir


@pytest.fixture
def at_row(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Arranges that something happens once, after so many evaluations."""

    def arrange(number: int, happens: Callable[[], Any]) -> None:
        evaluated, left = progress.View.evaluated, [number]

        def count(self: progress.View, seats: Any) -> None:
            evaluated(self, seats)
            left[0] -= 1
            if left[0] == 0:
                happens()

        monkeypatch.setattr(progress.View, 'evaluated', count)

    return arrange


def checkpoints(workdir: Path) -> dict[str, list[int]]:
    return {folder.name: study.saved_updates(workdir, folder.name) for folder in (workdir / 'runs').iterdir()}


@pytest.mark.parametrize('while_saving', [False, True])
def test_a_workdir_that_vanishes_is_named_and_not_made_again(
    tmp_path: Path, whole: Path, at_row: Callable[..., None], monkeypatch: pytest.MonkeyPatch, while_saving: bool
) -> None:
    """As when a network drive is gone for a while; a save in flight may leave pieces of itself where that was."""
    workdir, away = tmp_path / 'workdir', tmp_path / 'away'
    save = checkpoint.Checkpoints.save

    def save_and_wait(self: checkpoint.Checkpoints, update: int, saved: checkpoint.Saved) -> None:
        save(self, update, saved)
        self.wait()

    if not while_saving:
        monkeypatch.setattr(checkpoint.Checkpoints, 'save', save_and_wait)
    at_row(8, lambda: workdir.rename(away))
    with pytest.raises(config.UserError, match=r'--workdir: .*/workdir cannot be used: .*No such file or directory'):
        train.train(tiny(**LONG), workdir)
    assert while_saving or not workdir.exists()
    assert not any('checkpoints' not in path.parts and path.is_file() for path in workdir.rglob('*'))
    shutil.rmtree(workdir, ignore_errors=True)
    assert any(checkpoints(away).values())
    away.rename(workdir)
    train.train(tiny(**LONG), workdir)
    assert_same(workdir, whole)


def test_a_run_folder_that_vanishes_stops_the_study_and_the_others_are_as_they_were(
    tmp_path: Path, whole: Path, at_row: Callable[..., None]
) -> None:
    before: dict[str, list[int]] = {}

    def remove() -> None:
        before.update(checkpoints(tmp_path))
        shutil.rmtree(tmp_path / 'runs' / 'bs20-lr0.1-seed1')

    at_row(8, remove)
    with pytest.raises(config.UserError, match=r'--workdir: .* cannot be used: '):
        train.train(tiny(**LONG), tmp_path)
    left = checkpoints(tmp_path)
    assert all(left[run][-1:] >= before[run][-1:] for run in before if run != 'bs20-lr0.1-seed1')
    train.train(tiny(**LONG), tmp_path)
    assert_same(tmp_path, whole)


# Root may write anywhere; what this starts may not (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE).
WITHOUT_OVERRIDE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])
"""


READ_ONLY = """
import contextlib, os, sys
sys.path.insert(0, 'tests')
from conftest import tiny
from pathlib import Path
from bsgap import progress, train
import test_faults
evaluated, left = progress.View.evaluated, [8]
def count(self, seats):
    evaluated(self, seats)
    left[0] -= 1
    if left[0] == 0:
        for folder, _, files in os.walk(workdir):
            with contextlib.suppress(FileNotFoundError):  # a save goes on meanwhile
                os.chmod(folder, 0o555)
                for file in files:
                    os.chmod(os.path.join(folder, file), 0o444)
progress.View.evaluated = count
workdir = Path(sys.argv[1])
try:
    train.train(tiny(**test_faults.LONG), workdir)
except train.config.UserError as error:
    print(error)
"""


def test_a_workdir_that_turns_read_only(tmp_path: Path, whole: Path) -> None:
    workdir = tmp_path / 'workdir'
    command = [sys.executable, '-c', WITHOUT_OVERRIDE, READ_ONLY, str(workdir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f'--workdir: {workdir} cannot be used: ' in done.stdout, done.stderr
    assert 'Permission denied' in done.stdout
    assert done.stderr == ''
    for folder in (workdir, *workdir.rglob('*')):
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    assert any(checkpoints(workdir).values())
    train.train(tiny(**LONG), workdir)
    assert_same(workdir, whole)


FULL_DISK = """
mount -t tmpfs -o size={size}k tmpfs {workdir} || exit 77
{launch}; echo "ended with $?"
df {workdir} | tail -1
find {workdir} -name '[0-9]*' -path '*/checkpoints/*' -maxdepth 4 | wc -l
mount -o remount,size=1g {workdir}
{launch}; echo "ended with $?"
cp -r {workdir} {copy}
"""


@pytest.mark.parametrize('size', [150, 600])
def test_a_full_disk(tmp_path: Path, small: Path, size: int) -> None:
    """A file system of some kilobytes of its own, of which a run's checkpoints take most."""
    workdir, copy = tmp_path / 'workdir', tmp_path / 'copy'
    workdir.mkdir()
    launch = ' '.join([sys.executable, 'launch.py', *SMALL, f'--workdir={workdir}'])
    script = FULL_DISK.format(size=size, workdir=workdir, launch=launch, copy=copy)
    done = subprocess.run(['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', script], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode == 77 or 'unshare' in done.stderr:
        pytest.skip('no file systems can be mounted here')
    assert 'ended with 2' in done.stdout, done.stderr
    assert 'ended with 0' in done.stdout, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith(f'error: --workdir: {workdir} cannot be used: ')
    assert 'No space left on device' in errors[0]
    assert_same(copy, small)


def test_a_limit_on_file_sizes(tmp_path: Path, whole: Path) -> None:
    """As a quota sets it: the kernel refuses what is written beyond it."""
    code = """
import resource, sys
sys.path.insert(0, 'tests')
from conftest import tiny
from bsgap import train
import test_faults
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    train.train(tiny(**test_faults.LONG), sys.argv[1])
except train.config.UserError as error:
    print(error)
"""
    environment = {**os.environ, 'XDG_CACHE_HOME': str(tmp_path)}
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'w')], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert f'--workdir: {tmp_path}/w cannot be used: ' in done.stdout, done.stderr
    assert 'File too large' in done.stdout
    train.train(tiny(**LONG), tmp_path / 'w')
    assert_same(tmp_path / 'w', whole)


def test_a_second_launch_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    (first,) = start(tmp_path, 1, '--config.epochs=1000')
    try:
        while not rows(tmp_path):
            assert first.poll() is None, first.communicate()
            time.sleep(0.1)
        before = {path: path.read_bytes() for path in tmp_path.rglob('run.json')}
        with pytest.raises(config.UserError, match=rf'--workdir: .* is in use by process {first.pid} on '):
            train.train(tiny(), tmp_path)
        assert before == {path: path.read_bytes() for path in tmp_path.rglob('run.json')}
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with study.locked(tmp_path):
        pass


def test_a_clock_that_jumps(tmp_path: Path, whole: Path) -> None:
    """By two hours, ahead and then back; the time that passes is told by another clock."""
    code = """
import itertools, sys, time
clock, clock_ns, ahead = time.time, time.time_ns, [0]
time.time = lambda: clock() + ahead[0]
time.time_ns = lambda: clock_ns() + 10**9 * ahead[0]
sys.path.insert(0, 'tests')
from conftest import tiny
from bsgap import progress, train
import test_faults
evaluated, rows = progress.View.evaluated, itertools.count()
def jump(self, seats):
    evaluated(self, seats)
    ahead[0] = 7200 * (next(rows) % 4 < 2)
progress.View.evaluated = jump
train.train(tiny(**test_faults.LONG), sys.argv[1])
assert next(rows) == 14
"""
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, whole)
    for record in metrics.read_runs(tmp_path):
        assert 0 < record.rows[-1]['train_seconds'] < 60


def test_sigterm_saves_at_any_batch_size(tmp_path: Path) -> None:
    """Of one, of 16, and of the whole training set."""
    (process,) = start(tmp_path, 1, '--config.sweep.batch_size=1000', '--config.epochs=100000')
    while len(rows(tmp_path)) < 6 or min(map(len, rows(tmp_path).values())) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert finish([process]) == [128 + signal.SIGTERM]
    for run, table in rows(tmp_path).items():
        assert max(study.saved_updates(tmp_path, run), default=0) >= int(table[-1]['update']) > 0


def test_an_update_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """What was saved is kept; here the segment never ends."""
    code = """
import os, signal, sys, time
sys.path.insert(0, 'tests')
from conftest import tiny
from bsgap import progress, train
train.GRACE_SECONDS = 1
def hang(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)
progress.View.trained = hang
train.train(tiny(), sys.argv[1])
"""
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == 'stopped by SIGTERM before all was saved; what is missing is trained again\n'
    train.train(tiny(), tmp_path)
    assert {record.status for record in metrics.read_runs(tmp_path)} == {'done'}


def test_nothing_in_a_workdir_can_run_code(whole: Path) -> None:
    """No pickle: neither is it imported or allowed, nor is one of its files written."""
    for path in (ROOT / 'bsgap').glob('*.py'):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {'pickle', 'cloudpickle', 'dill', 'marshal', 'shelve', 'joblib', 'eval', 'exec'}, path
        assert 'allow_pickle=True' not in path.read_text()
    for path in whole.rglob('*'):
        if path.is_file():
            assert not path.read_bytes().startswith((b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05', b'PK')), path


def test_more_epochs_seeds_and_batch_sizes_train_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.train(tiny(batch_size=(32,), epochs=2, seeds=1), tmp_path)
    began, add = dict[str, int](), progress.View.add

    def note(self: progress.View, seats: Any) -> None:
        began.update({seat.run.name: seat.update for seat in seats})
        add(self, seats)

    monkeypatch.setattr(progress.View, 'add', note)
    more: dict[str, Any] = {'batch_size': (32, 100), 'epochs': 3, 'seeds': 2}
    train.train(tiny(**more), tmp_path)
    assert began == {'bs32-lr0.1-seed0': 20, 'bs32-lr0.1-seed1': 0, 'bs100-lr0.1-seed0': 0, 'bs100-lr0.1-seed1': 0}
    train.train(tiny(**more), tmp_path / 'at-once')
    assert_same(tmp_path, tmp_path / 'at-once')


@pytest.mark.parametrize('shorter', [{'updates': 13}, {'examples': 100}, {'epochs': 1.5}])
def test_a_run_that_ended_within_an_epoch_goes_on(tmp_path: Path, shorter: dict[str, Any]) -> None:
    """Its last evaluation is none of the longer run's; after a batch that its end cut short it cannot be gone on."""
    changes = {'batch_size': (32,), 'epochs': 0.0, 'seeds': 1}
    train.train(tiny(**{**changes, **shorter}), tmp_path)
    longer = tiny(**{**changes, 'epochs': 3})
    if 'updates' in shorter:
        train.train(longer, tmp_path)
        train.train(longer, tmp_path / 'at-once')
        assert_same(tmp_path, tmp_path / 'at-once')
    else:
        with pytest.raises(config.UserError, match=r'config.epochs: 3.0 contradicts'):
            train.train(longer, tmp_path)


@pytest.mark.parametrize(
    ('changes', 'goes_on'),
    [
        ({'schedule': 'cosine'}, False),  # its learning rate was another one
        ({'schedule': 'decay_learning_rate', 'milestones': (1,)}, True),
        ({'schedule': 'warm_up', 'warm_up': 1.0}, True),
        ({'schedule': 'grow_batch', 'milestones': (1,), 'factor': 2.0}, True),
    ],
)
def test_more_epochs_of_a_schedule(tmp_path: Path, changes: dict[str, Any], goes_on: bool) -> None:
    changes |= {'batch_size': (32,), 'seeds': 1}
    train.train(tiny(**changes), tmp_path)
    if goes_on:
        (tmp_path / 'lines.json').write_text('{"lines": []}')
        (tmp_path / 'runs' / 'bs32-lr0.1-seed0' / 'measurements.json').write_text('{"sharpness_0.1": 1.0}')
        train.train(tiny(**changes, epochs=3), tmp_path)
        train.train(tiny(**changes, epochs=3), tmp_path / 'at-once')
        assert_same(tmp_path, tmp_path / 'at-once')
        assert not (tmp_path / 'lines.json').exists()
        assert not list(tmp_path.glob('runs/*/measurements.json'))
    else:
        with pytest.raises(config.UserError, match=r'config.epochs: 3.0 contradicts 2.0'):
            train.train(tiny(**changes, epochs=3), tmp_path)


def test_a_failed_save_is_told_and_the_last_one_kept(tmp_path: Path) -> None:
    state = {'w': np.ones(3, np.float32)}
    (tmp_path / 'run.json').touch()
    run = checkpoint.Checkpoints(tmp_path / 'checkpoints')
    run.save(1, checkpoint.Saved(state, 0.0, 0.0, []))
    run.wait()
    with pytest.raises(checkpoint.NotSavedError, match=r'checkpoints/1 could not be written \(Step 1 already exists'):
        run.save(1, checkpoint.Saved(state, 0.0, 0.0, []))
    assert run.load(1, state).state['w'].tolist() == [1, 1, 1]
    run.close()


def test_late_complaints_of_tensorstore_are_dropped_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr(sys, 'unraisablehook', functools.partial(lambda told, of: told.append(str(of.exc_value)), told))
    monkeypatch.setattr(sys, 'excepthook', lambda _, error, __: told.append(str(error)))
    for _ in range(2):
        checkpoint.Checkpoints(tmp_path / 'checkpoints').close()
    for message in ('Event loop is closed', 'Disk is closed'):
        error = RuntimeError(message)
        sys.unraisablehook(SimpleNamespace(exc_value=error))
        sys.excepthook(RuntimeError, error, None)
    assert told == ['Disk is closed'] * 2
