"""A trained model, from a workdir alone."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import final_leaves, flip, read_json, tiny
from trainings import programs_of, stop, train

import bsgap
from bsgap import config, data
from bsgap.data import Dataset
from bsgap.errors import Interrupted, UserError
from bsgap.training.workdir import saved_updates

RUN = 'bs32-lr0.1-seed1'


class Net(nnx.Module):
    """A model of the user's own: dropout, a state, and arguments that JSON has no word for."""

    def __init__(
        self, image_shape: tuple[int, int, int], classes: int, *, widths: tuple[int, ...], rngs: nnx.Rngs
    ) -> None:
        assert isinstance(widths, tuple)
        self.first = nnx.Linear(math.prod(image_shape), widths[0], rngs=rngs)
        self.norm = nnx.BatchNorm(widths[0], rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(widths[0], classes, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x_BxI = nnx.relu(self.norm(self.first(images_BxHxWxC.reshape(len(images_BxHxWxC), -1))))
        return self.last(self.dropout(x_BxI))


def dataset(settings: Any) -> Dataset:
    study = config.resolve(settings)
    (found,) = data.load(study.data, [study.recipes[0].training_set]).values()
    return found


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reads the training data."""

    def refuse(*_: Any) -> None:
        raise AssertionError('the training data were read')

    for name in ('bsgap.data.load', 'bsgap.data.dataset.load', 'bsgap.data.idx.read'):
        monkeypatch.setattr(name, refuse)


def last_row(workdir: Path, run: str) -> Any:
    return bsgap.runs(workdir).query('run == @run').iloc[-1]


def accuracy(model: Any, split: data.Split) -> float:
    return float((np.asarray(nnx.jit(model)(split.examples_N)).argmax(1) == split.labels_N).mean())


def test_it_gives_the_accuracies_of_its_last_row(trained: Path) -> None:
    splits = dataset(tiny()).splits
    model = bsgap.load(trained, RUN)
    assert isinstance(model, nnx.Module)
    row = last_row(trained, RUN)
    for name in ('train', 'test'):
        assert accuracy(model, splits[name]) == pytest.approx(row[f'{name}_accuracy'], abs=1e-8)


def test_it_gives_the_logits_that_training_predicts(trained: Path) -> None:
    """Bit for bit: by the same function, with the arrays that the checkpoint has."""
    study = config.resolve(tiny())
    (recipe,) = (recipe for recipe in study.recipes if f'{recipe.name}-seed1' == RUN)
    leaves = final_leaves(trained)[RUN]
    params = {
        'layers': {i: {name: leaves[f'params.layers.{i}.{name}'] for name in ('kernel', 'bias')} for i in range(2)}
    }
    images = dataset(tiny()).splits['test'].examples_N[:50]
    logits = bsgap.load(trained, RUN)(images)
    assert (logits.shape, logits.dtype) == ((50, 10), np.float32)
    np.testing.assert_array_equal(logits, programs_of(study).model(recipe).predict(params, {}, jnp.asarray(images)))


@pytest.mark.usefixtures('no_data')
def test_the_training_data_are_not_needed(trained: Path, tmp_path: Path) -> None:
    """Nor anything but study.json, run.json and the checkpoint."""
    shutil.copytree(trained / 'runs' / RUN, tmp_path / 'runs' / RUN)
    shutil.copy(trained / 'study.json', tmp_path)
    (tmp_path / 'runs' / RUN / 'metrics.csv').unlink()
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(bsgap.load(tmp_path, RUN)(images), bsgap.load(trained, RUN)(images))


def test_an_earlier_update_is_loaded_as_it_was(tmp_path: Path) -> None:
    """Of a run whose weights were saved at two updates: each gives the accuracy that its row has."""
    settings = tiny(batch_size=(100,), checkpoint_seconds=0.0, segment_seconds=9.0)
    train(settings, tmp_path)
    run = 'bs100-lr0.1-seed0'
    assert saved_updates(tmp_path, run) == [3, 6]
    split = dataset(settings).splits['test']
    table = bsgap.runs(tmp_path).query('run == @run').set_index('update')
    assert table.test_accuracy[3] != table.test_accuracy[6]
    for update in (3, 6):
        found = accuracy(bsgap.load(tmp_path, run, update), split)
        assert found == pytest.approx(table.test_accuracy[update], abs=1e-8)


def test_a_run_that_was_stopped_on_its_way_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny(batch_size=(100,), segment_seconds=1e-6), tmp_path, check=stop(2))
    run = 'bs100-lr0.1-seed0'
    assert saved_updates(tmp_path, run) == [4]
    assert bsgap.load(tmp_path, run)(np.zeros((1, 28, 28, 1), np.uint8)).shape == (1, 10)


def test_a_users_own_model_is_in_evaluation_mode_with_its_state(tmp_path: Path) -> None:
    """Each training set has its own normalisation: a run is given that of its own."""
    own = {'model': f'{__name__}:Net', 'model_arguments': {'widths': [8, 3]}, 'subset': 100}
    recipes = {name: {'batch_size': 50, **fields} for name, fields in {'own': own, 'mlp': {}}.items()}
    settings = tiny(batch_size=(), recipes=recipes, seeds=1, epochs=1)
    train(settings, tmp_path)
    study = config.resolve(settings)
    for recipe in study.recipes:
        (made,) = data.load(study.data, [recipe.training_set]).values()
        model = bsgap.load(tmp_path, f'{recipe.name}-seed0')
        row = last_row(tmp_path, f'{recipe.name}-seed0')
        for name, split in made.splits.items():
            assert accuracy(model, split) == pytest.approx(row[f'{name}_accuracy'], abs=1e-8)
        images = made.splits['test'].examples_N[:9]
        np.testing.assert_array_equal(model(images), model(images))
        np.testing.assert_allclose(model(images[:1]), model(images)[:1], rtol=1e-4, atol=1e-5)


def test_wrong_names_are_told_those_that_there_are(trained: Path, tmp_path: Path) -> None:
    names = ', '.join(f'bs{size}-lr0.1-seed{seed}' for size in (100, 32) for seed in (0, 1))
    for run in ('bs32', 'bs32-lr0.1-seed9', '', '../trained/runs/x'):
        with pytest.raises(UserError, match=f'run: {run!r} is not in {trained}; there are {names}$'):
            bsgap.load(trained, run)
    with pytest.raises(UserError, match=f'run: {RUN!r} is not in {tmp_path}; there are none'):
        bsgap.load(tmp_path, RUN)
    with pytest.raises(UserError, match=f'update: 7 of {RUN} is not saved; there are 20$'):
        bsgap.load(trained, RUN, 7)


def test_a_run_that_was_never_saved_has_none(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / 'copy')
    shutil.rmtree(workdir / 'runs' / RUN / 'checkpoints')
    with pytest.raises(UserError, match=f'update: None of {RUN} is not saved; there are none'):
        bsgap.load(workdir, RUN)
    assert not (workdir / 'runs' / RUN / 'checkpoints').exists()  # to look changes nothing


def test_a_flipped_byte_is_found(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / 'copy')
    folder = workdir / 'runs' / RUN / 'checkpoints' / '20'
    path = max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
    flip(path)
    with pytest.raises(UserError, match=f'{RUN}/checkpoints is damaged: its checksum does not match') as error:
        bsgap.load(workdir, RUN)
    assert '\n' not in str(error.value)
    bsgap.load(workdir, 'bs32-lr0.1-seed0')  # the others are as they were


def test_what_run_json_says_is_compared_with_the_checkpoint(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / 'copy')
    path = workdir / 'runs' / RUN / 'run.json'
    about = read_json(path)
    for fields, says in (
        ({'hidden': [17]}, 'is damaged: it holds another model'),
        ({'model': 'no.such:Net'}, 'run: its model is no.such:Net; import no.such first'),
        ({'subset': 9}, 'was trained by a bsgap that did not save how examples are normalised'),
    ):
        path.write_text(json.dumps({**about, 'fields': {**about['fields'], **fields}}))
        with pytest.raises(UserError, match=says):
            bsgap.load(workdir, RUN)


def test_a_module_that_a_workdir_names_is_not_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = shutil.copytree(trained, tmp_path / 'copy')
    (tmp_path / 'evil.py').write_text(f"from pathlib import Path\nPath(r'{tmp_path}/ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    about = read_json(path := workdir / 'runs' / RUN / 'run.json')
    path.write_text(json.dumps({**about, 'fields': {**about['fields'], 'model': 'evil:Net'}}))
    with pytest.raises(UserError, match='run: its model is evil:Net; import evil first'):
        bsgap.load(workdir, RUN)
    assert not (tmp_path / 'ran').exists()


def test_a_workdir_of_an_older_bsgap_says_what_to_do(trained: Path, tmp_path: Path) -> None:
    """And to do that helps, without training anything anew."""
    workdir = shutil.copytree(trained, tmp_path / 'copy')
    study = read_json(workdir / 'study.json')
    del study['training_sets']
    (workdir / 'study.json').write_text(json.dumps(study))
    with pytest.raises(UserError, match=f'workdir: {workdir} .* start its launch once more, which adds that') as error:
        bsgap.load(workdir, RUN)
    assert '\n' not in str(error.value)
    before = (workdir / 'runs' / RUN / 'metrics.csv').stat().st_mtime_ns
    train(tiny(), workdir)
    assert (workdir / 'runs' / RUN / 'metrics.csv').stat().st_mtime_ns == before
    bsgap.load(workdir, RUN)


def test_a_training_that_saves_meanwhile_is_left_alone(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / 'copy')
    going_on = workdir / 'runs' / RUN / 'checkpoints' / '33.orbax-checkpoint-tmp'
    going_on.mkdir()
    bsgap.load(workdir, RUN)
    assert going_on.exists()
