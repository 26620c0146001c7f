"""Trains a study and reports on it: python launch.py --config=FILE[:VARIANT] [--workdir=DIR] [--config.FIELD=VALUE ...]

Exit codes: 0, all is trained; 2, bad input, or a workdir that can't be written; 128 + the signal's number, stopped by a
signal with all runs saved; 134, another process of the launch died."""

import ast
import re
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from bsgap.errors import Interrupted, UserError
from bsgap.files import expanded
from bsgap.output import console, failed, leave

EXAMPLES = """\
python launch.py --config=experiments/mnist.py:smoke       a look, in a minute
python launch.py --config=experiments/mnist.py             all of it: 20 minutes
python launch.py --config=experiments/which_batch.py:fast  which batch size?"""


class Experiment(flags.ArgumentParser):
    """Reads --config; an error in the file is told as such."""

    def parse(self, path: str) -> ConfigDict:
        from bsgap.config import experiment

        file, _, variant = path.partition(':')
        made = experiment.settings(experiment.run(expanded(file)), variant)
        made.lock()
        return made


class Tuple(flags.ArgumentParser):
    """Reads a tuple: values with commas between them, quoted or not; where a flag is given twice, the last counts."""

    def parse(self, argument: Any) -> tuple[Any, ...]:
        from bsgap.config.checks import values

        return values(argument) if isinstance(argument, str) else tuple(argument)


config_flags.register_flag_parser_for_type(tuple, Tuple())
CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment file; FILE:VARIANT picks a variant of it.')
flags.FLAGS['config'].parser = Experiment()
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print what would be done, and how long it takes; write nothing.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where the runs and the report go; default: runs/<study name>.')


def help_text() -> str:
    """The flags, and the experiment files, each with what it asks."""
    lines = [__doc__, flags.FLAGS.main_module_help(), '\nexperiments/']
    for file in sorted((Path(__file__).parent / 'experiments').glob('[!_]*.py')):
        asks = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or ''
        lines.append(f'  {file.name:24} {asks.partition(chr(10))[0]}')
    return '\n'.join([*lines, '\nFields: docs/usage.md, and one by one bsgap/config/fields.py'])


def main(_: list[str]) -> None:
    sys.path.append('')  # a model of one's own may lie in the current folder, wherever this file is
    logging.get_absl_handler().setLevel('WARNING')  # the libraries tell much that is of no use here
    if CONFIG.value is None:
        console().print(EXAMPLES)
        failed('--config: missing; python launch.py --help lists the experiment files')
    from bsgap import config  # here, so that --help and a mistyped flag are answered at once

    given = config_flags.get_override_values(flags.FLAGS['config'])
    study = config.resolve(CONFIG.value, given)
    try:
        from bsgap.launch import job  # likewise, for what is wrong with the config
    except ValueError as error:  # JAX reads its variables when it is loaded
        raise UserError(str(error)) from error
    experiment = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')[0]
    job.launch(CONFIG.value, WORKDIR.value or f'runs/{study.name}', DRY_RUN.value, experiment, given)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; whatever is wrong with them is bad input."""
    try:
        if extra := flags.FLAGS(argv)[1:]:
            raise UserError(f'unknown argument {extra[0]!r}; see python launch.py --help')
    except UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        from bsgap.config import fields

        if not fields.find(name := error.flagname):
            raise UserError(f'{error}; see python launch.py --help') from error
        of = 'sweep.' * (name in fields.RECIPE_FIELDS)
        raise UserError(f'--{name}: unknown flag; did you mean --config.{of}{name}=…?') from error
    except (AttributeError, LookupError) as error:  # so ml_collections says that a field is unknown
        from bsgap.config import fields

        given = [argument for argument in argv if argument.startswith(('--config.', '-config.'))]
        field = re.findall(r'\w+', str(error))[0]
        near = re.findall(r'Did you mean ("\w+")', str(error)) or ['one of those in bsgap/config/fields.py']
        flag = next((one for one in given if re.search(rf'sweep\.{field}\b|model_arguments\.{field}\b', one)), '')
        if flag := flag or next((argument for argument in given if f'.{field}' in argument), ''):
            if '.model_arguments.' in flag:
                raise UserError(f'{flag}: is not allowed; an experiment file sets study.model_arguments') from error
            if '.sweep.' in flag and fields.find(field):
                needs = f'all runs of a study have the same {field}; give --config.{field}, or a study each'
                raise UserError(f'{flag}: {needs}') from error
            raise UserError(f'{flag}: unknown field {field!r}; did you mean {near[0]}?') from error
        raise UserError(f'{" ".join(given)}: {error}; name fields as bsgap/config/fields.py does') from error
    except (flags.Error, TypeError, ValueError) as error:
        if isinstance(error.__context__, UserError):
            raise error.__context__ from error
        from bsgap.config import fields

        text = str(error).strip().splitlines()[-1]
        path, _, value = text.partition(': ')[0].removeprefix('flag --config.').partition('=')
        if text.startswith('Missing value'):
            flag = text.rpartition(' ')[2]
            raise UserError(f'{flag}: has no value; write {flag}=VALUE') from error
        if field := fields.find(path):
            field.check(path, value)  # says what is allowed
        flag = text.partition(': ')[0]
        text = f'{flag} is not allowed; it must be true or false' if 'Non-boolean' in text else text
        text = f'{flag} is for a sweep; give --config.sweep.batch_size=whole' if value == 'whole' else text
        raise UserError(text) from error
    return argv[:1]


if __name__ == '__main__':
    try:
        if {'-h', '--help'} & set(sys.argv[1:]):
            console().print(help_text(), soft_wrap=True)
            leave(0)
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        failed(str(error))
    except KeyboardInterrupt as stop:
        saved = isinstance(stop, Interrupted)
        kept = f'by {stop}; all runs are saved' if saved else 'at once; what was saved before is kept'
        again = shlex.join(sys.argv if sys.argv[0].endswith('bsgap') else ['python', *sys.argv])
        failed(f'stopped {kept}. To go on: {again}', 128 + getattr(stop, 'number', signal.SIGINT))
    except SystemExit as end:  # of app.run; None is success
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:
        try:
            traceback.print_exc()
        finally:
            leave(1)
