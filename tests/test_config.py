"""Bad input is named in one line; recipes are data."""

from typing import Any

import pytest
from conftest import tiny

from bsgap import config, study
from bsgap.schedule import Stage

NAN = float('nan')


@pytest.mark.parametrize(
    ('field', 'value', 'says'),
    [
        ('sweep.batch_size', (0,), '0 is not allowed; it must be a whole number from 1'),
        ('sweep.batch_size', (-1,), '-1 is not allowed'),
        ('sweep.batch_size', (2.5,), '2.5 is not allowed'),
        ('sweep.batch_size', ('x',), "'x' is not allowed"),
        ('sweep.batch_size', (), 'at least one recipe'),
        ('sweep.batch_size', (64, 64), 'bs64-lr0.1 is listed twice'),
        ('sweep.learning_rate', (-0.1,), '-0.1 is not allowed; it must be a number of at least 0'),
        ('sweep.learning_rate', (NAN,), 'nan is not allowed'),
        ('sweep.learning_rate', (float('inf'),), 'inf is not allowed'),
        ('sweep.learning_rate', (), 'at least one value'),
        ('sweep.momentum', (1.0,), '1.0 is not allowed; it must be a number of at least 0 and below 1'),
        ('sweep.weight_decay', (-1.0,), '-1.0 is not allowed'),
        ('seeds', 0, '0 is not allowed; it must be a whole number of at least 1'),
        ('epochs', 0, '0 is not allowed'),
        ('optimizer', 'sdg', "'sdg' is not known; it must be one of sgd"),
        ('precision', 'float16', "'float16' is not known"),
        ('across_runs', 'pmap', "'pmap' is not known"),
        ('hidden', (0,), '0 is not allowed'),
        ('subset', 0, '0 is not allowed'),
        ('validation', 1.0, '1.0 is not allowed'),
        ('std', (0.0,), '0.0 is not allowed'),
        ('max_physical_batch', 0, '0 is not allowed'),
        ('segment_seconds', 0.0, '0.0 is not allowed'),
        ('checkpoint_seconds', -1.0, '-1.0 is not allowed'),
        ('name', '../x', "'../x' is not allowed"),
        ('name', '', "'' is not allowed"),
        ('name', '..', "'..' is not allowed"),
        ('name', None, 'None is not allowed'),
        ('seeds', 10**400, 'is not allowed'),
        ('hidden', None, 'None is not allowed; it must be a tuple'),
        ('sweep.batch_size', '64', "'64' is not allowed; it must be a tuple"),
        ('sweep', None, 'None is not allowed; it must have the fields batch_size'),
        ('recipes', 5, '5 is not allowed'),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_field(field: str, value: Any, says: str) -> None:
    settings = tiny(**{field.removeprefix('sweep.'): value})
    with pytest.raises(config.UserError) as error:
        config.resolve(settings)
    assert str(error.value).startswith(f'config.{field.split(".")[0]}')
    assert says in str(error.value)
    assert '\n' not in str(error.value)


def test_fields_that_are_unknown_or_missing_are_named() -> None:
    with pytest.raises(config.UserError, match=r'config.epoch: unknown field; did you mean config.epochs\?'):
        config.resolve(tiny(epoch=3))
    settings = tiny()
    del settings.seeds
    with pytest.raises(config.UserError, match=r'config.seeds: missing'):
        config.resolve(settings)


def test_the_command_line_can_empty_a_tuple() -> None:
    assert config.resolve(tiny(mean=('',), std=('',), hidden=('',))) == config.resolve(tiny(mean=(), std=(), hidden=()))


def test_a_batch_larger_than_the_data_is_named() -> None:
    with pytest.raises(config.UserError, match=r'batch_size: 301 is not allowed .* from 1 to 300'):
        study.runs(config.resolve(tiny(batch_size=(1, 301))), 300)


def test_the_sweep_crosses_its_axes_with_the_seeds() -> None:
    settings = tiny(batch_size=(1, 300), learning_rate=(0.1, 1.0), momentum=(0.0, 0.9), weight_decay=(0.0,), seeds=3)
    runs = study.runs(config.resolve(settings), 300)
    assert len({run.name for run in runs}) == len(runs) == 2 * 2 * 2 * 3
    assert runs[0].name == 'bs1-lr0.1-seed0'
    assert runs[-1].name == 'bs300-lr1-m0.9-seed2'


def test_a_name_depends_on_its_own_recipe_alone() -> None:
    few = study.runs(config.resolve(tiny(batch_size=(32,), seeds=1)), 300)
    many = study.runs(config.resolve(tiny(batch_size=(8, 32), learning_rate=(0.1, 0.2), seeds=2)), 300)
    assert few[0].name in {run.name for run in many}


def test_a_recipe_can_be_a_table_of_stages() -> None:
    rows = (
        {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5},
        {'updates': 7, 'batch_size': 32, 'learning_rate': 0.1},
    )
    settings = tiny(batch_size=(), recipes={'grow': {'stages': rows, 'momentum': 0.5}})
    (recipe,) = config.resolve(settings).recipes
    assert recipe == config.Recipe('grow', (Stage(8, 0.5, 1, 'epochs'), Stage(32, 0.1, 7, 'updates')), 0.5, 0.0)


@pytest.mark.parametrize(
    ('table', 'says'),
    [
        ({'stages': ()}, 'at least one stage'),
        (5, 'at least one stage'),
        ({'stages': (5,)}, 'stages[0]: 5 is not allowed'),
        ({'stages': {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5}}, 'must be a tuple'),
        ({'stages': ({'batch_size': 8, 'learning_rate': 0.5},)}, 'exactly one of epochs, updates, examples; it has 0'),
        ({'stages': ({'epochs': 1, 'updates': 2, 'batch_size': 8, 'learning_rate': 0.5},)}, 'it has 2'),
        ({'stages': ({'epochs': 1, 'batch_size': 0, 'learning_rate': 0.5},)}, 'stages[0].batch_size: 0 is not allowed'),
        ({'stages': ({'epochs': 1, 'batch_size': 8},)}, 'a stage has batch_size, learning_rate'),
        ({'stages': ({'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5},), 'mometum': 0.9}, 'mometum: unknown field'),
    ],
)
def test_a_table_that_is_not_allowed_is_named(table: dict[str, Any], says: str) -> None:
    with pytest.raises(config.UserError) as error:
        config.resolve(tiny(recipes={'grow': table}))
    assert str(error.value).startswith('config.recipes.grow')
    assert says in str(error.value)


def test_every_field_is_read_somewhere() -> None:
    """A field that nothing reads is a promise that is not kept: changing it must change the study."""
    changed = {
        'name': 'x', 'dataset': 'idx:x', 'subset': 9, 'validation': 0.5, 'data_seed': 5, 'mean': (0.5,), 'std': (0.5,),
        'hidden': (3,), 'epochs': 9, 'seeds': 9, 'max_physical_batch': 9, 'precision': 'bfloat16',
        'across_runs': 'vmap', 'segment_seconds': 9.0, 'checkpoint_seconds': 9.0, 'batch_size': (9,),
        'learning_rate': (9.0,), 'momentum': (0.5,), 'weight_decay': (9.0,),
        'recipes': {'x': {'stages': ({'epochs': 1, 'batch_size': 1, 'learning_rate': 1.0},)}},
    }  # fmt: skip
    known = config.default()
    assert set(changed) == {*known, *known.sweep} - {'sweep', 'optimizer'}  # there is one optimizer
    for field, value in changed.items():
        assert config.resolve(tiny(**{field: value})) != config.resolve(tiny()), field
