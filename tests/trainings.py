"""Training without a launch around it: what the tests of `bsgap.training` have in common."""

import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from helpers import tiny
from ml_collections import ConfigDict

from bsgap import config, data
from bsgap.errors import Interrupted
from bsgap.training.loop import Trainer
from bsgap.training.programs import Programs, run_axis
from bsgap.training.rows import Record, read_records
from bsgap.training.runs import Run, cross
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import depends_on, open_workdir

_compiled: dict[Any, Programs] = {}
GROW = {
    'stages': (
        {'epochs': 1, 'batch_size': 25, 'learning_rate': 0.1},
        {'updates': 10, 'batch_size': 100, 'learning_rate': 0.2},
    ),
    'momentum': 0.9,
}


def two_cohorts(checkpoint_seconds: float = 30.0) -> ConfigDict:
    """Momentum, two cohorts, one of which changes its batch size, and segments of one update but for the first."""
    changes: dict[str, Any] = {'checkpoint_seconds': checkpoint_seconds, 'segment_seconds': 1e-6}
    return tiny(batch_size=(20,), momentum=(0.9,), epochs=2, recipes={'grow': GROW}, **changes)


def programs_of(study: config.Study) -> Programs:
    """The study's, compiled once for all studies of this process that have the same data and way of computing."""
    training_sets = tuple(dict.fromkeys(recipe.training_set for recipe in study.recipes))
    key = study.data, training_sets, study.max_physical_batch, run_axis(study), study.precision
    if key not in _compiled:
        datasets = data.load(study.data, training_sets)
        _compiled[key] = Programs(study, datasets, Watcher(), jax.local_devices()[0])
    return _compiled[key]


def runs_of(study: config.Study) -> tuple[Run, ...]:
    datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
    return cross(study, {training_set: dataset.n for training_set, dataset in datasets.items()})


def train(
    settings: ConfigDict,
    workdir: Path,
    watcher: Watcher | None = None,
    check: Callable[[], None] = lambda: None,
    programs: Programs | None = None,
) -> dict[str, Record]:
    """Trains a study's runs to their ends on one device, in one round; what the files say of them, by name."""
    study = config.resolve(settings)
    datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
    runs = runs_of(study)
    open_workdir(workdir, study, runs, depends_on(study, datasets))
    records = {record.name: record for record in read_records(workdir)}
    trainer = Trainer(study, programs or programs_of(study), workdir, watcher or Watcher(), check)
    trainer.train(list(runs), records)
    return records


def stop(segments: int, error: BaseException | None = None) -> Callable[[], None]:
    """A check that ends training after so many segments."""
    made = itertools.count()

    def check() -> None:
        if next(made) == segments:
            raise error or Interrupted(signal.SIGTERM)

    return check
