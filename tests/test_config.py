"""Bad input is named in one line; recipes are data."""

import math
from typing import Any

import pytest
from absl import flags
from conftest import tiny
from ml_collections import config_flags

from bsgap import config, study
from bsgap.schedule import Stage, place

NAN = float('nan')


@pytest.mark.parametrize(
    ('field', 'value', 'says'),
    [
        ('sweep.batch_size', (0,), '0 is not allowed; it must be a whole number from 1'),
        ('sweep.batch_size', (-1,), '-1 is not allowed'),
        ('sweep.batch_size', (2.5,), '2.5 is not allowed'),
        ('sweep.batch_size', ('x',), "'x' is not allowed"),
        ('sweep.batch_size', (64, 64), 'bs64-lr0.1 is listed twice'),
        ('sweep.learning_rate', (-0.1,), '-0.1 is not allowed; it must be a number of at least 0'),
        ('sweep.learning_rate', (NAN,), 'nan is not allowed'),
        ('sweep.learning_rate', (float('inf'),), 'inf is not allowed'),
        ('sweep.momentum', (1.0,), '1.0 is not allowed; it must be a number of at least 0 and below 1'),
        ('sweep.weight_decay', (-1.0,), '-1.0 is not allowed'),
        ('sweep.schedule', ('constnat',), "'constnat' is not known; it must be one of constant, cosine"),
        ('batch_size', 0, '0 is not allowed; it must be a whole number from 1'),
        ('learning_rate', NAN, 'nan is not allowed'),
        ('momentum', 1.0, '1.0 is not allowed'),
        ('seeds', 0, '0 is not allowed; it must be a whole number of at least 1'),
        ('epochs', -1, '-1.0 is not allowed; it must be a number of at least 0'),
        ('optimizer', 'sdg', "'sdg' is not known; it must be one of sgd, adam, adamw, lars, lamb"),
        ('beta1', 1.0, '1.0 is not allowed; it must be a number of at least 0 and below 1'),
        ('beta2', -0.1, '-0.1 is not allowed'),
        ('clip', -1.0, '-1.0 is not allowed; it must be a number of at least 0'),
        ('nesterov', 2, '2 is not known; it must be one of True, False'),
        ('batch_norm', 'yes', "'yes' is not known; it must be one of True, False"),
        ('label_noise', 1.5, '1.5 is not allowed; it must be a share from 0 to 1'),
        ('label_smoothing', 1.0, '1.0 is not allowed; it must be a number of at least 0 and below 1'),
        ('model', None, 'None is not allowed; it must be a text'),
        ('model_arguments', 3, '3 is not allowed; it must map names to values'),
        ('ghost_batch', -1, '-1 is not allowed; it must be a whole number of at least 0'),
        ('channels', (0,), '0 is not allowed'),
        ('factor', 1.0, '1.0 is not allowed; it must be a number above 1'),
        ('milestones', (0,), '0 is not allowed; it must be a number above 0'),
        ('milestones', 3, '3 is not allowed; it must be a tuple'),
        ('cap', -1, '-1 is not allowed'),
        ('scaling', 'log', "'log' is not known; it must be one of none, linear, sqrt"),
        ('beta_scaling', 'sqrt', "'sqrt' is not known; it must be one of none, malladi, half_life"),
        ('evaluate_epochs', 0.0, '0.0 is not allowed; it must be a number above 0'),
        ('evaluate_updates', 0.5, '0.5 is not allowed; it must be a whole number of at least 0'),
        ('figures', ('pie',), "'pie' is not known; it must be one of curves"),
        ('measurements', ('flatness',), "'flatness' is not known; it must be one of sharpness"),
        ('lines', ('a', 'b'), "'a' is not allowed; it must be a pair of recipes"),
        ('claims', 5, '5 is not allowed; it must map names to values'),
        ('finding', '{nothing}', "'{nothing}' is not known"),
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
        ('sweep', None, 'None is not allowed; it must have the fields adapt_regime, base'),
        ('recipes', 5, '5 is not allowed'),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_field(field: str, value: Any, says: str) -> None:
    with pytest.raises(config.UserError) as error:
        config.resolve(changed({field: value}))
    assert str(error.value).startswith(f'config.{field.split(".")[0]}')
    assert says in str(error.value)
    assert '\n' not in str(error.value)


def changed(changes: dict[str, Any]) -> Any:
    """The tiny study with some fields, of the study or of its sweep, that have any value."""
    settings = tiny()
    with settings.ignore_type():
        for field, value in changes.items():
            owner, _, key = field.rpartition('.')
            (settings[owner] if owner else settings)[key] = value
    return settings


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'epochs': 0}, 'epochs: 0 of epochs, updates, examples are above 0; exactly one must be'),
        ({'updates': 5, 'epochs': 2}, 'epochs: 2 of epochs, updates, examples are above 0; exactly one must be'),
        ({'schedule': 'grow_batch'}, 'milestones: () is not allowed; grow_batch needs ascending ones below the length'),
        ({'schedule': 'hybrid', 'milestones': (1, 1)}, 'milestones: (1.0, 1.0) is not allowed; hybrid needs ascending'),
        (
            {'schedule': 'switch_batch', 'milestones': (2,), 'switch_to': (8,)},
            'milestones: (2.0,) is not allowed; switch',
        ),
        ({'schedule': 'decay_learning_rate', 'milestones': (1.5, 0.5)}, 'milestones: (1.5, 0.5) is not allowed'),
        ({'schedule': 'switch_batch', 'milestones': (1,)}, 'switch_to: () is not allowed; give one batch size a mile'),
        ({'schedule': 'warm_up'}, 'warm_up: 0 is not allowed; it must be above 0 and below the length, 2 epochs'),
        ({'schedule': 'warm_up', 'warm_up': 2}, 'warm_up: 2 is not allowed'),
        ({'schedule': 'hybrid', 'milestones': (1,), 'cap': 8}, 'cap: 8 is not allowed; it must be 0 or at least'),
        ({'scaling': 'linear'}, 'base_batch_size: 0 is not allowed with scaling=linear; give the batch size'),
        ({'beta_scaling': 'half_life'}, 'base_batch_size: 0 is not allowed with beta_scaling=half_life'),
        ({'adapt_regime': True}, 'base_batch_size: 0 is not allowed with adapt_regime'),
        ({'adapt_regime': True, 'epochs': 0, 'updates': 5}, 'adapt_regime: True is not allowed with updates'),
        (
            {'beta_scaling': 'malladi', 'base_batch_size': 4, 'batch_size': 41, 'optimizer': 'adam'},
            'beta_scaling: malladi is not allowed at batch size 41; 10.25 times the base makes beta1 or beta2 negative',
        ),
        ({'momentum': 0.9, 'optimizer': 'adam'}, 'momentum: 0.9 is not allowed with adam, which has beta1'),
        ({'nesterov': True, 'optimizer': 'adam'}, 'nesterov: True is not allowed with adam'),
    ],
)
@pytest.mark.parametrize('where', ['base', 'recipe', 'sweep'])
def test_fields_that_do_not_go_together_are_named(changes: dict[str, Any], says: str, where: str) -> None:
    """As they were given: the base's fields by their names, a recipe's and the sweep's with where they stand."""
    settings = tiny(batch_size=())
    match where:
        case 'base':
            settings = changed({'sweep.batch_size': (), **changes})
        case 'recipe':
            settings.recipes = {'mine': changes}
        case 'sweep':
            settings = changed({f'sweep.{field}': (value,) for field, value in {'batch_size': 64, **changes}.items()})
    with pytest.raises(config.UserError) as error:
        config.resolve(settings)
    field, _, why = says.partition(':')
    if where == 'base':
        named = field
    elif field in changes:
        named = {'recipe': 'recipes.mine.', 'sweep': 'sweep.'}[where] + field
    else:
        named = f'{field} (recipe {"mine" if where == "recipe" else "bs"}'
    assert str(error.value).startswith(f'config.{named}')
    assert why in str(error.value)
    assert '\n' not in str(error.value)


