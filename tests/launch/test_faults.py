"""What a machine does to a job, done to it: nothing may be lost but what was trained since the last save.

Killed processes: test_resume, test_processes, benchmarks/kill.py. Damaged files: tests/training.
"""

import ast
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT, assert_same, tiny
from launching import LONG, ROWS, After, Noting

import bsgap
from bsgap.errors import UserError
from bsgap.training import checkpoint
from bsgap.training.cohort import Member
from bsgap.training.rows import read_records
from bsgap.training.workdir import saved_updates

pytestmark = pytest.mark.usefixtures('compiled_once')


@pytest.fixture(scope='module')
def whole(once: Callable[..., Path]) -> Path:
    """A study that nothing happened to."""
    return once('long', lambda workdir: bsgap.train(tiny(**LONG), workdir))


def checkpoints(workdir: Path) -> dict[str, list[int]]:
    return {folder.name: saved_updates(workdir, folder.name) for folder in (workdir / 'runs').iterdir()}


@pytest.mark.parametrize('while_saving', [False, True])
def test_a_workdir_that_vanishes_is_named_and_not_made_again(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, while_saving: bool
) -> None:
    """As when a network drive is gone for a while; a save in flight may leave pieces of itself where that was."""
    workdir, away = tmp_path / 'workdir', tmp_path / 'away'
    save = checkpoint.Checkpoints.save

    def save_and_wait(self: checkpoint.Checkpoints, update: int, saved: checkpoint.Saved) -> None:
        save(self, update, saved)
        self.wait()

    if not while_saving:
        monkeypatch.setattr(checkpoint.Checkpoints, 'save', save_and_wait)
    vanish = After('evaluated', ROWS, lambda: workdir.rename(away))
    with pytest.raises(UserError, match=r'--workdir: .*/workdir cannot be used: .*No such file or directory'):
        bsgap.train(tiny(**LONG), workdir, [vanish])
    assert while_saving or not workdir.exists()
    assert not any('checkpoints' not in path.parts and path.is_file() for path in workdir.rglob('*'))
    shutil.rmtree(workdir, ignore_errors=True)
    assert any(checkpoints(away).values())
    away.rename(workdir)
    bsgap.train(tiny(**LONG), workdir)
    assert_same(workdir, whole)


def test_a_run_folder_that_vanishes_stops_the_study_and_the_others_are_as_they_were(
    tmp_path: Path, whole: Path
) -> None:
    before: dict[str, list[int]] = {}

    def remove() -> None:
        before.update(checkpoints(tmp_path))
        shutil.rmtree(tmp_path / 'runs' / 'bs20-lr0.1-seed1')

    with pytest.raises(UserError, match=r'--workdir: .* cannot be used: '):
        bsgap.train(tiny(**LONG), tmp_path, [After('evaluated', ROWS, remove)])
    left = checkpoints(tmp_path)
    assert all(left[run][-1:] >= before[run][-1:] for run in before if run != 'bs20-lr0.1-seed1')
    bsgap.train(tiny(**LONG), tmp_path)
    assert_same(tmp_path, whole)


# A process of its own, because there is no way back. Root may write anywhere; this may not (PR_CAPBSET_DROP,
# CAP_DAC_OVERRIDE). The second study meets a quota: the kernel refuses what is written to a file beyond it.
REFUSED = """
import ctypes, os, sys
if len(sys.argv) == 2:
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, *sys.argv, 'again'])
import contextlib, resource
from pathlib import Path
import bsgap
from bsgap.errors import UserError
from helpers import tiny
from launching import LONG, ROWS, After, compiled_once

def forbid():
    for folder, _, files in os.walk(workdir):
        with contextlib.suppress(FileNotFoundError):  # a save goes on meanwhile
            os.chmod(folder, 0o555)
            for file in files:
                os.chmod(os.path.join(folder, file), 0o444)

for name in ('read-only', 'quota'):
    workdir = Path(sys.argv[1]) / name
    if name == 'quota':
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    try:
        with compiled_once():
            bsgap.train(tiny(**LONG), workdir, [After('evaluated', ROWS, forbid)] * (name == 'read-only'))
    except UserError as error:
        print(error)
"""


def test_a_workdir_that_turns_read_only_and_a_quota(tmp_path: Path, whole: Path) -> None:
    (script := tmp_path / 'refused.py').write_text(REFUSED)
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if line.startswith('--workdir: ')]
    assert len(told) == 2, done.stderr
    assert told[0].startswith(f'--workdir: {tmp_path}/read-only cannot be used: ')
    assert 'Permission denied' in told[0]
    assert told[1].startswith(f'--workdir: {tmp_path}/quota cannot be used: ')
    assert 'File too large' in told[1]
    assert done.stderr == ''
    workdir = tmp_path / 'read-only'
    for folder in (workdir, *workdir.rglob('*')):
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    assert any(checkpoints(workdir).values())
    for name in ('read-only', 'quota'):
        bsgap.train(tiny(**LONG), tmp_path / name)
        assert_same(tmp_path / name, whole)


