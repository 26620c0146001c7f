"""What ends a launch before its time."""

import signal


class UserError(ValueError):
    """Bad input: one line that names the field, the value and what is allowed. `launch.py` exits with code 2."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal; all is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StoppedElsewhere(Exception):  # noqa: N818
    """Another device's training has failed; here all is saved."""
