"""Half precision, and what JAX was told of 64 bits."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, final_leaves, tiny
from launching import compiled_once, stop_after

import bsgap
from bsgap.errors import Interrupted


def kinds() -> dict[str, dict[str, Any]]:
    """A recipe for each dtype and optimizer."""
    optimizers: dict[str, dict[str, Any]] = {
        'sgd': {},
        'momentum': {'momentum': 0.9},
        'adam': {'optimizer': 'adam', 'learning_rate': 1e-3},
        'lamb': {'optimizer': 'lamb', 'learning_rate': 1e-2},
        'clip': {'clip': 0.5},
    }
    return {
        f'{dtype}-{name}': {**fields, 'model_arguments': {'dtype': dtype}}
        for dtype in ('float32', 'bfloat16', 'float16')
        for name, fields in optimizers.items()
    }


@pytest.mark.smoke
def test_each_dtype_trains_and_is_gone_on_with_whatever_jax_was_told(
    tmp_path: Path, pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With each optimizer, on from where it was stopped, and with 64 bits allowed: the same to the last bit."""
    about: dict[str, Any] = {'dataset': pictures, 'subset': 40, 'batch_size': (), 'seeds': 1, 'epochs': 2}
    study = tiny(**about, model='flax_ways:OfDtype', recipes=kinds())
    study.batch_size, study.evaluate_updates, study.checkpoint_seconds = 8, 2, 0.0
    with compiled_once():
        bsgap.train(study, tmp_path / 'whole')
    with jax.enable_x64(True), pytest.raises(Interrupted):
        bsgap.train(study, tmp_path / 'stopped', [stop_after(40)])
    assert 2 < bsgap.runs(tmp_path / 'stopped')['update'].max() < 10
    with compiled_once():
        bsgap.train(study, tmp_path / 'stopped')
    assert_same(tmp_path / 'whole', tmp_path / 'stopped')
    table = bsgap.runs(tmp_path / 'whole')
    assert set(table.status) == {'done'}
    assert table.groupby('run').train_loss.agg(lambda losses: losses.iloc[-1] < losses.iloc[0]).all()
    for run, leaves in final_leaves(tmp_path / 'whole').items():
        dtype = run.partition('-')[0]
        of_params = {leaf.dtype for name, leaf in leaves.items() if name.startswith('params.')}
        of_optimizer = {leaf.dtype for name, leaf in leaves.items() if name.startswith('opt_state.') and leaf.ndim}
        assert of_params == {jnp.dtype(dtype)}
        assert of_optimizer <= {jnp.dtype('float32')}


@pytest.mark.smoke
def test_losses_of_half_precision_logits_are_in_float32(pictures: str, tmp_path: Path) -> None:
    bsgap.train(
        tiny(batch_size=(4,), seeds=1, epochs=1, model='flax_ways:HalfComputed', dataset=pictures, subset=40), tmp_path
    )
    losses = bsgap.runs(tmp_path).train_loss.astype(np.float32)
    assert all(loss != np.float32(jnp.bfloat16(loss)) for loss in losses)
