"""The configuration: every field, once, with its default, what is allowed and what it means.

`default` returns the `ConfigDict` that experiment files edit and the command line overrides; `resolve` turns it into
the frozen `Study` that the rest of the package reads. Whatever a user gets wrong ends in a `UserError` of one line.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from bsgap import recipe, schedule
from bsgap.check import (
    Check,
    UserError,
    above_0,
    at_least_0,
    batch_size,
    boolean,
    count,
    count_or_0,
    hashable,
    mapping,
    name,
    number,
    one_of,
    optional,
    pair,
    same_fields,
    share,
    text,
    tuple_of,
)
from bsgap.recipe import Architecture, Kind, Recipe, Variant

__all__ = ['Architecture', 'Data', 'Kind', 'Recipe', 'Study', 'UserError', 'Variant', 'default', 'resolve']

MEASUREMENTS = ('sharpness', 'top_eigenvalue', 'gradient_norm', 'noise_scale')
FIGURES = (
    *('curves', 'gap', 'accuracy', 'learning_rate_sum', 'schedule', 'updates', 'learning_rate', 'optimum', 'distance'),
    *('lines', 'sharpness', 'gradient_norm'),
)


class Field(NamedTuple):
    default: Any
    check: Check


# What every recipe has unless `sweep` or `recipes` give it another value.
RECIPE_FIELDS: Mapping[str, Field] = {
    # Its schedule, or `stages` in `recipes` in place of it.
    'batch_size': Field(64, batch_size),  # at the start
    'learning_rate': Field(0.01, at_least_0),  # at the start; after the warm-up
    # Its optimizer, from Optax.
    'momentum': Field(0.0, share),  # sgd, lars
    'weight_decay': Field(0.0, at_least_0),  # sgd, adam: added to the gradient (L2); others: as their papers have it
    # Its training examples.
    'subset': Field(None, optional(count)),  # so many, after a seeded shuffle; unset: all
    'label_noise': Field(0.0, number('a share from 0 to 1', lambda v: 0 <= v <= 1)),  # changed to another class
    'label_smoothing': Field(0.0, share),  # of the target probability, spread over all classes in training
    # Its model.
    'model': Field('mlp', text),  # mlp | cnn | module:Class, a Flax NNX module of your own
    'hidden': Field((1024, 1024), tuple_of(count)),  # width of each dense hidden layer (mlp, cnn)
    'channels': Field((32, 64), tuple_of(count)),  # of each convolution (cnn)
    'batch_norm': Field(False, boolean),  # before each ReLU (mlp, cnn)
    'ghost_batch': Field(0, count_or_0),  # take its statistics over parts of this many examples; 0: the whole batch
    'model_arguments': Field(  # keyword arguments of your own module
        {}, lambda field, value: hashable(field, sorted(mapping(field, value).items()))
    ),
    # The optimizer again.
    'optimizer': Field('sgd', one_of(('sgd', 'adam', 'adamw', 'lars', 'lamb'))),
    'nesterov': Field(False, boolean),  # sgd, lars
    'beta1': Field(0.9, share),  # adam, adamw, lamb
    'beta2': Field(0.999, share),
    'clip': Field(0.0, at_least_0),  # the gradient's norm is clipped to this; 0: not at all
    # The schedule again.
    'schedule': Field('constant', one_of(schedule.SCHEDULES)),  # constant | cosine | warm_up | decay_learning_rate | …
    'epochs': Field(30.0, at_least_0),  # its length: exactly one of epochs, updates, examples; the others are 0
    'updates': Field(0, count_or_0),
    'examples': Field(0, count_or_0),
    'milestones': Field((), tuple_of(above_0)),  # where batch or learning rate change, in the unit of the length
    'factor': Field(5.0, number('a number above 1', lambda v: v > 1)),  # of that change
    'cap': Field(0, count_or_0),  # grow_batch, hybrid: the batch grows no further, the learning rate falls; 0: no cap
    'switch_to': Field((), tuple_of(batch_size)),  # switch_batch: the batch size from each milestone on
    'warm_up': Field(0.0, at_least_0),  # its length, in the unit of the length
    'warm_up_start': Field(0.0, at_least_0),  # the learning rate at its start
    'base_batch_size': Field(0, count_or_0),  # what the three rules below compare the batch size with
    'scaling': Field('none', one_of(('none', 'linear', 'sqrt'))),  # of the learning rate with the batch size
    'beta_scaling': Field('none', one_of(('none', 'malladi', 'half_life'))),  # of beta1, beta2 with the batch size
    'adapt_regime': Field(False, boolean),  # multiply all lengths by batch size / base: about equal updates
    'evaluate_epochs': Field(1.0, above_0),  # how many epochs pass between evaluations
    'evaluate_updates': Field(0, count_or_0),  # or how many updates, if above 0
    'evaluate_at': Field((), tuple_of(count_or_0)),  # or at these updates, and, without validate_at, at the end
    'validate_at': Field((), tuple_of(count_or_0)),  # at these, and at the end, the validation split alone
    'noise_scale': Field(False, boolean),  # estimate it during training, from the gradients of a batch's parts
}
STUDY_FIELDS: Mapping[str, Field] = {
    'name': Field('study', name),  # names the default workdir, runs/<name>
    # The dataset.
    'dataset': Field('mnist', text),  # mnist (packaged) | idx:FOLDER | tfds:NAME
    'validation': Field(0.0, share),  # of the training split, held out for everything that selects
    'data_seed': Field(0, count_or_0),  # shuffles the training split before `validation` and `subset` take their parts
    'mean': Field((), tuple_of(number('a number', lambda _: True))),  # of pixels from 0 to 1; (): of the training split
    'std': Field((), tuple_of(above_0)),  # likewise; one value, or one a channel
    # The runs.
    'seeds': Field(3, count),  # each recipe is trained with the seeds 0 … seeds − 1
    # What is made of them.
    'claims': Field({}, mapping),  # by name; bsgap/claims.py says what a claim has
    'finding': Field('', text),  # a paragraph for the report; {NAME} stands for what was measured for a claim
    'figures': Field(('curves', 'gap', 'accuracy', 'learning_rate_sum'), tuple_of(one_of(FIGURES))),
    'measurements': Field((), tuple_of(one_of(MEASUREMENTS))),  # at the end of each run; in a search at its moments
    'lines': Field((), tuple_of(pair)),  # recipes between whose solutions the loss is measured: (('small', 'large'),)
    # How it is computed.
    'max_physical_batch': Field(4096, count),  # a larger batch is accumulated from equal parts of at most this size
    'precision': Field('float32', one_of(('float32', 'tensorfloat32', 'bfloat16'))),  # of matrix products
    'across_runs': Field('auto', one_of(('auto', 'vmap', 'map'))),  # side by side | in turn | map on CPU, else vmap
    'max_parallel_runs': Field(0, count_or_0),  # trained side by side on a device; 0: as many as its memory holds
    'segment_seconds': Field(1.0, above_0),  # how long the compiled program works between two looks at the clock
    'checkpoint_seconds': Field(30.0, at_least_0),  # save a cohort when this long has passed since it was saved
    'tensorboard': Field(False, boolean),  # also write event files (needs the extra [tensorboard])
}
# A search for the answer: which batch size? See bsgap/search.py.
SEARCH_FIELDS: Mapping[str, Field] = {
    'rungs': Field(0, count_or_0),  # of successive halving over the sweep's learning rates; 0: no search
    'keep': Field(1 / 3, number('a share above 0 and below 1', lambda v: 0 < v < 1)),  # of them, at each rung
    'widen': Field(3, count_or_0),  # how many may be added beyond either end of the learning rates, a batch size
    'budget_epochs': Field(3.0, above_0),  # what training may cost: so many epochs,
    'budget_updates': Field(0, count_or_0),  # or updates; 0: those of the sweep's middle batch size in these epochs,
    'budget_seconds': Field(0.0, at_least_0),  # or seconds on this device; 0: those that the middle one needs for them
    'target': Field(0.0, share),  # validation error; 0: the lowest that each batch size reaches
    'moments': Field((0.1, 0.3, 1.0), tuple_of(above_0)),  # shares of the updates to the target: noise scale measured
    'grow': Field(True, boolean),  # whether to train with a batch that grows with the noise scale
    'confirm_seeds': Field(5, count_or_0),  # fresh ones that check the recommendation
}
# What may differ between two launches on one workdir: the runs that are wanted, what is made of them, and what changes
# rounding at most. What a recipe is, its run.json says.
FREE_FIELDS = (
    *('name', 'recipes', 'seeds', 'claims', 'finding', 'figures', 'measurements', 'lines'),
    *('across_runs', 'max_parallel_runs', 'segment_seconds', 'checkpoint_seconds', 'tensorboard'),
    *(f'search.{field}' for field in ('target', 'moments', 'grow', 'confirm_seeds')),
)


def default() -> ConfigDict:
    """Every field with its default. Experiment files change some of them, `--config.FIELD=VALUE` any of them.

    `sweep` crosses the values of any of the recipes' fields. `recipes` adds single ones by name, each with the fields
    in which it differs: {'grow': {'schedule': 'grow_batch', 'milestones': (10, 20)}}. In place of a schedule it may
    have a table of stages: {'mine': {'stages': ({'epochs': 2, 'batch_size': 64, 'learning_rate': 0.1},
    {'updates': 100, 'batch_size': 256, 'multiplier': 0.5, 'rule': 'cosine', 'momentum': 0.9})}}.
    """
    config = ConfigDict({key: field.default for key, field in {**RECIPE_FIELDS, **STUDY_FIELDS}.items()})
    config.subset = placeholder(int)
    config.sweep = ConfigDict(dict.fromkeys(RECIPE_FIELDS, ()))
    config.search = ConfigDict({key: field.default for key, field in SEARCH_FIELDS.items()})
    config.recipes = ConfigDict()
    return config


@dataclasses.dataclass(frozen=True)
class Data:
    """Which examples there are and how to scale them; see STUDY_FIELDS."""

    dataset: str
    validation: float
    data_seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Search:
    """See SEARCH_FIELDS; `base` has every field of a recipe, the others are the values of the sweep, ascending."""

    rungs: int
    keep: float
    widen: int
    budget_epochs: float
    budget_updates: int
    budget_seconds: float
    target: float
    moments: tuple[float, ...]
    grow: bool
    confirm_seeds: int
    base: Mapping[str, Any]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    momenta: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked configuration: recipes × seeds on a dataset, and what is made of them; see STUDY_FIELDS."""

    data: Data
    recipes: tuple[Recipe, ...]
    name: str
    seeds: int
    claims: Mapping[str, Any]
    finding: str
    figures: tuple[str, ...]
    measurements: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    max_physical_batch: int
    precision: str
    across_runs: Literal['auto', 'vmap', 'map']
    max_parallel_runs: int
    segment_seconds: float
    checkpoint_seconds: float
    tensorboard: bool
    search: Search | None


