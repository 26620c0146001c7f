"""A Python function of the user's own that gives arrays."""

import importlib
from typing import Any

import numpy as np

from bsgap.config.checks import require
from bsgap.data.examples import Source
from bsgap.errors import users_code


def read(where: str) -> Source:
    """Calls `module:function`, which returns (x_train, y_train), (x_test, y_test), or (x_train, y_train), None."""
    module_name, _, name = where.partition(':')
    with users_code(f'config.dataset: {where}', always=True):
        function: Any = getattr(importlib.import_module(module_name), name, None)
        require(callable(function), 'dataset', f'{where}: {module_name} has no function {name}')
        given = function()
        ok = isinstance(given, tuple | list) and len(given) == 2 and given[0] is not None
        ok = ok and all(isinstance(part, tuple | list) and len(part) == 2 for part in given if part is not None)
        require(ok, 'dataset', f'{where} must return (x_train, y_train), (x_test, y_test), or None for the latter')
        # Any, as a mask would be lost.
        train, test = (part and (np.asanyarray(part[0]), np.asanyarray(part[1])) for part in given)
    return Source(train, test)
