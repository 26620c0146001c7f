"""What a launch does from its beginning to its end, on one device and on several; and who is told of it."""

import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from helpers import ROOT, assert_same, read_json, tiny
from launch_on_three_devices import COHORTS, FAILING, STOPPED, Results, cohort
from launching import Event, Noting

import bsgap
from benchmarks.kill import final_leaves, rows
from bsgap.errors import UserError
from bsgap.launch import job
from bsgap.training.programs import Programs
from bsgap.training.rows import read_records
from bsgap.training.workdir import saved_updates

pytestmark = pytest.mark.usefixtures('compiled_once')

RESULTS = (
    'run,recipe,batch_size,learning_rate,momentum,seed,epochs,updates,examples,'
    'train_loss,train_accuracy,validation_accuracy,test_loss,test_accuracy,gap,status,seconds'
)
Found = dict[str, Any]  # what watchers on three devices were told


@pytest.fixture(scope='module')
def on_three_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('devices')
    command = [sys.executable, 'tests/launch_on_three_devices.py', str(folder)]
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '3', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.count('3 × cpu') == 2 * len(COHORTS) + 3
    return folder


@pytest.fixture(scope='module')
def found(on_three_devices: Path) -> Found:
    return read_json(on_three_devices / 'found.json')


def files(workdir: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in workdir.rglob('*') if path.is_file()}


def test_a_batch_of_the_whole_training_set_is_one_of_its_size(tmp_path: Path) -> None:
    job.train(tiny(batch_size=('whole',), seeds=1), tmp_path / 'whole')
    job.train(tiny(batch_size=(300,), seeds=1), tmp_path / 'number')
    (named,), (numbered,) = ((tmp_path / each).glob('runs/*') for each in ('whole', 'number'))
    assert (named.name, numbered.name) == ('bswhole-lr0.1-seed0', 'bs300-lr0.1-seed0')
    named.rename(named.with_name(numbered.name))
    assert_same(tmp_path / 'whole', tmp_path / 'number')


