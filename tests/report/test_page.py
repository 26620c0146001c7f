"""The report is made from the files alone, is self-contained, and says what they say."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import answers
import pytest
from helpers import ROOT, read_json, tiny

import bsgap
from bsgap import config
from bsgap.analysis import claims
from bsgap.errors import UserError
from bsgap.report import page
from bsgap.training import rows, runs
from bsgap.training.workdir import environment, open_workdir

SPARE = 'epochs', 'updates', 's a run'  # columns that can be done without
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.fixture(scope='module')
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('study')
    grow = (
        {'epochs': 1, 'batch_size': 50, 'learning_rate': 0.1},
        {'epochs': 1, 'batch_size': 100, 'learning_rate': 0.1},
    )
    study = tiny(learning_rate=(0.1, 1e8), recipes={'grow': {'stages': grow}})
    study.figures = ('curves', 'accuracy', 'learning_rate_sum')
    bsgap.train(study, folder)
    page.report(folder)
    return folder


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A study that has no row yet."""
    study = config.resolve(tiny())
    about = {**environment(), 'training_sets': [], 'depends_on': []}
    open_workdir(tmp_path, study, runs.cross(study, {study.recipes[0].training_set: 300}), about)
    return tmp_path


def test_a_study_without_a_row_has_a_page_whatever_its_task(begun: Path) -> None:
    about = read_json(begun / 'study.json')
    for task in ('classification', 'regression'):
        (begun / 'study.json').write_text(json.dumps({**about, 'config': {**about['config'], 'task': task}}))
        assert 'Not finished: 4 runs' in page.report(begun).read_text(encoding='utf-8')


