"""Who is told how training goes, and what."""

from pathlib import Path
from typing import Any

import pytest
from helpers import tiny
from launching import Noting
from trainings import stop, train

import bsgap
from bsgap.errors import Interrupted
from bsgap.training.watcher import Watcher, as_one
from bsgap.training.workdir import saved_updates

EVENTS = ('compiling', 'compiled', 'began', 'trained', 'evaluated', 'saved', 'warned', 'noted')


def test_several_are_told_in_their_order() -> None:
    told = list[Any]()

    class Telling(Watcher):
        def __init__(self, name: str) -> None:
            self.name = name

        def compiled(self, what: str, seconds: float) -> None:
            told.append((self.name, what, seconds))

        def warned(self, message: str) -> None:
            told.append((self.name, message))

    both = as_one([Telling('first'), Watcher(), Telling('second')])
    both.compiled('order', 0.5)
    both.warned('beware')
    both.noted('nobody listens')
    assert told == [('first', 'order', 0.5), ('second', 'order', 0.5), ('first', 'beware'), ('second', 'beware')]
    as_one([]).saved([])


def test_one_that_overrides_nothing_hears_nothing() -> None:
    watcher = Watcher()
    watcher.compiling('order')
    watcher.compiled('order', 1.0)
    for event in ('began', 'evaluated', 'saved'):
        getattr(watcher, event)([])
    watcher.trained([], 0, 0.0)
    watcher.warned('beware')
    watcher.noted('done')
    assert {event for event in vars(Watcher) if not event.startswith('_')} == set(EVENTS)


def test_what_a_training_tells(tmp_path: Path) -> None:
    """Of two runs in one cohort: rows at 0, 3 and 6 of 6 updates, a save at the end."""
    watcher = Noting()
    train(tiny(batch_size=(100,), segment_seconds=9.0), tmp_path, watcher)
    assert [event.what for event in watcher.events] == [
        *('began', 'evaluated', 'trained', 'evaluated', 'trained', 'evaluated', 'saved')
    ]
    names = {'bs100-lr0.1-seed0', 'bs100-lr0.1-seed1'}
    assert all(event.runs.keys() == names for event in watcher.events)
    assert [event.runs['bs100-lr0.1-seed1'] for event in watcher.events] == [
        *((0, 0), (0, 1), (3, 1), (3, 2), (6, 2), (6, 3), (6, 3))
    ]
    examples, seconds = zip(*(event.said for event in watcher.events if event.what == 'trained'), strict=True)
    assert examples == (2 * 300, 2 * 300)
    assert min(seconds) > 0


def test_a_launch_that_one_of_them_ended_is_gone_on_with(tmp_path: Path) -> None:
    class Failing(Watcher):
        def evaluated(self, members: Any) -> None:
            if members[0].update:
                raise ZeroDivisionError('mine')

    with pytest.raises(ZeroDivisionError, match='mine'):
        bsgap.train(tiny(batch_size=(100,)), tmp_path, watchers=[Failing()])
    table = bsgap.train(tiny(batch_size=(100,)), tmp_path)
    assert set(table.status) == {'done'}
    assert list(table['update']) == [0, 3, 6] * 2


def test_one_that_fails_keeps_no_run_from_being_saved(tmp_path: Path) -> None:
    """Training is stopped between two saves: all cohorts are saved, whatever a watcher makes of it."""

    class Failing(Watcher):
        def saved(self, members: Any) -> None:
            raise OSError('mine')

    with pytest.raises(Interrupted):
        train(tiny(checkpoint_seconds=1e6), tmp_path, Failing(), stop(3))
    assert all(saved_updates(tmp_path, f'bs{size}-lr0.1-seed{seed}') for size in (32, 100) for seed in (0, 1))
