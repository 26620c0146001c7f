"""Recipes are data: what makes one, how it is called, and what of it does not go together."""

import math
from typing import Any

import pytest
from helpers import tiny

from bsgap import config
from bsgap.config.schedule import Stage, place
from bsgap.errors import UserError

ROW = {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5}


def only(**changes: Any) -> config.Recipe:
    """The recipe of a study that has one; `changes` are the recipe's."""
    (recipe,) = config.resolve(tiny(batch_size=(), recipes={'mine': changes})).recipes
    return recipe


def names(settings: Any) -> list[str]:
    return [recipe.name for recipe in config.resolve(settings).recipes]


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
        ({'schedule': 'linear', 'warm_up': 2}, 'warm_up: 2.0 is not allowed; it must be below the length, 2 epochs'),
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
    with settings.ignore_type():
        match where:
            case 'base':
                settings.update(changes)
            case 'recipe':
                settings.recipes = {'mine': changes}
            case 'sweep':
                settings.sweep.update({field: (value,) for field, value in {'batch_size': 64, **changes}.items()})
    with pytest.raises(UserError) as error:
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
    with pytest.raises(UserError, match=r'momentum \(recipe mine\): 0.5 is not allowed with lamb'):
        only(stages=({**ROW, 'momentum': 0.5},), optimizer='lamb')


def test_an_empty_sweep_is_the_base_recipe_alone() -> None:
    settings = tiny(batch_size=())
    assert names(settings) == ['bs64-lr0.1']
    settings.recipes.mine = {'momentum': 0.9}  # then there are only those with names
    (recipe,) = config.resolve(settings).recipes
    assert (recipe.name, recipe.stages) == ('mine', (Stage(64, 0.1, 2.0, 'epochs', momentum=0.9),))


def test_a_name_depends_on_its_own_recipe_alone() -> None:
    many = names(tiny(batch_size=(8, 32), learning_rate=(0.1, 0.2), optimizer=('sgd', 'adam')))
    assert set(names(tiny(batch_size=(32,)))) < set(many)


def test_a_name_shows_what_is_swept() -> None:
    settings = tiny(subset=(100, 300), label_noise=(0.25,), optimizer=('adamw',), batch_norm=(True,), batch_size=())
    settings.sweep.hidden = ((8, 4), ())
    assert names(settings) == [
        'bs64-lr0.1-n100-noise0.25-h8x4-batchnormTrue-optimizeradamw',
        'bs64-lr0.1-n100-noise0.25-h-batchnormTrue-optimizeradamw',
        'bs64-lr0.1-noise0.25-h8x4-batchnormTrue-optimizeradamw',
        'bs64-lr0.1-noise0.25-h-batchnormTrue-optimizeradamw',
    ]
    settings = tiny(model=('mlp', 'my.models:Net'), learning_rate=(3e-4,), batch_size=())
    assert names(settings) == ['bs64-lr0.0003', 'bs64-lr0.0003-modelmy.models.Net']


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
    with pytest.raises(UserError) as error:
        config.resolve(tiny(recipes={'grow': table}))
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


def test_whole_is_a_batch_of_all_examples_that_the_recipe_trains_on() -> None:
    """1 until they are known; wherever a batch size stands. Its name says `whole` from the beginning, for claims."""
    table = ({'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5}, {**ROW, 'batch_size': 'whole'})
    switch = {'schedule': 'switch_batch', 'milestones': (1,), 'switch_to': ('whole',), 'batch_size': 4}
    settings = tiny(batch_size=(1, 'whole'), subset=(100, 300), recipes={'rows': {'stages': table}, 'switch': switch})
    settings.scaling, settings.base_batch_size = 'linear', 50
    unknown = config.resolve(settings)
    examples = {training_set: training_set.subset or 60000 for training_set in unknown.training_sets}
    known = config.resolve(settings, examples=examples)
    assert [made.name for made in known.recipes] == [made.name for made in unknown.recipes]
    found = {made.name: [stage.batch_size for stage in made.stages] for made in known.recipes}
    assert found == {
        'bs1-lr0.1-n100': [1],
        'bswhole-lr0.1-n100': [100],
        'bs1-lr0.1': [1],
        'bswhole-lr0.1': [300],
        'rows': [8, 300],
        'switch': [4, 300],
    }
    assert {size for made in unknown.recipes for size in (stage.batch_size for stage in made.stages)} == {1, 4, 8}
    by_name = {made.name: made for made in known.recipes}
    assert by_name['bswhole-lr0.1-n100'].stages[0].learning_rate == pytest.approx(0.2)
    assert by_name['bswhole-lr0.1'].stages[0].learning_rate == pytest.approx(0.6)
    assert dict(by_name['bswhole-lr0.1'].fields)['batch_size'] == 300
