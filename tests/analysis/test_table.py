"""The table of runs and results.csv, from records made by hand and from a workdir."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from tables import ends, record, runs

import bsgap.analysis.table
from bsgap.analysis.table import near_chance, table, write_results
from bsgap.config import task
from bsgap.errors import UserError
from bsgap.training.rows import Record, Row, columns

HEADER = columns(['train', 'test'], 'accuracy')


def row(update: int, **changes: float) -> Row:
    return {**dict.fromkeys(HEADER, 0.5), 'update': update, 'examples': 10 * update, 'batch_size': 10, **changes}


def test_the_table_has_all_rows_of_all_runs() -> None:
    """Of one run that was validated in between and grew its batch, and of one that diverged at once."""
    stages = [{'batch_size': 10, 'learning_rate': 0.1}, {'batch_size': 20, 'learning_rate': 0.2}]
    about = {'name': 'grow-seed1', 'recipe': 'grow', 'seed': 1, 'n': 90, 'updates': 9, 'fields': {}, 'stages': stages}
    dense = {'update': 5, 'examples': 50, 'batch_size': 20, 'validation_loss': 2.0, 'validation_accuracy': 0.25}
    grown = Record(about, [row(0), dense, row(9, examples=130, batch_size=20)], {'sharpness_0.001': 1.5})
    flat = {**about, 'name': 'flat-seed0', 'recipe': 'flat', 'seed': 0, 'stages': stages[1:]}
    diverged = Record(flat, [row(1, batch_size=20, learning_rate=0.2, train_loss=math.inf)], {})
    made = table([grown, diverged])
    texts, recipe = ['run', 'recipe', 'status'], ['recipe.batch_size', 'recipe.learning_rate']
    measures = columns(['train', 'validation', 'test'], 'accuracy')
    assert list(made.columns) == [*texts, 'seed', 'n', *measures, *recipe, 'sharpness_0.001']
    assert list(made.index) == [0, 1, 2, 3]
    for name, dtype in made.dtypes.items():
        whole = name in ('seed', 'n', 'update', 'examples', 'batch_size')
        assert name in texts or dtype == (np.int64 if whole else np.float64), name
    nan = math.nan
    for name, expected in {
        'run': ['grow-seed1'] * 3 + ['flat-seed0'],
        'recipe': ['grow'] * 3 + ['flat'],
        'status': ['done'] * 3 + ['diverged'],
        'seed': [1, 1, 1, 0],
        'n': [90, 90, 90, 90],
        'update': [0, 5, 9, 1],
        'examples': [0, 50, 130, 10],
        'batch_size': [10, 20, 20, 20],
        'learning_rate': [0.5, nan, 0.5, 0.2],
        'train_loss': [0.5, nan, 0.5, math.inf],
        'validation_accuracy': [nan, 0.25, nan, nan],
        'test_accuracy': [0.5, nan, 0.5, 0.5],
        'recipe.batch_size': [10, 10, 10, 20],
        'recipe.learning_rate': [0.1, 0.1, 0.1, 0.2],
        'sharpness_0.001': [nan, nan, 1.5, nan],
    }.items():
        np.testing.assert_array_equal(made[name].to_list(), expected, err_msg=name)


def test_fields_of_the_recipe_are_as_they_were_typed() -> None:
    """What was typed, not what a schedule or a stage makes of it; lists as JSON."""
    typed = {
        'batch_size': 256, 'learning_rate': 1, 'subset': None, 'optimizer': 'adam', 'nesterov': True, 'hidden': [8],
    }  # fmt: skip
    made = runs(record('a', 0, [0.1], fields=typed), record('b', 0, [0.1], fields={**typed, 'subset': 500, 'cap': 3}))
    last = made.set_index('recipe')
    assert list(last['recipe.batch_size']) == [256, 256]
    assert list(last['recipe.optimizer']) == ['adam', 'adam']
    assert last['recipe.nesterov'].dtype == bool
    assert math.isnan(last.loc['a', 'recipe.subset'])
    assert math.isnan(last.loc['a', 'recipe.cap'])
    assert (last.loc['b', 'recipe.subset'], last.loc['b', 'recipe.cap']) == (500, 3)
    for name in ('batch_size', 'learning_rate', 'subset', 'cap'):
        assert last[f'recipe.{name}'].dtype == np.float64, name
    assert list(last['recipe.hidden']) == ['[8]', '[8]']
    assert runs(record('a', 0, [0.1], fields=typed))['recipe.subset'].dtype == np.float64  # all of it missing


def test_a_table_of_no_rows_has_the_same_columns() -> None:
    some, none = runs(ends('a', [0.5])), table([])
    assert len(none) == 0
    assert [*none.columns] == [*some.columns[: len(none.columns)]]
    assert none.dtypes.equals(some.dtypes[: len(none.columns)])
    assert len(table([Record(record('a', 0, [0.1]).about, [], {})])) == 0


def test_results_hold_the_last_row_or_blanks(tmp_path: Path) -> None:
    stage = {'batch_size': 7, 'learning_rate': 0.1, 'momentum': 0.9}
    about = {'name': 'a-seed1', 'recipe': 'a', 'seed': 1, 'updates': 9, 'stages': [stage], 'fields': {}}
    done = Record(about, [row(0), row(9, train_seconds=2.0, eval_seconds=0.25)], {})
    new = Record({**about, 'name': 'b-seed1', 'recipe': 'b'}, [], {})
    write_results(tmp_path, [done, new])
    lines = (tmp_path / 'results.csv').read_text(encoding='utf-8').splitlines()
    assert lines[0].startswith('run,recipe,batch_size,learning_rate,momentum,seed,epochs,updates,examples,train_loss,')
    assert lines[1] == 'a-seed1,a,7,0.1,0.9,1,0.5,9,90,0.5,0.5,,0.5,0.5,0.5,done,2.25'
    assert lines[2] == 'b-seed1,b,7,0.1,0.9,1,,,,,,,,,,running,'


def test_results_have_the_score_of_the_task(tmp_path: Path) -> None:
    stage = {'batch_size': 7, 'learning_rate': 0.1, 'momentum': 0.0}
    about = {**record('a', 0, [0.1]).about, 'stages': [stage]}
    of_task = {name.replace('accuracy', 'r2'): value for name, value in row(9, test_accuracy=0.25).items()}
    write_results(tmp_path, [Record(about, [of_task], {})])
    (found,) = csv.DictReader((tmp_path / 'results.csv').read_text(encoding='utf-8').splitlines())
    assert (found['train_r2'], found['test_r2']) == ('0.5', '0.25')
    assert not any('accuracy' in name for name in found)


def test_results_say_what_the_recipes_are_and_in_what_they_differ(tmp_path: Path) -> None:
    """Not what a warm-up begins with, nor what a decay left of the learning rate."""
    stages, records = [{'batch_size': 7, 'learning_rate': 0.0, 'momentum': 0.0}] * 2, list[Record]()
    for i, fields in enumerate(
        ({'optimizer': 'sgd', 'hidden': [8]}, {'optimizer': 'lars', 'hidden': [8], 'clip': 2.5})
    ):
        fields |= {'batch_size': 7, 'learning_rate': 0.3, 'epochs': float(i), 'evaluate_at': [i]}
        about = {'name': f'{i}', 'recipe': 'a', 'seed': i, 'updates': 9, 'stages': stages, 'fields': fields}
        records.append(Record(about, [row(9, learning_rate=1e-9)], {}))
    write_results(tmp_path, records)
    first, second = csv.DictReader((tmp_path / 'results.csv').read_text(encoding='utf-8').splitlines())
    assert list(first)[-2:] == ['seconds', 'optimizer']
    assert (first['learning_rate'], first['optimizer'], second['optimizer']) == ('0.3', '"sgd"', '"lars"')


def test_a_workdir_has_a_table(trained: Path) -> None:
    made = bsgap.analysis.table.runs(trained)
    assert made['run'].is_unique is False
    assert set(made['status']) == {'done'}
    assert list(dict.fromkeys(made['run'])) == [f'bs{size}-lr0.1-seed{seed}' for size in (32, 100) for seed in (0, 1)]
    assert (made['n'] == 300).all()
    assert (made['recipe.subset'] == 300).all()
    assert (made['recipe.model'] == 'mlp').all()
    ends = made.groupby('run', sort=False).tail(1)
    with (trained / 'results.csv').open(encoding='utf-8') as file:
        for result, (_, last) in zip(csv.DictReader(file), ends.iterrows(), strict=True):
            assert result['run'] == last['run']
            assert float(result['test_accuracy']) == pytest.approx(last['test_accuracy'])


def test_no_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'^workdir: .* holds no study; give a folder') as error:
        bsgap.analysis.table.runs(tmp_path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('key', ['baseline', 'most_frequent'])
def test_runs_near_chance(key: str) -> None:
    """With a fifth of the examples in the largest class a tenth of the way to all of them is 0.28, on training data."""
    lost = record('lost', 0, [0.1, 0.5], train_loss=[1.0, math.nan])
    made = runs(ends('below', [0.2, 0.9]), ends('at', [0.28]), lost)
    made['train_accuracy'] = made['test_accuracy']
    about = {'training_sets': [{key: {'train': 0.1, 'test': 0.9}}, {key: {'train': 0.2}}]}
    assert near_chance(made, about, task('classification')) == ['below-seed0']
    assert near_chance(made, {}, task('classification')) == []
    made = made.rename(columns={'train_accuracy': 'train_r2'})
    assert near_chance(made, about, task('regression')) == []
