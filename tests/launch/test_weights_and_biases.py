"""What wandb keeps of a run is what metrics.csv and run.json hold; where it can't log in, it is kept for later."""

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers import tiny
from launching import After
from wandb.proto import wandb_internal_pb2

import bsgap
from bsgap import output
from bsgap.errors import UserError
from bsgap.launch.tensorboard import tagged
from bsgap.training.rows import read_records

pytestmark = pytest.mark.usefixtures('compiled_once')
BLOCK, HEADER = 32768, 7  # of a log of LevelDB


def kept(folder: Path) -> list[Any]:
    """The records of a run that is kept for later: a file of wandb's own heading, then a log of LevelDB."""
    (path,) = folder.rglob('*.wandb')
    content, at, parts, records = path.read_bytes(), HEADER, list[bytes](), []
    while at < len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from('<IHB', content, at)
        parts.append(content[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):  # a record is whole
            records.append(wandb_internal_pb2.Record.FromString(b''.join(parts)))
            parts.clear()
    return records


def history(records: list[Any]) -> dict[int, dict[str, Any]]:
    """What was logged at each step."""
    rows = [record.history for record in records if record.WhichOneof('record_type') == 'history']
    values = [{'/'.join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item} for row in rows]
    return {row['_step']: {key: value for key, value in row.items() if key[0] != '_'} for row in values}


def settings() -> Any:
    study = tiny(seeds=1, batch_size=(50, 100), learning_rate=(0.1, 1e8), epochs=2)
    study.wandb, study.checkpoint_seconds = True, 0.0
    return study


@pytest.mark.smoke
def test_a_study_that_was_interrupted_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))  # where a key would be
    monkeypatch.delenv('WANDB_API_KEY', raising=False)
    workdir = tmp_path / 'a study [1]'

    def fail() -> None:
        raise UserError('stop')

    with pytest.raises(UserError):
        bsgap.train(settings(), workdir, [After('evaluated', 3, fail)])
    for close in output.at_the_end:
        close()
    begun, init = list[str](), wandb.init
    monkeypatch.setattr(wandb, 'init', lambda **given: begun.append(given['name']) or init(**given))
    bsgap.train(settings(), workdir)
    assert len(set(begun)) == len(begun)  # one that diverged is not begun anew while others go on
    records = read_records(workdir)
    assert {record.status for record in records} == {'done', 'diverged'}
    for record in records:
        found = kept(workdir / 'wandb' / record.name)
        (run,) = [item.run for item in found if item.WhichOneof('record_type') == 'run'][-1:]
        assert (run.display_name, run.project, run.run_group) == (record.name, 'bsgap', 'tiny')
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert (config['seed'], config['batch_size']) == (0, record.about['stages'][0]['batch_size'])
        logged = history(found)
        assert list(logged) == [row['update'] for row in record.rows]
        for row in record.rows:
            for tag, value in tagged(row).items():
                there = float(logged[int(row['update'])][tag])
                assert there == pytest.approx(value, rel=1e-6, nan_ok=True), tag


def test_wandb_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(UserError, match=r"config.wandb: True needs wandb: python -m pip install -e '.\[wandb\]'"):
        bsgap.train(settings(), tmp_path / 'study')
    assert not (tmp_path / 'study').exists()
