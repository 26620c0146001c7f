"""Functions of experiment files that study.json names. Nothing else is run for a workdir, whatever its files say."""

import re
from pathlib import Path
from typing import Any

from bsgap import config
from bsgap.config import experiment
from bsgap.config.experiment import EXPERIMENTS
from bsgap.errors import UserError, users_code


def call(name: Any, variant: str, launched: Path | None = None) -> tuple[list[Any], config.Study]:
    """What a function, 'experiments.MODULE:FUNCTION', returns for a variant, as a list, and the study of that variant.

    The module is a file directly below the checkout's experiments/, or `launched`, the file of --config, if that has
    the module's name.

    Raises:
      UserError: there is no such module, or something in it is wrong: one line that names the file.
    """
    if not isinstance(name, str):
        raise UserError('study.json is of an earlier version, which had them as data')
    named = re.fullmatch(r'(experiments\.)?(\w+):(\w+)', name, re.ASCII)
    if named and launched and launched.stem == named[2]:
        file = launched.resolve()
    elif named and named[1] and (EXPERIMENTS / f'{named[2]}.py').is_file():
        file = EXPERIMENTS / f'{named[2]}.py'
    else:
        raise UserError(f'config.claims: {" ".join(name.split()):.60} names no function of a module of {EXPERIMENTS}')
    module = experiment.run(file)
    function: Any = getattr(module, named[3], None)
    if getattr(function, '__module__', None) != module.__name__:
        raise UserError(f'{file}: {named[3]} is not a function of this file')
    with users_code(str(file)):
        made = function(variant)
        if not isinstance(made, list | tuple):
            raise UserError(f'{file}: {named[3]} returns {made!r:.60}; it must return a list')
        return list(made), config.resolve(experiment.settings(module, variant))
