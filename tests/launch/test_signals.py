"""How a launch is stopped: what is in flight ends, all is saved, and the same command goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import ROOT, assert_same, tiny
from launching import After

import bsgap
from benchmarks.kill import finish, rows, start
from bsgap.errors import Interrupted, StoppedElsewhere
from bsgap.launch import processes, signals
from bsgap.training.cohort import Member
from bsgap.training.rows import read_records
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import saved_updates

pytestmark = pytest.mark.usefixtures('compiled_once')


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_signal_is_told_at_the_next_check() -> None:
    stop = signals.Stop()
    stop.check()
    before = handlers()
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match='SIGTERM') as told:
            stop.check()
        assert told.value.number == signal.SIGTERM
        # A second one has its usual effect: it ends the process, or interrupts what it does. SIGHUP may well follow.
        assert handlers() == [*before[:2], signal.SIG_IGN]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted, match='SIGTERM'):
        stop.check()  # what came within the block is not forgotten after it


def test_another_device_or_process_stops_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = signals.Stop()
    stop.failed = True
    with pytest.raises(StoppedElsewhere):
        stop.check()

    def told() -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(processes, 'stop_if_told', told)
    with pytest.raises(Interrupted, match='SIGINT'):
        signals.Stop().check()


def test_handlers_are_those_of_before_after_the_block() -> None:
    before, within = handlers(), list[object]()

    def fail() -> None:
        with signals.Stop().on_signals():
            within.extend(handlers())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert within != before
    assert handlers() == before

    def elsewhere() -> None:
        with signals.Stop().on_signals():
            within[:] = handlers()

    (thread := threading.Thread(target=elsewhere)).start()
    thread.join()
    assert within == before  # only the main thread may answer signals


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_patience_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """After SIGTERM there is little time; after SIGINT there is a user who may interrupt again."""
    given_up: list[int] = []
    monkeypatch.setattr(signals, '_give_up', given_up.append)
    with signals.Stop().on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        assert not timers()
    with signals.Stop().on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        (patience,) = timers()
        assert patience.interval == signals.GRACE_SECONDS < 30
    patience.join(10)
    assert not patience.is_alive()
    assert not given_up
    monkeypatch.setattr(signals, 'GRACE_SECONDS', 0.05)
    with signals.Stop().on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        for thread in timers():
            thread.join(10)
        assert given_up == [signal.SIGTERM]


HANG = """
import os, runpy, signal, sys, time
from bsgap.launch import progress, signals
signals.GRACE_SECONDS = 1
def hang(*_):
    for number in map(int, os.environ['SIGNALS'].split()):
        os.kill(os.getpid(), number)
        time.sleep(0.1)
    time.sleep(1000)
progress.View.trained = hang
sys.argv[:1] = ['launch.py']
runpy.run_path('launch.py', run_name='__main__')
"""


def test_a_segment_that_never_ends(tmp_path: Path) -> None:
    """After SIGTERM there is little time, so it is given up; a second Ctrl-C ends it at once."""
    config = tmp_path / 'study.py'
    config.write_text('from helpers import tiny\n\ndef get_config():\n    return tiny()\n')
    given = {'terminated': [signal.SIGTERM], 'interrupted': [signal.SIGINT, signal.SIGINT]}
    started = [
        subprocess.Popen(
            [sys.executable, '-c', HANG, f'--config={config}', f'--workdir={tmp_path / name}'],
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': 'tests', 'SIGNALS': ' '.join(str(int(number)) for number in numbers)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, numbers in given.items()
    ]
    terminated, interrupted = [(process.communicate(timeout=100)[1], process.returncode) for process in started]
    given_up = 'stopped by SIGTERM before all was saved; what is missing is trained again\n'
    assert terminated == (given_up, 128 + signal.SIGTERM)
    assert interrupted == (
        'stopped at once; what was saved before is kept. To go on: python launch.py'
        f' --config={config} --workdir={tmp_path}/interrupted\n',
        128 + signal.SIGINT,
    )
    for name in given:
        assert set(bsgap.train(tiny(), tmp_path / name).status) == {'done'}


def test_a_signal_in_the_last_save_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = After('saved', 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        bsgap.train(tiny(batch_size=(100,)), tmp_path, [last])
    assert {record.status for record in read_records(tmp_path)} == {'done'}


def test_stopped_when_one_run_is_at_its_end_and_another_is_not(tmp_path: Path, trained: Path) -> None:
    """Its last row must come all the same."""

    class AtTheEnd(Watcher):
        stopped = False

        def trained(self, members: Sequence[Member], examples: int, seconds: float) -> None:
            if members[0].update == members[0].run.updates and not self.stopped:
                self.stopped = True
                os.kill(os.getpid(), signal.SIGTERM)

    study = tiny(segment_seconds=1e-6)
    with pytest.raises(Interrupted):
        bsgap.train(study, tmp_path, [AtTheEnd()])
    assert {record.status for record in read_records(tmp_path)} == {'done', 'running'}
    assert set(bsgap.train(study, tmp_path).status) == {'done'}
    assert_same(tmp_path, trained)


def test_sigterm_saves_at_any_batch_size(tmp_path: Path) -> None:
    """Of one, of 16, and of the whole training set."""
    (process,) = start(tmp_path, 1, '--config.sweep.batch_size=1,16,1000', '--config.epochs=100000')
    while len(rows(tmp_path)) < 6 or min(map(len, rows(tmp_path).values())) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert finish([process]) == [128 + signal.SIGTERM]
    for run, table in rows(tmp_path).items():
        assert max(saved_updates(tmp_path, run), default=0) >= int(table[-1]['update']) > 0
