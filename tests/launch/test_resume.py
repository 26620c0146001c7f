"""Interrupted and resumed equals uninterrupted, leaf for leaf and row for row; so does trained further."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_same, tiny
from launching import Noting, wait_for_rows

import bsgap
from benchmarks.kill import final_leaves, finish, rows, start
from bsgap.errors import Interrupted, UserError
from bsgap.training.cohort import Member
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import saved_updates

pytestmark = pytest.mark.usefixtures('compiled_once')

GROW = {
    'grow': {
        'stages': (
            {'epochs': 1, 'batch_size': 25, 'learning_rate': 0.1},
            {'updates': 25, 'batch_size': 100, 'learning_rate': 0.2},
        ),
        'momentum': 0.9,
    }
}


def growing() -> Any:
    """Momentum, two cohorts, one of which changes its batch size, and segments of one update but for the first."""
    return tiny(batch_size=(20,), momentum=(0.9,), epochs=3, recipes=GROW, segment_seconds=1e-6)


def various() -> Any:
    """Batch normalization, dropout, a batch that grows, Adam under a cosine: all that has a state, a key or a place."""
    recipes: dict[str, Any] = {
        'norm': {'batch_norm': True},
        'ghost': {
            'batch_norm': True,
            'ghost_batch': 16,
            'optimizer': 'adam',
            'learning_rate': 0.01,
            'schedule': 'cosine',
        },
        'grow': {'schedule': 'grow_batch', 'milestones': (1,), 'factor': 3.0, 'momentum': 0.9},
        'own': {'model': 'launching:Net', 'model_arguments': {'width': 16}, 'clip': 1.0},
    }
    return tiny(batch_size=(), recipes={k: {'batch_size': 40, **v} for k, v in recipes.items()}, segment_seconds=1e-6)


@pytest.fixture(scope='module')
def grown(once: Callable[..., Path]) -> Path:
    return once('growing', lambda workdir: bsgap.train(growing(), workdir))


@pytest.fixture(scope='module')
def varied(once: Callable[..., Path]) -> Path:
    return once('various', lambda workdir: bsgap.train(various(), workdir))


class Stop(Watcher):
    """Sends this process SIGTERM when a run has come so far."""

    def __init__(self, run: str, update: int) -> None:
        self.run, self.update = run, update

    def trained(self, members: Sequence[Member], examples: int, seconds: float) -> None:
        if any(member.run.name == self.run and member.update >= self.update for member in members):
            os.kill(os.getpid(), signal.SIGTERM)


def stop_and_go_on(study: Any, workdir: Path, run: str, updates: Sequence[int]) -> None:
    """Trains, but for some signals on the way."""
    for update in updates:
        with pytest.raises(Interrupted, match='SIGTERM'):
            bsgap.train(study, workdir, [Stop(run, update)])
        assert saved_updates(workdir, run)[-1] == max(update, 4)  # the first segment has four
    bsgap.train(study, workdir)


@pytest.mark.parametrize('updates', [[1], [8, 15], [20]])
def test_stopped_by_signals(tmp_path: Path, grown: Path, updates: Sequence[int]) -> None:
    """8 falls into the first stage of the growing recipe, 15 into its second, 20 where it is alone."""
    stop_and_go_on(growing(), tmp_path, 'grow-seed1', updates)
    assert_same(tmp_path, grown)


def test_models_and_schedules_with_a_state_go_on(tmp_path: Path, varied: Path) -> None:
    """Stopped in the first epoch, and in the second, where the growing recipe is in its second stage."""
    stop_and_go_on(various(), tmp_path, 'grow-seed0', [6, 9])
    assert_same(tmp_path, varied)


def test_what_is_compared_is_all_that_decides_the_future(grown: Path, varied: Path) -> None:
    leaves = final_leaves(grown)['grow-seed0']
    assert {name.split('.')[0] for name in leaves} == {'params', 'opt_state', 'update', 'sums'}
    ends = final_leaves(varied)
    assert all(leaf.any() for name, leaf in ends['norm-seed0'].items() if name.startswith('model_state'))
    kinds = {run: {name.split('.')[0] for name in leaves} for run, leaves in ends.items()}
    assert 'model_state' in kinds['norm-seed0'] & kinds['ghost-seed1']
    assert 'model_state' not in kinds['own-seed0']  # dropout has no state: its key is a function of seed and update


def test_killed_at_random_moments(tmp_path: Path, small: Path) -> None:
    """kill −9 of the real process, three times, then to the end."""
    seed = random.randrange(10**6)
    print(f'seed {seed}')
    rng = random.Random(seed)
    killed = 0
    for _ in range(3):
        (process,) = start(tmp_path)
        wait_for_rows(tmp_path, 1, process)
        time.sleep(rng.uniform(0, 1.5))
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed
    assert finish(start(tmp_path)) == [0]
    assert_same(tmp_path, small)
    assert len(rows(small)) == 4


LONGER: dict[str, Any] = {'batch_size': (32, 100), 'epochs': 3, 'seeds': 2}


@pytest.fixture(scope='module')
def at_once(once: Callable[..., Path]) -> Path:
    """What was never shorter."""
    return once('longer', lambda workdir: bsgap.train(tiny(**LONGER), workdir))


def began(noting: Noting) -> dict[str, int]:
    """The updates from which runs were trained."""
    return {run: at[0] for event in noting.events if event.what == 'began' for run, at in event.runs.items()}


def test_more_epochs_seeds_and_batch_sizes_train_only_what_is_missing(tmp_path: Path, at_once: Path) -> None:
    bsgap.train(tiny(batch_size=(32,), epochs=2, seeds=1), tmp_path)
    bsgap.train(tiny(**LONGER), tmp_path, [noting := Noting()])
    assert began(noting) == {
        'bs32-lr0.1-seed0': 20,
        'bs32-lr0.1-seed1': 0,
        'bs100-lr0.1-seed0': 0,
        'bs100-lr0.1-seed1': 0,
    }
    assert_same(tmp_path, at_once)


@pytest.mark.parametrize('shorter', [{'updates': 13}, {'examples': 100}, {'epochs': 1.5}])
def test_a_run_that_ended_within_an_epoch_goes_on(tmp_path: Path, at_once: Path, shorter: dict[str, Any]) -> None:
    """Its last evaluation is none of the longer run's; after a batch that its end cut short it cannot be gone on."""
    changes = {'batch_size': (32,), 'epochs': 0.0}
    bsgap.train(tiny(**{**changes, **shorter}), tmp_path)
    if 'updates' in shorter:
        bsgap.train(tiny(**LONGER), tmp_path, [noting := Noting()])
        assert began(noting)['bs32-lr0.1-seed1'] == 13
        assert_same(tmp_path, at_once)
    else:
        with pytest.raises(UserError, match=r'config.epochs: 3.0 contradicts'):
            bsgap.train(tiny(**{**changes, 'epochs': 3}), tmp_path)


