"""Trains a study and reports on it: python launch.py --config=FILE[:VARIANT] [--workdir=DIR] [--config.FIELD=VALUE …]

Exit codes: 0, all is trained; 2, bad input, or a workdir that can't be written; 128 + the signal's number, stopped by a
signal with all runs saved; 134, another process of the launch died."""

import re
import shlex
import signal
import sys

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from bsgap.errors import UserError

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment file; FILE:VARIANT picks a variant of it.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print what would be done, and how long it takes; write nothing.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where the runs and the report go; default: runs/<study name>.')


def main(_: list[str]) -> None:
    logging.get_absl_handler().setLevel('WARNING')  # the libraries tell much that is of no use here
    if not isinstance(config := CONFIG.value, ConfigDict):  # ml_collections keeps why it can't be read
        fail(f'--config: {getattr(config, "_error", "missing; give an experiment file: experiments/mnist.py")}')
    from bsgap.config import resolve  # here, so that --help and a mistyped flag are answered at once

    try:
        workdir = WORKDIR.value or f'runs/{resolve(config).name}'
        from bsgap.launch import job  # likewise, for what is wrong with the config

        experiment = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')[0]
        job.launch(config, workdir, DRY_RUN.value, experiment)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt as stop:
        kept = f'by {stop}; all runs are saved' if str(stop) else 'at once; what was saved before is kept'
        again = shlex.join(sys.argv if sys.argv[0].endswith('bsgap') else ['python', *sys.argv])
        fail(f'stopped {kept}. To go on: {again}', 128 + getattr(stop, 'number', signal.SIGINT))


def fail(message: str, code: int = 2) -> None:
    print(('error: ' if code == 2 else '') + ' '.join(message.split()), file=sys.stderr)
    sys.exit(code)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; whatever is wrong with them is bad input."""
    try:
        if extra := flags.FLAGS(argv)[1:]:
            fail(f'unknown argument {extra[0]!r}; see python launch.py --help')
    except (AttributeError, LookupError) as error:  # so ml_collections says that a field is unknown
        field = re.findall(r'\w+', str(error))[0]
        flag = next((argument for argument in argv if f'.{field}' in argument), field)
        near = re.findall(r'Did you mean ("\w+")', str(error)) or ['one of those in bsgap/config/fields.py']
        fail(f'{flag}: unknown field {field!r}; did you mean {near[0]}?')
    except (flags.Error, TypeError, ValueError) as error:
        fail(str(error).strip().splitlines()[-1].rpartition('UserError: ')[2])
    return argv[:1]


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
