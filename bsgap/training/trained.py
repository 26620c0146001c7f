"""Trained models, from a workdir alone."""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bsgap import config, models
from bsgap.errors import UserError
from bsgap.files import read_json
from bsgap.models.pure import Classifier
from bsgap.training import checkpoint, step
from bsgap.training.workdir import run_folder, saved_updates

CONSTANTS = 'mean', 'std', 'target_mean', 'target_std'


def load(workdir: Path, run: str, update: int | None = None) -> Classifier:
    """The model of a run as it was saved after `update` updates, by default the last time.

    Raises:
      UserError: there is no such run or checkpoint, or it is damaged.
    """
    folder = run_folder(workdir, run)
    if not (folder / 'run.json').is_file():
        there = ', '.join(sorted(path.parent.name for path in workdir.glob('runs/*/run.json')))
        raise UserError(f'run: {run!r} is not in {workdir}; there are {there or "none"}')
    if not (saved := saved_updates(workdir, run)) or update not in (None, *saved):
        raise UserError(f'update: {update} of {run} is not saved; there are {", ".join(map(str, saved)) or "none"}')
    update = saved[-1] if update is None else update
    with step.numerics('float32'):
        model = _model(workdir, read_json(folder / 'run.json', 'fields')['fields'])
        params, model_state = jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0))
        like = {'params': params, 'model_state': model_state}
        try:
            found = checkpoint.Checkpoints(workdir, run).load(update, like, whole=False).state
        except checkpoint.DamagedError as error:
            raise UserError(f'workdir: {folder}/checkpoints is damaged: {error}; give another update') from error
        return model.module(found['params'], found['model_state'])


def _model(workdir: Path, fields: dict[str, Any]) -> models.Model:
    """A run's model, by what run.json says of its recipe and study.json of the data."""
    sets = read_json(workdir / 'study.json').get('training_sets', [])
    made = [known for known in sets if all(fields.get(key) == known.get(key) for key in config.TrainingSet._fields)]
    if not made:
        lacks = 'was trained by a bsgap that did not save how examples are normalised'
        raise UserError(f'workdir: {workdir} {lacks}; start its launch once more, which adds that')
    module, users, _ = str(fields.get('model')).partition(':')
    if users and module not in sys.modules:  # nothing is executed because a workdir names it
        raise UserError(f'run: its model is {fields["model"]}; import {module} first')
    try:
        # As a bsgap had it that knew images and classes alone.
        before = {'shape': made[0].get('image_shape'), 'outputs': made[0].get('classes'), 'dtype': 'uint8'}
        known = {**before, 'label_shape': (), 'target_mean': None, 'target_std': None, **made[0]}
        mean_C, std_C, *of_targets = (known[name] and np.asarray(known[name], np.float32) for name in CONSTANTS)
        of_labels = np.dtype(known['dtype']), tuple(known['label_shape'])
        of_data = models.Format(tuple(known['shape']), known['outputs'], mean_C, std_C, *of_labels, *of_targets)
        return models.define(config.Architecture.of(fields), of_data)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'run: its model cannot be made, as {workdir} says what it is: {error}') from error
