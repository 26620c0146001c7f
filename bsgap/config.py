"""The configuration: every field with its default, and the one place where what a user typed is checked.

`default` returns the `ConfigDict` that experiment files edit and the command line overrides; `resolve` turns it into
the frozen `Study` that the rest of the package reads. Whatever a user gets wrong ends in a `UserError` of one line.
"""

import dataclasses
import difflib
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from bsgap.schedule import UNITS, Stage, Unit

OPTIMIZERS = ('sgd',)
MOST = 1e30  # what any number may be; more is a slip, and float32 ends soon after
PRECISIONS = ('float32', 'tensorfloat32', 'bfloat16')
ACROSS_RUNS = ('auto', 'vmap', 'map')


class UserError(ValueError):
    """Bad input: one line that names the field, the value and what is allowed. `launch.py` exits with code 2."""


def default() -> ConfigDict:
    """Every field with its default. Experiment files change some of them, `--config.FIELD=VALUE` any of them."""
    config = ConfigDict()
    config.name = 'study'  # names the default workdir, runs/<name>
    # Data.
    config.dataset = 'mnist'  # mnist (packaged) | idx:FOLDER | tfds:NAME
    config.subset = placeholder(int)  # train on this many examples, after a seeded shuffle; unset: on all of them
    config.validation = 0.0  # share of the training split held out for everything that selects
    config.data_seed = 0  # shuffles the training split before `validation` and `subset` take their parts
    config.mean = ()  # of the pixels on a scale from 0 to 1, one value or one a channel; (): from the training split
    config.std = ()  # likewise
    # Model: a multilayer perceptron.
    config.hidden = (1024, 1024)  # width of each hidden layer
    # Recipes: the sweep crosses its axes into one-stage recipes, `epochs` long each.
    config.optimizer = 'sgd'
    config.epochs = 30
    config.sweep = ConfigDict()
    config.sweep.batch_size = (64, 256, 1024)
    config.sweep.learning_rate = (0.01,)
    config.sweep.momentum = (0.0,)
    config.sweep.weight_decay = (0.0,)  # added to the gradient before the momentum (L2)
    # More recipes, by name, each a table of stages: {'grow': {'stages': ({'epochs': 2, 'batch_size': 64,
    # 'learning_rate': 0.1}, {'updates': 100, 'batch_size': 256, 'learning_rate': 0.1}), 'momentum': 0.9}}.
    config.recipes = ConfigDict()
    config.seeds = 3  # each recipe is trained with the seeds 0 … seeds − 1
    # How it is computed.
    config.max_physical_batch = 4096  # a larger batch is accumulated from equal parts of at most this size
    config.precision = 'float32'  # of matrix products: float32 | tensorfloat32 | bfloat16
    config.across_runs = 'auto'  # a cohort's runs: vmap (side by side) | map (in turn) | auto (map on CPU, else vmap)
    config.segment_seconds = 1.0  # how long the compiled program works between two looks at the clock
    config.checkpoint_seconds = 30.0  # save a cohort when this long has passed since it was saved
    return config


# What may differ between two launches on one workdir: the runs that are wanted, and what changes rounding at most.
FREE_FIELDS = ('name', 'recipes', 'seeds', 'across_runs', 'segment_seconds', 'checkpoint_seconds')


@dataclasses.dataclass(frozen=True)
class Data:
    """Which examples to train on and how to scale them; the fields are `default`'s."""

    dataset: str
    subset: int | None
    validation: float
    data_seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run is trained."""

    name: str
    stages: tuple[Stage, ...]
    momentum: float
    weight_decay: float


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked configuration: recipes × seeds, a dataset and a model; the fields are `default`'s."""

    name: str
    data: Data
    hidden: tuple[int, ...]
    optimizer: str
    epochs: int
    recipes: tuple[Recipe, ...]
    seeds: int
    max_physical_batch: int
    precision: str
    across_runs: Literal['auto', 'vmap', 'map']
    segment_seconds: float
    checkpoint_seconds: float


