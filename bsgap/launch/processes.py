"""The processes of a launch, by JAX's distributed runtime.

Each process trains its share of the runs at its own pace; they meet where one needs what another has written, and stop
together. When a process dies, the runtime ends the others within HEARTBEAT_SECONDS. With one process all of this does
nothing.

They share the runtime's coordinator, not arrays: `jax.distributed.initialize` would also join their devices, and then
Orbax lets process 0 alone write what all of them have to save at once. So the runtime is held here, in JAX's own class.
"""

import collections
import contextlib
import faulthandler
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from bsgap.errors import Interrupted, UserError, said

JOINING_SECONDS = 120  # how long a process waits for the others to start
HEARTBEAT_SECONDS = 20
LEAVING_SECONDS = 60  # how long a process that leaves waits for the others to do so
POLL_SECONDS = 0.2
ENDING = signal.SIGTERM, signal.SIGHUP  # a scheduler's, and that of a terminal that is closed
VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def _coordinator() -> Any:
    """JAX's own class, a private name; tests/launch/test_processes.py says what to do when it moves."""
    from jax._src import distributed

    return distributed.State()


_runtime = _coordinator()
_devices = list[int]()  # how many each process has; empty with one process
_meetings = itertools.count()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Joins the other processes of this launch for the block; to be entered before anything else of JAX is used.

    There are some if JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID are set, or
    a scheduler started several; JAX_NUM_PROCESSES=1 says that there are none. Where the block ends with an exception,
    or by SIGTERM or SIGHUP, the others are told why, and stop too.

    Raises:
      UserError: some of the three variables are missing, or wrong; or the other processes can't be reached.
    """
    _join()
    with contextlib.ExitStack() as stack:
        if count() > 1:
            answer(lambda number, _: sys.exit(128 + number), not_ignored(), until=stack)
        try:
            start()
            if count() > 1:
                _count_devices()
            yield
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # the others may be gone
                if count() > 1:
                    _runtime.client.key_value_set(f'bsgap/stop/{index()}', _reason(error), allow_overwrite=True)
                _runtime.shutdown()
            raise
        _runtime.shutdown()


def answer(how: Callable[[int, Any], None], numbers: Iterable[signal.Signals], until: contextlib.ExitStack) -> None:
    """In the main thread, answers signals until the stack is closed."""
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            until.callback(signal.signal, number, signal.signal(number, how))


def not_ignored() -> list[signal.Signals]:
    """What ends this process; `nohup` has it ignore SIGHUP."""
    return [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]


def start() -> None:
    """Starts JAX on this process's devices."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError, ValueError) as error:
        told = jax.config.values.get('jax_platforms')
        problem = said(error) if str(error) else 'there is no such device here'
        raise UserError(f'{f"JAX_PLATFORMS: {told}" if told else "JAX"} cannot be used: {problem}') from error


def _reason(error: BaseException) -> str:
    """What the other processes are told: a signal's number, or words."""
    if isinstance(error, KeyboardInterrupt):
        return str(int(getattr(error, 'number', signal.SIGINT)))
    if isinstance(error, SystemExit):
        return str(error.code - 128 if isinstance(error.code, int) else int(signal.SIGTERM))
    return str(error) or type(error).__name__


def _join() -> None:
    told: dict[str, Any] = {}
    address, number, place = (os.environ.get(name) for name in VARIABLES)
    if number == '1' or (not any((address, number, place)) and not _scheduled()):
        return
    if any((address, number, place)):
        if not (address and ':' in address and number and number.isdigit() and place and place.isdigit()):
            given = f'{address}, {number}, {place}'
            raise UserError(f'{", ".join(VARIABLES)}: {given} is not allowed; give host:port and two numbers')
        told = {'coordinator_address': address, 'num_processes': int(number), 'process_id': int(place)}
        told['cluster_detection_method'] = 'deactivate'
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM, which `train` answers
    faulthandler.disable()  # where another process dies, the runtime's own words are enough
    if _has_devices_of_its_own():
        told['local_device_ids'] = []  # or else JAX takes the one whose number is the process's on its machine
    told['initialization_timeout'] = JOINING_SECONDS
    told |= {'heartbeat_timeout_seconds': HEARTBEAT_SECONDS, 'shutdown_timeout_seconds': LEAVING_SECONDS}
    try:
        _runtime.initialize(**told)
    except (RuntimeError, ValueError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'the processes of this launch did not find each other: {reason}') from error


