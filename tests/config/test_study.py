"""`resolve`: what a user gave becomes a checked study, and every field of it is used."""

import json
from typing import Any

import pytest
from absl import flags
from helpers import tiny
from ml_collections import config_flags

from bsgap import config
from bsgap.config.fields import FREE_FIELDS
from bsgap.errors import UserError


def test_a_line_between_unknown_recipes_is_named() -> None:
    with pytest.raises(UserError, match=r"config.lines: 'bs9' is not known; it must be one of bs32-lr0.1, bs100"):
        config.resolve(tiny(lines=(('bs32-lr0.1', 'bs9'),)))


@pytest.mark.parametrize('field', ['hidden', 'subset'])
def test_a_line_between_recipes_of_another_model_or_other_examples_is_named(field: str) -> None:
    other = {'hidden': {'hidden': (8,)}, 'subset': {'subset': 200}}[field]
    settings = tiny(batch_size=(), recipes={'one': {}, 'two': other}, lines=(('one', 'two'),))
    with pytest.raises(UserError, match=r"config.lines: \('one', 'two'\) is not allowed; the two must have the same"):
        config.resolve(settings)


def test_what_a_field_needs_beside_it_is_named() -> None:
    with pytest.raises(
        UserError, match=r'config.evaluate_on: validation .*recipe bs32-lr0.1\); it needs a validation split'
    ):
        config.resolve(tiny(evaluate_on='validation'))
    with pytest.raises(UserError, match=r'config.noise_scale: True .*; it needs a model without batch_norm'):
        config.resolve(tiny(noise_scale=True, batch_norm=True))


def test_fields_that_are_unknown_or_missing_are_named() -> None:
    with pytest.raises(UserError, match=r'config.epoch: unknown field; did you mean config.epochs\?'):
        config.resolve(tiny(epoch=3))
    settings = tiny()
    del settings.seeds
    with pytest.raises(UserError, match=r'config.seeds: missing'):
        config.resolve(settings)


def test_batch_norm_over_a_batch_in_parts_is_refused() -> None:
    fields = {'batch_norm': True, 'max_physical_batch': 99}
    with pytest.raises(UserError, match=r'max_physical_batch: 99 is not allowed \(recipe bs100-.* at least 100'):
        config.resolve(tiny(**fields))
    grow = {'schedule': 'grow_batch', 'batch_size': 20, 'milestones': (1,)}
    with pytest.raises(UserError, match=r'max_physical_batch: 99 is not allowed \(recipe grow\)'):
        config.resolve(tiny(**fields, batch_size=(), recipes={'grow': grow}))
    config.resolve(tiny(**fields, ghost_batch=16))
    config.resolve(tiny(batch_norm=True, max_physical_batch=100))


def test_a_variant_changes_the_fields_that_it_names() -> None:
    def study_with(variant: str) -> Any:
        settings = tiny(recipes={'mine': {'momentum': 0.5}})
        changes = {'epochs': 1.0, 'sweep.batch_size': (8,), 'recipes.mine.momentum': 0.9}
        return config.with_variant(settings, variant, quick=changes, smoke={})

    quick = study_with('quick')
    assert (quick.name, quick.variant) == ('tiny-quick', 'quick')
    assert (quick.epochs, quick.sweep.batch_size, quick.recipes.mine.momentum) == (1.0, (8,), 0.9)
    assert study_with('') == tiny(recipes={'mine': {'momentum': 0.5}})
    assert config.with_variant(quick, '').variant == ''  # another experiment that starts from it
    with pytest.raises(UserError, match=r"variant: 'qick' is not known; it must be one of quick, smoke"):
        study_with('qick')


def test_a_stage_is_changed_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.5}
    settings = tiny(recipes={'mine': {'stages': (first, {'updates': 9, 'batch_size': 64, 'multiplier': 0.5})}})
    where = '--config.recipes.mine.stages'
    argv = ['launch.py', f'{where}[1].batch_size=32', f'{where}[0].learning_rate=0.4', '--config.sweep.batch_size=()']
    monkeypatch.setattr('sys.argv', argv)  # where ml_collections looks for them
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict('config', settings, flag_values=values)
    values(argv)
    (recipe,) = config.resolve(values.config).recipes
    assert [(stage.batch_size, stage.learning_rate) for stage in recipe.stages] == [(8, 0.4), (32, 0.2)]