def test_momentum_in_a_table_that_its_optimizer_does_not_have_is_named() -> None:
    with pytest.raises(config.UserError, match=r'momentum \(recipe mine\): 0.5 is not allowed with lamb'):
        only(stages=({**ROW, 'momentum': 0.5},), optimizer='lamb')


def test_a_line_between_unknown_recipes_is_named() -> None:
    with pytest.raises(
        config.UserError, match=r"config.lines: 'bs9' is not known; it must be one of bs32-lr0.1, bs100"
    ):
        config.resolve(tiny(lines=(('bs32-lr0.1', 'bs9'),)))


def test_fields_that_are_unknown_or_missing_are_named() -> None:
    with pytest.raises(config.UserError, match=r'config.epoch: unknown field; did you mean config.epochs\?'):
        config.resolve(tiny(epoch=3))
    settings = tiny()
    del settings.seeds
    with pytest.raises(config.UserError, match=r'config.seeds: missing'):
        config.resolve(settings)


def test_the_command_line_can_empty_a_tuple() -> None:
    assert config.resolve(tiny(mean=('',), std=('',), hidden=('',))) == config.resolve(tiny(mean=(), std=(), hidden=()))


def runs(n: int = 300, **changes: Any) -> tuple[study.Run, ...]:
    resolved = config.resolve(tiny(**changes))
    return study.runs(resolved, {recipe.variant: n for recipe in resolved.recipes})


