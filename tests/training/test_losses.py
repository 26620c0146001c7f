"""Losses and scores of each task, by closed forms, and training on them."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from trainings import train

import bsgap
from bsgap import config
from bsgap.errors import UserError
from bsgap.training import losses

RNG = np.random.default_rng(0)


def test_classification_by_hand() -> None:
    """Of two classes with logits (0, log 3): probabilities ¼ and ¾."""
    logits = jnp.array([[0.0, math.log(3)]] * 2 + [[math.nan, 0.0]])
    found = losses.classification(logits, jnp.array([1, 0, 0]), 0.0, 1.0)
    assert found.loss_B.tolist()[:2] == pytest.approx([math.log(4 / 3), math.log(4)])
    assert found.score_B.tolist() == [True, False, False]
    smooth = losses.classification(logits, jnp.array([1, 0, 0]), 0.2, 1.0)
    assert smooth.loss_B[0] == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))


def test_several_labels_an_example_are_averaged() -> None:
    logits_BxTxK, labels_BxT = jnp.asarray(RNG.normal(size=(2, 3, 4))), jnp.array([[0, 1, 2], [3, 3, 3]])
    found = losses.classification(logits_BxTxK, labels_BxT, 0.1, 1.0)
    for b in range(2):
        alone = losses.classification(logits_BxTxK[b], labels_BxT[b], 0.1, 1.0)
        assert found.loss_B[b] == pytest.approx(float(alone.loss_B.mean()), rel=1e-6)
        assert found.score_B[b] == pytest.approx(float(alone.score_B.mean()), rel=1e-6)


def test_the_mean_score_of_a_regression_is_r2() -> None:
    """Scikit-learn's definition, the mean over targets."""
    outputs, targets = RNG.normal(size=(50, 2)), RNG.normal(size=(50, 2)) * (1, 3) + 5
    found = losses.regression(jnp.asarray(outputs), jnp.asarray(targets), 0.0, jnp.asarray(targets.var(0)))
    r2 = 1 - ((outputs - targets) ** 2).sum(0) / ((targets - targets.mean(0)) ** 2).sum(0)
    assert found.score_B.mean() == pytest.approx(r2.mean(), rel=1e-5)
    assert found.loss_B.mean() == pytest.approx(((outputs - targets) ** 2).mean(), rel=1e-5)
    lost = losses.regression(jnp.array([[math.inf]]), jnp.array([[0.0]]), 0.0, 1.0)
    assert (lost.loss_B[0], lost.score_B[0]) == (math.inf, 0)


SOURCE = """
import jax.numpy as jnp
def absolute(outputs, targets):
    error = jnp.abs(outputs - targets).mean(-1)
    return error, -error
def one(outputs, targets): return error
def lost(outputs, targets): return outputs.mean(-1), outputs.mean(-1) * jnp.nan
def short(outputs, targets): return outputs.mean(), targets.mean()
x = jnp.linspace(-1, 1, 60)[:, None]
def data(): return (x, 3 + 2 * x), (x[::7], 3 + 2 * x[::7])
number = 1
"""


@pytest.fixture
def mytask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mytask.py').write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)


def settings(task: str, **changes: Any) -> Any:
    fields = {'learning_rate': 0.1, 'batch_size': (10,), 'hidden': (), 'epochs': 30, 'seeds': 1, 'subset': 0}
    return tiny(dataset='mytask:data', task=task, **{**fields, **changes})


@pytest.mark.usefixtures('mytask')
def test_a_line_is_learned_and_told_in_its_own_unit(tmp_path: Path) -> None:
    """y = 3 + 2x, whose targets are standardised inside."""
    records = train(settings('regression'), tmp_path / 'run')
    (last,) = (record.rows[-1] for record in records.values())
    assert last['test_r2'] == pytest.approx(1, abs=1e-3)
    assert last['gap'] == pytest.approx(last['train_r2'] - last['test_r2'])
    table = bsgap.runs(tmp_path / 'run')
    assert {'train_r2', 'test_r2'} < set(table)
    assert not any('accuracy' in name for name in table)
    (name,) = records
    model = bsgap.load(tmp_path / 'run', name)
    np.testing.assert_allclose(model(np.array([[-1.0], [0.5]])), [[1], [4]], atol=0.05)


@pytest.mark.usefixtures('mytask')
def test_a_task_of_the_users_own(tmp_path: Path) -> None:
    records = train(settings('mytask:absolute', batch_size=(10,), epochs=200, evaluate_epochs=100.0), tmp_path / 'run')
    (last,) = (record.rows[-1] for record in records.values())
    assert last['test_score'] == pytest.approx(-last['test_loss'])
    assert last['test_loss'] < 0.2  # of targets with a mean distance of 1 from theirs
    (name,) = records
    np.testing.assert_allclose(bsgap.load(tmp_path / 'run', name)(np.array([[0.5]])), [[4]], atol=0.2)


@pytest.mark.usefixtures('mytask')
@pytest.mark.parametrize(
    ('task', 'says'),
    [
        (
            'ranking',
            "config.task: 'ranking' is not known; it must be one of classification, regression, module:function",
        ),
        ('mytask:none', 'config.task: mytask:none: mytask has no function none'),
        ('mytask:number', 'config.task: mytask:number: mytask has no function number'),
        ('mytask:one', r'config.task: mytask:one: .*mytask.py:6: NameError'),
        ('mytask:short', r'config.task: mytask:short gives losses of shape \[\]; they must be one an example: \[\d+\]'),
        ('classification', 'labels are float32 .* or else config.task=regression'),
    ],
)
def test_tasks_that_do_not_do_are_named(tmp_path: Path, task: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        train(settings(task), tmp_path / 'run')
    assert '\n' not in str(error.value)


def test_a_loss_that_was_edited_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'editedtask.py'
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)

    def go_on(epochs: int) -> None:
        made = settings('editedtask:absolute', epochs=epochs)
        made.dataset = 'editedtask:data'
        train(made, tmp_path / 'run')

    go_on(1)
    path.write_text(SOURCE.replace('return error, -error', 'return 5 * error, -error'))
    with pytest.raises(UserError, match=r'config.task: the source of editedtask:absolute, SHA-256 .* contradicts'):
        go_on(2)
    path.write_text(SOURCE)
    go_on(2)


@pytest.mark.usefixtures('mytask')
def test_a_score_that_is_not_finite_is_a_run_that_diverged(tmp_path: Path) -> None:
    records = train(settings('mytask:lost', epochs=1), tmp_path)
    assert [record.status for record in records.values()] == ['diverged']


@pytest.mark.usefixtures('mytask')
def test_what_is_for_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'config.label_smoothing: 0.1 is not allowed .* it needs task classification'):
        config.resolve(settings('regression', label_smoothing=0.1))
    with pytest.raises(UserError, match=r'config.label_noise: 0.1 is not allowed; it is for one class an example'):
        train(settings('regression', label_noise=0.1), tmp_path)