def test_every_field_is_read_somewhere() -> None:
    """A field that nothing reads is a promise that is not kept: changing it must change the study."""
    alone = {
        'name': 'x', 'dataset': 'idx:x', 'subset': 9, 'validation': 0.5, 'data_seed': 5, 'mean': (0.5,), 'std': (0.5,),
        'hidden': (3,), 'epochs': 9, 'seeds': 9, 'max_physical_batch': 99, 'precision': 'bfloat16',
        'deterministic': False, 'run_axis': 'vmap', 'segment_seconds': 9.0, 'checkpoint_seconds': 9.0, 'batch_size': 9,
        'learning_rate': 9.0, 'momentum': 0.5, 'weight_decay': 9.0, 'label_noise': 0.5, 'label_smoothing': 0.5,
        'model': 'cnn', 'channels': (3,), 'batch_norm': True, 'ghost_batch': 9, 'model_arguments': {'a': 1},
        'optimizer': 'adam', 'nesterov': True, 'beta1': 0.5, 'beta2': 0.5, 'clip': 9.0, 'evaluate_epochs': 0.5,
        'evaluate_updates': 9, 'evaluate_at': (9,), 'noise_scale': True, 'figures': ('curves',),
        'measurements': ('sharpness',), 'lines': (('bs64-lr0.1',) * 2,),
        'recipes': {'x': {'stages': ({'epochs': 1, 'batch_size': 1, 'learning_rate': 1.0},)}}, 'finding': 'x',
        'claims': 'x:y', 'variant': 'x', 'max_parallel_runs': 9, 'tensorboard': True, 'wandb': True,
        'test_share': 0.5, 'target': 'x', 'image_size': (9, 9), 'task': 'regression',
    }  # fmt: skip
    grow = {'schedule': 'grow_batch', 'milestones': (1,)}
    switch = {'schedule': 'switch_batch', 'milestones': (1,), 'switch_to': (9,)}
    warm_up = {'warm_up': 0.5}
    # These need others beside them to change anything.
    beside: dict[str, Any] = {
        'schedule': ({}, {'schedule': 'cosine'}),
        'evaluate_on': ({'validation': 0.5}, {'validation': 0.5, 'evaluate_on': 'validation'}),
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
    assert {*alone, *beside} == {*config.default()} - {'sweep', 'search'}
    for field, (before, after) in {**{key: ({}, {key: value}) for key, value in alone.items()}, **beside}.items():
        assert all_but_fields(before) != all_but_fields(after), field


def all_but_fields(changes: dict[str, Any]) -> dict[str, Any]:
    """What training and reporting read of a study: all but the recipes' fields as they were given."""
    settings = tiny(batch_size=())  # the sweep would hide the base
    with settings.ignore_type():
        settings.update(changes)
    study = config.resolve(settings)
    return {**vars(study), 'recipes': [{**vars(recipe), 'fields': None} for recipe in study.recipes]}


def test_every_field_of_a_search_is_read() -> None:
    values = {
        'rungs': 3, 'warm_up': 0.5, 'budget_epochs': 9.0, 'budget_updates': 9, 'budget_seconds': 9.0, 'margin': 0.5,
        'targets': (0.5,), 'confirm_seeds': 9,
    }  # fmt: skip
    assert set(values) == set(config.default().search)

    def search(**changes: Any) -> config.Search | None:
        settings = tiny(learning_rate=(0.1, 0.2), validation=0.5)
        settings.search.update({'rungs': 2, **changes})
        return config.resolve(settings).search

    for field, value in values.items():
        assert search(**{field: value}) != search(), field
    assert search(rungs=0) is None


def test_settings_are_plain_data_under_the_names_of_the_config() -> None:
    """What study.json says; what may differ between two launches is a part of it."""
    settings = tiny(learning_rate=(0.1, 0.2), validation=0.5, subset=0)
    settings.search.rungs = 2
    plain = config.settings(config.resolve(settings))
    assert plain == json.loads(json.dumps(plain))
    assert set(FREE_FIELDS) < set(plain)
    for field, value in plain.items():
        owner, _, key = field.rpartition('.')
        if field != 'recipes':
            given = (settings[owner] if owner else settings)[key]
            assert value == (list(given) if isinstance(given, tuple) else given), field
    fields = plain['recipes']['bs32-lr0.2']['fields']
    assert set(fields) == set(config.default().sweep)
    assert (fields['batch_size'], fields['learning_rate'], fields['subset']) == (32, 0.2, 0)
    (stage,) = plain['recipes']['bs32-lr0.2']['stages']
    assert (stage['batch_size'], stage['length'], stage['unit']) == (32, 2.0, 'epochs')


def test_whole_in_a_search() -> None:
    """Beside batch size 1, which it is taken for until the examples are known."""
    with (settings := config.searching()).unlocked():
        settings.subset, settings.sweep.batch_size = 300, (1, 'whole')
    unknown, few = config.resolve(settings), config.TrainingSet(300, 0.0)
    assert unknown.search
    assert few in unknown.training_sets
    known = config.resolve(settings, examples={few: 300}).search
    assert known
    assert known.batch_sizes == (1, 300)
    settings.sweep.batch_size = (300, 'whole')
    config.resolve(settings)
    with pytest.raises(
        UserError, match=r"sweep.batch_size: \(300, 'whole'\) is not allowed in a search; .* at least two"
    ):
        config.resolve(settings, examples={few: 300})
