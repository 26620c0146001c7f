"""How a launch is stopped."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from bsgap import output
from bsgap.errors import Interrupted, StoppedElsewhere
from bsgap.launch import processes

GRACE_SECONDS = 25  # from SIGTERM on; Slurm and Kubernetes kill after 30


class Stop:
    """Whether training shall end before its time: for a signal, another process of the launch, or another device.

    The first SIGINT, SIGTERM or SIGHUP lets the segment in flight end; a second one has its usual effect. A segment
    that takes longer than GRACE_SECONDS after a SIGTERM or SIGHUP is given up: what was saved before is kept.
    """

    def __init__(self) -> None:
        self.failed = False  # another device's training
        self._number: int | None = None

    def check(self) -> None:
        """Raises what ends the training, if it shall end."""
        if self._number:
            raise Interrupted(self._number)
        if self.failed:
            raise StoppedElsewhere
        processes.stop_if_told()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """In the main thread, answers signals within the block."""
        usual = contextlib.ExitStack()
        patience = threading.Timer(GRACE_SECONDS, lambda: _give_up(self._number or signal.SIGTERM))
        patience.daemon = True

        def stop(number: int, _: Any) -> None:
            self._number = number
            usual.close()
            if number in processes.ENDING:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which may follow, or come more than once
                patience.start()

        try:
            with usual:
                processes.answer(stop, [signal.SIGINT, *processes.not_ignored()], until=usual)
                yield
        finally:
            patience.cancel()


def _give_up(number: int) -> None:
    name = signal.Signals(number).name
    output.failed(f'stopped by {name} before all was saved; what is missing is trained again', 128 + number)
