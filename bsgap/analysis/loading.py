"""Functions of experiment files that study.json names. Nothing else is run for a workdir, whatever its files say."""

import re
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from bsgap import config
from bsgap.errors import UserError

EXPERIMENTS = Path(__file__).resolve().parents[2] / 'experiments'


def call(name: Any, variant: str, experiment: Path | None = None) -> tuple[list[Any], config.Study]:
    """What a function, 'experiments.MODULE:FUNCTION', returns for a variant, as a list, and the study of that variant.

    The module is a file directly below the checkout's experiments/, or `experiment`, the file of --config, if that has
    the module's name.

    Raises:
      UserError: there is no such module, or something in it is wrong: one line that names the file.
    """
    if not isinstance(name, str):
        raise UserError('study.json is of an earlier version, which had them as data')
    named = re.fullmatch(r'(experiments\.)?(\w+):(\w+)', name, re.ASCII)
    if named and experiment and experiment.stem == named[2]:
        file = experiment.resolve()
    elif named and named[1] and (EXPERIMENTS / f'{named[2]}.py').is_file():
        file = EXPERIMENTS / f'{named[2]}.py'
    else:
        raise UserError(f'study.json says {" ".join(name.split()):.60}, which names no module of {EXPERIMENTS}')
    try:
        module = _run(file)
        function = getattr(module, named[3])
        if function.__module__ != module.__name__:
            raise UserError(f'{named[3]} is not a function of this file')
        return list(function(variant)), config.resolve(module.get_config(*filter(None, [variant])))
    except (Exception, SystemExit) as error:
        raise UserError(where(error, file, str(file))) from error


def _run(file: Path) -> ModuleType:
    """Runs an experiment file, which finds the checkout's `experiments` before any other."""
    package = sys.modules.get('experiments')
    if package and [Path(folder).resolve() for folder in package.__path__] != [EXPERIMENTS]:
        raise UserError(f'another package of the name experiments was imported: {package}')
    loader = SourceFileLoader(f'bsgap experiment {file.stem}', str(file))
    module = sys.modules[loader.name] = ModuleType(loader.name)
    module.__file__ = str(file)
    sys.path.insert(0, str(EXPERIMENTS.parent))
    try:
        loader.exec_module(module)
    finally:
        sys.path.remove(str(EXPERIMENTS.parent))
    return module


def where(error: BaseException, file: Path, shown: str) -> str:
    """An error in one line, with the last line of a file that led to it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    line = lines[-1] if lines else getattr(error, 'lineno', None)
    return f'{shown}{f":{line}" * bool(line)}: {type(error).__name__}: {" ".join(str(error).split())}'
