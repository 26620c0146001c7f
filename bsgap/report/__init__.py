"""What is told: figures, tables and the page, from the files of a workdir alone."""

import sys
import types
from pathlib import Path


class _Report(types.ModuleType):
    """`bsgap.report` is a function, until Python puts this package under that name: then it does the same."""

    def __call__(self, workdir: str | Path) -> Path:
        from bsgap.report import page  # here, because Matplotlib takes half a second to load

        return page.report(workdir)


sys.modules[__name__].__class__ = _Report