def number(field: str, value: Any, allowed: str, ok: Callable[[Any], bool], whole: bool = False) -> Any:
    """Returns `value` as a float, or as an int if `whole`; raises UserError unless it is finite and `ok`."""
    real: Any = value if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if abs(real) < MOST and ok(real):
        if not whole:
            return float(real)
        if real == int(real):
            return int(real)
    raise UserError(f'config.{field}: {value!r} is not allowed; it must be {allowed}')


def choice(field: str, value: Any, allowed: Iterable[str]) -> Any:
    """Returns `value` if it is one of `allowed`; raises UserError otherwise."""
    if value not in allowed:
        raise UserError(f'config.{field}: {value!r} is not known; it must be one of {", ".join(allowed)}')
    return value


def values(field: str, given: Any) -> tuple[Any, ...]:
    """Returns a tuple of the config; the command line has no other word for an empty one than an empty string."""
    if not isinstance(given, tuple):
        raise UserError(f'config.{field}: {given!r} is not allowed; it must be a tuple, such as (64,)')
    return () if given == ('',) else given


def batch_size(field: str, value: Any) -> int:
    return number(
        field, value, 'a whole number from 1 to the number of training examples', lambda v: v >= 1, whole=True
    )


def count(field: str, value: Any) -> int:
    return number(field, value, 'a whole number of at least 1', lambda v: v >= 1, whole=True)


def at_least_0(field: str, value: Any) -> float:
    return number(field, value, 'a number of at least 0', lambda v: v >= 0)


def above_0(field: str, value: Any) -> float:
    return number(field, value, 'a number above 0', lambda v: v > 0)


def share(field: str, value: Any) -> float:
    return number(field, value, 'a number of at least 0 and below 1', lambda v: 0 <= v < 1)


AXES: Mapping[str, Callable[[str, Any], Any]] = {
    'batch_size': batch_size,
    'learning_rate': at_least_0,
    'momentum': share,
    'weight_decay': at_least_0,
}


def resolve(config: ConfigDict) -> Study:
    """Checks every field of `config` and returns the study it describes.

    Raises:
      UserError: a field is missing, unknown, or has a value that is not allowed.
    """
    known = default()
    _same_fields('', config, known)
    _same_fields('sweep.', config.sweep, known.sweep)
    _name('name', config.name)
    if not isinstance(config.recipes, Mapping | ConfigDict):
        raise UserError(f'config.recipes: {config.recipes!r} is not allowed; it must map names to tables of stages')
    recipes = (*_sweep(config), *(_recipe(name, config.recipes[name]) for name in sorted(config.recipes)))
    if not recipes:
        raise UserError('config.sweep.batch_size: () is not allowed; a study needs at least one recipe')
    twice = {recipe.name for recipe in recipes if sum(recipe.name == other.name for other in recipes) > 1}
    if twice:
        raise UserError(
            f'config.sweep: {", ".join(sorted(twice))} is listed twice; each value of an axis must be given once'
        )
    return Study(
        name=config.name,
        data=Data(
            dataset=config.dataset,
            subset=None if config.subset is None else count('subset', config.subset),
            validation=number(
                'validation', config.validation, 'a share of at least 0 and below 1', lambda v: 0 <= v < 1
            ),
            data_seed=number(
                'data_seed', config.data_seed, 'a whole number of at least 0', lambda v: v >= 0, whole=True
            ),
            mean=tuple(number('mean', value, 'a number', lambda _: True) for value in values('mean', config.mean)),
            std=tuple(above_0('std', value) for value in values('std', config.std)),
        ),
        hidden=tuple(count('hidden', width) for width in values('hidden', config.hidden)),
        optimizer=choice('optimizer', config.optimizer, OPTIMIZERS),
        epochs=count('epochs', config.epochs),
        recipes=recipes,
        seeds=count('seeds', config.seeds),
        max_physical_batch=count('max_physical_batch', config.max_physical_batch),
        precision=choice('precision', config.precision, PRECISIONS),
        across_runs=choice('across_runs', config.across_runs, ACROSS_RUNS),
        segment_seconds=above_0('segment_seconds', config.segment_seconds),
        checkpoint_seconds=at_least_0('checkpoint_seconds', config.checkpoint_seconds),
    )


