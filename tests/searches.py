"""A search that takes seconds."""

from pathlib import Path
from typing import Any

from helpers import tiny
from ml_collections import ConfigDict

from bsgap import config
from bsgap.files import write_json


def settings(**changes: Any) -> ConfigDict:
    """A search of a few seconds: two batch sizes, three learning rates, one seed."""
    made = tiny(
        batch_size=(8, 32),
        learning_rate=(0.03, 0.1, 0.3),
        subset=400,
        validation=0.01,
        seeds=1,
    )
    made.learning_rate = 0.01
    given: dict[str, Any] = {'rungs': 2, 'widen': 1, 'confirm_seeds': 1}
    given |= {'budget_epochs': 2.0, 'budget_seconds': 0.05}
    made.search.update({**given, **changes})
    return made


def known_times(workdir: Path) -> Path:
    """A workdir in which the times of an update are known, as they are measured once and decide how long runs are."""
    workdir.mkdir(exist_ok=True)
    write_json(workdir / 'search.json', {'seconds_per_update': {'8': 0.0005, '32': 0.001}, 'stopped': []})
    return workdir


def plan(**changes: Any) -> config.Search:
    made = config.resolve(settings(**changes)).search
    assert made
    return made
