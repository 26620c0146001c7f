"""Trains a study and reports on it: python launch.py --config=FILE[:VARIANT] [--workdir=DIR] [--config.FIELD=VALUE …]

Exit codes: 0, all is trained; 2, bad input; 128 + the signal's number, stopped by a signal with all runs saved.
"""

import re
import shlex
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment file; FILE:VARIANT picks a variant of it.')
FLAGS = flags.FLAGS
WORKDIR = flags.DEFINE_string('workdir', None, 'Where the runs and the report go; default: runs/<study name>.')


def main(_: list[str]) -> None:
    logging.get_absl_handler().setLevel('WARNING')  # the libraries tell much that is of no use here
    config = CONFIG.value
    if not isinstance(config, ConfigDict):
        problem = getattr(config, '_error', None)  # ml_collections keeps why a file can't be read until it is used
        fail(f'--config: {problem or "missing; give an experiment file, such as experiments/mnist.py"}')
    # Imported here, so that --help and a mistyped flag are answered at once.
    from bsgap.config import UserError
    from bsgap.report import report
    from bsgap.train import Interrupted, train

    workdir = Path(WORKDIR.value or f'runs/{config.get("name")}')
    try:
        train(config, workdir)
        report(workdir)
    except UserError as error:
        fail(str(error))
    except Interrupted as stop:
        print(f'stopped by {stop}; all runs are saved. To go on: {shlex.join(["python", *sys.argv])}', file=sys.stderr)
        sys.exit(128 + stop.number)


def fail(message: str) -> None:
    print(f'error: {" ".join(message.split())}', file=sys.stderr)
    sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; whatever is wrong with them is bad input."""
    try:
        if extra := FLAGS(argv)[1:]:
            fail(f'unknown argument {extra[0]!r}; see python launch.py --help')
    except (AttributeError, KeyError) as error:  # how ml_collections says that a field is unknown
        field = re.findall(r'\w+', str(error))[0]
        flag = next((argument for argument in argv if f'.{field}' in argument), field)
        fail(f'{flag}: unknown field {field!r}; bsgap/config.py lists the known ones {str(error).partition("Did")[2]}')
    except (flags.Error, TypeError, ValueError) as error:
        fail(str(error))
    return argv[:1]


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
