"""Experiment files: Python with a function `get_config(variant)`, and perhaps claims."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from bsgap.errors import UserError, users_code

EXPERIMENTS = Path(__file__).resolve().parents[2] / 'experiments'


def run(file: Path) -> ModuleType:
    """Runs an experiment file, which finds the checkout's `experiments` before any other."""
    package = sys.modules.get('experiments')
    if package and [Path(folder).resolve() for folder in getattr(package, '__path__', [])] != [EXPERIMENTS]:
        raise UserError(f'another package of the name experiments was imported: {package}')
    if not file.is_file():
        known = ', '.join(path.name for path in sorted(EXPERIMENTS.glob('[!_]*.py')))
        raise UserError(f'--config: {file} is not a file; give one of your own, or in experiments/ one of {known}')
    loader = SourceFileLoader(f'bsgap experiment {file.stem}', str(file.resolve()))
    spec = importlib.util.spec_from_file_location(loader.name, loader.path, loader=loader)
    assert spec
    module = sys.modules[loader.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(EXPERIMENTS.parent))
    try:
        with users_code(str(file)):
            loader.exec_module(module)
    finally:
        sys.path.remove(str(EXPERIMENTS.parent))
    return module


def settings(module: ModuleType, variant: str = '') -> ConfigDict:
    """What an experiment's `get_config` returns for a variant; raises UserError as `run` does."""
    function = getattr(module, 'get_config', None)
    if not callable(function):
        raise UserError(f'--config: {module.__file__} has no function get_config')
    with users_code(str(module.__file__)):
        made = function(*filter(None, [variant]))
    if not isinstance(made, ConfigDict):
        raise UserError(f'--config: {module.__file__}: get_config returns {made!r:.60}; it must return a ConfigDict')
    return made