def test_a_launch_trains_and_reports(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.launch(tiny(), tmp_path)
    assert_same(tmp_path, trained)
    assert {path.name for path in tmp_path.iterdir()} == {
        *('study.json', 'runs', 'lock', 'results.csv', 'figures', 'report.html'),
    }
    header, *lines = (tmp_path / 'results.csv').read_text().splitlines()
    assert header == RESULTS
    for line in csv.DictReader([header, *lines]):
        updates = 2 * -(-300 // int(line['batch_size']))
        assert (line['status'], line['epochs'], line['updates'], line['examples']) == ('done', '2', str(updates), '600')
        last = rows(tmp_path)[line['run']][-1]
        for column in ('train_loss', 'train_accuracy', 'test_loss', 'test_accuracy', 'gap'):
            assert line[column] == f'{float(last[column]):.9g}'
    assert len(lines) == 4
    study = read_json(tmp_path / 'study.json')
    assert study['config']['recipes']['bs32-lr0.1']['fields']['hidden'] == [16]
    assert study['versions']['jax'] == jax.__version__
    assert (study['processes'], study['devices'], study['earlier_launches']) == (1, ['cpu'], [])
    (training_set,) = study['training_sets']
    assert (training_set['subset'], training_set['shape'], training_set['outputs']) == (300, [28, 28, 1], 10)
    said = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert said[:5] == ['study', 'data', 'model', 'device', 'workdir']
    assert said[-1] == 'report'

    before = files(tmp_path)
    bsgap.train(tiny(), tmp_path)  # starting again changes nothing
    assert 'to train: 0\n' in capsys.readouterr().out
    after = files(tmp_path)
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {'study.json', 'results.csv', 'lock'}
    assert (tmp_path / 'results.csv').read_text().splitlines() == [header, *lines]
    earlier = {key: value for key, value in study.items() if key not in ('config', 'earlier_launches')}
    assert read_json(tmp_path / 'study.json')['earlier_launches'] == [earlier]


def test_more_seeds_and_batch_sizes_train_only_what_is_new(tmp_path: Path, trained: Path) -> None:
    bsgap.train(tiny(batch_size=(32,), seeds=1), tmp_path)
    before = files(tmp_path / 'runs')
    bsgap.train(tiny(), tmp_path)
    assert before.items() <= files(tmp_path / 'runs').items()
    assert_same(tmp_path, trained)


def test_a_setting_that_contradicts_the_workdir_changes_nothing(tmp_path: Path) -> None:
    bsgap.train(tiny(batch_size=(100,), epochs=1), tmp_path)
    before = files(tmp_path)
    with pytest.raises(UserError, match=r'config.hidden: \[17\] contradicts \[16\]'):
        bsgap.train(tiny(hidden=(17,)), tmp_path)
    changed = {path.name for path, content in files(tmp_path).items() if content != before.get(path)}
    assert changed <= {'lock'}


def test_as_a_library_it_parses_no_flags_and_says_nothing_on_stderr(tmp_path: Path) -> None:
    program = """if True:
        import sys
        from absl import flags
        import bsgap
        study = bsgap.default_config()
        study.update_from_flattened_dict({'subset': 300, 'hidden': (16,), 'epochs': 1.0, 'seeds': 2})
        runs = bsgap.train(study, sys.argv[1])
        assert [*runs.groupby('run').last().status] == ['done'] * 2
        assert not flags.FLAGS.is_parsed()
    """
    command = [sys.executable, '-c', program, str(tmp_path / 'study'), '--config.seeds=3', '--no-such-flag']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'workdir' in done.stdout


def test_programs_are_kept_where_the_user_keeps_what_can_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    values = {'jax_compilation_cache_dir': '/told'}
    monkeypatch.setattr(jax, 'config', SimpleNamespace(values=values, update=told.__setitem__))
    job.keep_compiled()
    assert not told
    values.clear()
    monkeypatch.setenv('XDG_CACHE_HOME', '/cache')
    job.keep_compiled()
    assert told['jax_compilation_cache_dir'] == '/cache/bsgap/compiled'
    monkeypatch.delenv('XDG_CACHE_HOME')
    job.keep_compiled()
    assert told['jax_compilation_cache_dir'] == str(Path.home() / '.cache' / 'bsgap' / 'compiled')
    assert told['jax_persistent_cache_min_compile_time_secs'] == 0


# Who is told.


def check_events(events: Sequence[Event], updates: int, evaluations: Sequence[int]) -> set[str]:
    """That a watcher was told of a whole training in an order that makes sense; returns the runs."""
    for thread in {event.thread for event in events}:
        compiling = [event for event in events if event.thread == thread and event.what in ('compiling', 'compiled')]
        for first, second in zip(compiling[::2], compiling[1::2], strict=True):
            assert (first.what, second.what, first.said[0]) == ('compiling', 'compiled', second.said[0])
            assert second.said[1] > 0
    runs = {run for event in events for run in event.runs}
    for run in runs:
        of_run = [event for event in events if run in event.runs]
        assert len({event.thread for event in of_run}) == 1
        began, evaluated, *rest = of_run
        assert (began.what, *began.runs[run]) == ('began', 0, 0)
        assert (evaluated.what, *evaluated.runs[run]) == ('evaluated', 0, 1)
        assert {event.what for event in rest} == {'trained', 'evaluated', 'saved'}
        at = [event.runs[run][0] for event in rest]
        assert at == sorted(at)
        assert at[-1] == updates
        assert rest[-1].what == 'saved'  # after the last evaluation, which makes the run complete
        trained = [event.runs[run][0] for event in rest if event.what == 'trained']
        assert len(set(trained)) == len(trained)
        rows_at = [event.runs[run] for event in (evaluated, *rest) if event.what == 'evaluated']
        assert rows_at == [(update, number) for number, update in enumerate(evaluations, start=1)]
        for event in rest:  # what is due is evaluated before anything else is done
            update, number = event.runs[run]
            if event.what == 'saved':
                assert number == sum(due <= update for due in evaluations)
    return runs


def test_a_watcher_of_the_users_own(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two, beside the live table, which is none of the worse for it."""
    monkeypatch.setattr(job, 'Programs', Programs)  # which compile, and say so
    one, other = Noting(), Noting()
    settings = tiny(checkpoint_seconds=0.0)
    bsgap.train(settings, tmp_path, watchers=[one, other])
    for batch_size, updates in ((32, 20), (100, 6)):
        part = [event for event in one.events if not event.runs or f'bs{batch_size}-lr0.1-seed0' in event.runs]
        part = [event._replace(runs={k: v for k, v in event.runs.items() if f'bs{batch_size}-' in k}) for event in part]
        runs = check_events(part, updates, (0, updates // 2, updates))
        assert runs == {f'bs{batch_size}-lr0.1-seed{seed}' for seed in range(2)}
    segments = [event for event in one.events if event.what == 'trained']
    assert sum(event.said[0] for event in segments) == 4 * 600
    assert all(event.said[1] > 0 for event in segments)
    assert not {'warned', 'noted'} & {event.what for event in one.events}
    assert [event[1:3] for event in one.events] == [event[1:3] for event in other.events]
    assert 'bs100-lr0.1' in capsys.readouterr().out
    assert_same(tmp_path, trained)
    bsgap.train(settings, tmp_path, [again := Noting()])
    assert not [event for event in again.events if event.runs]  # nothing to train, nothing to tell


@pytest.mark.parametrize('runs', COHORTS)
@pytest.mark.parametrize('how', ['map', 'vmap'])
def test_a_watcher_of_several_devices(found: Found, runs: int, how: str) -> None:
    """Each run is told of by one thread, its device's."""
    events = [Event(thread, what, {k: (*v,) for k, v in at.items()}, (*said,)) for thread, what, at, said
              in found[f'{how}{runs}']['events']]  # fmt: skip
    assert check_events(events, 10, (0, 10)) == {f'bs32-lr0.1-seed{seed}' for seed in range(runs)}
    assert any(event.what == 'compiled' for event in events) or (how, runs) != ('map', 1)
    threads = {event.thread for event in events if event.runs}
    assert len(threads) == min(runs, 3) if how == 'map' else len(threads) <= min(runs, 3)


def test_results_show_how_far_the_runs_are(tmp_path: Path, found: Found) -> None:
    bsgap.train(tiny(), tmp_path, [results := Results(tmp_path)])
    assert (results.behind, results.seen) == ([], {4})
    for runs in COHORTS:
        for how in ('map', 'vmap'):
            assert (found[f'{how}{runs}']['behind'], found[f'{how}{runs}']['seen']) == ([], [runs])


# Several devices.


@pytest.fixture(scope='module')
def on_one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('one')
    for how in ('map', 'vmap'):
        bsgap.train(cohort(max(COHORTS), how), folder / how)
    return folder


@pytest.mark.parametrize('runs', COHORTS)
@pytest.mark.parametrize('how', ['map', 'vmap'])
def test_three_devices_give_what_one_gives(on_three_devices: Path, on_one_device: Path, runs: int, how: str) -> None:
    """In turn, the same bits; side by side, other kernels for other cohorts, so to rounding."""
    workdir = on_three_devices / f'{how}{runs}'
    one, three = final_leaves(on_one_device / how), final_leaves(workdir)
    assert three.keys() == {f'bs32-lr0.1-seed{seed}' for seed in range(runs)}
    for run, leaves in three.items():
        assert leaves.keys() == one[run].keys()
        for name, leaf in leaves.items():
            tolerance = {'rtol': 1e-4, 'atol': 1e-5} if how == 'vmap' else {'rtol': 0, 'atol': 0}
            np.testing.assert_allclose(leaf, one[run][name], err_msg=f'{run} {name}', **tolerance)
    if how == 'map':
        assert rows(workdir).items() <= rows(on_one_device / how).items()


def test_a_device_that_fails_stops_the_others_which_save(on_three_devices: Path, found: Found, tmp_path: Path) -> None:
    workdir = on_three_devices / 'failed'
    assert found['failed'] == f'--workdir: {workdir} cannot be used: No space left on device'
    assert 0 < saved_updates(workdir, 'bs32-lr0.1-seed0')[-1] < 20
    assert not saved_updates(workdir, 'bs32-lr0.1-seed1')
    bsgap.train(tiny(**FAILING), workdir)
    bsgap.train(tiny(**FAILING), tmp_path)
    assert_same(workdir, tmp_path)


def test_a_signal_stops_all_devices_which_save(on_three_devices: Path, found: Found, tmp_path: Path) -> None:
    """A second one ends the launch at once; the devices save what they have all the same."""
    assert found['stopped'] == 'SIGTERM'
    assert 'twice' not in found  # not Interrupted, which says that all is saved
    bsgap.train(tiny(**STOPPED), tmp_path)
    for name in ('stopped', 'twice'):
        workdir = on_three_devices / name
        assert {record.status for record in read_records(workdir)} & {'running'}
        for run, table in rows(workdir).items():
            assert max(saved_updates(workdir, run), default=0) >= int(table[-1]['update'])
        bsgap.train(tiny(**STOPPED), workdir)
        assert_same(workdir, tmp_path)