def resolve(config: ConfigDict) -> Study:
    """Checks every field of `config` and returns the study it describes.

    Raises:
      UserError: a field is missing, unknown, or has a value that is not allowed.
    """
    from bsgap import claims  # which raises UserErrors itself
    from bsgap.metrics import columns

    known = default()
    same_fields('', config, known)
    same_fields('sweep.', config.sweep, known.sweep)
    same_fields('search.', config.search, known.search)
    checked = {key: field.check(key, config[key]) for key, field in STUDY_FIELDS.items()}
    recipes = _recipes(config)
    names = [made.name for made in recipes]
    splits = ('train', 'validation', 'test') if checked['validation'] else ('train', 'test')
    numbers = [*columns(splits), *RECIPE_FIELDS, 'seconds', *(f'{measured}*' for measured in checked['measurements'])]
    for claim in checked['claims']:
        claims.check(claim, checked['claims'][claim], names, numbers)
    claims.check_finding(checked['finding'], checked['claims'])
    for made in recipes:
        whole = made.architecture.batch_norm and not made.architecture.ghost_batch
        largest = max(stage.batch_size for stage in made.stages)
        if whole and largest > checked['max_physical_batch']:
            raise UserError(
                f'config.max_physical_batch: {checked["max_physical_batch"]} is not allowed (recipe {made.name}); it'
                f' must be at least {largest} for batch normalization over a whole batch, or set ghost_batch'
            )
    for line in checked['lines']:
        first, second = (recipes[names.index(one_of(names)('lines', end))] for end in line)
        if (first.architecture, first.variant) != (second.architecture, second.variant):
            raise UserError(f'config.lines: {line} is not allowed; the two must have the same model and examples')
    for made in recipes:
        norm = made.architecture.batch_norm
        for field, value, needs, ok in (
            ('validate_at', made.validate_at, 'a validation split', checked['validation']),
            ('noise_scale', made.noise_scale, 'a model without batch_norm', not norm),
        ):
            if value and not ok:
                raise UserError(f'config.{field}: {value} is not allowed (recipe {made.name}); it needs {needs}')
    search = _search(config, checked['validation'])
    data = Data(**{field.name: checked.pop(field.name) for field in dataclasses.fields(Data)})
    return Study(data=data, recipes=recipes, search=search, **checked)


