"""The runs of a workdir for TensorBoard, live or from its files: python -m bsgap.launch.tensorboard WORKDIR"""

import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bsgap import output
from bsgap.errors import UserError, optional
from bsgap.files import of_study
from bsgap.launch.lock import locked
from bsgap.training.cohort import Member
from bsgap.training.rows import NOISE, SCORED, Row, read_records
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import describe, unusable


class Board(Watcher):
    """Writes workdir/tensorboard/<run>/: rows whenever a run is saved, and at its end.

    A writer of tensorboardX holds a thread and an open file, and a search has hundreds of runs; so each is closed at
    once, and the next one makes a file of its own, which TensorBoard shows as one.
    """

    def __init__(self, workdir: Path) -> None:
        with optional('config.tensorboard: True', 'tensorboardX', 'tensorboard'):
            import tensorboardX
        logging.getLogger('tensorboardX.x2num').setLevel(logging.ERROR)  # a run that diverged has NaN
        self._writer = tensorboardX.SummaryWriter
        self._folder = workdir / 'tensorboard'
        self._shown: dict[str, int] = {}  # how many rows of a run

    def began(self, members: Sequence[Member]) -> None:
        for member in members:
            self.begin(describe(member.run), member.rows)

    def evaluated(self, members: Sequence[Member]) -> None:
        self.saved([member for member in members if member.diverged or member.update == member.run.updates])

    def saved(self, members: Sequence[Member]) -> None:
        for member in members:
            if len(member.rows) > self._shown[member.run.name]:
                self._add(member.run.name, member.rows)

    def begin(self, about: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Writes a run anew: its settings, which `about` has as run.json says, and the rows that it has so far."""
        shutil.rmtree(self._folder / about['name'], ignore_errors=True)
        self._shown[about['name']] = 0
        self._add(about['name'], rows, settings(about))

    def _add(self, name: str, rows: Sequence[Row], settings: dict[str, Any] | None = None) -> None:
        suffix = f'.{time.time_ns()}'  # by itself the name tells seconds, in which there may be several
        with self._writer(str(self._folder / name), filename_suffix=suffix) as writer:
            if settings:
                writer.add_hparams(settings, {}, name='.')
            for row in rows[self._shown[name] :]:
                for tag, value in tagged(row).items():
                    with np.errstate(over='ignore'):
                        writer.add_scalar(tag, np.float32(value), int(row['update']))
        self._shown[name] = len(rows)


def tagged(row: Row) -> dict[str, float]:
    """A row's scalars by tag. `gap` comes with the scores, as accuracies, which TensorBoard's table of settings shows
    first."""
    tagged, score = {}, next((name[5:] for name in row if name.startswith('test_') and name != 'test_loss'), '')
    for column, value in row.items():
        of, _, quantity = column.rpartition('_')
        unmeasured = column == 'grad_norm' and math.isnan(value) and math.isfinite(row['distance'])  # no update yet
        if column == 'gap':
            tagged[f'{score}/gap'] = value
        elif column.startswith(SCORED) or quantity == 'seconds':
            tagged[f'{quantity}/{of}'] = value
        elif column in NOISE:
            tagged[f'noise/{column}'] = value
        elif column != 'update' and not unmeasured:
            tagged[column] = value
    return tagged


def settings(about: Mapping[str, Any]) -> dict[str, int | float | str]:
    """What a run's recipe says, lists as text, and its seed. A table of stages is shown by its first one."""
    first = {key: about['stages'][0][key] for key in ('batch_size', 'learning_rate')}
    fields = {'recipe': about['recipe'], 'seed': about['seed'], **first, **about['fields']}
    given = {key: value for key, value in fields.items() if value is not None}
    return {key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in given.items()}


def write(workdir: str | Path) -> Path:
    """Writes all runs of a workdir anew, from its files alone, and returns the folder to give to TensorBoard.

    Raises:
      UserError: tensorboardX is not installed, or `workdir` holds no study, is in use, or can't be written.
    """
    workdir = of_study(workdir)
    board = Board(workdir)
    try:
        with locked(workdir):
            for record in read_records(workdir):
                board.begin(record.about, record.rows)
    except OSError as error:
        raise unusable(workdir, error) from error
    return workdir / 'tensorboard'


if __name__ == '__main__':
    with output.command():
        if len(sys.argv) != 2:
            raise UserError('usage: python -m bsgap.launch.tensorboard WORKDIR')
        output.console().print(f'tensorboard --logdir {write(sys.argv[1])}', soft_wrap=True)