def test_a_batch_larger_than_the_data_is_named() -> None:
    with pytest.raises(config.UserError, match=r'batch_size: 301 is not allowed .* from 1 to 300'):
        runs(batch_size=(1, 301))
    with pytest.raises(config.UserError, match=r'batch_size: 500 is not allowed \(recipe grow, stage 2\)'):
        runs(recipes={'grow': {'schedule': 'grow_batch', 'batch_size': 100, 'milestones': (1,)}})


def test_the_sweep_crosses_its_axes_with_the_seeds() -> None:
    axes: dict[str, Any] = {
        'batch_size': (1, 300),
        'learning_rate': (0.1, 1.0),
        'momentum': (0.0, 0.9),
        'weight_decay': (0.0,),
    }
    crossed = runs(**axes, seeds=3)
    assert len({run.name for run in crossed}) == len(crossed) == 2 * 2 * 2 * 3
    assert crossed[0].name == 'bs1-lr0.1-seed0'
    assert crossed[-1].name == 'bs300-lr1-m0.9-seed2'


def test_an_empty_sweep_is_the_base_recipe_alone() -> None:
    settings = tiny(batch_size=())
    assert [recipe.name for recipe in config.resolve(settings).recipes] == ['bs64-lr0.1']
    settings.recipes.mine = {'momentum': 0.9}  # then there are only those with names
    (recipe,) = config.resolve(settings).recipes
    assert (recipe.name, recipe.stages) == ('mine', (Stage(64, 0.1, 2.0, 'epochs', momentum=0.9),))


def test_a_name_depends_on_its_own_recipe_alone() -> None:
    few = runs(batch_size=(32,), seeds=1)
    many = runs(batch_size=(8, 32), learning_rate=(0.1, 0.2), optimizer=('sgd', 'adam'), seeds=2)
    assert few[0].name in {run.name for run in many}


def test_a_name_shows_what_is_swept() -> None:
    settings = tiny(subset=(100, 300), label_noise=(0.25,), optimizer=('adamw',), batch_norm=(True,), batch_size=())
    settings.sweep.hidden = ((8, 4), ())
    names = [recipe.name for recipe in config.resolve(settings).recipes]
    assert names == [
        'bs64-lr0.1-n100-noise0.25-h8x4-batchnormTrue-optimizeradamw',
        'bs64-lr0.1-n100-noise0.25-h-batchnormTrue-optimizeradamw',
        'bs64-lr0.1-noise0.25-h8x4-batchnormTrue-optimizeradamw',
        'bs64-lr0.1-noise0.25-h-batchnormTrue-optimizeradamw',
    ]
    settings = tiny(model=('mlp', 'my.models:Net'), learning_rate=(3e-4,), batch_size=())
    assert [recipe.name for recipe in config.resolve(settings).recipes] == [
        'bs64-lr0.0003',
        'bs64-lr0.0003-modelmy.models.Net',
    ]


def only(**changes: Any) -> config.Recipe:
    """The recipe of a study that has one; `changes` are the recipe's."""
    (recipe,) = config.resolve(tiny(batch_size=(), recipes={'mine': changes})).recipes
    return recipe


