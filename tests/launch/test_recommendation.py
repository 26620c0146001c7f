"""`bsgap.recommend`: arrays in, an answer out; the same from the workdir's files."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx

import bsgap
from bsgap import config, data
from bsgap.errors import UserError
from bsgap.launch.recommendation import Recommendation

SMALL: dict[str, Any] = {
    'seeds': 2, 'sweep.batch_size': (4, 32), 'sweep.learning_rate': (0.05, 0.2), 'search.rungs': 1,
    'search.confirm_seeds': 2, 'validation': 0.5,
}  # fmt: skip


class Net(nnx.Module):
    def __init__(self, shape: tuple[int, ...], classes: int, *, rngs: nnx.Rngs) -> None:
        (width,) = shape
        self.layer = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x_BxF: jax.Array) -> jax.Array:
        return self.layer(x_BxF)


def two_clouds(n: int = 800) -> tuple[Any, Any]:
    """Points of a plane about two centres, far from 0, as a table with texts for labels; exact in float32."""
    rng = np.random.default_rng(0)
    y_N = rng.integers(0, 2, n)
    x_NxF = 100 + 3 * y_N[:, None] + np.round(8 * rng.normal(size=(n, 2))) / 8
    return pd.DataFrame(x_NxF, columns=['a', 'b']), pd.Series(np.array(['left', 'right'])[y_N], dtype=object)


@pytest.fixture(scope='module')
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recommendation]:
    workdir = tmp_path_factory.mktemp('answer') / 'my study'
    found = bsgap.recommend(two_clouds(), workdir=workdir, model=Net, budget_epochs=2, fields=SMALL)
    return workdir, found


def test_arrays_get_an_answer(answered: tuple[Path, Recommendation]) -> None:
    workdir, found = answered
    table = found.table
    assert set(table['unit']) == {'epochs', 'updates'}
    epochs = table[table['unit'] == 'epochs']
    assert epochs['amount'].tolist() == [2, 2]
    assert epochs['batch_size'].tolist() == [4, 32]
    assert epochs['updates'].tolist() == [160, 20]  # of 320 examples: half of 800 less a fifth
    (chosen,) = epochs[epochs['recommended']].to_dict('records')
    assert (found.batch_size, found.learning_rate) == (chosen['batch_size'], chosen['learning_rate'])
    assert epochs['test_score'].gt(0.95).all()  # Φ(3/√2) is 0.983
    inside = epochs['test_score'].between(epochs['test_score_low'], epochs['test_score_high'])
    assert inside.all()
    assert 'For 2 epochs take batch size' in found.text
    assert found.report == workdir.absolute() / 'report.html'
    assert found.report.is_file()
    run, training_set = f'{fresh(workdir)[0]}-seed2', config.TrainingSet(0, 0.0)
    test = data.load(config.Data(f'npz:{workdir}/data.npz', 0.0), [training_set])[training_set].splits['test']
    right_N = np.asarray(bsgap.load(workdir, run)(test.examples_N)).argmax(1) == test.labels_N
    runs = bsgap.runs(workdir)
    assert right_N.mean() == pytest.approx(runs[runs['run'] == run]['test_accuracy'].iloc[-1])


def fresh(workdir: Path) -> list[str]:
    return [entry['recipe'] for entry in json.loads((workdir / 'search.json').read_text())['fresh']]


def test_the_same_call_goes_on_and_the_files_say_the_same(
    answered: tuple[Path, Recommendation], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, found = answered
    files = {path: path.read_bytes() for path in [*workdir.glob('runs/*/metrics.csv'), workdir / 'data.npz']}
    x, y = two_clouds()
    monkeypatch.chdir(workdir.parent)
    again = bsgap.recommend((x.to_numpy(), y.tolist()), workdir=workdir.name, model=Net, budget_epochs=2, fields=SMALL)
    for other in (again, Recommendation.read(workdir)):
        pd.testing.assert_frame_equal(other.table, found.table)
        assert (other.batch_size, other.learning_rate, other.text) == (
            found.batch_size,
            found.learning_rate,
            found.text,
        )
    assert files == {path: path.read_bytes() for path in files}


def test_other_data_are_refused_and_nothing_is_lost(answered: tuple[Path, Recommendation]) -> None:
    workdir, _ = answered
    before = (workdir / 'data.npz').read_bytes()
    x, y = two_clouds()
    for train, test in (((x + 1, y), None), ((x, y), (x, y)), ((x.astype(np.float32), y), None)):
        with pytest.raises(UserError, match='has other data; give each question its own workdir'):
            bsgap.recommend(train, test, workdir=workdir, model=Net, fields=SMALL)
    assert (workdir / 'data.npz').read_bytes() == before


OWN = """
import jax.numpy as jnp
def below(outputs, targets):
    error = jnp.abs(outputs - targets).mean(-1)
    return error, -error
def above(outputs, targets): return jnp.square(outputs - targets).mean(-1), outputs.mean(-1) + 100
"""


@pytest.mark.smoke
def test_scores_of_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some below 0 are the best there is; a search takes none above 1."""
    (tmp_path / 'ownscores.py').write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    x = np.random.default_rng(0).normal(size=(300, 2))
    y = x @ [1, 2]
    found = bsgap.recommend((x, y), workdir=tmp_path / 'below', model=Net, fields={**SMALL, 'task': 'ownscores:below'})
    assert found.batch_size in (4, 32)
    assert found.table['test_score'].between(-1, 0).all()
    with pytest.raises(UserError, match=r'config.task: ownscores:above gives a score of .* at most 1'):
        bsgap.recommend((x, y), workdir=tmp_path / 'above', model=Net, fields={**SMALL, 'task': 'ownscores:above'})


