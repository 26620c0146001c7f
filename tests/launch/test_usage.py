"""What docs/usage.md shows: each format of data and each task, from the file to the report; the documents' commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
from helpers import ROOT, assert_same, tiny, write_idx
from PIL import Image

import bsgap
from bsgap.training.rows import read_records

pytestmark = pytest.mark.smoke
USAGE = (ROOT / 'docs' / 'usage.md').read_text(encoding='utf-8')
DOCUMENTS = ('README.md', 'docs/usage.md', 'docs/which-batch.md')
WORDS = ''.join((ROOT / name).read_text(encoding='utf-8') for name in DOCUMENTS)
COMMANDS = sorted(set(re.findall(r'^python launch.py .*?(?= *#|$)', WORDS, re.M)))
FASHION = Path('/usr/share/datasets/fashion-mnist')  # of Debian's package dataset-fashion-mnist
SPLITS = {'train': slice(0, None, 2), 'test': slice(1, None, 2)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits in each format, under the names that docs/usage.md has."""
    folder = tmp_path_factory.mktemp('mine')
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = np.argsort(labels, kind='stable')  # as a folder of pictures has them, a class after the other
    images, labels = (images[order] * 15).astype(np.uint8).reshape(-1, 8, 8), labels[order]
    parts = {split: (images[part], labels[part]) for split, part in SPLITS.items()}
    named = {f'{what}_{split}': parts[split]['xy'.index(what)] for split in parts for what in 'xy'}
    np.savez(folder / 'digits.npz', **named)
    (folder / 'mydata.py').write_text(
        f'import numpy\n\ndef digits():\n    made = numpy.load({str(folder / "digits.npz")!r})\n'
        "    return (made['x_train'], made['y_train']), (made['x_test'], made['y_test'])\n"
    )
    (folder / 'digits-idx').mkdir()
    (folder / 'FOLDER').mkdir()
    for split in ('train', 't10k'):
        write_idx(folder / 'FOLDER' / f'{split}-images-idx3-ubyte', (np.arange(8000) % 251).reshape(-1, 2, 2))
        write_idx(folder / 'FOLDER' / f'{split}-labels-idx1-ubyte', np.arange(2000) % 10)
    saved = {}
    for (split, (x, y)), prefix in zip(parts.items(), ('train', 't10k'), strict=True):
        write_idx(folder / 'digits-idx' / f'{prefix}-images-idx3-ubyte', x)
        write_idx(folder / 'digits-idx' / f'{prefix}-labels-idx1-ubyte', y)
        pictures = [Image.fromarray(array) for array in x]
        saved[split] = datasets.Dataset.from_dict({'image': pictures, 'label': y.tolist()})
        for i, (picture, label) in enumerate(zip(pictures, y, strict=True)):
            path = folder / 'pictures' / split / str(label) / f'{i:04}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    datasets.DatasetDict(saved).save_to_disk(str(folder / 'digits'))
    table = pd.DataFrame(images.reshape(-1, 64).astype(float)).add_prefix('pixel').assign(digit=labels)
    table.to_csv(folder / 'digits.csv', index=False)
    table.to_parquet(folder / 'digits.parquet')
    for name, code in re.findall(r'`(my\w+\.py)` beside.*?```python\n(.*?)```', USAGE, re.S):
        (folder / name).write_text(code)
    return folder


def trained(workdir: Path, dataset: str, **settings: Any) -> list[dict[str, Any]]:
    """The last rows of a study's runs; its report is written as well."""
    bsgap.train(tiny(dataset=dataset, subset=0, **{'epochs': 5, **settings}), workdir)
    assert bsgap.report(workdir).exists()
    return [record.rows[-1] for record in read_records(workdir)]


def test_the_same_pictures_give_the_same_runs_in_each_format(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    first = trained(tmp_path / 'npz', f'npz:{folder}/digits.npz')
    assert min(row['test_accuracy'] for row in first) > 0.7
    for kind, where in (
        ('function', 'mydata:digits'),
        ('folder', f'folder:{folder}/pictures'),
        ('hf', f'hf:{folder}/digits'),
        ('idx', f'idx:{folder}/digits-idx'),
    ):
        trained(tmp_path / kind, where)
        assert_same(tmp_path / 'npz', tmp_path / kind)


def test_the_same_table_gives_the_same_runs_in_each_format(folder: Path, tmp_path: Path) -> None:
    for kind in ('csv', 'parquet'):
        rows = trained(tmp_path / kind, f'{kind}:{folder}/digits.{kind}', target='digit')
        assert min(row['test_accuracy'] for row in rows) > 0.8
    assert_same(tmp_path / 'csv', tmp_path / 'parquet')
    rows = trained(tmp_path / 'sklearn', 'sklearn:digits')
    assert min(row['test_accuracy'] for row in rows) > 0.8


def test_each_task_learns(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    rows = trained(tmp_path / 'regression', 'sklearn:diabetes', task='regression', learning_rate=0.02, epochs=20)
    assert min(row['train_r2'] for row in rows) > 0.1
    rows = trained(tmp_path / 'own', f'npz:{folder}/digits.npz', task='mylosses:huber', learning_rate=0.5)
    assert min(row['test_score'] for row in rows) > 0.3
    assert 'test accuracy' not in (tmp_path / 'own' / 'report.html').read_text(encoding='utf-8')


@pytest.mark.skipif(not FASHION.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist(tmp_path: Path) -> None:
    bsgap.train(tiny(dataset=f'idx:{FASHION}', subset=3000), tmp_path)
    assert min(record.rows[-1]['test_accuracy'] for record in read_records(tmp_path)) > 0.6


@pytest.mark.parametrize('command', COMMANDS, ids=range(len(COMMANDS)))
def test_a_command_is_understood(folder: Path, tmp_path: Path, command: str) -> None:
    program, script, *arguments = shlex.split(command)
    assert (program, script) == ('python', 'launch.py')
    arguments = [argument.replace('experiments/', f'{ROOT}/experiments/') for argument in arguments]
    arguments += ['--config.hidden=8,'] * ('config.model' not in command)  # which takes less time
    command_line = [sys.executable, str(ROOT / script), *arguments, f'--workdir={tmp_path}', '--dry_run']
    done = subprocess.run(command_line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'nothing was written' in done.stdout
