"""A checked configuration: `resolve` turns what a user gave into the frozen `Study` that the rest of bsgap reads.

Whatever a user gets wrong ends in a `UserError` of one line.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from ml_collections import ConfigDict

from bsgap.config import given as commanded
from bsgap.config import recipe
from bsgap.config.checks import mapping, name, one_of, require, same_fields, tuple_of
from bsgap.config.fields import LEARNING_RATES, RECIPE_FIELDS, SEARCH_FIELDS, STUDY_FIELDS, default
from bsgap.config.recipe import Examples, Recipe, TrainingSet
from bsgap.config.schedule import RULES


@dataclasses.dataclass(frozen=True)
class Data:
    """Which examples there are and how to scale them; see STUDY_FIELDS."""

    dataset: str
    validation: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    test_share: float = 0.2
    target: str = ''
    task: str = 'classification'
    image_size: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Search:
    """See SEARCH_FIELDS. `base` has every field of a recipe; `settings` are the fields that are crossed with the batch
    sizes and learning rates, and their values; all ascending."""

    rungs: int
    warm_up: float
    budget_epochs: float
    budget_updates: int
    budget_seconds: float
    margin: float
    targets: tuple[float, ...]
    confirm_seeds: int
    base: Mapping[str, Any]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    settings: Mapping[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked configuration: recipes × seeds on a dataset, and what is made of them; see STUDY_FIELDS."""

    data: Data
    recipes: tuple[Recipe, ...]
    name: str
    seeds: int
    claims: str
    variant: str
    finding: str
    figures: tuple[str, ...]
    measurements: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    max_physical_batch: int
    precision: str
    deterministic: bool
    run_axis: Literal['auto', 'vmap', 'map']
    max_parallel_runs: int
    segment_seconds: float
    checkpoint_seconds: float
    tensorboard: bool
    wandb: bool
    search: Search | None

    @property
    def training_sets(self) -> tuple[TrainingSet, ...]:
        """All that some run is trained on: those of the recipes, and of a search, with a validation split redrawn."""
        made = dict.fromkeys(recipe.training_set for recipe in self.recipes)
        fresh = [each._replace(data_seed=each.data_seed + 1) for each in made if self.search]
        return *made, *fresh


def resolve(config: ConfigDict, given: Iterable[str] = (), examples: Examples = MappingProxyType({})) -> Study:
    """Checks every field of `config` and returns the study it describes. The fields that were `given` on the command
    line must have an effect. `examples` says how large a batch of `whole` training sets is; it is 1 before that is
    known.

    Raises:
      UserError: a field is missing, unknown, or has a value that is not allowed or has no effect.
    """
    known = default()
    same_fields('', config, known)
    same_fields('sweep.', config.sweep, known.sweep)
    same_fields('search.', config.search, known.search)
    checked = {key: field.check(key, config[key]) for key, field in STUDY_FIELDS.items()}
    base = {key: field.check(key, config[key]) for key, field in RECIPE_FIELDS.items()}
    axes = {key: tuple_of(field.check)(f'sweep.{key}', config.sweep[key]) for key, field in RECIPE_FIELDS.items()}
    axes = {key: values for key, values in axes.items() if values}
    recipes = _recipes(config, base, axes, examples)
    names = [made.name for made in recipes]
    for line in checked['lines']:
        first, second = (recipes[names.index(one_of(names)('lines', end))] for end in line)
        same = (first.architecture, first.training_set) == (second.architecture, second.training_set)
        require(same, 'lines', f'{line} is not allowed; the two must have the same model and examples')
    most = checked['max_physical_batch']
    for made in recipes:
        norm, largest = made.architecture.batch_norm, max(stage.batch_size for stage in made.stages)
        ok = not norm or made.architecture.ghost_batch or largest <= most
        needs = f'at least {largest} for batch normalization over a whole batch, or set ghost_batch'
        require(ok, 'max_physical_batch', f'{most} is not allowed (recipe {made.name}); it must be {needs}')
        for field, ok, needs in (
            ('evaluate_on', checked['validation'], 'a validation split'),
            ('noise_scale', not norm, 'a model without batch_norm'),
            ('label_smoothing', checked['task'] == 'classification', 'task classification'),
        ):
            value = getattr(made, field)
            off = value in (False, 'all', 0)
            require(ok or off, field, f'{value} is not allowed (recipe {made.name}); it needs {needs}')
    search = _search(config, base, axes, examples)
    commanded.check(given, config, recipes)
    data = Data(**{field.name: checked.pop(field.name) for field in dataclasses.fields(Data)})
    return Study(data=data, recipes=recipes, search=search, **checked)


