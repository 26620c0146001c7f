"""Several devices, and several processes on one machine, each a real one."""

import contextlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT, assert_same, tiny
from rich.console import Console

from benchmarks.kill import final_leaves, finish, kill_at_random, rows, start
from bsgap import cluster, config, data, programs, progress, study, train

COHORTS = (1, 3, 4, 10)
ON_DEVICES = """
import sys
sys.path.insert(0, 'tests')
from conftest import tiny
from bsgap import train
import jax
assert len(jax.devices()) == 4
for runs in map(int, sys.argv[2].split(',')):
    for how in ('map', 'vmap'):
        changes = dict(batch_size=(32,), seeds=runs, across_runs=how, epochs=1, checkpoint_seconds=0.0)
        train.train(tiny(**changes), f'{sys.argv[1]}/{how}{runs}')
"""


@pytest.fixture(scope='module')
def on_four_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('devices')
    command = [sys.executable, '-c', ON_DEVICES, str(folder), ','.join(map(str, COHORTS))]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, 'JAX_NUM_CPU_DEVICES': '4'}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('4 × cpu') == 2 * len(COHORTS)
    return folder


@pytest.mark.parametrize('runs', COHORTS)
@pytest.mark.parametrize('how', ['map', 'vmap'])
def test_four_devices_give_what_one_gives(on_four_devices: Path, tmp_path: Path, runs: int, how: str) -> None:
    """In turn, the same bits; side by side, other kernels for other cohorts, so to rounding."""
    train.train(tiny(batch_size=(32,), seeds=runs, across_runs=how, epochs=1), tmp_path)
    if how == 'map':
        assert_same(tmp_path, on_four_devices / f'{how}{runs}')
    one, four = final_leaves(tmp_path), final_leaves(on_four_devices / f'{how}{runs}')
    assert len(one) == runs
    assert one.keys() == four.keys()
    for run, leaves in one.items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(four[run][name], leaf, rtol=1e-4, atol=1e-5, err_msg=f'{run} {name}')


def planned(**changes: object) -> tuple[config.Study, list[study.Goal]]:
    made = config.resolve(tiny(**changes))
    return made, [study.Goal(run, run.updates) for run in study.runs(made, {r.variant: 300 for r in made.recipes})]


def test_a_program_has_no_collectives() -> None:
    made, goals = planned(batch_size=(32,), seeds=4, across_runs='vmap')
    datasets = data.load(made.data, [goals[0].run.recipe.variant])
    compiled = programs.Programs(made, datasets, progress.View(made, datasets, Path()), jax.devices()[0])
    for program in (compiled._segment(goals[0].run, 32, 4), compiled._evaluate(goals[0].run, 4, full=True)):
        operations = set(re.findall(r' ([a-z-]+)\(', program.as_text()))
        assert {'fusion', 'while'} <= operations
        assert not {op for op in operations if re.match('all-|reduce-scatter|collective|send|recv|partition', op)}


@pytest.mark.parametrize('side_by_side', [True, False])
@pytest.mark.parametrize('devices', [1, 2, 4, 7])
def test_shares_are_whole_and_even(devices: int, side_by_side: bool) -> None:
    _, goals = planned(batch_size=(1, 4, 30, 300), seeds=5)
    dealt = study.shares(goals, devices, side_by_side)
    assert len(dealt) == devices
    assert sorted(goal.run.name for share in dealt for goal in share) == sorted(goal.run.name for goal in goals)

    def load(share: Iterable[study.Goal]) -> float:
        sizes: dict[int, list[study.Goal]] = {}
        for goal in share:
            sizes.setdefault(goal.run.span(0).stage.batch_size, []).append(goal)
        return sum(study.cost(alike[0], runs=len(alike), side_by_side=side_by_side) for alike in sizes.values())

    longest = max(map(study.cost, goals))
    if not side_by_side:  # Graham's bound
        assert max(map(load, dealt)) <= load(goals) / devices + longest
    assert max(map(load, dealt)) <= load(goals)


def test_cohorts_stay_whole_where_parting_them_gains_nothing() -> None:
    """Two equal cohorts of small batches on two accelerators: one each. On CPUs a third run is dealt out."""
    _, goals = planned(batch_size=(2, 3), seeds=2, epochs=0, updates=10)
    shares = study.shares(goals, 2, side_by_side=True)
    assert [{goal.run.recipe.name for goal in share} for share in shares] == [{'bs3-lr0.1'}, {'bs2-lr0.1'}]
    _, goals = planned(batch_size=(2,), seeds=3)
    assert sorted(map(len, study.shares(goals, 2, side_by_side=False))) == [1, 2]
    assert sorted(map(len, study.shares(goals, 4, side_by_side=False))) == [0, 1, 1, 1]


