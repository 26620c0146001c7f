"""What ends a launch before its time."""

import contextlib
import re
import signal
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_MESSAGE = 500  # the most characters that are shown of what a library said
_HERE = Path(__file__).resolve().parent
# Below these, and in packages that are installed, there is nothing that a user wrote.
_NOT_THEIRS = (_HERE, _HERE.parent / 'launch.py', Path(sysconfig.get_path('stdlib')).resolve())


class UserError(ValueError):
    """Bad input: one line that names the field, the value and what is allowed. `launch.py` exits with code 2."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal; all is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StoppedElsewhere(Exception):  # noqa: N818
    """Another device's training has failed; here all is saved."""


@contextlib.contextmanager
def users_code(what: str, always: bool = False) -> Iterator[None]:
    """Around calls of what a user wrote: an experiment file, a model. What that raises, `SystemExit` included, becomes
    a `UserError` that says where, or begins with `what` if that is not known or `always`."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        place = [place] if (place := place_of(error)) else []
        raise UserError(': '.join([*([what] if always or not place else []), *place, said(error)])) from error


@contextlib.contextmanager
def optional(what: str, library: str, extra: str) -> Iterator[None]:
    """Around the import of a library that not everybody has."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{what} needs {library}: python -m pip install -e '.[{extra}]'") from error


def said(error: BaseException) -> str:
    """An error in one line."""
    text = ' '.join(_text(error).split())
    return f'{type(error).__name__}: {text[:_MESSAGE]}{"…" * (len(text) > _MESSAGE)}'


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # of a user's class
        return ''


def place_of(error: BaseException | None) -> str:
    """FILE:LINE, the last line of a user's own that led to an error, or to what that was raised for; '' if none did."""
    while error:
        if isinstance(error, SyntaxError) and error.filename and is_theirs(error.filename):
            return f'{error.filename}:{error.lineno}'
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        frames += re.findall(r'File "([^"]+)", line (\d+)', _text(error))  # of a callback, which JAX has in its message
        for file, line in reversed(frames):
            if is_theirs(file):
                return f'{file}:{line}'
        error = error.__cause__ or error.__context__
    return ''


def is_theirs(file: str) -> bool:
    """Whether a source file is a user's own, and neither bsgap's nor an installed package's."""
    path = Path(file).resolve()
    installed = {'site-packages', 'dist-packages'}.intersection(path.parts)
    return not (file.startswith('<') or installed or any(path.is_relative_to(other) for other in _NOT_THEIRS))
