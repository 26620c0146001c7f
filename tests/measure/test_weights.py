"""What is measured at the end of runs: the files, that nothing is measured twice, and the values by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import read_json, tiny
from jax.tree_util import Partial
from launching import Noting

import bsgap
from benchmarks.kill import final_leaves
from bsgap import config, data
from bsgap.config import fields
from bsgap.measure import landscape, weights
from bsgap.training.programs import Programs
from bsgap.training.rows import read_records
from bsgap.training.runs import cross
from bsgap.training.watcher import Watcher

LARGE, SMALL, WILD = 'bs100-lr0.1', 'bs32-lr0.1', 'bs32-lr100000000'
SIZES = (1, 4, 16, 64, 256)  # 1024 do not fit


def settings(**changes: Any) -> Any:
    """Two solutions and two runs that diverge."""
    wanted = {'measurements': fields.MEASUREMENTS, 'lines': ((SMALL, LARGE),), **changes}
    return tiny(learning_rate=(0.1, 1e8), seeds=1, **wanted)


class Told(Watcher):
    """What was said."""

    def __init__(self) -> None:
        self.notes, self.warnings = list[str](), list[str]()

    def noted(self, message: str) -> None:
        self.notes.append(message)

    def warned(self, message: str) -> None:
        self.warnings.append(message)


def measure(workdir: Path, share: tuple[int, int] = (0, 1), **changes: Any) -> Told:
    """Measures what is missing, and returns what was said of it."""
    study, told = config.resolve(settings(**changes)), Told()
    datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
    runs = cross(study, {training_set: dataset.n for training_set, dataset in datasets.items()})
    with jax.default_matmul_precision(study.precision):
        programs = Programs(study, datasets, told, jax.local_devices()[0])
        weights.measure(study, programs, runs, workdir, told, share=share)
    return told


@pytest.fixture(scope='module')
def trained(once: Callable[..., Path]) -> Path:
    return once('to_measure', lambda workdir: bsgap.train(settings(measurements=(), lines=()), workdir))


@pytest.fixture(scope='module')
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(trained, tmp_path_factory.mktemp('measured') / 'study')
    measure(folder)
    return folder


@pytest.fixture
def again(measured: Path, tmp_path: Path) -> Path:
    """A copy of what was measured."""
    return shutil.copytree(measured, tmp_path / 'study')


def numbers(workdir: Path, recipe: str) -> Path:
    return workdir / 'runs' / f'{recipe}-seed0' / 'measurements.json'


def test_a_launch_trains_and_measures(measured: Path, tmp_path: Path) -> None:
    """Which is told, seen in the table, and not done twice."""
    study = settings(measurements=('top_eigenvalue',))
    table = bsgap.train(study, tmp_path, [noting := Noting()])
    noted = [str(event.said[0]) for event in noting.events if event.what == 'noted']
    assert any(line.startswith(f'measured top_eigenvalue of {LARGE}-seed0 in ') for line in noted)
    ends = table.groupby('run').last()
    assert ends.loc[[f'{SMALL}-seed0', f'{LARGE}-seed0'], 'top_eigenvalue'].notna().all()
    bsgap.train(study, tmp_path, [again := Noting()])
    assert 'noted' not in {event.what for event in again.events}
    for recipe in (SMALL, LARGE):
        found = read_json(numbers(measured, recipe))
        assert read_json(numbers(tmp_path, recipe)) == {'top_eigenvalue': found['top_eigenvalue']}
    assert (tmp_path / 'lines.json').read_text() == (measured / 'lines.json').read_text()


def test_what_is_measured(measured: Path) -> None:
    gradient = {
        f'gradient_norm_{kind}{sd}_bs{size}' for kind in ('each', 'mean') for sd in ('', '_sd') for size in SIZES
    }
    gradient |= {f'gradient_norm_{kind}{spread}_growth' for kind in ('each', 'mean') for spread in ('', '_spread')}
    for recipe in (SMALL, LARGE):
        found = read_json(numbers(measured, recipe))
        assert set(found) == {'sharpness_0.001', 'sharpness_0.0005', 'top_eigenvalue', 'lowest_loss', *gradient}
        assert all(np.isfinite(value) for value in found.values())
        row = next(record.rows[-1] for record in read_records(measured) if record.about['recipe'] == recipe)
        assert 0 <= found['lowest_loss'] < row['train_loss']
        assert found['sharpness_0.001'] > found['sharpness_0.0005'] > 0
    assert not numbers(measured, WILD).exists()  # it diverged
    (line,) = read_json(measured / 'lines.json')['lines']
    assert (line.pop('first'), line.pop('second'), line.pop('seed')) == (SMALL, LARGE, 0)
    assert set(line) == {'alpha', 'train_loss', 'train_accuracy', 'test_loss', 'test_accuracy'}
    assert {len(values) for values in line.values()} == {25}
    record = next(record for record in read_records(measured) if record.about['recipe'] == SMALL)
    assert record.measured == read_json(numbers(measured, SMALL))


def test_nothing_is_measured_twice(again: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in again.rglob('*') if path.is_file()}
    assert measure(again).notes == []
    assert {path: path.stat().st_mtime_ns for path in again.rglob('*') if path.is_file()} == before


def test_each_process_measures_its_share(trained: Path, measured: Path, tmp_path: Path) -> None:
    """Of the two runs that are done one each, and the first process the line."""
    workdir = shutil.copytree(trained, tmp_path / 'study')
    for index in (1, 0):
        told = measure(workdir, (index, 2), measurements=('top_eigenvalue',))
        assert len(told.notes) == 2 - index
        assert (workdir / 'lines.json').exists() == (not index)
        assert len(list(workdir.rglob('measurements.json'))) == 2 - index
    assert (workdir / 'lines.json').read_text() == (measured / 'lines.json').read_text()


def test_measuring_ends_when_it_shall(trained: Path, tmp_path: Path) -> None:
    """What was measured until then is there."""
    workdir = shutil.copytree(trained, tmp_path / 'study')
    checks = iter([None])
    study = config.resolve(settings(measurements=('top_eigenvalue', 'sharpness')))
    datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
    runs = cross(study, {training_set: dataset.n for training_set, dataset in datasets.items()})
    programs = Programs(study, datasets, Told(), jax.local_devices()[0])
    with pytest.raises(StopIteration):
        weights.measure(study, programs, runs, workdir, Told(), lambda: next(checks))
    (file,) = workdir.rglob('measurements.json')
    assert read_json(file).keys() == {'top_eigenvalue'}


def test_what_is_missing_is_measured_alone(again: Path, measured: Path) -> None:
    found = read_json(numbers(again, SMALL))
    known = {'sharpness_0.001': 123.0, **{key: value for key, value in found.items() if 'gradient' in key}}
    numbers(again, SMALL).write_text(json.dumps(known))
    measure(again)
    made = {name: found[name] for name in ('top_eigenvalue', 'lowest_loss')}
    assert read_json(numbers(again, SMALL)) == {**known, **made}


def test_without_measurements_nothing_is_done(trained: Path) -> None:
    assert measure(trained, measurements=(), lines=()).notes == []
    assert not list(trained.rglob('measurements.json'))


def test_a_damaged_checkpoint_gives_a_warning_and_no_number(trained: Path, measured: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / 'study')
    last = max((workdir / 'runs' / f'{SMALL}-seed0' / 'checkpoints').iterdir(), key=lambda path: int(path.name))
    for path in last.rglob('*'):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[::-1])
    warnings = measure(workdir).warnings
    assert len(warnings) == 2  # for the numbers and for the line
    assert f'{SMALL}-seed0 cannot be measured: its last checkpoint is damaged' in warnings[0]
    assert not numbers(workdir, SMALL).exists()
    assert not (workdir / 'lines.json').exists()
    assert numbers(workdir, LARGE).read_text() == numbers(measured, LARGE).read_text()


@pytest.fixture(scope='module')
def split() -> tuple[jax.Array, jax.Array]:
    """The training examples, normalised, and their labels."""
    study = config.resolve(settings())
    (dataset,) = data.load(study.data, [study.recipes[0].training_set]).values()
    x_NxI = (dataset.train.examples_N / np.float32(255) - dataset.mean_C) / dataset.std_C
    return jnp.asarray(x_NxI.reshape(dataset.n, -1)), jnp.asarray(dataset.train.labels_N)


def end_of(workdir: Path, recipe: str) -> dict[str, Any]:
    leaves = final_leaves(workdir)[f'{recipe}-seed0']
    return {
        'layers': {i: {k: jnp.asarray(leaves[f'params.layers.{i}.{k}']) for k in ('kernel', 'bias')} for i in (0, 1)}
    }


def forward(params: Any, x_NxI: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits, and what goes into the last layer."""
    first, last = params['layers'].values()
    h_NxJ = jnp.maximum(x_NxI @ first['kernel'] + first['bias'], 0)
    return h_NxJ @ last['kernel'] + last['bias'], h_NxJ