@pytest.mark.parametrize('how', ['map', 'vmap'])
def test_a_limit_on_parallel_runs_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Eight runs, three at a time; then as many as a device holds that has room for three and a half."""
    changes = {'batch_size': (20, 100), 'seeds': 4, 'across_runs': how, 'epochs': 1}
    train.train(tiny(**changes), tmp_path / 'all')
    most, add = list[int](), progress.View.add
    monkeypatch.setattr(progress.View, 'add', lambda self, seats: most.append(len(seats)) or add(self, seats))
    train.train(tiny(**changes, max_parallel_runs=3), tmp_path / 'three')
    made, goals = planned(**changes)
    datasets = data.load(made.data, [goals[0].run.recipe.variant])
    compiled = programs.Programs(made, datasets, progress.View(made, datasets, Path()), jax.devices()[0])
    needed = [compiled.memory(goals, limit) for limit in (8, 4, 3, 1)]
    assert needed == sorted(needed, reverse=True)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(jax.device_get(compiled.init(goals[0].run, range(8)))))
    image = datasets[goals[0].run.recipe.variant].train.images_NxHxWxC[0]
    assert needed[0] > (image.size + 4) * 10_300 + state + 8 * 4 * 300
    monkeypatch.setattr(programs, '_room', lambda _: needed[2])
    train.train(tiny(**changes), tmp_path / 'room')
    assert most == [3, 3, 2] * 2
    for other in ('three', 'room'):
        if how == 'map':
            assert_same(tmp_path / 'all', tmp_path / other)
        one, few = final_leaves(tmp_path / 'all'), final_leaves(tmp_path / other)
        for run in one:
            for name, leaf in one[run].items():
                np.testing.assert_allclose(few[run][name], leaf, rtol=1e-4, atol=1e-5)


def test_a_device_that_fails_stops_the_others_which_save(tmp_path: Path) -> None:
    code = f"""
import sys
import threading
sys.path.insert(0, 'tests')
from conftest import tiny
from bsgap import metrics, train
append, failing = metrics.append, threading.Event()
def fail(path, row, header):
    if row['epoch'] == 1:
        if 'seed1' in str(path):
            failing.set()
            raise OSError(28, 'No space left on device')
        failing.wait()
    append(path, row, header)
metrics.append = fail
try:
    train.train(tiny(batch_size=(10,), seeds=2, epochs=40), {str(tmp_path)!r})
except train.config.UserError as error:
    print(error)
