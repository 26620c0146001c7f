"""The public face: what `import bsgap` offers, as its docstrings say it."""

import ast
import doctest
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import ROOT, tiny

import bsgap
from bsgap import config
from bsgap.errors import UserError

FUNCTIONS = ['default_config', 'load', 'recommend', 'report', 'runs', 'train']


def in_python(code: str, **environment: str) -> str:
    """What code prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_is_quick() -> None:
    """It loads none of what takes time; where a function is called, that does."""
    heavy = {'jax', 'numpy', 'scipy', 'pandas', 'flax', 'optax', 'orbax', 'matplotlib', 'ml_collections', 'rich'}
    loaded = f'import bsgap, sys; print(sorted({heavy} & set(sys.modules)))'
    assert in_python(loaded) == '[]'
    called = "import bsgap, sys; bsgap.default_config(); print('jax' in sys.modules)"
    assert in_python(called) == 'False'


def test_small_systems_of_equations_are_solved_on_one_thread_unless_told_otherwise() -> None:
    threads = "import bsgap, os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    assert in_python(threads, OPENBLAS_NUM_THREADS='3') == '3'
    assert in_python(f"import os; os.environ.pop('OPENBLAS_NUM_THREADS', None); {threads}") == '1'


def docstrings() -> dict[str, str]:
    """Of the functions, in the order of the file."""
    functions = [node for node in ast.parse(Path(bsgap.__file__).read_text()).body if isinstance(node, ast.FunctionDef)]
    return {function.name: ast.get_docstring(function) or '' for function in functions}


def test_help_shows_the_functions_first() -> None:
    text = in_python('import bsgap, pydoc; print(pydoc.plain(pydoc.render_doc(bsgap)))')
    description, functions = text.split('FUNCTIONS')
    assert re.findall(r'^ {8}(\w+)\(', description, re.MULTILINE) == list(docstrings())
    assert re.findall(r'^ {4}(\w+)\(', functions, re.MULTILINE) == sorted(docstrings())
    assert sorted(bsgap.__all__) == FUNCTIONS


def test_the_version_is_that_of_the_installation() -> None:
    assert bsgap.__version__ == metadata.version('bsgap')
    assert re.fullmatch(r'\d+\.\d+\.\d+.*', bsgap.__version__)


def test_the_examples_of_the_docstrings_run(tmp_path: Path) -> None:
    """In the order of the module's file, as one goes on with what the other left."""
    assert sorted(docstrings()) == FUNCTIONS
    names: dict[str, Any] = {'bsgap': bsgap, 'workdir': tmp_path / 'study'}
    runner, failures = doctest.DocTestRunner(), list[str]()
    for name, docstring in docstrings().items():
        test = doctest.DocTestParser().get_doctest(docstring, {}, name, bsgap.__file__, 0)
        assert test.examples, name
        test.globs = names
        runner.run(test, out=failures.append, clear_globs=False)
    assert not failures, ''.join(failures)
    assert (tmp_path / 'study' / 'report.html').is_file()


def test_a_default_config_is_a_study(tmp_path: Path) -> None:
    """Changing one changes no other."""
    first = bsgap.default_config()
    study = config.resolve(first)
    assert (study.name, study.data.dataset, study.seeds, study.search) == ('study', 'mnist', 3, None)
    assert [recipe.name for recipe in study.recipes] == ['bs64-lr0.01']
    first.sweep.batch_size = (1, 2)
    first.recipes.mine = {'momentum': 0.9}
    assert config.resolve(bsgap.default_config()) == study


def test_training_gives_the_table_of_runs(tmp_path: Path) -> None:
    table = bsgap.train(tiny(batch_size=(100,)), str(tmp_path))
    pd.testing.assert_frame_equal(table, bsgap.runs(str(tmp_path)))
    assert list(table['update']) == [0, 3, 6] * 2
    assert set(table.status) == {'done'}
    assert 0 < table.test_accuracy.iloc[-1] < 1
    again = bsgap.train(tiny(batch_size=(100,)), tmp_path)  # there is nothing to do
    pd.testing.assert_frame_equal(again, table)


def test_what_a_study_leaves(trained: Path) -> None:
    """results.csv has a row a run, study.json what it depends on."""
    results = pd.read_csv(trained / 'results.csv').set_index('run')
    table = bsgap.runs(trained)
    assert sorted(results.index) == sorted(set(table.run))
    for name, row in results.iterrows():
        last = table[table.run == name].iloc[-1]
        updates = 2 * -(-300 // row.batch_size)
        assert (row.status, row.epochs, row.updates, row.examples, row.momentum) == ('done', 2, updates, 600, 0)
        assert row.seconds == pytest.approx(last.train_seconds + last.eval_seconds)
        assert row.test_accuracy == pytest.approx(last.test_accuracy, rel=1e-8)
    text = (trained / 'study.json').read_text()
    for key in ('"config"', '"versions"', '"devices"', '"git"', '"training_sets"', '"earlier_launches"'):
        assert key in text


@pytest.mark.parametrize('function', ['runs', 'report'])
def test_a_folder_without_a_study_is_named(tmp_path: Path, function: str) -> None:
    with pytest.raises(UserError, match=rf'workdir: {tmp_path} holds no study') as error:
        getattr(bsgap, function)(tmp_path)
    assert '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_field_that_cannot_be_used_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'config.epochs: -1.0 is not allowed'):
        bsgap.train(tiny(epochs=-1.0), tmp_path / 'study')
    with pytest.raises(UserError, match=r'config.model: no.such:Net: ModuleNotFoundError'):
        bsgap.train(tiny(model='no.such:Net'), tmp_path / 'study')
    assert not list(tmp_path.glob('study/runs'))