def test_sharpness_and_curvature_are_those_of_the_training_loss(measured: Path, split: Any) -> None:
    x_NxI, labels_N = split

    @Partial
    def loss(params: Any) -> jax.Array:
        logits_NxK, _ = forward(params, x_NxI)
        return -jax.nn.log_softmax(logits_NxK)[jnp.arange(len(labels_N)), labels_N].mean()

    with jax.default_matmul_precision('float32'):
        for recipe in (SMALL, LARGE):
            found, params = read_json(numbers(measured, recipe)), end_of(measured, recipe)
            for box in (1e-3, 5e-4):
                assert found[f'sharpness_{box:g}'] == pytest.approx(landscape.sharpness(loss, params, box), rel=1e-3)
            eigenvalue = float(landscape.top_eigenvalue(loss, params, jax.random.key(0)))
            assert found['top_eigenvalue'] == pytest.approx(eigenvalue, rel=1e-3)


def test_gradient_norms_at_the_ends_are_closed_forms(measured: Path, split: Any) -> None:
    """Of one example the last layer's gradient is h (p − y)ᵀ, of norm ‖h‖ ‖p − y‖; all 300 are in each trial."""
    x_NxI, labels_N = split
    found, params = read_json(numbers(measured, SMALL)), end_of(measured, SMALL)
    logits_NxK, h_NxJ = forward(params, x_NxI)
    error_NxK = jax.nn.softmax(logits_NxK) - jax.nn.one_hot(labels_N, 10)
    norm_N = np.linalg.norm(h_NxJ, axis=1) * np.linalg.norm(error_NxK, axis=1)
    assert found['gradient_norm_each_bs1'] == pytest.approx(norm_N.mean(), rel=1e-4)
    spread = norm_N.std() * np.sqrt(300 * 16 / (300 * 16 - 1))
    assert found['gradient_norm_each_sd_bs1'] == pytest.approx(spread, rel=1e-4)
    for kind in ('each', 'mean'):
        of = {key.removeprefix(f'gradient_norm_{kind}_'): value for key, value in found.items() if kind in key}
        assert of['growth'] == pytest.approx(of['bs256'] / of['bs1'])
        assert of['spread_growth'] == pytest.approx(of['sd_bs256'] / of['bs256'] / (of['sd_bs1'] / of['bs1']))
    # One batch of 256 a trial, and its first gradient is at weights that have not moved yet.
    assert found['gradient_norm_mean_bs256'] == found['gradient_norm_each_bs256']
    assert found['gradient_norm_mean_bs1'] < found['gradient_norm_each_bs1']


def test_the_ends_of_a_line_are_the_runs_ends(measured: Path) -> None:
    (line,) = read_json(measured / 'lines.json')['lines']
    last = {record.about['recipe']: record.rows[-1] for record in read_records(measured)}
    for alpha, recipe in ((0, SMALL), (1, LARGE)):
        at = line['alpha'].index(alpha)
        for column in ('train_loss', 'train_accuracy', 'test_loss', 'test_accuracy'):
            assert line[column][at] == pytest.approx(last[recipe][column], rel=1e-5), (recipe, column)
    assert (line['alpha'][0], line['alpha'][-1]) == (-1, 2)
