"""Files that are whole, whatever happens while they are written."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bsgap.errors import UserError


def expanded(path: str | Path) -> Path:
    """A path that a user gave; `~` is the home folder, if there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (`Path.expanduser` fails where there is no such user)


def of_study(workdir: str | Path) -> Path:
    """A workdir that a user gave, which must hold a study."""
    if not (expanded(workdir) / 'study.json').exists():
        raise UserError(f'workdir: {expanded(workdir)} holds no study; give a folder that launch.py has trained in')
    return expanded(workdir)


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Reads a JSON object that must have `keys`; a `UserError` says how it is damaged."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        missing = [key for key in keys if key not in content]
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f'workdir: {path} is damaged: {error}; restore it or use another workdir') from error
    if missing or not isinstance(content, dict):
        raise UserError(f'workdir: {path} is damaged: {missing} missing; restore it or use another workdir')
    return content


def write_json(path: Path, content: Any) -> None:
    replace(path, json.dumps(content, indent=2) + '\n')


def replace(path: Path, text: str) -> None:
    """Writes a text as a whole file."""
    with whole(path) as part:
        part.write_text(text, encoding='utf-8', errors='backslashreplace')  # a file's name need not be UTF-8


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file that takes the place of `path` after the block: a killed process leaves the old one or the new one."""
    part = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}')
    yield part
    part.replace(path)
