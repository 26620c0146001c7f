"""The notebook for Colab, in a kernel of its own, as a student runs it."""

import base64
import csv
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import nbformat
import pytest
from helpers import ROOT, assert_same
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from bsgap.training.rows import read_records

NOTEBOOK = ROOT / 'docs' / 'colab.ipynb'
CHANGES = {'hidden': (16,), 'subset': 1100, 'segment_seconds': 0.01, 'checkpoint_seconds': 0.0, 'max_parallel_runs': 2}
STUDIES = ('mnist-smoke', 'mnist-smoke-learning-rates')


@pytest.fixture(scope='module')
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder, and nothing of Jupyter's in the user's home."""
    folder = tmp_path_factory.mktemp('colab')
    with pytest.MonkeyPatch.context() as patch:
        for name in ('JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR', 'IPYTHONDIR'):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv('PIP_NO_INDEX', '1')
        yield folder


def start(folder: Path, table: str = '') -> NotebookClient:
    """The committed notebook with a student's settings, to be executed beside `folder`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ()))
    settings = {'REPOSITORY': str(ROOT), 'FOLDER': str(folder), 'VARIANT': 'smoke', 'CHANGES': CHANGES}
    settings |= {'TABLE': table, 'TARGET': 'kind'}
    assert set(re.findall(r'^(\w+) =', parameters.source, re.MULTILINE)) == set(settings)
    parameters.source = '\n'.join(f'{name} = {value!r}' for name, value in settings.items())
    return NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(folder.parent)}})


def test_it_names_what_there_is() -> None:
    """Paths of the repository, and fields."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    text = '\n'.join(cell.source for cell in notebook.cells)
    paths = re.findall(r'`((?:bsgap|experiments|docs)/[\w/.]*)`', text)
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def outputs(notebook: Any, cell_id: str) -> list[Any]:
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return cell.outputs


def shown(notebook: Any, cell_id: str) -> str:
    """All text that a cell shows."""
    return '\n'.join(o.text if o.output_type == 'stream' else o.data['text/plain'] for o in outputs(notebook, cell_id))


@pytest.fixture(scope='module')
def executed(room: Path) -> Any:
    return start(room / 'whole').execute()


def test_the_committed_notebook_is_clean() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == 'python3'
    for cell in notebook.cells:
        assert cell.cell_type == 'markdown' or (cell.outputs, cell.execution_count) == ([], None), cell.id


def test_it_runs_without_errors_and_without_installing_anything(executed: Any) -> None:
    for cell in executed.cells:
        for output in cell.get('outputs', ()):
            assert output.output_type != 'error', cell.id
            assert output.get('name') != 'stderr', output.text
    assert outputs(executed, 'install') == []


def test_it_says_on_what_it_runs_and_shows_the_progress(executed: Any) -> None:
    assert re.match(r'(CPU|GPU|TPU): \d+ × .+\n', shown(executed, 'devices'))
    *_, live = outputs(executed, 'train')
    for text in ('bs64-lr0.01', 'bs256-lr0.01', 'bs1024-lr0.01', '3/3', '100%', 'left'):
        assert text in live.data['text/html']  # of one display, which was 0 % at first


def test_its_tables_say_what_results_csv_says(executed: Any, room: Path) -> None:
    expected: dict[tuple[int, float], list[dict[str, str]]] = {}
    for study in STUDIES:
        with (room / 'whole' / study / 'results.csv').open() as file:
            for row in csv.DictReader(file):
                expected.setdefault((int(row['batch_size']), float(row['learning_rate'])), []).append(row)
    tables = {name: shown(executed, name).splitlines() for name in ('results', 'change')}
    assert len(tables['results']) == 1 + 3
    assert len(expected) == 3 + 2
    _, *lines = tables['change'][tables['change'].index(tables['results'][0]) :]
    assert lines[:3] == tables['results'][1:]
    for line, (recipe, rows) in zip(lines, expected.items(), strict=True):
        batch_size, learning_rate, runs, accuracy, gap = line.split()
        assert (int(batch_size), float(learning_rate)) == recipe
        assert int(runs) == len(rows) == 2
        assert float(accuracy.rstrip('%')) == pytest.approx(
            100 * fmean(float(row['test_accuracy']) for row in rows), abs=0.006
        )
        assert float(gap) == pytest.approx(100 * fmean(float(row['gap']) for row in rows), abs=0.006)


@pytest.mark.smoke
def test_it_answers_for_a_table_of_the_readers_own(room: Path) -> None:
    rows = ((i % 7, i % 3, 'ab'[i % 7 > 3]) for i in range(300))
    (table := room / 'own.csv').write_text('x,y,kind\n' + ''.join(f'{x},{y},{kind}\n' for x, y, kind in rows))
    client = start(room / 'mine', str(table))
    needed = 'parameters', 'drive', 'install', 'yours'
    client.nb.cells = [cell for cell in client.nb.cells if cell.id in needed]
    assert re.search(r'For 2 epochs take batch size \d+, learning rate', shown(client.execute(), 'yours'))


def test_the_figures_are_shown_inline(executed: Any, room: Path) -> None:
    pngs = [output.data['image/png'] for output in outputs(executed, 'report') if 'image/png' in output.data]
    figures = sorted((room / 'whole' / 'mnist-smoke' / 'figures').glob('*.png'))
    assert len(figures) == 3
    assert [base64.b64decode(png) for png in pngs] == [figure.read_bytes() for figure in figures]


def test_after_the_kernel_died_it_goes_on_and_ends_with_the_same_numbers(executed: Any, room: Path) -> None:
    folder = room / 'killed'
    workdir = folder / STUDIES[0]
    client = start(folder)

    def saved_twice(run: Path) -> bool:
        trained = (run / 'metrics.csv').exists() and len((run / 'metrics.csv').read_text().splitlines()) > 2
        return trained and sum(path.name.isdigit() for path in run.glob('checkpoints/*')) > 1

    def kill() -> None:
        cohort = [workdir / 'runs' / f'bs64-lr0.01-seed{seed}' for seed in range(2)]
        while not all(map(saved_twice, cohort)):
            time.sleep(0.005)
        os.kill(client.km.provisioner.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(DeadKernelError):
        client.execute()
    killer.join()
    assert not outputs(client.nb, 'results')
    assert 'running' in {record.status for record in read_records(workdir)}

    again = start(folder).execute()
    assert re.search(r'to train: \d+, [1-6] of them from where they were saved', shown(again, 'train'))
    assert shown(again, 'results') == shown(executed, 'results')
    for study in STUDIES:
        assert_same(folder / study, room / 'whole' / study)
