"""Whether what was given on the command line can have an effect."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from bsgap.config.checks import mapping, require
from bsgap.config.fields import RECIPE_FIELDS
from bsgap.config.recipe import GROWING, OF_A_SCHEDULE, Recipe
from bsgap.config.schedule import RULES, UNITS

Fields = Mapping[str, Any]


def _of(field: str, *values: Any) -> Callable[[Fields], bool]:
    return lambda fields: fields.get(field) in values


_USUAL = {'scaling': 'none', 'beta_scaling': 'none', 'adapt_regime': False}
# By fields, whether they have an effect, given all of a recipe; those that are not here always have.
_EFFECTIVE: Mapping[tuple[str, ...], Callable[[Fields], Any]] = {
    ('beta1', 'beta2', 'beta_scaling'): _of('optimizer', 'adam', 'adamw', 'lamb'),
    ('data_seed',): lambda fields: fields['subset'] or fields['label_noise'] or fields['validation'],
    ('hidden', 'batch_norm'): _of('model', 'mlp', 'cnn'),
    ('channels',): _of('model', 'cnn'),
    ('ghost_batch',): _of('batch_norm', True),
    ('nesterov',): lambda fields: fields['momentum'],
    ('model_arguments',): lambda fields: ':' in fields['model'],
    ('milestones',): _of('schedule', 'decay_learning_rate', *GROWING, 'switch_batch'),
    ('factor',): _of('schedule', 'decay_learning_rate', *GROWING),
    ('cap',): _of('schedule', *GROWING),
    ('switch_to',): _of('schedule', 'switch_batch'),
    ('warm_up',): _of('schedule', *RULES),
    ('warm_up_start',): lambda fields: fields.get('warm_up'),
    ('base_batch_size',): lambda fields: any(fields.get(field, usual) != usual for field, usual in _USUAL.items()),
    ('evaluate_epochs',): lambda fields: not (fields['evaluate_updates'] or fields['evaluate_at']),
    ('evaluate_updates',): _of('evaluate_at', ()),
}

_OF_DATASETS = {'target': ('csv', 'parquet', 'hf'), 'image_size': ('folder', 'hf')}
# What a search takes in place of a field; a trial is evaluated at its end.
_IN_A_SEARCH = {
    'batch_size': 'sweep.batch_size',
    'learning_rate': 'sweep.learning_rate',
    'epochs': 'search.budget_epochs',
    'updates': 'search.budget_updates',
    'warm_up': 'search.warm_up',
    **dict.fromkeys(('examples', 'evaluate_epochs', 'evaluate_updates', 'evaluate_at', 'evaluate_on'), 'none'),
}


def check(given: Iterable[str], config: ConfigDict, recipes: Iterable[Recipe]) -> None:
    """Raises UserError if a field of these has none; `config` is checked, and `recipes` were made of it."""
    besides = {'validation': config.validation}
    made = [{**dict(recipe.fields), **besides, 'momentum': recipe.kind.momentum} for recipe in recipes]
    for path in given:
        owner, _, field = path.rpartition('.')
        if path == 'figures':
            require(not config.search.rungs, path, 'has no effect in a search, which has figures of its own')
        elif owner == 'search':
            require(config.search.rungs, path, 'has no effect: it is for a search, and search.rungs is 0')
        elif path in _OF_DATASETS:
            kinds, kind = _OF_DATASETS[path], config.dataset.partition(':')[0]
            require(kind in kinds, path, f'has no effect: it is for datasets {":, ".join(kinds)}: and not {kind}')
        elif field in RECIPE_FIELDS and owner in ('', 'sweep'):
            if config.search.rungs and not owner and (instead := _IN_A_SEARCH.get(field)):
                require(False, path, f'has no effect in a search; give {instead}')
            if not owner:
                swept = f'sweep.{field} gives others; give --config.sweep.{field}=VALUE,…'
                other = f'has no effect: {swept if config.sweep[field] else "each of the recipes gives another"}'
                require(any(_takes(changes, field) for changes in _changes(config)), path, other)
            tests = [test for of, test in _EFFECTIVE.items() if field in of]
            usual = not owner and config[field] == RECIPE_FIELDS[field].default
            effective = usual or any(field in fields and all(test(fields) for test in tests) for fields in made)
            require(effective, path, 'has no effect beside the other fields, such as the optimizer, schedule or model')


def _changes(config: ConfigDict) -> list[Fields]:
    """The fields that the recipes of the sweep change, and those that each named one changes."""
    swept: Fields = {field: config.sweep[field] for field in RECIPE_FIELDS if config.sweep[field]}
    named: list[Fields] = [mapping('recipes', config.recipes[label]) for label in config.recipes]
    return [swept, *named] if swept or not named else named


def _takes(changes: Fields, field: str) -> bool:
    """Whether a recipe with such changes takes the field from all recipes' base."""
    by_length = field in UNITS and any(unit in changes for unit in UNITS)
    return not (field in changes or by_length or ('stages' in changes and field in OF_A_SCHEDULE))
