"""The command line: the README's own command, the installed one, and what is said of bad input."""

import csv
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, read_json

import bsgap
from bsgap.errors import UserError
from bsgap.launch import job
from experiments import mnist

STUDY = """
from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value


def get_config(variant: str = '') -> ConfigDict:
    study = config.default()
    study.name, study.model = 'elsewhere', 'own:Own'
    study.subset, study.batch_size, study.epochs, study.seeds = 300, 100, 1, 2
    study.learning_rate = 1e-3
    study.claims = 'elsewhere:claims'
    return config.with_variant(study, variant, slow={'learning_rate': 1e-4})


def claims(variant: str = '') -> list[Claim]:
    assert variant == 'slow'
    return [
        Claim('better_than_chance', 'an epoch is better than guessing',
              lambda runs: value(runs, 'bs100-lr0.0001', 'test_accuracy'), at_least=0.0,
              published='-', source='none', status='U')
    ]
"""
OWN = """
import jax
from flax import nnx


class Own(nnx.Module):
    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, rngs: nnx.Rngs) -> None:
        self.layer = nnx.Linear(image_shape[0] * image_shape[1], classes, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        return self.layer(images_BxHxWxC.reshape(len(images_BxHxWxC), -1))
"""
FIRST_SEGMENT = """
import os
import sys

from bsgap.launch import job
from bsgap.training.watcher import Watcher
from experiments import mnist


class First(Watcher):
    def trained(self, *_):
        print(*sys.modules, file=sys.stderr, flush=True)
        os._exit(0)


study = mnist.get_config('smoke')
study.subset, study.hidden, study.sweep.batch_size, study.seeds = 100, (4,), (50,), 1
job.train(study, sys.argv[1], [First()])
"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `bsgap`, as pip makes it of what pyproject.toml says."""
    where = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['scripts']['bsgap']
    module, _, function = where.partition(':')
    script = tmp_path_factory.mktemp('bin') / 'bsgap'
    script.write_text(f'#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n')
    script.chmod(0o755)
    return script


@pytest.mark.smoke
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
    assert len(list((tmp_path / 'figures').iterdir())) == 3
    with (tmp_path / 'claims.csv').open() as file:
        assert [row['id'] for row in csv.DictReader(file)] == [claim.name for claim in mnist.claims('smoke')]


def test_the_installed_command_and_a_study_of_the_users_own(installed: Path, tmp_path: Path) -> None:
    """Its file, its model and its claims are where the user stands, who overrides a field and names no workdir."""
    (tmp_path / 'elsewhere.py').write_text(STUDY)
    (tmp_path / 'own.py').write_text(OWN)
    command = [installed, '--config=elsewhere.py:slow', '--config.seeds=3']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
    script = [sys.executable, ROOT / 'launch.py', *command[1:], '--dry_run']
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file() and path.suffix != '.pyc'}
    planned = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert (planned.returncode, planned.stderr) == (0, '')
    after = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file() and path.suffix != '.pyc'}
    assert after == before
    assert planned.stdout.splitlines()[-1].startswith('in all about ')
    workdir = tmp_path / 'runs' / 'elsewhere-slow'
    settings = read_json(workdir / 'study.json')['config']
    assert settings['variant'] == 'slow'
    table = bsgap.runs(workdir)
    assert set(table.status) == {'done'}
    assert set(table.seed) == {0, 1, 2}
    assert set(table['recipe.learning_rate']) == {1e-4}
    with (workdir / 'claims.csv').open() as file:
        (claim,) = csv.DictReader(file)
    assert (claim['id'], claim['n']) == ('better_than_chance', '3')
    assert 'report   runs/elsewhere-slow/report.html' in done.stdout
    longer = subprocess.run([*command, '--config.epochs=2.0'], cwd=tmp_path, capture_output=True, text=True)
    assert (longer.returncode, longer.stderr) == (0, '')
    assert '1 claim left out: about other values of epochs' in longer.stdout
    assert bsgap.runs(workdir).epoch.max() == 2
    assert not (workdir / 'claims.csv').exists()


def test_help_names_the_flags_at_once(installed: Path) -> None:
    for command in ([sys.executable, 'launch.py'], [installed]):
        environment = {**os.environ, 'PYTHONPROFILEIMPORTTIME': '1', 'PYTHONIOENCODING': 'ascii'}
        done = subprocess.run([*command, '--help'], cwd=ROOT, env=environment, capture_output=True, text=True)
        for flag in ('--config: ', '--workdir: ', '--[no]dry_run: '):
            assert flag in done.stdout
        assert '--config=FILE[:VARIANT]' in done.stdout
        assert re.search(r'mnist_adam.py +How should Adam.s . and . change', done.stdout)
        assert done.returncode == 0
        imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
        assert 'absl.flags' in imported
        assert not imported & {'jax', 'numpy', 'pandas'}


