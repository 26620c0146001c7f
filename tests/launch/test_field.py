"""What users bring along: odd paths and texts, experiment files, other data, a broken output."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import launching
import numpy as np
import pytest
from helpers import ROOT, assert_same, read_json, tiny, write_pictures
from launching import After
from searches import known_times
from searches import settings as search_settings

import bsgap
from bsgap.config import experiment
from bsgap.errors import Interrupted, UserError
from bsgap.launch import job
from bsgap.training.checkpoint import Checkpoints, DamagedError
from bsgap.training.workdir import saved_updates

ODD = 'a [1] *?%20 #$x$ :smile: [b]ü\\[/b] <i>&amp;'  # for globs, addresses, mathtext, rich and HTML
SMALL = (
    *('--config=experiments/mnist.py:smoke', '--config.subset=300', '--config.hidden=16', '--config.epochs=1'),
    *('--config.mean=', '--config.std=', '--config.figures=learning_rate_sum'),  # the programs of `tiny`
)
ONE = (*SMALL, '--config.sweep.batch_size=100', '--config.seeds=1')


@pytest.fixture
def compiled_once() -> Iterator[None]:
    """For one test, not for the whole file: others change what is compiled."""
    with launching.compiled_once():
        yield


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, **variables}


def launched(*arguments: str, shell: str = 'exec "$@"', **how: Any) -> subprocess.CompletedProcess[str]:
    """Starts launch.py from a shell that was told something before."""
    command = ['bash', '-c', shell, 'bash', sys.executable, 'launch.py', *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, timeout=120, capture_output=True, **how)


# Paths and texts.


def test_any_path_and_text_is_shown_and_used_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a workdir and of a dataset: trained, gone on with, reported and loaded as with plain names."""
    plain, odd = tmp_path / 'plain', tmp_path / ODD
    for folder in (plain, odd):
        dataset = write_pictures(folder / 'data' / ODD)
        for epochs in (1, 2):
            bsgap.train(tiny(dataset=f'idx:{dataset}', subset=40, batch_size=(8, 20), epochs=epochs), folder / 'runs')
    assert_same(plain / 'runs', odd / 'runs')
    said = capsys.readouterr().out
    assert f'data     idx:{odd}/data/{ODD}: 40 train' in said
    assert '4 of them from where they were saved' in said
    page = bsgap.report(odd / 'runs').read_text(encoding='utf-8')
    assert ODD.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;') in page
    assert '<i>' not in page
    assert f'report   {odd}/runs/report.html' in capsys.readouterr().out
    module = bsgap.load(odd / 'runs', 'bs8-lr0.1-seed0')
    assert module(np.zeros((5, 2, 2, 1), np.uint8)).shape == (5, 3)


def test_a_file_name_that_is_no_text_is_replaced_where_it_is_shown(tmp_path: Path) -> None:
    workdir = tmp_path / os.fsdecode(b'\xff')
    dataset = write_pictures(workdir / 'data')
    bsgap.train(tiny(dataset=f'idx:{dataset}', subset=40, batch_size=(20,), epochs=1), workdir / 'runs')
    bsgap.report(workdir / 'runs')
    assert set(bsgap.runs(workdir / 'runs').status) == {'done'}


@pytest.mark.usefixtures('compiled_once')
def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    bsgap.train(tiny(batch_size=(100,), epochs=1), '~/runs')
    assert bsgap.report('~/runs') == tmp_path / 'runs' / 'report.html'
    assert len(bsgap.runs('~/runs')) == 4


# Experiments and watchers.


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('def get_config():\n    import jax\n    return jax.module\n', "{}:3: AttributeError: module 'jax' has no"),
        ('def get_config():\n    return open("nix")\n', '{}:2: FileNotFoundError: [Errno 2] No such file'),
        ('def get_config():\n    return [][1]\n', '{}:2: IndexError: list index out of range'),
        ('def get_config():\n    return {}\n', '--config: {}: get_config returns {{}}; it must return a ConfigDict'),
        ('def get_config(:\n', '{}:1: SyntaxError: '),
        ('import sys; sys.exit(0)', '{}:1: SystemExit: 0'),
        ('x = 1', '--config: {} has no function get_config'),
    ],
)
def test_what_is_wrong_with_an_experiment_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / 'mine.py'
    file.write_text(text)
    with pytest.raises(UserError) as told:
        experiment.settings(experiment.run(file))
    assert str(told.value).startswith(says.format(file))
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.usefixtures('compiled_once')
def test_a_watcher_that_fails_loses_nothing_and_is_not_taken_for_the_workdir(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError('mine')

    study = tiny(batch_size=(20,), segment_seconds=1e-6)
    with pytest.raises(OSError, match=r'^mine$'):
        bsgap.train(study, tmp_path, [After('trained', 5, fail)])
    assert all(saved_updates(tmp_path, folder.name) for folder in tmp_path.glob('runs/*'))
    assert set(bsgap.train(study, tmp_path).status) == {'done'}


# What results depend on.


def test_other_data_under_the_same_name_are_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / 'data')
    study = tiny(dataset=f'idx:{folder}', subset=40, batch_size=(8,), epochs=1, seeds=1)
    bsgap.train(study, tmp_path / 'runs')
    before = (tmp_path / 'runs' / 'study.json').read_bytes()
    write_pictures(folder, seed=1)
    study.seeds = 2
    for change in (lambda: bsgap.train(study, tmp_path / 'runs'), lambda: job.launch(study, tmp_path / 'runs', True)):
        with pytest.raises(
            UserError, match=r'config.dataset: its content, SHA-256 \w+ contradicts \w+, with which runs'
        ):
            change()
    assert (tmp_path / 'runs' / 'study.json').read_bytes() == before
    bsgap.train(study, tmp_path / 'others')
    write_pictures(folder)
    assert bsgap.train(study, tmp_path / 'runs').run.nunique() == 2