def test_a_recipe_can_be_a_table_of_stages() -> None:
    rows = (
        {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5, 'rule': 'cosine', 'final_learning_rate': 0.2},
        {'updates': 7, 'batch_size': 32, 'multiplier': 0.5, 'momentum': 0.25},
        {'examples': 9, 'batch_size': 4, 'multiplier': 0.5, 'rule': 'linear'},
        {'updates': 1, 'batch_size': 4, 'multiplier': 3.0},
    )
    recipe = only(stages=rows, momentum=0.5, clip=1.0)
    assert recipe.stages == (
        Stage(8, 0.5, 1.0, 'epochs', 'cosine', 0.2, momentum=0.5),
        Stage(32, 0.1, 7, 'updates', momentum=0.25),
        Stage(4, 0.05, 9, 'examples', 'linear', momentum=0.5),
        Stage(4, 0.0, 1, 'updates', momentum=0.5),  # 3 times what a line has come down to
    )
    assert recipe.kind == config.Kind('sgd', momentum=True, nesterov=False, clip=True)
    assert not dict(recipe.fields).keys() & {'schedule', 'batch_size', 'learning_rate', 'epochs'}


ROW = {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5}


@pytest.mark.parametrize(
    ('table', 'says'),
    [
        ({'stages': ()}, 'at least one stage'),
        ({'stages': 5}, 'stages: 5 is not allowed; it must be a tuple of at least one stage'),
        (5, 'grow: 5 is not allowed; it must map names to values'),
        ({'stages': (5,)}, 'stages[0]: 5 is not allowed'),
        ({'stages': ROW}, 'must be a tuple'),
        ({'stages': ({'batch_size': 8, 'learning_rate': 0.5},)}, 'exactly one of epochs, updates, examples; it has 0'),
        ({'stages': ({**ROW, 'updates': 2},)}, 'it has 2'),
        ({'stages': ({**ROW, 'batch_size': 0},)}, 'stages[0].batch_size: 0 is not allowed'),
        ({'stages': ({**ROW, 'epochs': 0},)}, 'stages[0].epochs: 0 is not allowed; it must be a number above 0'),
        ({'stages': ({'batch_size': 8, 'learning_rate': 0.5, 'updates': 1.5},)}, 'updates: 1.5 is not allowed'),
        ({'stages': (ROW, {**ROW, 'momentum': 1})}, 'stages[1].momentum: 1 is not allowed'),
        ({'stages': (ROW, {**ROW, 'rule': 'log'})}, "stages[1].rule: 'log' is not known; it must be one of constant"),
        ({'stages': ({**ROW, 'final_learning_rate': -1},)}, 'final_learning_rate: -1 is not allowed'),
        ({'stages': ({**ROW, 'rate': 1},)}, 'stages[0].rate: unknown field; known: batch_size'),
        ({'stages': ({'epochs': 1, 'batch_size': 8},)}, 'needs batch_size, and one of learning_rate and multiplier'),
        ({'stages': ({**ROW, 'multiplier': 1},)}, 'needs batch_size, and one of learning_rate and multiplier'),
        ({'stages': ({'epochs': 1, 'batch_size': 8, 'multiplier': 1},)}, 'multiplier: is not allowed in the first'),
        ({'stages': (ROW,), 'mometum': 0.9}, 'mometum: unknown field; did you mean config.recipes.grow.momentum?'),
        ({'stages': (ROW,), 'epochs': 3}, 'epochs: is not used beside stages; leave it out'),
        ({'momentum': 1.0}, 'grow.momentum: 1.0 is not allowed'),
    ],
)
def test_a_recipe_that_is_not_allowed_is_named(table: Any, says: str) -> None:
    with pytest.raises(config.UserError) as error:
        config.resolve(changed({'recipes': {'grow': table}}))
    assert str(error.value).startswith('config.recipes.grow')
    assert says in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('scaling', 'rate'), [('none', 0.3), ('linear', 0.3 * 200 / 32), ('sqrt', 0.3 * 2.5)])
def test_learning_rate_is_scaled_from_the_base(scaling: str, rate: float) -> None:
    """Goyal et al. 2017: ε ∝ B; Hoffer et al. 2017: ε ∝ √B."""
    recipe = only(batch_size=200, learning_rate=0.3, base_batch_size=32, scaling=scaling)
    assert recipe.stages[0].learning_rate == pytest.approx(rate, rel=1e-12)


