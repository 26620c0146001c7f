"""A search that takes seconds."""

from pathlib import Path
from typing import Any

from helpers import tiny
from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis import answer
from bsgap.files import write_json


def settings(**changes: Any) -> ConfigDict:
    """A search of a few seconds: two batch sizes, three learning rates, two seeds and two fresh ones."""
    made = tiny(batch_size=(8, 32), learning_rate=(0.05, 0.2), subset=400, validation=0.01, seeds=2, schedule='linear')
    given = {'rungs': 1, 'confirm_seeds': 2, 'budget_epochs': 2.0, 'budget_seconds': 0.05}
    made.search.update({**given, **changes})
    return made


def known_times(workdir: Path) -> Path:
    """A workdir in which the times of an update are known, as they are measured once and decide how long runs are."""
    workdir.mkdir(exist_ok=True)
    known = {'8': [0.0005, 0.0006, 0.0005], '32': [0.001, 0.001, 0.0012]}
    write_json(
        workdir / 'search.json',
        {'version': answer.VERSION, 'seconds_per_update': known, 'bytes': {'8': 10, '32': 20}, 'rungs': []},
    )
    return workdir


def plan(**changes: Any) -> config.Search:
    made = config.resolve(settings(**changes)).search
    assert made
    return made
