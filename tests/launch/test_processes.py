"""Several processes over one study, on one machine, each a real one."""

import contextlib
import inspect
import random
import re
import signal
import socket
from pathlib import Path
from typing import NoReturn

import jax
import pytest
from helpers import ROOT, assert_same
from launching import wait_for_rows

from benchmarks.kill import finish, kill_at_random, rows, start
from bsgap.errors import Interrupted, UserError
from bsgap.training.workdir import saved_updates

MOVED = """
bsgap.launch.processes holds JAX's distributed runtime in a class of JAX's own, because jax.distributed.initialize would
also join the processes' devices. Its name is private, and here it is no longer what it was: {what}.
Where to look: jax/_src/distributed.py of the installed JAX, where `jax.distributed.initialize` calls a method of one
object of that class (`global_state.initialize`); the class is `State` there.
What to change: `_coordinator` in bsgap/launch/processes.py, which alone names it, and must return a new object with
  initialize(coordinator_address=, num_processes=, process_id=, local_device_ids=, cluster_detection_method=,
             initialization_timeout=, heartbeat_timeout_seconds=, shutdown_timeout_seconds=)   as `_join` calls it
  client          None before; then key_value_set, blocking_key_value_get and key_value_dir_get
  num_processes   1 before
  process_id      0 before
  shutdown()      which does nothing before
If JAX has no such class any more, jaxlib's own (jax._src.lib._jax.get_distributed_runtime_service and …_client) make
the two objects that it held. If that can't be: pin jax below this version in pyproject.toml, and open an issue.
"""


def moved(what: object) -> NoReturn:
    pytest.fail(MOVED.format(what=what), pytrace=False)


try:
    from bsgap.launch import processes
    from bsgap.launch.lock import locked
except (ImportError, AttributeError) as error:
    moved(error)


def test_the_private_class_of_jax_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one test of a private name; where it fails, its message says what to do."""
    named = [path.name for path in (ROOT / 'bsgap').rglob('*.py') if 'jax._src' in path.read_text()]
    assert named == ['processes.py']
    told: dict[str, object] = {}
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    for name, value in zip(processes.VARIABLES, (address, '2', '0'), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('SLURM_GPUS_PER_TASK', '1')  # so that local_device_ids is given as well

    class Runtime:
        def initialize(self, **given: object) -> None:
            told.update(given)

    monkeypatch.setattr(processes, '_runtime', Runtime())
    preemption = jax.config.jax_enable_preemption_service
    processes._join()
    try:
        runtime = processes._coordinator()
        missing = told.keys() - inspect.signature(runtime.initialize).parameters
        if missing:
            moved(f'initialize takes no {", ".join(sorted(missing))}')
        if (runtime.client, runtime.num_processes, runtime.process_id) != (None, 1, 0):
            moved(f'a new one has {runtime.client}, {runtime.num_processes}, {runtime.process_id}')
        runtime.shutdown()
        runtime.initialize(**{**told, 'num_processes': 1})
        runtime.client.key_value_set('bsgap/a', '1', allow_overwrite=True)
        runtime.client.key_value_set('bsgap/a', '2', allow_overwrite=True)
        found = runtime.client.blocking_key_value_get('bsgap/a', 1000), runtime.client.key_value_dir_get('bsgap/')
        if found != ('2', [('bsgap/a', '2')]) or (runtime.num_processes, runtime.process_id) != (1, 0):
            moved(f'it keeps {found}')
        runtime.shutdown()
    except (ImportError, AttributeError, TypeError) as error:
        moved(error)
    finally:
        jax.config.update('jax_enable_preemption_service', preemption)


@pytest.mark.smoke
def test_one_two_and_one_processes_over_one_study(tmp_path: Path, small: Path) -> None:
    """One is interrupted; of two, all save when one is told to end; one of two is killed; a single one ends it."""
    (alone,) = start(tmp_path)
    wait_for_rows(tmp_path, 3, alone)
    alone.send_signal(signal.SIGINT)
    _, errors = alone.communicate(timeout=60)
    assert alone.returncode == 128 + signal.SIGINT
    last = errors.splitlines()[-1]
    assert last.startswith('stopped by SIGINT; all runs are saved. To go on: python launch.py')
    assert f'--workdir={tmp_path}' in last
    had = sum(map(len, rows(tmp_path).values()))
    two = start(tmp_path, 2)
    wait_for_rows(tmp_path, had + 1, two[0])
    two[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=120)[1] for process in two]
    assert [process.returncode for process in two] == [128 + signal.SIGTERM] * 2, said
    assert all('stopped by SIGTERM; all runs are saved. To go on: ' in error.splitlines()[-1] for error in said)
    for run, table in rows(tmp_path).items():  # a run that is at its first row was not begun
        assert int(table[-1]['update']) <= max(saved_updates(tmp_path, run), default=0)
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
    for place, (output, _) in enumerate(outputs):
        assert f'[{place}] device   cpu (cpu), in process {place} of 2' in output


def test_an_error_in_one_process_stops_the_other(tmp_path: Path) -> None:
    """Process 1 was given another width, which contradicts what process 0 wrote."""
    two = start(tmp_path, 2, of_last=['--config.hidden=8,'])
    outputs = [process.communicate(timeout=120) for process in two]
    assert [process.returncode for process in two] == [2, 2], outputs
    first, second = (errors.splitlines()[-1] for _, errors in outputs)
    assert second.startswith('error: config.hidden: [8] contradicts [64, 64]')
    assert first.startswith('error: stopped together with process 1, which says: config.hidden: [8] contradicts')


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
    with pytest.raises(UserError, match=f'is in use by process {first.pid} on '), locked(tmp_path):
        pass
    second.kill()
    second.communicate()
    with locked(tmp_path):
        pass


def test_what_the_others_are_told() -> None:
    assert processes._reason(Interrupted(signal.SIGTERM)) == '15'
    assert processes._reason(KeyboardInterrupt()) == '2'
    assert processes._reason(SystemExit(143)) == '15'
    assert processes._reason(UserError('no room')) == 'no room'
    assert processes._reason(MemoryError()) == 'MemoryError'


def test_alone_there_is_nobody_to_wait_for() -> None:
    with processes.together(), processes.first_goes_first():
        processes.meet(plan='mine')
        processes.stop_if_told()
        assert (processes.count(), processes.index(), processes.all_devices()) == (1, 0, jax.local_device_count())
        assert processes.devices() == dict(enumerate(jax.local_devices()))
        assert 'process' not in processes.describe()


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
    with pytest.raises(UserError, match=re.escape(says)), processes.together():
        pass
    assert processes.count() == 1


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

    monkeypatch.setattr(processes._runtime, 'initialize', join)
    with pytest.raises(Joined) if several else contextlib.nullcontext(), processes.together():
        assert not several


def test_slurm_is_found_by_jax_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address, the number and the place that JAX makes of what srun sets."""
    variables = {'JOB_ID': '4096', 'STEP_NODELIST': 'node[07-08]', 'NTASKS': '2', 'PROCID': '1', 'LOCALID': '0'}
    for name, value in variables.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    from jax._src import clusters

    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)
    assert found == (f'node07:{65535 - 2**12 + 1}', 2, 1, [0])
    assert processes._scheduled()
    assert not processes._has_devices_of_its_own()
    monkeypatch.setenv('SLURM_GPUS_PER_TASK', '1')  # then each task sees its own alone, and counts from 0
    assert processes._has_devices_of_its_own()
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, [], None, 1)
    assert found[3] == []
