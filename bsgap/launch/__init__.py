"""A launch from beginning to end: its processes, devices, signals, lock, and what is shown meanwhile."""

import runpy
import sys
from pathlib import Path


def command() -> None:
    """The command `bsgap`: `launch.py` of the checkout that bsgap is installed from."""
    path = Path(__file__).parents[2] / 'launch.py'
    if not path.is_file():
        sys.exit("error: bsgap: there is no launch.py beside it; install a checkout: python -m pip install -e '.'")
    sys.path[:0] = [str(Path.cwd()), str(path.parent)]  # models of one's own, experiments
    runpy.run_path(str(path), run_name='__main__')