MODULE = """
from flax import nnx
import {name}_helper


class Net(nnx.Module):
    def __init__(self, image_shape, classes, *, rngs):
        self.layer = nnx.Linear(image_shape[0] * image_shape[1], classes, rngs=rngs)

    def __call__(self, images):
        return {name}_helper.scaled(self.layer(images.reshape(len(images), -1)))
"""


def test_a_module_that_was_edited_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it imports beside it, once runs were trained with it; until then it may be put right."""
    (tmp_path / 'edited.py').write_text(MODULE.format(name='edited'))
    monkeypatch.syspath_prepend(tmp_path)

    def train(epochs: int, scaled: str) -> None:
        (tmp_path / 'edited_helper.py').write_text(f'def scaled(x):\n    return {scaled}\n')
        for name in ('edited', 'edited_helper'):  # as in a process of its own
            monkeypatch.delitem(sys.modules, name, raising=False)
        bsgap.train(tiny(batch_size=(100,), seeds=1, epochs=epochs, model='edited:Net'), tmp_path / 'runs')

    with pytest.raises(UserError, match=r'maps (100|11) examples to'):
        train(1, 'x.sum() / (len(x) - 100)')
    train(1, 'x')
    with pytest.raises(UserError, match=r'config.model: the source of edited:Net, SHA-256 '):
        train(2, '2 * x')
    train(2, 'x')


@pytest.mark.usefixtures('compiled_once')
def test_what_changes_the_numbers_of_jax_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny(batch_size=(100,), epochs=1)
    monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=1')
    bsgap.train(study, tmp_path)
    monkeypatch.delenv('XLA_FLAGS')
    study.epochs = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=true')
        with pytest.raises(UserError, match='XLA_FLAGS: --xla_cpu_enable_fast_math=true contradicts unset'):
            bsgap.train(study, tmp_path)
    with (
        jax.default_prng_impl('rbg'),
        pytest.raises(UserError, match='JAX_DEFAULT_PRNG_IMPL: rbg contradicts threefry2x32'),
    ):
        bsgap.train(study, tmp_path)
    with (
        jax.threefry_partitionable(False),
        pytest.raises(UserError, match='JAX_THREEFRY_PARTITIONABLE: False contradicts True'),
    ):
        bsgap.train(study, tmp_path)
    assert set(bsgap.train(study, tmp_path).status) == {'done'}


# Resources and endings.


@pytest.mark.smoke
def test_many_runs_need_few_open_files(tmp_path: Path) -> None:
    """More runs than files may be open."""
    many = ('--config.subset=8', '--config.hidden=2', '--config.sweep.batch_size=4', '--config.seeds=150')
    done = launched(*SMALL, *many, f'--workdir={tmp_path}', shell='ulimit -n 128; exec "$@"')
    assert (done.returncode, done.stderr) == (0, '')
    assert len(list(tmp_path.glob('runs/*/checkpoints/2'))) == 150


def test_a_process_ends_whatever_its_threads_do() -> None:
    lines = [
        'import threading, time',
        'from bsgap import output',
        'threading.Thread(target=time.sleep, args=[1000]).start()',
    ]
    done = subprocess.run(
        [sys.executable, '-c', '\n'.join([*lines, 'output.failed("so\\nit is")'])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, 'error: so it is\n')


@pytest.mark.parametrize('to', ['>/dev/full 2>/dev/full', '>&-', '| (read line; echo "$line")', '2>&1 | cat'])
def test_output_that_cannot_be_written_is_not_training_s_failure(tmp_path: Path, to: str) -> None:
    """To a full disk, closed, to a reader that leaves, and in ASCII."""
    arguments = (*ONE, f'--workdir={tmp_path}')
    done = launched(*arguments, shell=f'set -o pipefail; "$@" {to}', env=environment(PYTHONIOENCODING='ascii'))
    assert (done.returncode, done.stderr) == (0, '')
    assert (tmp_path / 'report.html').exists()
    if '|' in to:
        assert done.stdout.startswith('study    mnist-smoke: 1 recipe ? 1 seed = 1 run;')


@pytest.mark.usefixtures('compiled_once')
def test_the_first_checkpoint_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be read is known while the run is there, and not when it is needed."""
    times = list[Path]()
    read = Checkpoints._read

    def counted(self: Checkpoints, update: int) -> Any:
        times.append(self.folder)
        return read(self, update)

    monkeypatch.setattr(Checkpoints, '_read', counted)
    bsgap.train(tiny(), tmp_path / 'sound')
    assert len(times) == 1

    def unreadable(self: Checkpoints, update: int) -> Any:
        raise DamagedError('as the disk is broken')

    monkeypatch.setattr(Checkpoints, '_read', unreadable)
    with pytest.raises(
        UserError, match=r'cannot be used: checkpoint .* could not be written \(as the disk is broken\)'
    ):
        bsgap.train(tiny(), tmp_path / 'broken')