def _search(
    config: ConfigDict, base: dict[str, Any], axes: dict[str, tuple[Any, ...]], examples: Examples
) -> Search | None:
    """The search that is asked for; `axes` are the fields that are swept, with their values."""
    fields = {key: field.check(f'search.{key}', config.search[key]) for key, field in SEARCH_FIELDS.items()}
    if not fields['rungs']:
        return None
    grid = {'learning_rate': LEARNING_RATES[base['optimizer']], 'batch_size': (), **axes}
    allowed = 'batch_size', 'learning_rate', 'beta2', 'momentum', 'weight_decay'
    sizes = tuple(sorted({recipe.sized(size, base, examples) for size in grid['batch_size']}))
    for ok, field, needs in (
        (config.validation > 0, 'validation', 'above 0'),
        (not config.recipes, 'recipes', 'empty: give a sweep'),
        (grid.keys() <= {*allowed}, 'sweep', f'of {", ".join(allowed)}'),
        (len(sizes if examples else {*grid['batch_size']}) > 1, 'sweep.batch_size', 'at least two batch sizes'),
        (len({*grid['learning_rate']}) > 1, 'sweep.learning_rate', 'at least two learning rates'),
        (min(grid['learning_rate']) > 0, 'sweep.learning_rate', 'above 0'),
        (base['schedule'] in RULES, 'schedule', ', '.join(RULES)),
        (not base['warm_up'], 'warm_up', '0: set search.warm_up'),
        (base['scaling'] == 'none', 'scaling', 'none'),
        (base['beta_scaling'] == 'none', 'beta_scaling', 'none'),
        (not config.lines, 'lines', 'empty'),
        (not config.measurements, 'measurements', 'empty'),
        (fields['budget_updates'] != 1, 'search.budget_updates', '0 or at least 2'),
    ):
        owner, _, key = field.rpartition('.')
        value = (fields if owner == 'search' else grid if owner else config).get(key)
        given = '' if field in ('recipes', 'sweep') else f'{value!r} '
        require(ok, field, f'{given}is not allowed in a search; it must be {needs}')
    del grid['batch_size']
    ascending = {key: tuple(sorted({*values})) for key, values in sorted(grid.items())}
    rates = ascending.pop('learning_rate')
    return Search(base=base, batch_sizes=sizes, learning_rates=rates, settings=ascending, **fields)


def _recipes(
    config: ConfigDict, base: dict[str, Any], axes: dict[str, tuple[Any, ...]], examples: Examples
) -> tuple[Recipe, ...]:
    """The sweep's recipes, then those with names; the base alone if there are neither."""
    tables = mapping('recipes', config.recipes)
    recipes = []
    for values in itertools.product(*axes.values()) if axes or not tables else ():
        swept = dict(zip(axes, values, strict=True))
        recipes.append(recipe.make(recipe.swept_name(base, swept), 'sweep.', base, swept, examples=examples))
    for label in sorted(tables):
        where = f'recipes.{name("recipes", label)}'
        changes = mapping(where, tables[label])
        stages = changes.pop('stages', None)
        same_fields(f'{where}.', {**base, **changes}, base)
        checked = {key: RECIPE_FIELDS[key].check(f'{where}.{key}', value) for key, value in changes.items()}
        recipes.append(recipe.make(label, f'{where}.', base, checked, stages, examples))
    names = [made.name for made in recipes]
    twice = ', '.join(sorted({label for label in names if names.count(label) > 1}))
    require(not twice, 'sweep', f'{twice} is listed twice; each recipe must be given once')
    return tuple(recipes)


def settings(study: Study) -> dict[str, Any]:
    """The study as plain data, under the names that the config has."""
    fields = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    fields.update(dataclasses.asdict(fields.pop('data')))
    if search := fields.pop('search'):
        fields |= {f'search.{name}': getattr(search, name) for name in SEARCH_FIELDS}
    fields['recipes'] = {made.name: recipe_settings(made) for made in study.recipes}
    return json.loads(json.dumps(fields))


def recipe_settings(made: Recipe) -> dict[str, Any]:
    """A recipe as plain data: its fields as they were given, and its stages."""
    fields = dict(made.fields) | {'model_arguments': dict(made.architecture.arguments)}
    return {'fields': fields, 'stages': [dataclasses.asdict(stage) for stage in made.stages]}
