"""How a launch is stopped."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from bsgap.errors import Interrupted, StoppedElsewhere
from bsgap.launch import processes

GRACE_SECONDS = 25  # from SIGTERM on; Slurm and Kubernetes kill after 30


class Stop:
    """Whether training shall end before its time: for a signal, another process of the launch, or another device.

    The first SIGINT or SIGTERM lets the segment in flight end; a second one has its usual effect. A segment that takes
    longer than GRACE_SECONDS after a SIGTERM is given up: what was saved before is kept.
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
        usual: dict[int, Any] = {}
        patience = threading.Timer(GRACE_SECONDS, _give_up, [signal.SIGTERM])
        patience.daemon = True

        def restore() -> None:
            for number, handler in usual.items():
                signal.signal(number, handler)

        def stop(number: int, _: Any) -> None:
            self._number = number
            restore()
            if number == signal.SIGTERM:
                patience.start()

        if threading.current_thread() is threading.main_thread():
            usual |= {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            restore()
            patience.cancel()


def _give_up(number: int) -> None:
    name = signal.Signals(number).name
    print(f'stopped by {name} before all was saved; what is missing is trained again', file=sys.stderr, flush=True)
    os._exit(128 + number)
