"""The report is made from the files alone, is self-contained, and says what they say."""

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, tiny

from bsgap import config, report, train


@pytest.fixture(scope='module')
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('study')
    grow = (
        {'epochs': 1, 'batch_size': 50, 'learning_rate': 0.1},
        {'epochs': 1, 'batch_size': 100, 'learning_rate': 0.1},
    )
    train.train(tiny(learning_rate=(0.1, 1e8), momentum=(0.0, 0.5), recipes={'grow': {'stages': grow}}), folder)
    return folder


def test_the_command_rebuilds_all_from_the_files(workdir: Path, tmp_path: Path) -> None:
    """Twice on two copies, one without what the first made: the same bytes."""
    for name in ('one', 'two'):
        shutil.copytree(workdir, tmp_path / name)
    report.report(tmp_path / 'one')
    (tmp_path / 'two' / 'results.csv').unlink()
    shutil.rmtree(next((tmp_path / 'two').glob('runs/*/checkpoints')))
    done = subprocess.run(
        [sys.executable, '-m', 'bsgap.report', str(tmp_path / 'two')], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert f'report   {tmp_path}/two/report.html' in done.stdout
    for file in (
        'results.csv',
        'report.html',
        *(f'figures/{f}.png' for f in ('curves', 'gap', 'accuracy', 'learning_rate_sum')),
    ):
        assert (tmp_path / 'one' / file).read_bytes() == (tmp_path / 'two' / file).read_bytes(), file


def test_the_page_is_self_contained(workdir: Path) -> None:
    page = report.report(workdir).read_text()
    assert report.QUESTION in html.unescape(page)
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert '<script' not in page
    for text in ('bs32-lr0.1', 'bs100-lr0.1-m0.5', 'diverged', 'grow', 'data_seed', 'jaxlib'):
        assert text in page, text


def test_a_study_that_has_not_begun_has_a_report(tmp_path: Path) -> None:
    settings = tiny()
    study = config.resolve(settings)
    train.study_lib.open_workdir(tmp_path, study, train.study_lib.runs(study, {study.recipes[0].variant: 300}))
    assert '4 runs are not finished' in report.report(tmp_path).read_text()


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.UserError, match='holds no study'):
        report.report(tmp_path)
    done = subprocess.run(
        [sys.executable, '-m', 'bsgap.report', str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert len(done.stderr.splitlines()) == 1