def _count_devices() -> None:
    if jax.process_count() > 1:
        remedy = 'let it see its own alone: TPU_PROCESS_BOUNDS=1,1,1 and TPU_CHIPS_PER_PROCESS_BOUNDS for one machine'
        raise UserError(f'this process sees the devices of other machines, as on a TPU pod; {remedy}')
    client, milliseconds = _runtime.client, 1000 * JOINING_SECONDS
    client.key_value_set(f'bsgap/devices/{index()}', str(jax.local_device_count()))
    _devices[:] = [int(client.blocking_key_value_get(f'bsgap/devices/{i}', milliseconds)) for i in range(count())]


def _scheduled() -> bool:
    """Whether a scheduler started several processes. JAX's own search also asks the network, where a machine has a TPU,
    and fails or waits where there is but one process."""
    counts = [os.environ.get('OMPI_COMM_WORLD_SIZE', '1')]
    if 'SLURM_STEP_NODELIST' in os.environ:  # started by srun
        counts.append(os.environ.get('SLURM_NTASKS', '1'))
    on_tpus = ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')
    on_kubernetes = {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= os.environ.keys()
    return any(count.isdigit() and int(count) > 1 for count in counts) or on_tpus or on_kubernetes


def _has_devices_of_its_own() -> bool:
    """Whether a scheduler gave each process GPUs of its own, or a machine has one process."""
    of_slurm = os.environ.get('SLURM_STEP_TASKS_PER_NODE', '').partition('(')[0]
    of_mpi = os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE')
    return 'SLURM_GPUS_PER_TASK' in os.environ or '1' in (of_slurm, of_mpi)


def count() -> int:
    """The number of processes."""
    return _runtime.num_processes


def index() -> int:
    """This process's place among them; process 0 writes what belongs to no run."""
    return _runtime.process_id


def all_devices() -> int:
    """How many devices all processes have."""
    return sum(_devices) or jax.local_device_count()


def devices() -> dict[int, jax.Device]:
    """This process's devices, by their places among those of all processes."""
    return dict(enumerate(jax.local_devices(), sum(_devices[: index()])))


def describe() -> str:
    """What there is to train on, in words."""
    kinds = collections.Counter(device.device_kind for device in jax.local_devices())
    counts = [f'{number} × {kind}' if number > 1 else kind for kind, number in kinds.items()]
    others = f', in process {index()} of {count()}' if count() > 1 else ''
    return f'{", ".join(counts)} ({jax.default_backend()}){others}'


@contextlib.contextmanager
def first_goes_first(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Process 0 goes through the block before the others do; what `check` raises ends their waiting."""
    if index():
        meet(check)
    yield
    if not index():
        meet(check)


def meet(check: Callable[[], None] = lambda: None, plan: str = '') -> None:
    """Returns when all processes have called this as often; what `check` raises ends the waiting.

    No barrier of the runtime's, because a signal is not answered in one.

    Raises:
      Interrupted: another process was stopped by a signal.
      UserError: another process has failed, or has another `plan`.
    """
    if count() == 1:
        return
    place = f'bsgap/meeting{next(_meetings)}/'
    _runtime.client.key_value_set(f'{place}{index()}', plan)
    while len(plans := _runtime.client.key_value_dir_get(place)) < count():
        check()
        stop_if_told()
        time.sleep(POLL_SECONDS)
    if any(other != plan for _, other in plans):
        remedy = 'give all the same settings and the same kind of devices'
        raise UserError(f'the processes of this launch would share the runs in different ways; {remedy}')


def stop_if_told() -> None:
    """Raises why this process shall stop, if another one has said so."""
    if count() == 1:
        return
    for key, what in sorted(_runtime.client.key_value_dir_get('bsgap/stop/')):
        process = key.rpartition('/')[2]
        if process != str(index()):
            if what.isdigit():
                raise Interrupted(int(what))
            raise UserError(f'stopped together with process {process}, which says: {what}')
