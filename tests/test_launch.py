"""The README's own commands, and bad input from the command line."""

import csv
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT


def test_the_smoke_command_of_the_readme(tmp_path: Path) -> None:
    (command,) = set(
        re.findall(r'^python launch.py --config=experiments/mnist.py:smoke$', (ROOT / 'README.md').read_text(), re.M)
    )
    arguments = [*shlex.split(command)[1:], f'--workdir={tmp_path}']
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''  # library noise is silenced
    assert f'report   {tmp_path}/report.html' in done.stdout
    with (tmp_path / 'results.csv').open() as file:
        results = list(csv.DictReader(file))
    assert len(results) == 6
    assert {row['status'] for row in results} == {'done'}
    accuracy = {
        size: [float(r['test_accuracy']) for r in results if r['batch_size'] == size] for size in ('64', '256', '1024')
    }
    # 282, 72 and 18 updates at one learning rate: far apart.
    assert min(accuracy['64']) > 0.88 > max(accuracy['256']) > min(accuracy['256']) > 0.82 > max(accuracy['1024']) > 0.6
    assert len(list((tmp_path / 'figures').iterdir())) == 4
    assert len((tmp_path / 'claims.csv').read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ([], '--config: missing; give an experiment file'),
        (['--config=nope.py'], 'nope.py'),
        (['--config=experiments/mnist.py:big'], "error: config.variant: 'big' is not known; it must be one of quick"),
        (
            ['--config=experiments/mnist.py', '--config.epoch=3'],
            '--config.epoch=3: unknown field \'epoch\'; did you mean "epochs"?',
        ),
        (
            ['--config=experiments/mnist.py', '--config.sweep.batch=3'],
            "--config.sweep.batch=3: unknown field 'batch'; did you mean ",
        ),
        (['--config=experiments/mnist.py', '--config.seeds=2.5'], '--config.seeds=2.5'),
        (['--config=experiments/mnist.py', '--config.sweep.batch_size=0'], 'config.sweep.batch_size: 0 is not allowed'),
        (['--config=experiments/mnist.py', '--config.sweep.batch_size=60001'], '60001 is not allowed'),
        (['--config=experiments/mnist.py', '--config.sweep.learning_rate=nan'], "learning_rate: 'nan' is not allowed"),
        (['--config=experiments/mnist.py', '--config.dataset=mnits'], "config.dataset: 'mnits' is not known"),
        (['--config=experiments/mnist.py', '--workdir=/dev/null/x'], '--workdir: /dev/null/x cannot be used'),
        (['--confg=experiments/mnist.py'], "Unknown command line flag 'confg'"),
        (['experiments/mnist.py'], "unknown argument 'experiments/mnist.py'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    launch: Callable[..., subprocess.Popen[str]], arguments: list[str], says: str
) -> None:
    process = launch(*arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith('error: ')
    assert says in errors
    assert output == ''


def test_launch_is_short_and_alone_knows_about_flags() -> None:
    assert len((ROOT / 'launch.py').read_text().splitlines()) <= 60
    for path in (ROOT / 'bsgap').glob('*.py'):
        assert not re.search(r'\bflags\b', path.read_text()), path
