"""Runs that are advanced together are what each is alone."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, final_leaves, rows, tiny
from trainings import runs_of, train

from bsgap import config
from bsgap.training.cohort import Cohort, Member
from bsgap.training.step import State, Sums


def assert_as_alone(together: Path, alone: Path) -> None:
    """Bit for bit."""
    first, second = rows(together), rows(alone)
    assert {run: first[run] for run in second} == second
    assert_close(alone, together, rtol=0, atol=0)


def test_how_a_cohort_is_advanced_changes_rounding_only(tmp_path: Path) -> None:
    for how in ('vmap', 'map'):
        train(tiny(batch_size=(100,), run_axis=how), tmp_path / how)
    train(tiny(batch_size=(100,), run_axis='map', seeds=1), tmp_path / 'alone')
    assert_close(tmp_path / 'vmap', tmp_path / 'map', rtol=1e-4, atol=1e-6)
    assert_close(tmp_path / 'map', tmp_path / 'alone', rtol=1e-4, atol=1e-6)


def test_a_full_batch_is_accumulated_with_the_same_result(tmp_path: Path) -> None:
    train(tiny(batch_size=(300,)), tmp_path / 'whole')
    train(tiny(batch_size=(300,), max_physical_batch=64), tmp_path / 'parts')
    assert_close(tmp_path / 'whole', tmp_path / 'parts', rtol=1e-4, atol=1e-6)


def test_accumulated_ghost_batch_norm_equals_the_whole_batch(tmp_path: Path) -> None:
    """To rounding, running statistics included: 60 + 36 examples in groups of 20; an epoch ends with a batch of 12."""
    fields = {'batch_size': (96,), 'batch_norm': True, 'ghost_batch': 20, 'seeds': 1}
    train(tiny(**fields), tmp_path / 'whole')
    train(tiny(**fields, max_physical_batch=60), tmp_path / 'parts')
    assert any(name.startswith('model_state') for name in final_leaves(tmp_path / 'whole')['bs96-lr0.1-seed0'])
    assert_close(tmp_path / 'whole', tmp_path / 'parts', rtol=1e-3, atol=1e-5)


def stages(*table: tuple[str, int, int]) -> dict[str, Any]:
    return {'stages': tuple({unit: length, 'batch_size': size, 'learning_rate': 0.1} for unit, length, size in table)}


def test_runs_are_regrouped_at_stage_boundaries(tmp_path: Path) -> None:
    """Recipes that meet at one batch size and part again, against each of them in a study of its own."""
    recipes = {
        'grow': stages(('epochs', 1, 50), ('updates', 5, 100)),
        'mid': stages(('updates', 3, 100), ('examples', 170, 50), ('epochs', 1, 100)),
        'flat': stages(('epochs', 2, 100)),
    }
    train(tiny(batch_size=(), recipes=recipes, seeds=1), tmp_path / 'all')
    grown = rows(tmp_path / 'all')['grow-seed0']
    assert [row['batch_size'] for row in grown] == ['50', '100', '100', '100']
    assert (grown[-1]['update'], grown[-1]['examples']) == (str(6 + 5), '800')
    for name, recipe in recipes.items():
        train(tiny(batch_size=(), recipes={name: recipe}, seeds=1), tmp_path / name)
        assert_as_alone(tmp_path / 'all', tmp_path / name)


def test_training_sets_train_as_each_alone(tmp_path: Path) -> None:
    sets = {'few': {'subset': 100}, 'all': {}, 'noisy': {'label_noise': 0.3}}
    recipes = {name: {'batch_size': 50, **fields} for name, fields in sets.items()}
    train(tiny(batch_size=(), recipes=recipes, seeds=1), tmp_path / 'together')
    together = rows(tmp_path / 'together')
    assert [together[f'{name}-seed0'][-1]['examples'] for name in sets] == ['200', '600', '600']
    assert together['all-seed0'] != together['noisy-seed0']
    for name in sets:
        train(tiny(batch_size=(), recipes={name: recipes[name]}, seeds=1), tmp_path / name)
        assert_as_alone(tmp_path / 'together', tmp_path / name)


def members(workdir: Path, **changes: Any) -> list[Member]:
    runs = runs_of(config.resolve(tiny(batch_size=(100,), **changes)))
    return [Member(run, workdir, None, []) for run in runs]  # type: ignore[arg-type]


def row(update: int, loss: float = 1.0) -> dict[str, float]:
    return {'update': update, 'train_loss': loss, 'distance': 1.0}


def test_when_a_run_is_due_to_be_evaluated(tmp_path: Path) -> None:
    """Before updates 0, 3 and 6."""
    member, _ = members(tmp_path)
    due = {}
    for member.update in range(7):
        due[member.update] = member.due
    assert [update for update in due if due[update]] == [0, 3, 6]
    member.update, member.rows = 3, [row(0)]
    assert (member.due, member.next_evaluation, member.example, member.batch_size) == (True, 6, 300, 100)
    member.rows.append(row(3))
    assert not member.due
    member.update = 6
    assert member.due
    assert not member.diverged
    member.rows[-1]['train_loss'] = float('inf')
    assert member.diverged
    assert not member.due


def test_time_is_shared_among_the_runs_that_go_on(tmp_path: Path) -> None:
    cohort = Cohort(members(tmp_path, seeds=3), None, None)  # type: ignore[arg-type]
    cohort.share('train_seconds', 3.0)
    cohort.members[1].rows = [row(0, float('nan'))]
    cohort.share('train_seconds', 3.0)
    cohort.share('eval_seconds', 1.0)
    assert [member.train_seconds for member in cohort.members] == [2.5, 1.0, 2.5]
    assert [member.eval_seconds for member in cohort.members] == [0.5, 0.0, 0.5]
    assert not cohort.over
    for member in cohort.members:
        member.rows = [row(0, float('nan'))]
    assert cohort.over
    assert cohort.saved_at <= time.monotonic()


@pytest.mark.parametrize('runs', [1, 2])
def test_states_on_the_host_are_copies(tmp_path: Path, runs: int) -> None:
    """Of a view the device might write over what is being saved."""
    state_R = State(
        {'w': jnp.arange(2.0 * runs).reshape(runs, 2)}, (), {}, jnp.arange(runs), Sums(*[jnp.ones(runs)] * 4)
    )
    states = Cohort(members(tmp_path, seeds=runs), state_R, None).host_states()
    assert len(states) == runs
    for r, state in enumerate(states):
        np.testing.assert_array_equal(state.params['w'], state_R.params['w'][r])
        for leaf, on_device in zip(jax.tree.leaves(state), jax.tree.leaves(state_R), strict=True):
            assert isinstance(leaf, np.ndarray)
            assert not np.shares_memory(leaf, np.asarray(on_device))