def test_betas_are_scaled_from_the_base() -> None:
    """Malladi et al. 2022: β → 1 − k(1 − β); Marek et al. 2025: β₂ → β₂^k; for each stage's own batch size."""
    fields = {'optimizer': 'adam', 'beta1': 0.9, 'beta2': 0.98, 'base_batch_size': 16, 'batch_size': 32}
    grow = {'schedule': 'grow_batch', 'milestones': (1,), 'factor': 2.0, **fields}
    first, second = only(beta_scaling='malladi', **grow).stages
    assert (first.beta1, first.beta2) == pytest.approx((0.8, 0.96), rel=1e-12)
    assert (second.beta1, second.beta2) == pytest.approx((0.6, 0.92), rel=1e-12)
    first, second = only(beta_scaling='half_life', **grow).stages
    assert (first.beta1, first.beta2) == pytest.approx((0.9, 0.98**2), rel=1e-12)
    assert (second.beta1, second.beta2) == pytest.approx((0.9, 0.98**4), rel=1e-12)
    # The half-life in examples, B log ½ / log β₂, is the base's.
    assert 64 * math.log(0.5) / math.log(second.beta2) == pytest.approx(16 * math.log(0.5) / math.log(0.98))
    assert only(**fields).stages[0].beta2 == 0.98


def test_malladi_at_the_edge_of_its_range_is_allowed() -> None:
    (stage,) = only(
        beta_scaling='malladi', optimizer='adam', beta1=0.5, beta2=0.75, base_batch_size=8, batch_size=16
    ).stages
    assert (stage.beta1, stage.beta2) == (0.0, 0.5)


def test_an_adapted_regime_makes_as_many_updates() -> None:
    """Hoffer et al. 2017, §5: with B and B₀ that divide n; milestones move along."""
    fields: dict[str, Any] = {'schedule': 'decay_learning_rate', 'milestones': (1, 2.5), 'epochs': 3}
    base = place(only(batch_size=20, **fields).stages, 300)
    adapted = place(only(batch_size=100, base_batch_size=20, adapt_regime=True, **fields).stages, 300)
    assert [span.last_update for span in adapted] == [span.last_update for span in base] == [15, 38, 46]
    assert adapted[-1].last_example == 5 * base[-1].last_example


def test_a_length_of_its_own_replaces_the_bases() -> None:
    for unit, length in (('updates', 7), ('examples', 50), ('epochs', 1.5)):
        (stage,) = only(**{unit: length}).stages
        assert (stage.length, stage.unit) == (length, unit)
    settings = tiny(batch_size=(), updates=(7, 9))
    assert [recipe.stages[0].unit for recipe in config.resolve(settings).recipes] == ['updates'] * 2


def test_batch_norm_over_a_batch_in_parts_is_refused() -> None:
    fields = {'batch_norm': True, 'max_physical_batch': 99}
    with pytest.raises(config.UserError, match=r'max_physical_batch: 99 is not allowed \(recipe bs100-.* at least 100'):
        config.resolve(tiny(**fields))
    grow = {'schedule': 'grow_batch', 'batch_size': 20, 'milestones': (1,)}
    with pytest.raises(config.UserError, match=r'max_physical_batch: 99 is not allowed \(recipe grow\)'):
        config.resolve(tiny(**fields, batch_size=(), recipes={'grow': grow}))
    config.resolve(tiny(**fields, ghost_batch=16))
    config.resolve(tiny(batch_norm=True, max_physical_batch=100))


def test_a_variant_changes_the_fields_that_it_names() -> None:
    def study_with(variant: str) -> Any:
        settings = tiny(recipes={'mine': {'momentum': 0.5}})
        changes = {'epochs': 1.0, 'sweep.batch_size': (8,), 'recipes.mine.momentum': 0.9}
        return config.with_variant(settings, variant, quick=changes, smoke={})

    quick = study_with('quick')
    assert quick.name == 'tiny-quick'
    assert (quick.epochs, quick.sweep.batch_size, quick.recipes.mine.momentum) == (1.0, (8,), 0.9)
    assert study_with('') == tiny(recipes={'mine': {'momentum': 0.5}})
    with pytest.raises(config.UserError, match=r"variant: 'qick' is not known; it must be one of quick, smoke"):
        study_with('qick')


def test_a_stage_is_changed_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny(recipes={'mine': {'stages': (ROW, {'updates': 9, 'batch_size': 64, 'multiplier': 0.5})}})
    where = '--config.recipes.mine.stages'
    argv = ['launch.py', f'{where}[1].batch_size=32', f'{where}[0].learning_rate=0.4', '--config.sweep.batch_size=']
    monkeypatch.setattr('sys.argv', argv)  # where ml_collections looks for them
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict('config', settings, flag_values=values)
    values(argv)
    (recipe,) = config.resolve(values.config).recipes
    assert [(stage.batch_size, stage.learning_rate) for stage in recipe.stages] == [(8, 0.4), (32, 0.2)]