@pytest.mark.smoke
def test_a_regression_is_told_in_its_own_words(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(500, 2))
    y = x @ [1, 2] + np.random.default_rng(1).normal(size=500)
    found = bsgap.recommend((x, y), workdir=tmp_path, model=Net, fields={**SMALL, 'task': 'regression'})
    assert found.table['test_score'].between(0.75, 0.9).all()  # R² of the truth is 5/6
    assert found.batch_size in (4, 32)
    assert 'test R² 0.8' in found.text
    page, _, _ = found.report.read_text().partition('<summary>Settings</summary>')
    assert 'test R²' in page
    for text in (found.text, page):
        assert 'accuracy' not in text.lower()
        assert 'points' not in text


def test_data_with_which_nothing_was_trained_lock_nothing(tmp_path: Path) -> None:
    x, y = two_clouds(200)
    with pytest.raises(UserError, match=r'takes images \[H, W, C\]'):
        bsgap.recommend((x, y), workdir=tmp_path, model='cnn', fields=SMALL)
    with pytest.raises(UserError, match=r"config.model: 'other' is not known"):
        bsgap.recommend((x + 1, y), workdir=tmp_path, model='other', fields=SMALL)


def test_damaged_data_are_named(tmp_path: Path) -> None:
    (tmp_path / 'study.json').write_text('{}')
    (tmp_path / 'data.npz').write_bytes(b'PK')
    with pytest.raises(UserError, match=r'workdir: .*/data.npz is damaged'):
        bsgap.recommend(two_clouds(), workdir=tmp_path, model=Net, fields=SMALL)


@pytest.mark.smoke
def test_where_there_is_nothing_to_learn_nothing_is_recommended(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 2)), rng.integers(0, 2, 400)
    found = bsgap.recommend(noise, noise, workdir=tmp_path, model=Net, fields=SMALL)
    assert (found.batch_size, found.learning_rate) == (None, None)
    assert 'Nothing can be recommended' in found.text
    assert not len(found.table)


def test_batch_sizes_that_an_epoch_has_updates_for_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr('bsgap.launch.job.train', lambda settings, _, given: asked.append(settings) or sys.exit())
    of_parts = (2000, 1100, (4, 16, 64)), (2000, 900, (4, 16)), (2000, 18, (4, 16))
    for n, subset, sizes in ((2000, 0, (4, 16, 64)), (100, 0, (4, 16)), (60_000, 0, (4, 16, 64, 256, 1024)), *of_parts):
        x, fields = np.zeros((n, 1), np.uint8), {'test_share': 1e-9 + 1 / n, 'subset': subset}
        with pytest.raises(SystemExit):
            bsgap.recommend((x, np.arange(n) % 2), workdir=tmp_path / f'{n} {subset}', fields=fields)
        assert asked[-1].sweep.batch_size == sizes


@pytest.mark.parametrize(
    ('given', 'says'),
    [
        ({'train': np.zeros((4, 2))}, r'train: ndarray is not allowed; it must be a pair, \(x, y\)'),
        ({'test': (1, 2, 3)}, 'test: tuple is not allowed'),
        ({'train': (np.full((4, 2), np.nan), [0, 1, 0, 1])}, 'NaN'),
        ({'train': (np.ma.masked_less(np.eye(4), 1), [0, 1, 0, 1])}, 'some of the train examples are masked'),
        ({'train': ([[1.0, 2.0], [3.0]], [0, 1])}, 'train: ValueError: .*inhomogeneous'),
        (
            {'model': Net((2,), 2, rngs=nnx.Rngs(0))},
            'model: a Net is not allowed; it must be mlp, cnn, module:Class, or a class',
        ),
        ({'fields': {'dataset': 'mnist'}}, 'fields: dataset is not allowed; give train and test'),
        ({'fields': {'search.rungs': 0}}, 'fields: search.rungs 0 is not allowed'),
        ({'fields': {'batch_size': 5}}, 'config.batch_size: has no effect in a search; give sweep.batch_size'),
        ({'test': two_clouds(50), 'fields': {'test_share': 0.3}}, 'config.test_share: has no effect: the dataset has'),
        ({'fields': {'hidden.x': 3}}, 'fields: '),
        ({'fields': {'seedz': 3}}, r'config.seedz: unknown field; did you mean config.seeds\?'),
        ({'fields': {'seeds': 'three'}}, "config.seeds: 'three' is not allowed"),
        ({'model': 'mlpp'}, "config.model: 'mlpp' is not known"),
        ({'train': (np.eye(8), [0, 1] * 4), 'fields': {}}, 'train: 6 examples, 5 of them to train on, are not allowed'),
        ({'fields': {'sweep.batch_size': np.array([16])}}, r'batch_size: \(16,\) is not allowed in a search; it must'),
        ({'budget_epochs': -1}, 'config.search.budget_epochs'),
        ({'budget_epochs': 'two'}, "config.search.budget_epochs: 'two' is not allowed"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    x, y = two_clouds(200)
    with pytest.raises(UserError, match=says) as error:
        bsgap.recommend(**{'train': (x, y), 'workdir': tmp_path, 'fields': SMALL, **given})
    assert '\n' not in str(error.value)


def test_a_workdir_without_an_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='holds no study'):
        Recommendation.read(tmp_path)
    (tmp_path / 'study.json').write_text('{}')
    with pytest.raises(UserError, match='has no answer'):
        Recommendation.read(tmp_path)
