"""Standard output, whose failure is not training's, and what is written there as it stands."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from bsgap.errors import UserError

if TYPE_CHECKING:  # loaded where it is needed, so that an error is told at once
    from rich.console import Console

at_the_end = list[Callable[[], None]]()  # what is to be done when the process is left


class _Output:
    """A stream that replaces what it can't show, and drops what it can't write: on a full disk, in a broken pipe."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, 'encoding', None) or 'utf-8'
        with contextlib.suppress(OSError, ValueError):  # the latter if it was closed
            self._stream.write(text.encode(encoding, 'replace').decode(encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console() -> 'Console':
    """What is shown goes through this. Texts are shown as they are: nothing in them is markup."""
    from rich.console import Console

    output: Any = _Output(sys.stdout or io.StringIO())  # there is none if it was closed
    return Console(file=output, markup=False, emoji=False, highlight=False)


def failed(message: str, code: int = 2) -> NoReturn:
    """Says why a command ends, in one line, and ends it."""
    if sys.stderr:
        _Output(sys.stderr).write(('error: ' if code == 2 else '') + ' '.join(message.split()) + '\n')
    leave(code)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Around all that a command does: bad input is told in one line, and the process ends."""
    try:
        yield
    except UserError as error:
        failed(str(error))
    leave(0)


def leave(code: int) -> NoReturn:
    """Ends the process now, with this code: a thread of a library may wait for what never comes, and Python would give
    another code where the output can't be written."""
    for clean in at_the_end:
        with contextlib.suppress(OSError):
            clean()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        _Output(stream).flush()
    os._exit(code)