def test_every_field_is_read_somewhere() -> None:
    """A field that nothing reads is a promise that is not kept: changing it must change the study."""
    line = {'text': 'x', 'quantity': 'gap', 'of': 'bs32-*', 'relation': 'at least', 'bound': 0.0}
    alone = {
        'name': 'x', 'dataset': 'idx:x', 'subset': 9, 'validation': 0.5, 'data_seed': 5, 'mean': (0.5,), 'std': (0.5,),
        'hidden': (3,), 'epochs': 9, 'seeds': 9, 'max_physical_batch': 99, 'precision': 'bfloat16',
        'across_runs': 'vmap', 'segment_seconds': 9.0, 'checkpoint_seconds': 9.0, 'batch_size': 9,
        'learning_rate': 9.0, 'momentum': 0.5, 'weight_decay': 9.0, 'label_noise': 0.5, 'label_smoothing': 0.5,
        'model': 'cnn', 'channels': (3,), 'batch_norm': True, 'ghost_batch': 9, 'model_arguments': {'a': 1},
        'optimizer': 'adam', 'nesterov': True, 'beta1': 0.5, 'beta2': 0.5, 'clip': 9.0, 'evaluate_epochs': 0.5,
        'evaluate_updates': 9, 'evaluate_at': (9,), 'noise_scale': True, 'figures': ('gap',),
        'measurements': ('sharpness',), 'lines': (('bs64-lr0.1',) * 2,),
        'recipes': {'x': {'stages': ({'epochs': 1, 'batch_size': 1, 'learning_rate': 1.0},)}}, 'finding': 'x',
        'claims': {'c': {**line, 'published': 'x', 'source': 'x', 'status': 'U'}}, 'sweep.batch_size': (9,),
        'max_parallel_runs': 9, 'tensorboard': True,
    }  # fmt: skip
    grow = {'schedule': 'grow_batch', 'milestones': (1,)}
    switch = {'schedule': 'switch_batch', 'milestones': (1,), 'switch_to': (9,)}
    warm_up = {'schedule': 'warm_up', 'warm_up': 0.5}
    # These need others beside them to change anything.
    beside: dict[str, Any] = {
        'schedule': ({}, {'schedule': 'cosine'}),
        'validate_at': ({'validation': 0.5}, {'validation': 0.5, 'validate_at': (9,)}),
        'updates': ({}, {'epochs': 0, 'updates': 9}),
        'examples': ({}, {'epochs': 0, 'examples': 9}),
        'milestones': (grow, {**grow, 'milestones': (0.5,)}),
        'factor': (grow, {**grow, 'factor': 2.0}),
        'cap': (grow, {**grow, 'cap': 100}),
        'switch_to': (switch, {**switch, 'switch_to': (8,)}),
        'warm_up': (warm_up, {**warm_up, 'warm_up': 1.0}),
        'warm_up_start': (warm_up, {**warm_up, 'warm_up_start': 0.01}),
        'base_batch_size': ({'scaling': 'linear', 'base_batch_size': 8}, {'scaling': 'linear', 'base_batch_size': 16}),
        'scaling': ({'base_batch_size': 8}, {'base_batch_size': 8, 'scaling': 'sqrt'}),
        'beta_scaling': ({'base_batch_size': 8}, {'base_batch_size': 8, 'beta_scaling': 'half_life'}),
        'adapt_regime': ({'base_batch_size': 8}, {'base_batch_size': 8, 'adapt_regime': True}),
    }
    assert {*alone, *beside} == {*config.default(), 'sweep.batch_size'} - {'sweep', 'search'}
    for field, (before, after) in {**{key: ({}, {key: value}) for key, value in alone.items()}, **beside}.items():
        assert all_but_fields(before) != all_but_fields(after), field


def all_but_fields(changes: dict[str, Any]) -> dict[str, Any]:
    """What training and reporting read of a study: all but the recipes' fields as they were given."""
    study = config.resolve(changed({'sweep.batch_size': (), **changes}))  # the sweep would hide the base
    return {**vars(study), 'recipes': [{**vars(recipe), 'fields': None} for recipe in study.recipes]}