def test_the_first_segment_waits_for_no_library_that_only_the_report_needs(tmp_path: Path) -> None:
    command = [sys.executable, '-c', FIRST_SEGMENT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    imported = set(done.stderr.split())
    assert {'jax', 'bsgap.analysis.claims', 'bsgap.measure.landscape'} <= imported, done.stderr
    late = {
        'pandas',
        'scipy.optimize',
        'scipy.special',
        'matplotlib',
        'jinja2',
        'tensorflow_datasets',
        'tensorboardX',
        'wandb',
    }
    assert not imported & late


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ([], '--config: missing; python launch.py --help lists the experiment files'),
        (['--config=nope.py'], 'or in experiments/ one of characters.py, '),
        (['--batch_size=2'], '--batch_size: unknown flag; did you mean --config.sweep.batch_size=…?'),
        (
            ['--config=experiments/mnist.py', '--config.seeds'],
            '--config.seeds: has no value; write --config.seeds=',
        ),
        (
            ['--config=experiments/mnist.py', '--config.seeds=1', '--config.sweep.seeds=1,2'],
            '--config.sweep.seeds=1,2: all runs of a study have the same seeds',
        ),
        (['--config=experiments/mnist.py', '--config.batch_size=2'], 'give --config.sweep.batch_size=VALUE,…'),
        (['--config=experiments/mnist.py', '--config.model=nope'], "config.model: 'nope' is not known; it must be mlp"),
        (['--config=experiments/mnist.py', '--config.model_arguments.width=3'], 'an experiment file sets study.'),
        (['--config=experiments/mnist.py:big'], "error: config.variant: 'big' is not known; it must be one of quick"),
        (
            ['--config=experiments/mnist.py', '--config.epoch=3'],
            '--config.epoch=3: unknown field \'epoch\'; did you mean "epochs"?',
        ),
        (
            ['--config=experiments/mnist.py', '--config.sweep.batch=3'],
            "--config.sweep.batch=3: unknown field 'batch'; did you mean ",
        ),
        (
            ['--config=experiments/mnist.py', '--config.sweep.task=regression'],
            '--config.sweep.task=regression: all runs of a study have the same task; give --config.task',
        ),
        (
            ['--config=experiments/mnist.py', '--config.seeds=2.5'],
            "config.seeds: '2.5' is not allowed; it must be a wh",
        ),
        (['--config=experiments/mnist.py', '--config.search.rungs=x'], "config.search.rungs: 'x' is not allowed"),
        (
            ['--config=experiments/mnist.py', '--dry_run=maybe'],
            'flag --dry_run=maybe is not allowed; it must be true or false',
        ),
        (
            ['--config=experiments/mnist.py', '--config.subset=None'],
            "config.subset: 'None' is not allowed; it must be a whole number of examples, or 0 for all of them",
        ),
        (
            ['--config=experiments/mnist.py', '--config.batch_size=whole'],
            'flag --config.batch_size=whole is for a sweep; give --config.sweep.batch_size=whole',
        ),
        (['--config=experiments/mnist.py', '--config.sweep.batch_size=0'], 'config.sweep.batch_size: 0 is not allowed'),
        (['--config=experiments/mnist.py', '--config.sweep.learning_rate=nan'], "learning_rate: 'nan' is not allowed"),
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
    assert output.startswith('python launch.py --config=experiments/mnist.py:smoke ') if not arguments else not output


@pytest.mark.parametrize(
    ('field', 'value', 'says'),
    [
        ('sweep.batch_size', (60001,), 'config.batch_size: 60001 is not allowed (recipe bs60001-lr0.01, stage 1)'),
        ('dataset', 'mnits', "config.dataset: 'mnits' is not known"),
        ('test_share', 0.3, 'config.test_share: has no effect'),
        ('claims', 'no:claims', 'config.claims: no:claims names no function'),
    ],
)
@pytest.mark.parametrize('dry_run', [False, True])
def test_what_a_launch_does_not_allow_is_told_in_the_same_way(
    tmp_path: Path, field: str, value: Any, says: str, dry_run: bool
) -> None:
    """As an error whose text `launch.py` prints."""
    study = mnist.get_config()
    study.update_from_flattened_dict({field: value})
    with pytest.raises(UserError) as told:
        job.launch(study, tmp_path, dry_run, given=[field])
    assert str(told.value).startswith(says)
    assert len(str(told.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_of_a_workdir_that_is_no_folder() -> None:
    with pytest.raises(UserError, match=r'^--workdir: /dev/null cannot be used: /dev/null is not a folder$'):
        job.launch(mnist.get_config(), '/dev/null', dry_run=True)


def test_launch_is_short_and_alone_knows_about_flags() -> None:
    assert len((ROOT / 'launch.py').read_text().splitlines()) <= 150
    for path in (ROOT / 'bsgap').rglob('*.py'):
        assert not re.search(r'\bflags\b', path.read_text()), path