def test_more_epochs_of_a_schedule(tmp_path: Path) -> None:
    def schedules(**changes: Any) -> Any:
        recipes: dict[str, Any] = {
            'decay': {'schedule': 'decay_learning_rate', 'milestones': (1,)},
            'warm': {'warm_up': 1.0},
            'grow': {'schedule': 'grow_batch', 'milestones': (1,), 'factor': 2.0},
        }
        return tiny(batch_size=(), recipes={k: {'batch_size': 32, **v} for k, v in recipes.items()}, seeds=1, **changes)

    bsgap.train(schedules(), tmp_path)
    (tmp_path / 'lines.json').write_text('{"lines": []}')
    (tmp_path / 'runs' / 'grow-seed0' / 'measurements.json').write_text('{"sharpness_0.1": 1.0}')
    bsgap.train(schedules(epochs=3), tmp_path, [noting := Noting()])
    assert began(noting) == {'decay-seed0': 20, 'warm-seed0': 20, 'grow-seed0': 15}
    bsgap.train(schedules(epochs=3), tmp_path / 'at-once')
    assert_same(tmp_path, tmp_path / 'at-once')
    assert not (tmp_path / 'lines.json').exists()
    assert not list(tmp_path.glob('runs/*/measurements.json'))


def test_more_epochs_of_a_cosine_contradict(tmp_path: Path) -> None:
    """Its learning rate was another one from the first update on."""
    changes = {'batch_size': (32,), 'schedule': 'cosine'}
    bsgap.train(tiny(**changes), tmp_path)
    with pytest.raises(UserError, match=r'config.epochs: 3.0 contradicts 2.0'):
        bsgap.train(tiny(**changes, epochs=3), tmp_path)
