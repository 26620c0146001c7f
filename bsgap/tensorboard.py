"""The runs of a workdir for TensorBoard: live in training, or from its files: python -m bsgap.tensorboard WORKDIR"""

import importlib
import json
import math
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bsgap import config, metrics, study

MODULES = ('', '.proto.event_pb2', '.proto.api_pb2', '.proto.plugin_hparams_pb2', '.record_writer', '.summary')


class Board:
    """Writes workdir/tensorboard/<run>/, an event file a run; `about` is what its run.json says.

    tensorboardX's own writers hold a thread, a queue and open files for every run, of which a search has hundreds, and
    their flush does not wait for the queue. Here a row is appended and the file closed. Different runs may be written
    by different threads.

    Raises:
      UserError: tensorboardX is not installed.
    """

    def __init__(self, workdir: Path) -> None:
        try:
            modules = [importlib.import_module(f'tensorboardX{module}') for module in MODULES]
        except ImportError as error:
            raise config.UserError(
                "config.tensorboard: True needs tensorboardX: python -m pip install -e '.[tensorboard]'"
            ) from error
        _, self._event, self._api, self._plugin, self._records, self._summary = modules
        self._folder = workdir / 'tensorboard'
        self._files: dict[str, Path] = {}

    def start(self, about: Mapping[str, Any], rows: Sequence[metrics.Row]) -> None:
        """Writes a run anew: its settings, and the rows that it has so far."""
        folder = self._folder / about['name']
        folder.mkdir(parents=True, exist_ok=True)
        # A TensorBoard that shows the old file waits for it if it is gone; from an empty one it goes on to the new one,
        # whose first event makes it drop what it has shown.
        for old in folder.glob('events.out.tfevents.*'):
            old.write_bytes(b'') if old.stat().st_size else old.unlink()
        self._files[about['name']] = folder / f'events.out.tfevents.{time.time_ns()}'
        restart = self._event.SessionLog(status=self._event.SessionLog.START)
        # Without an experiment, the first of the three, TensorBoard lists all settings, those first that differ.
        _, settings, _ = self._summary.hparams(_settings(about), {})
        head = {'file_version': 'brain.Event:2'}, {'session_log': restart}, {'summary': settings}
        self._write(about['name'], *head, *map(self._scalars, rows))

    def add(self, name: str, row: metrics.Row) -> None:
        """Adds a row to a run that was started."""
        self._write(name, self._scalars(row))

    def end(self, about: Mapping[str, Any], rows: Sequence[metrics.Row]) -> None:
        """Says whether a run that was started is done or has diverged; nothing if it was stopped before its end."""
        status = metrics.status(rows, about['updates'])
        if status == 'running':
            return
        _, _, ended = self._summary.hparams({}, {})
        code = self._api.Status.Value('STATUS_SUCCESS' if status == 'done' else 'STATUS_FAILURE')
        content = self._plugin.HParamsPluginData(session_end_info=self._plugin.SessionEndInfo(status=code))
        ended.value[0].metadata.plugin_data.content = content.SerializeToString()
        self._write(about['name'], {'summary': ended})

    def _scalars(self, row: metrics.Row) -> dict[str, Any]:
        made = self._summary.Summary
        values = [made.Value(tag=tag, simple_value=value) for tag, value in _tagged(row).items()]
        return {'step': int(row['update']), 'summary': made(value=values)}

    def _write(self, name: str, *events: Mapping[str, Any]) -> None:
        """Appends events as TFRecords."""
        records = bytearray()
        for event in events:
            data = self._event.Event(wall_time=time.time(), **event).SerializeToString()
            for part in (struct.pack('<Q', len(data)), data):
                records += part + struct.pack('<I', self._records.masked_crc32c(part))
        with self._files[name].open('ab') as file:
            file.write(records)


def _tagged(row: metrics.Row) -> dict[str, float]:
    """A row's scalars by tag. `gap` comes with the accuracies, which TensorBoard's table of settings shows first."""
    tagged = {}
    for column, value in row.items():
        of, _, quantity = column.rpartition('_')
        unmeasured = column == 'grad_norm' and math.isnan(value) and math.isfinite(row['distance'])  # no update yet
        if column == 'gap':
            tagged['accuracy/gap'] = value
        elif quantity in ('accuracy', 'loss', 'seconds'):
            tagged[f'{quantity}/{of}'] = value
        elif column in metrics.NOISE:
            tagged[f'noise/{column}'] = value
        elif column != 'update' and not unmeasured:
            tagged[column] = value
    return tagged


def _settings(about: Mapping[str, Any]) -> dict[str, int | float | str]:
    """What a run's recipe says, lists as text, and its seed. A table of stages is shown by its first one."""
    first = {key: about['stages'][0][key] for key in ('batch_size', 'learning_rate')}
    fields = {'recipe': about['recipe'], 'seed': about['seed'], **first, **about['fields']}
    return {
        key: value if isinstance(value, int | float | str) else json.dumps(value)
        for key, value in fields.items()
        if value is not None
    }


def write(workdir: str | Path) -> Path:
    """Writes all runs of a workdir anew, from its files alone, and returns the folder to give to TensorBoard.

    Raises:
      UserError: tensorboardX is not installed, or `workdir` holds no study, is in use, or can't be written.
    """
    workdir = Path(workdir)
    if not (workdir / 'study.json').exists():
        raise config.UserError(f'workdir: {workdir} holds no study; give a folder that launch.py has trained in')
    board = Board(workdir)
    try:
        with study.locked(workdir):
            for record in metrics.read_runs(workdir):
                board.start(record.about, record.rows)
                board.end(record.about, record.rows)
    except OSError as error:
        raise config.UserError(f'workdir: {workdir} cannot be written: {error.strerror or error}') from error
    return workdir / 'tensorboard'


def main() -> None:
    try:
        if len(sys.argv) != 2:
            raise config.UserError('usage: python -m bsgap.tensorboard WORKDIR')
        print(f'tensorboard --logdir {write(sys.argv[1])}')
    except config.UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