def _search(config: ConfigDict, validation: float) -> Search | None:
    fields = {key: field.check(f'search.{key}', config.search[key]) for key, field in SEARCH_FIELDS.items()}
    if not fields['rungs']:
        return None
    base = {key: field.check(key, config[key]) for key, field in RECIPE_FIELDS.items()}
    swept = {key: tuple(values) for key, values in config.sweep.items() if tuple(values) not in ((), ('',))}
    searched = ('batch_size', 'learning_rate', 'momentum')
    for ok, field, needs in (
        (validation > 0, 'validation', 'above 0'),
        (not config.recipes, 'recipes', 'empty: give a sweep'),
        (set(swept) <= set(searched), 'sweep', f'of {", ".join(searched)} alone'),
        (len(set(swept.get('batch_size', ()))) > 1, 'sweep.batch_size', 'at least two batch sizes'),
        (len(set(swept.get('learning_rate', ()))) > 1, 'sweep.learning_rate', 'at least two learning rates'),
        (min(swept.get('learning_rate', (1,))) > 0, 'sweep.learning_rate', 'above 0'),
        (base['learning_rate'] > 0, 'learning_rate', 'above 0'),
        (base['schedule'] == 'constant', 'schedule', 'constant'),
        (base['scaling'] == 'none', 'scaling', 'none'),
        (base['beta_scaling'] == 'none', 'beta_scaling', 'none'),
        (not config.lines, 'lines', 'empty'),
        (fields['budget_updates'] != 1, 'search.budget_updates', '0 or at least 2'),
    ):
        if not ok:
            raise UserError(f'config.{field}: is not allowed in a search; it must be {needs}')
    grid = {
        key: tuple(sorted(RECIPE_FIELDS[key].check(key, v) for v in swept.get(key, (base[key],)))) for key in searched
    }
    return Search(
        base=base,
        batch_sizes=grid['batch_size'],
        learning_rates=grid['learning_rate'],
        momenta=grid['momentum'],
        **fields,
    )