"""
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '2'}
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'--workdir: {tmp_path} cannot be used: No space left on device' in done.stdout
    assert not done.stderr
    saved = study.saved_updates(tmp_path, 'bs10-lr0.1-seed0')
    assert 0 < saved[-1] < 1200
    train.train(tiny(batch_size=(10,), seeds=2, epochs=40), tmp_path)
    train.train(tiny(batch_size=(10,), seeds=2, epochs=40), tmp_path / 'whole')
    assert_same(tmp_path, tmp_path / 'whole')


def wait_for_rows(workdir: Path, number: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if sum(map(len, rows(workdir).values())) >= number:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError('no rows came')


def test_one_two_and_one_processes_over_one_study(tmp_path: Path, small: Path) -> None:
    """Stopped by a signal to one of them, all save; then one process is killed; then a single one goes on."""
    (alone,) = start(tmp_path)
    wait_for_rows(tmp_path, 1, alone)
    alone.send_signal(signal.SIGTERM)
    assert finish([alone]) == [128 + signal.SIGTERM]
    had = sum(map(len, rows(tmp_path).values()))
    two = start(tmp_path, 2)
    wait_for_rows(tmp_path, had + 1, two[0])
    two[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=120)[1] for process in two]
    assert [process.returncode for process in two] == [128 + signal.SIGTERM] * 2, errors
    assert all('stopped by SIGTERM; all runs are saved. To go on: ' in error.splitlines()[-1] for error in errors)
    for run, table in rows(tmp_path).items():  # a run that is at its first row was not begun
        assert int(table[-1]['update']) <= max(study.saved_updates(tmp_path, run), default=0)
    kill_at_random(tmp_path, 2, random.Random(), 3)
    assert finish(start(tmp_path)) == [0]
    assert_same(tmp_path, small)


def test_two_processes_report_once_and_share_the_runs(tmp_path: Path, small: Path) -> None:
    two = start(tmp_path, 2)
    outputs = [process.communicate(timeout=120) for process in two]
    assert [process.returncode for process in two] == [0, 0], outputs
    assert_same(tmp_path, small)
    assert (tmp_path / 'results.csv').read_text().count(',done,') == 4
    assert [output.count('report   ') for output, _ in outputs] == [1, 0]
    here = [int(re.findall(r'to train here: (\d+)', output)[0]) for output, _ in outputs]
    assert sorted(here) == [1, 3]


def test_an_error_in_one_process_stops_the_other(tmp_path: Path) -> None:
    """Process 1 was given another width, which contradicts what process 0 wrote."""
    two = start(tmp_path, 2, of_last=['--config.hidden=8,'])
    outputs = [process.communicate(timeout=120) for process in two]
    assert [process.returncode for process in two] == [2, 2], outputs
    first, second = (errors.splitlines()[-1] for _, errors in outputs)
    assert second.startswith('error: config.hidden: [64, 64, 8] contradicts [64, 64]')
    assert first.startswith(
        'error: stopped together with process 1, which says: config.hidden: [64, 64, 8] contradicts'
    )


def test_processes_that_would_share_the_runs_in_different_ways_stop(tmp_path: Path) -> None:
    two = start(tmp_path, 2, of_last=['--config.seeds=3'])
    outputs = [process.communicate(timeout=120) for process in two]
    assert [process.returncode for process in two] == [2, 2], outputs
    assert any('would share the runs in different ways' in errors for _, errors in outputs)
    assert not any(checkpoints.glob('[0-9]*') for checkpoints in tmp_path.glob('runs/*/checkpoints'))


def test_a_workdir_is_locked_until_the_last_process_is_dead(tmp_path: Path) -> None:
    first, second = start(tmp_path, 2, '--config.epochs=1000')
    wait_for_rows(tmp_path, 4, first)
    second.send_signal(signal.SIGSTOP)  # or else it ends too soon
    first.kill()
    first.communicate()
    with pytest.raises(config.UserError, match=f'is in use by process {first.pid} on '), study.locked(tmp_path):
        pass
    second.kill()
    second.communicate()
    with study.locked(tmp_path):
        pass


def test_what_the_others_are_told() -> None:
    assert cluster._reason(cluster.Interrupted(signal.SIGTERM)) == '15'
    assert cluster._reason(KeyboardInterrupt()) == '2'
    assert cluster._reason(SystemExit(143)) == '15'
    assert cluster._reason(config.UserError('no room')) == 'no room'
    assert cluster._reason(MemoryError()) == 'MemoryError'


def test_the_live_table_has_nothing_to_draw_between_two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(progress, 'Console', lambda **_: Console(file=shown, force_terminal=True, width=120))
    made, goals = planned(batch_size=(20,))
    datasets = data.load(made.data, [goals[0].run.recipe.variant])
    with progress.View(made, datasets, Path()) as view:
        view.start(goals)
        view.add([train.Seat(goal, Path(), None, []) for goal in goals])  # type: ignore[arg-type]
        view.start(goals)
        with view.compiling('batch size 20'):
            pass
    assert 'compiling: batch size 20' in shown.getvalue()


@pytest.mark.parametrize(
    ('variables', 'says'),
    [
        ({'JAX_NUM_PROCESSES': '2'}, 'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID: None, 2, None'),
        ({'JAX_COORDINATOR_ADDRESS': 'here', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '0'}, 'here, 2, 0'),
        (
            {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '2'},
            'did not find each other',
        ),
    ],
)
def test_wrong_variables_are_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(config.UserError, match=re.escape(says)), cluster.together():
        pass
    assert cluster.count() == 1


@pytest.mark.parametrize(
    ('variables', 'several'),
    [
        ({}, False),
        ({'COLAB_GPU': '1'}, False),
        ({'COLAB_TPU_ADDR': '10.0.0.1:8470', 'TPU_WORKER_HOSTNAMES': 'localhost'}, False),  # a TPU machine of its own
        ({'KUBERNETES_SERVICE_HOST': '10.0.0.1'}, False),  # a notebook in a cluster, as Kaggle's
        ({'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4'}, False),  # a batch script's own shell
        ({'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '1', 'SLURM_STEP_NODELIST': 'n1'}, False),
        ({'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4', 'SLURM_STEP_NODELIST': 'n[1-4]'}, True),
        ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
        ({'TPU_WORKER_HOSTNAMES': 'host-0,host-1'}, True),
        ({'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '0'}, True),
        ({'OMPI_COMM_WORLD_SIZE': '2', 'JAX_NUM_PROCESSES': '1'}, False),
    ],
)
def test_a_single_process_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], several: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    class Joined(Exception):  # noqa: N818
        pass

    def join(**_: object) -> None:
        raise Joined

    monkeypatch.setattr(cluster._runtime, 'initialize', join)
    with pytest.raises(Joined) if several else contextlib.nullcontext(), cluster.together():
        assert not several


def test_slurm_is_found_by_jax_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address, the number and the place that JAX makes of what srun sets."""
    variables = {'JOB_ID': '4096', 'STEP_NODELIST': 'node[07-08]', 'NTASKS': '2', 'PROCID': '1', 'LOCALID': '0'}
    for name, value in variables.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    from jax._src import clusters

    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)
    assert found == (f'node07:{65535 - 2**12 + 1}', 2, 1, [0])
    assert cluster._scheduled()
    assert not cluster._has_devices_of_its_own()
    monkeypatch.setenv('SLURM_GPUS_PER_TASK', '1')  # then each task sees its own alone, and counts from 0
    assert cluster._has_devices_of_its_own()
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, [], None, 1)
    assert found[3] == []