def test_the_command_rebuilds_all_from_the_files(workdir: Path, tmp_path: Path) -> None:
    """In a copy without what a report made: the same bytes."""
    copy = shutil.copytree(workdir, tmp_path / 'copy', ignore=shutil.ignore_patterns('report.html', 'figures'))
    shutil.rmtree(next(copy.glob('runs/*/checkpoints')))
    (copy / 'results.csv').unlink()
    line = [sys.executable, '-m', 'bsgap.report', str(copy)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f'report   {copy}/report.html' in done.stdout
    for file in (
        'results.csv',
        'report.html',
        *(f'figures/{f}.png' for f in ('curves', 'accuracy', 'learning_rate_sum')),
    ):
        assert (workdir / file).read_bytes() == (copy / file).read_bytes(), file


def test_the_page_is_self_contained(workdir: Path) -> None:
    text = (workdir / 'report.html').read_text()
    assert page.QUESTION in html.unescape(text)
    assert text.count('<svg ') == 3
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert '<script' not in text
    for word in ('bs32-lr0.1', 'bs100-lr0.1', 'diverged', 'grow', 'data_seed', 'jaxlib'):
        assert word in text, word


def test_a_search_shows_its_answer(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its words and tables in the page, the terminal and recommendation.json."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'search.json').write_text('{"version": 2, "budgets": {}}')
    made = answers.answer(answers.budget(answers.row(8), answers.row(32, 1.0, 'worse')))
    made['examples']['validation'] = 100
    monkeypatch.setattr(page.answer, 'find', lambda *_: made)
    monkeypatch.setattr(page.answer_figures, 'draw', lambda *_: {})
    text = html.unescape(page.report(tmp_path).read_text())
    found = read_json(tmp_path / 'recommendation.json')
    tables = [found['table'][1:], *(part['table'] for part in found['sections'])]
    cells = [cell for table in tables for line in table for cell in line]
    sentences = [sentence for part in found['sections'] for sentence in (part['title'], *part['sentences'])]
    for words in (*found['warnings'], found['headline'], found['reading'], *found['limits'], *sentences, *cells):
        assert words in text, words
    shown = ' '.join(capsys.readouterr().out.split())
    for words in (*found['warnings'], found['headline']):
        assert ' '.join(words.split()) in shown
    assert '97.00 % (96.50 to 97.50; 6 seeds of the search)' in text


@pytest.mark.skipif(not CHROMIUM, reason='there is no Chromium')
@pytest.mark.parametrize('width', [400, *(pytest.param(width, marks=pytest.mark.smoke) for width in (800, 1200))])
def test_a_browser_shows_the_page_within_its_width(workdir: Path, tmp_path: Path, width: int) -> None:
    """With all that is folded opened; a table that is wider scrolls by itself."""
    wrapper = tmp_path / 'page.html'
    text = json.dumps((workdir / 'report.html').read_text(encoding='utf-8')).replace('</', '<\\/')
    wrapper.write_text(
        f"""<iframe width="{width}" height="900" frameborder="0"></iframe><script>
        const frame = document.querySelector('iframe');
        frame.onload = () => {{
          const shown = frame.contentDocument;
          for (const folded of shown.querySelectorAll('details')) folded.open = true;
          const figure = shown.querySelector('figure svg').getBoundingClientRect();
          document.title = [shown.documentElement.scrollWidth, figure.width, figure.height].join(' ');
        }};
        frame.srcdoc = {text};
        </script>""",
        encoding='utf-8',
    )
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--enable-logging=stderr']
    flags += ['--dump-dom', '--virtual-time-budget=9000', f'--user-data-dir={tmp_path / "user"}']
    done = subprocess.run([str(CHROMIUM), *flags, wrapper.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search('<title>(.*?)</title>', done.stdout)
    assert title, done.stderr
    scrolled, wide, high = map(float, title[1].split())
    assert scrolled == width
    assert wide > 300
    assert high > 200
    assert 'CONSOLE' not in done.stderr, done.stderr


@pytest.mark.parametrize('width', [60, 80, 140])
def test_nothing_is_cut_in_a_narrow_terminal(
    workdir: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('COLUMNS', str(width))
    page._show(contents := page.read(workdir), Path('report.html'))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = '\n'.join(lines[: next(i for i, line in enumerate(lines) if line.startswith('report '))])
    columns = [column for column in zip(*contents.results, strict=True) if column[0] in text or column[0] not in SPARE]
    assert len(columns) == (8 if width == 140 else 5)
    assert sorted(''.join(text.split())) == sorted(
        ''.join(cell for column in columns for cell in column).replace(' ', '')
    )


def test_a_recipe_has_a_row_with_the_means_of_its_last_rows(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob('runs/*/metrics.csv'):
        found = rows.read(path)
        found[-1] |= {'train_seconds': 20.0, 'eval_seconds': 4.0 if 'seed0' in str(path) else 8.0}
        rows.write(path, found, rows.columns(('train', 'test'), 'accuracy'))
    text = html.unescape(page.report(tmp_path).read_text())
    last = bsgap.runs(trained).query('recipe == "bs32-lr0.1"').groupby('run').tail(1)
    mean, half = 100 * last['test_accuracy'].mean(), 100 * 12.7062 * last['test_accuracy'].std() / 2**0.5
    cells = re.search(r'<tr><td>bs32-lr0.1</td>(.*)</tr>', text)
    assert cells
    made, epochs, updates, _, test, _, seconds = re.findall('<td>(.*?)</td>', cells[1])
    assert (made, epochs, updates, seconds) == ('2', '2', '20', '26.0')
    assert test == f'{mean:.2f} ± {half:.2f} %'


def test_what_was_evaluated_on_validation_data_alone_is_not_unfinished(tmp_path: Path) -> None:
    bsgap.train(tiny(batch_size=(100,), validation=0.1, evaluate_on='validation'), tmp_path)
    text = html.unescape(page.report(tmp_path).read_text())
    assert 'There is nothing to compare: no run was evaluated on test data.' in text
    assert '<td>2 without test data</td>' in text


def test_a_study_that_has_not_begun_has_a_report(begun: Path) -> None:
    assert 'Not finished: 4 runs' in page.report(begun).read_text()


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'bsgap.report', *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='holds no study'):
        page.report(tmp_path)
    done = command(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert len(done.stderr.splitlines()) == 1


def test_the_package_can_be_called_like_the_function_whose_name_it_takes(begun: Path) -> None:
    """`bsgap.report` is the function before anything below the package is imported, and the package after it."""
    lines = [
        'import sys, bsgap',
        f'first = bsgap.report({str(begun)!r})',
        'import bsgap.report.page, bsgap.report.words',
        f'assert bsgap.report({str(begun)!r}) == first == bsgap.report.page.report({str(begun)!r})',
        'assert type(bsgap.report).__name__ == "_Report"',
    ]
    assert subprocess.run([sys.executable, '-c', '\n'.join(lines)], capture_output=True, cwd=ROOT).returncode == 0


CLAIMS = """
from bsgap import config
from bsgap.analysis.claims import Claim


def get_config(variant=''):
    study = config.default()
    study.sweep.batch_size = (32, 100)
    return study


def claims(variant):
    def gap(runs):
        return runs[runs.recipe == 'bs32-lr0.1'].groupby('seed').gap.last()

    return [Claim('gap', 'a gap is a number', gap, at_least=-1.0, published='-', source='here', status='V')]
"""


def test_claims_are_those_of_the_given_file_or_else_as_they_were(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / 'claimed', tmp_path / 'mine.py'
    shutil.copytree(trained, folder)
    about = read_json(folder / 'study.json')
    about['config'] |= {'claims': 'mine:claims', 'finding': 'The gap is {gap}.'}
    (folder / 'study.json').write_text(json.dumps(about))
    file.write_text(CLAIMS)
    done = command(folder, f'--config={file}:smoke')
    (verdict,) = claims.read(folder / 'claims.csv')
    assert (verdict.id, verdict.verdict) == ('gap', 'reproduced')
    text, printed = html.unescape((folder / 'report.html').read_text()), done.stdout
    assert f'The gap is {verdict.measured} (reproduced).' in text
    assert verdict.measured in printed
    assert 'claims.csv has' not in text + printed

    kept = (folder / 'claims.csv').read_text().replace('a gap is a number', 'an earlier claim')
    (folder / 'claims.csv').write_text(kept + '\n')
    page.report(folder)  # no file is given, and none is below experiments/
    assert (folder / 'claims.csv').read_text() == kept + '\n'
    text, printed = html.unescape((folder / 'report.html').read_text()), capsys.readouterr().out
    for shown in (text, printed):
        assert 'an earlier claim' in shown
        assert 'claims as claims.csv has them' in shown


def test_a_search_of_an_earlier_version_is_one_line(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'search.json').write_text('{"seconds_per_update": {"8": 0.1}, "stopped": []}')
    with pytest.raises(UserError, match=r'search.json is of an earlier version of the search; use another workdir$'):
        page.report(tmp_path)