def _recipes(config: ConfigDict) -> tuple[Recipe, ...]:
    """The sweep's recipes, then those with names; the base alone if there are neither."""
    base = {key: field.check(key, config[key]) for key, field in RECIPE_FIELDS.items()}
    axes = {key: tuple_of(field.check)(f'sweep.{key}', config.sweep[key]) for key, field in RECIPE_FIELDS.items()}
    axes = {key: values for key, values in axes.items() if values}
    tables = mapping('recipes', config.recipes)
    recipes = [
        recipe.make(recipe.swept_name(base, swept := dict(zip(axes, values, strict=True))), 'sweep.', base, swept)
        for values in itertools.product(*axes.values())
        if axes or not tables
    ]
    for label in sorted(tables):
        where = f'recipes.{name("recipes", label)}'
        changes = mapping(where, tables[label])
        stages = changes.pop('stages', None)
        same_fields(f'{where}.', {**base, **changes}, base)
        checked = {key: RECIPE_FIELDS[key].check(f'{where}.{key}', value) for key, value in changes.items()}
        recipes.append(recipe.make(label, f'{where}.', base, checked, stages))
    names = [made.name for made in recipes]
    if twice := sorted({label for label in names if names.count(label) > 1}):
        raise UserError(f'config.sweep: {", ".join(twice)} is listed twice; each recipe must be given once')
    return tuple(recipes)


def with_variant(study: ConfigDict, variant: str, **variants: Mapping[str, Any]) -> ConfigDict:
    """Applies one of an experiment file's variants: the fields that it changes, by name, dots included.

    Raises:
      UserError: there is no such variant.
    """
    if variant:
        changes = one_of(variants)('variant', variant)
        study.name = f'{study.name}-{variant}'
        study.update_from_flattened_dict(variants[changes])
    return study