def _same_fields(prefix: str, config: Any, known: Mapping[str, Any]) -> None:
    if not isinstance(config, Mapping | ConfigDict):
        raise UserError(f'config.{prefix[:-1]}: {config!r} is not allowed; it must have the fields {", ".join(known)}')
    for field in config:
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f'did you mean config.{prefix}{near[0]}?' if near else f'known: {", ".join(known)}'
            raise UserError(f'config.{prefix}{field}: unknown field; {hint}')
    for field in known:
        if field not in config:
            raise UserError(f'config.{prefix}{field}: missing; start the config from bsgap.config.default()')


def _name(field: str, name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r'\w[\w.-]*', name):
        raise UserError(
            f'config.{field}: {name!r} is not allowed; a name is letters, digits, "_", and then "." and "-"'
        )


def _sweep(config: ConfigDict) -> list[Recipe]:
    """Crosses the axes of `config.sweep` into recipes of one stage."""
    axes = {}
    for axis, check in AXES.items():
        if not (given := values(f'sweep.{axis}', config.sweep[axis])) and axis != 'batch_size':
            raise UserError(f'config.sweep.{axis}: () is not allowed; give at least one value')
        axes[axis] = [check(f'sweep.{axis}', value) for value in given]
    epochs = count('epochs', config.epochs)
    return [
        Recipe(_recipe_name(size, rate, m, decay), (Stage(size, rate, epochs, 'epochs'),), m, decay)
        for size in axes['batch_size']
        for rate in axes['learning_rate']
        for m in axes['momentum']
        for decay in axes['weight_decay']
    ]


def _recipe_name(size: int, rate: float, m: float, decay: float) -> str:
    """A name that depends on nothing but the recipe's own values, so that it stays when the sweep grows."""
    tail = ''.join(f'-{key}{value:.12g}' for key, value in (('m', m), ('wd', decay)) if value)
    return f'bs{size}-lr{rate:.12g}{tail}'


def _recipe(name: str, table: Any) -> Recipe:
    """Reads a recipe that is written out as a table of stages."""
    field = f'recipes.{name}'
    _name(field, name)
    if not isinstance(table, Mapping | ConfigDict) or not isinstance(table.get('stages'), tuple) or not table['stages']:
        raise UserError(f'config.{field}.stages: {table!r} is not allowed; it must be a tuple of at least one stage')
    if unknown := set(table) - {'stages', 'momentum', 'weight_decay'}:
        raise UserError(f'config.{field}.{min(unknown)}: unknown field; known: stages, momentum, weight_decay')
    return Recipe(
        name,
        tuple(_stage(f'{field}.stages[{i}]', stage) for i, stage in enumerate(table['stages'])),
        share(f'{field}.momentum', table.get('momentum', 0.0)),
        at_least_0(f'{field}.weight_decay', table.get('weight_decay', 0.0)),
    )


def _stage(field: str, row: Any) -> Stage:
    if not isinstance(row, Mapping | ConfigDict):
        raise UserError(f'config.{field}: {row!r} is not allowed; it must map batch_size, learning_rate and a length')
    units: list[Unit] = [unit for unit in UNITS if unit in row]
    if len(units) != 1:
        raise UserError(f'config.{field}: a stage needs exactly one of {", ".join(UNITS)}; it has {len(units)}')
    unit = units[0]
    if set(row) != {unit, 'batch_size', 'learning_rate'}:
        raise UserError(
            f'config.{field}: a stage has batch_size, learning_rate and one of {", ".join(UNITS)}; it has {sorted(row)}'
        )
    return Stage(
        batch_size(f'{field}.batch_size', row['batch_size']),
        at_least_0(f'{field}.learning_rate', row['learning_rate']),
        count(f'{field}.{unit}', row[unit]),
        unit,
    )