# In file systems of some kilobytes of their own, of which the runs' checkpoints take most.
FULL_DISK = """
import shutil, subprocess, sys
from pathlib import Path
import bsgap
from bsgap.errors import UserError
from helpers import tiny
from launching import LONG, compiled_once
compiled_once().__enter__()
room = Path(sys.argv[1])
for size in sys.argv[2:]:
    (disk := room / size).mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}k', 'tmpfs', disk]).returncode:
        sys.exit(77)
    try:
        bsgap.train(tiny(**LONG), disk)
    except UserError as error:
        print(error)
    print('saved', len(list(disk.glob('runs/*/checkpoints/[0-9]*'))))
    subprocess.run(['mount', '-o', 'remount,size=1g', disk], check=True)
    bsgap.train(tiny(**LONG), disk)
    shutil.copytree(disk, room / f'copy{size}')
"""


def test_a_full_disk(tmp_path: Path, whole: Path) -> None:
    sizes = ('100', '500')
    (script := tmp_path / 'full_disk.py').write_text(FULL_DISK)
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'}
    command = ['unshare', '--user', '--map-root-user', '--mount', sys.executable, str(script), str(tmp_path), *sizes]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode == 77 or 'unshare' in done.stderr:
        pytest.skip('no file systems can be mounted here')
    assert (done.returncode, done.stderr) == (0, '')
    told = [line for line in done.stdout.splitlines() if line.startswith('--workdir: ')]
    saved = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith('saved ')]
    assert saved[0] < 4 <= saved[1]
    assert len(told) == len(sizes)
    for size, line in zip(sizes, told, strict=True):
        assert line.startswith(f'--workdir: {tmp_path}/{size} cannot be used: ')
        assert 'No space left on device' in line
        assert_same(tmp_path / f'copy{size}', whole)


def test_a_clock_that_jumps(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two hours, ahead and then back; the time that passes is told by another clock."""
    clock, clock_ns, ahead = time.time, time.time_ns, [0]
    monkeypatch.setattr(time, 'time', lambda: clock() + ahead[0])
    monkeypatch.setattr(time, 'time_ns', lambda: clock_ns() + 10**9 * ahead[0])

    class Jumping(Noting):
        def evaluated(self, members: list[Member]) -> None:
            super().evaluated(members)
            ahead[0] = 7200 * (len(self.events) % 4 < 2)

        trained = saved = began = compiling = compiled = lambda *_: None

    bsgap.train(tiny(**LONG), tmp_path, [jumping := Jumping()])
    assert len(jumping.events) == 14
    assert_same(tmp_path, whole)
    for record in read_records(tmp_path):
        assert 0 < record.rows[-1]['train_seconds'] < 60


def test_nothing_in_a_workdir_can_run_code(whole: Path, trained: Path) -> None:
    """No pickle: neither is it imported or allowed, nor is one of its files written."""
    sources = list((ROOT / 'bsgap').rglob('*.py'))
    assert len(sources) > 40
    for path in sources:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {'pickle', 'cloudpickle', 'dill', 'marshal', 'shelve', 'joblib', 'eval', 'exec'}, path
        assert 'allow_pickle=True' not in path.read_text()
        assert not names & {'read_pickle', 'to_pickle'}
    for path in (*whole.rglob('*'), *trained.rglob('*')):
        if path.is_file():
            assert not path.read_bytes().startswith((b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05', b'PK')), path


def test_a_failed_save_is_told_and_the_last_one_kept(tmp_path: Path) -> None:
    state = {'w': np.ones(3, np.float32)}
    run = checkpoint.Checkpoints(tmp_path, 'mine')
    run.folder.parent.mkdir(parents=True)
    (run.folder.parent / 'run.json').touch()
    run.save(1, checkpoint.Saved(state, 0.0, 0.0, []))
    run.wait()
    with pytest.raises(checkpoint.NotSavedError, match=r'checkpoints/1 could not be written \(File exists'):
        run.save(1, checkpoint.Saved(state, 0.0, 0.0, []))
    assert run.load(1, state).state['w'].tolist() == [1, 1, 1]


def test_late_complaints_of_tensorstore_are_dropped_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr(sys, 'unraisablehook', functools.partial(lambda told, of: told.append(str(of.exc_value)), told))
    monkeypatch.setattr(sys, 'excepthook', lambda _, error, __: told.append(str(error)))
    for _ in range(2):
        checkpoint.Checkpoints(tmp_path, 'mine')
    for message in ('Event loop is closed', 'Disk is closed'):
        error = RuntimeError(message)
        sys.unraisablehook(SimpleNamespace(exc_value=error))
        sys.excepthook(RuntimeError, error, None)
    assert told == ['Disk is closed'] * 2