def test_programs_are_kept_in_the_home_folder_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = dict[str, Any]()
    monkeypatch.setattr(job.jax, 'config', SimpleNamespace(values={}, update=told.__setitem__))
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert job.keep_compiled() == ''
    assert told['jax_compilation_cache_dir'] == f'{tmp_path}/.cache/bsgap/compiled'
    told.clear()
    monkeypatch.setenv('HOME', '/dev/null')
    none = (
        'cache    none: /dev/null/.cache/bsgap/compiled cannot be used (Not a directory), so programs are compiled anew'
    )
    assert job.keep_compiled() == none
    monkeypatch.setattr(os.path, 'expanduser', str)  # as where the user has no account
    assert 'there is no home folder' in job.keep_compiled()
    assert not told


@pytest.mark.parametrize(
    ('variables', 'says'),
    [
        ({'JAX_PLATFORMS': 'cuda'}, 'JAX_PLATFORMS: cuda cannot be used: '),
        ({'JAX_PLATFORMS': 'nix'}, 'JAX_PLATFORMS: nix cannot be used: '),
        ({'JAX_ENABLE_X64': 'maybe'}, "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
    ],
)
def test_a_jax_that_cannot_start_names_the_variable(tmp_path: Path, variables: dict[str, str], says: str) -> None:
    done = launched(*SMALL, f'--workdir={tmp_path}', env=environment(**variables))
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {says}')
    assert len(done.stderr.splitlines()) == 1


def test_memory_that_is_limited_is_told_with_what_is_needed(tmp_path: Path) -> None:
    done = launched(*ONE, '--config.hidden=20000000', f'--workdir={tmp_path}', shell='ulimit -v 9000000; exec "$@"')
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith('error: config.model: MLP 20000000 does not do (recipe bs100-lr0.01), the memory of')
    assert 'one run needs more than 1.2e+02 GiB' in line


@pytest.mark.usefixtures('compiled_once')
def test_a_closed_terminal_saves_and_nohup_goes_on(tmp_path: Path) -> None:
    study = tiny(batch_size=(100,), segment_seconds=1e-6)

    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)  # a terminal that is closed sends it more than once

    usual = signal.getsignal(signal.SIGHUP)
    with pytest.raises(Interrupted, match='SIGHUP'):
        bsgap.train(study, tmp_path, [After('trained', 2, hang_up)])
    assert all(saved_updates(tmp_path, folder.name) for folder in tmp_path.glob('runs/*'))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert set(bsgap.train(study, tmp_path, [After('trained', 2, hang_up)]).status) == {'done'}
    finally:
        signal.signal(signal.SIGHUP, usual)


# The answer.


@pytest.mark.smoke
def test_nothing_is_recommended_where_nothing_was_learned(tmp_path: Path) -> None:
    study = search_settings()
    study.validation, study.sweep.learning_rate = 0.25, (1e-12, 1e-11)
    bsgap.train(study, known_times(tmp_path))
    bsgap.report(tmp_path)
    found = read_json(tmp_path / 'recommendation.json')
    assert [budget['recommended'] for budget in found['budgets']] == [None] * 3
    assert found['headline'].startswith('Nothing can be recommended')
    assert all(budget['fresh'] == budget['rows'] == [] for budget in found['budgets'])


# The command line.


def test_the_last_of_several_values_counts(tmp_path: Path) -> None:
    done = launched(*SMALL, '--config.hidden=16', '--config.hidden', '0', f'--workdir={tmp_path}')
    assert (done.returncode, done.stderr[:40]) == (2, 'error: config.hidden: 0 is not allowed; ')
    done = launched(*SMALL, '--config.hidden=0', '--config.hidden=8', '--config.seeds=0', f'--workdir={tmp_path}')
    assert (done.returncode, done.stderr[:40]) == (2, 'error: config.seeds: 0 is not allowed; i')


def test_what_is_given_and_has_no_effect_is_an_error(tmp_path: Path) -> None:
    done = launched('--config=experiments/mnist.py', '--config.batch_size=32', f'--workdir={tmp_path}')
    assert done.returncode == 2
    assert done.stderr.startswith('error: config.batch_size: has no effect: sweep.batch_size gives others; give ')
    assert not list(tmp_path.iterdir())
