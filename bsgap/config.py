"""The configuration: every field with its default, and the one place where what a user typed is checked.

`default` returns the `ConfigDict` that experiment files edit and the command line overrides; `resolve` turns it into
the frozen `Study` that the rest of the package reads. Whatever a user gets wrong ends in a `UserError` of one line.
"""

import dataclasses
import difflib
import itertools
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from bsgap import schedule
from bsgap.schedule import Plan, Stage

MOST = 1e30  # what any number may be; more is a slip, and float32 ends soon after
OPTIMIZERS = ('sgd', 'adam', 'adamw', 'lars', 'lamb')
WITH_MOMENTUM = ('sgd', 'lars')  # the others have beta1 in its place
SCALINGS = ('none', 'linear', 'sqrt')
BETA_SCALINGS = ('none', 'malladi', 'half_life')
PRECISIONS = ('float32', 'tensorfloat32', 'bfloat16')
ACROSS_RUNS = ('auto', 'vmap', 'map')
MEASUREMENTS = ('sharpness', 'top_eigenvalue', 'gradient_norm')
FIGURES = (
    *('curves', 'gap', 'accuracy', 'learning_rate_sum', 'schedule', 'updates', 'learning_rate', 'optimum', 'distance'),
    *('lines', 'sharpness', 'gradient_norm'),
)


class UserError(ValueError):
    """Bad input: one line that names the field, the value and what is allowed. `launch.py` exits with code 2."""


def default() -> ConfigDict:
    """Every field with its default. Experiment files change some of them, `--config.FIELD=VALUE` any of them."""
    config = ConfigDict()
    config.name = 'study'  # names the default workdir, runs/<name>
    # The dataset.
    config.dataset = 'mnist'  # mnist (packaged) | idx:FOLDER | tfds:NAME
    config.validation = 0.0  # share of the training split held out for everything that selects
    config.data_seed = 0  # shuffles the training split before `validation` and `subset` take their parts
    config.mean = ()  # of the pixels on a scale from 0 to 1, one value or one a channel; (): from the training split
    config.std = ()  # likewise

    # What every recipe has unless `sweep` or `recipes` give it another value. First, its data:
    config.subset = placeholder(int)  # train on this many examples, after a seeded shuffle; unset: on all of them
    config.label_noise = 0.0  # share of the training labels that are changed to another class, seeded
    config.label_smoothing = 0.0  # share of the target probability that is spread over all classes, in training
    # Its model:
    config.model = 'mlp'  # mlp | cnn | module:Class, a Flax NNX module of your own
    config.hidden = (1024, 1024)  # width of each dense hidden layer (mlp, cnn)
    config.channels = (32, 64)  # of each convolution (cnn)
    config.batch_norm = False  # batch normalization before each ReLU (mlp, cnn)
    config.ghost_batch = 0  # take its statistics over parts of this many examples; 0: over the whole batch
    config.model_arguments = ConfigDict()  # keyword arguments of your own module
    # Its optimizer, from Optax:
    config.optimizer = 'sgd'  # sgd | adam | adamw | lars | lamb
    config.momentum = 0.0  # sgd, lars
    config.nesterov = False  # sgd, lars
    config.beta1 = 0.9  # adam, adamw, lamb
    config.beta2 = 0.999
    config.weight_decay = 0.0  # sgd, adam: added to the gradient (L2); adamw, lars, lamb: as their papers have it
    config.clip = 0.0  # the gradient's norm is clipped to this; 0: not at all
    # Its schedule, from here on, or `stages` in `recipes`:
    config.schedule = (
        'constant'  # constant | cosine | warm_up | decay_learning_rate | grow_batch | hybrid | switch_batch
    )
    config.batch_size = 64  # at the start
    config.learning_rate = 0.01  # at the start; after the warm-up
    config.epochs = 30.0  # its length: exactly one of epochs, updates and examples; the others are 0
    config.updates = 0
    config.examples = 0
    config.milestones = ()  # where the batch or the learning rate changes, in the unit of the length
    config.factor = 5.0  # by which the learning rate falls, or the batch grows, at each milestone
    config.cap = 0  # grow_batch, hybrid: the batch does not grow beyond; the learning rate falls instead; 0: no cap
    config.switch_to = ()  # switch_batch: the batch size from each milestone on
    config.warm_up = 0.0  # warm_up: its length, in the unit of the length
    config.warm_up_start = 0.0  # warm_up: the learning rate at its start
    config.base_batch_size = 0  # what the three rules below compare the batch size with
    config.scaling = 'none'  # of the learning rate with the batch size: none | linear | sqrt
    config.beta_scaling = 'none'  # of beta1 and beta2 with the batch size: none | malladi | half_life
    config.adapt_regime = False  # multiply all lengths by batch size / base: about equal updates (not for updates)
    config.evaluate_epochs = 1.0  # how many epochs pass between evaluations
    config.evaluate_updates = 0  # or how many updates, if above 0

    # Recipes. `sweep` crosses the values of any of the fields above; `recipes` adds single ones by name, each with the
    # fields in which it differs: {'grow': {'schedule': 'grow_batch', 'milestones': (10, 20)}}. In place of a schedule
    # it may have a table of stages: {'mine': {'stages': ({'epochs': 2, 'batch_size': 64, 'learning_rate': 0.1},
    # {'updates': 100, 'batch_size': 256, 'multiplier': 0.5, 'rule': 'cosine', 'momentum': 0.9})}}.
    config.sweep = ConfigDict(dict.fromkeys(RECIPE_FIELDS, ()))
    config.recipes = ConfigDict()
    config.seeds = 3  # each recipe is trained with the seeds 0 … seeds − 1

    # What is made of the runs.
    config.claims = ConfigDict()  # by name; bsgap/claims.py says what a claim has
    config.finding = ''  # a paragraph for the report; {NAME} stands for what was measured for a claim
    config.figures = ('curves', 'gap', 'accuracy', 'learning_rate_sum')  # of bsgap/plots.py
    config.measurements = ()  # at the end of each run: sharpness | top_eigenvalue | gradient_norm
    config.lines = ()  # pairs of recipes between whose solutions the loss is measured: (('bs256', 'bs6000'),)

    # How it is computed.
    config.max_physical_batch = 4096  # a larger batch is accumulated from equal parts of at most this size
    config.precision = 'float32'  # of matrix products: float32 | tensorfloat32 | bfloat16
    config.across_runs = 'auto'  # a cohort's runs: vmap (side by side) | map (in turn) | auto (map on CPU, else vmap)
    config.segment_seconds = 1.0  # how long the compiled program works between two looks at the clock
    config.checkpoint_seconds = 30.0  # save a cohort when this long has passed since it was saved
    return config


class Architecture(NamedTuple):
    """What of a recipe decides its model; the fields are `default`'s."""

    model: str
    hidden: tuple[int, ...]
    channels: tuple[int, ...]
    batch_norm: bool
    ghost_batch: int
    arguments: tuple[tuple[str, Any], ...]

    @property
    def text(self) -> str:
        """In a few words."""
        if ':' in self.model:
            return ' '.join([self.model, *(f'{key}={value}' for key, value in self.arguments)])
        widths = (*self.channels, *self.hidden) if self.model == 'cnn' else self.hidden
        norm = (f', ghost batch norm {self.ghost_batch}' if self.ghost_batch else ', batch norm') * self.batch_norm
        return f'{self.model.upper()} {"-".join(map(str, widths))}{norm}'


class Kind(NamedTuple):
    """What of an optimizer decides the compiled program: its name and the parts that it has."""

    name: str
    momentum: bool
    nesterov: bool
    clip: bool


class Variant(NamedTuple):
    """What of a recipe decides its training examples; the fields are `default`'s."""

    subset: int | None
    label_noise: float


@dataclasses.dataclass(frozen=True)
class Data:
    """Which examples there are and how to scale them; the fields are `default`'s."""

    dataset: str
    validation: float
    data_seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run is trained."""

    name: str
    stages: tuple[Stage, ...]
    variant: Variant
    architecture: Architecture
    kind: Kind
    weight_decay: float
    clip: float
    label_smoothing: float
    evaluate_epochs: float
    evaluate_updates: int
    fields: tuple[tuple[str, Any], ...]  # as they were given


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked configuration: recipes × seeds on a dataset, and what is made of them; the fields are `default`'s."""

    name: str
    data: Data
    recipes: tuple[Recipe, ...]
    seeds: int
    claims: Mapping[str, Any]
    finding: str
    figures: tuple[str, ...]
    measurements: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    max_physical_batch: int
    precision: str
    across_runs: Literal['auto', 'vmap', 'map']
    segment_seconds: float
    checkpoint_seconds: float


# What may differ between two launches on one workdir: the runs that are wanted, what is made of them, and what changes
# rounding at most. What a recipe is, its run.json says.
FREE_FIELDS = (
    *('name', 'recipes', 'seeds', 'claims', 'finding', 'figures', 'measurements', 'lines'),
    *('across_runs', 'segment_seconds', 'checkpoint_seconds'),
)

Check = Callable[[str, Any], Any]


def number(field: str, value: Any, allowed: str, ok: Callable[[Any], bool], whole: bool = False) -> Any:
    """Returns `value` as a float, or as an int if `whole`; raises UserError unless it is finite and `ok`."""
    real: Any = value if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if abs(real) < MOST and ok(real):
        if not whole:
            return float(real)
        if real == int(real):
            return int(real)
    raise UserError(f'config.{field}: {value!r} is not allowed; it must be {allowed}')


def numeric(allowed: str, ok: Callable[[Any], bool], whole: bool = False) -> Check:
    return lambda field, value: number(field, value, allowed, ok, whole)


def one_of(allowed: Iterable[str]) -> Check:
    def check(field: str, value: Any) -> Any:
        if value not in allowed:
            raise UserError(f'config.{field}: {value!r} is not known; it must be one of {", ".join(allowed)}')
        return value

    return check


def tuple_of(check: Check) -> Check:
    def checked(field: str, given: Any) -> tuple[Any, ...]:
        if not isinstance(given, tuple | list):
            raise UserError(f'config.{field}: {given!r} is not allowed; it must be a tuple, such as (64,)')
        # The command line has no other word for an empty tuple than an empty string.
        return tuple(check(field, value) for value in given) if tuple(given) != ('',) else ()

    return checked


def boolean(field: str, value: Any) -> bool:
    return one_of((True, False))(field, value)  # type: ignore[arg-type]


def text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f'config.{field}: {value!r} is not allowed; it must be a text')
    return value


def name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r'\w[\w.-]*', value):
        raise UserError(
            f'config.{field}: {value!r} is not allowed; a name is letters, digits, "_", and then "." and "-"'
        )
    return value


def mapping(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping | ConfigDict):
        raise UserError(f'config.{field}: {value!r} is not allowed; it must map names to values')
    return value.to_dict() if isinstance(value, ConfigDict) else dict(value)


def pair(field: str, value: Any) -> tuple[str, str]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UserError(f"config.{field}: {value!r} is not allowed; it must be a pair of recipes, ('bs256', 'bs6000')")
    return text(field, value[0]), text(field, value[1])


count = numeric('a whole number of at least 1', lambda v: v >= 1, whole=True)
count_or_0 = numeric('a whole number of at least 0', lambda v: v >= 0, whole=True)
at_least_0 = numeric('a number of at least 0', lambda v: v >= 0)
above_0 = numeric('a number above 0', lambda v: v > 0)
share = numeric('a number of at least 0 and below 1', lambda v: 0 <= v < 1)
batch_size = numeric('a whole number from 1 to the number of training examples', lambda v: v >= 1, whole=True)

RECIPE_FIELDS: Mapping[str, Check] = {
    'batch_size': batch_size,
    'learning_rate': at_least_0,
    'momentum': share,
    'weight_decay': at_least_0,
    'subset': lambda field, value: None if value is None else count(field, value),
    'label_noise': numeric('a share from 0 to 1', lambda v: 0 <= v <= 1),
    'label_smoothing': share,
    'model': text,
    'hidden': tuple_of(count),
    'channels': tuple_of(count),
    'batch_norm': boolean,
    'ghost_batch': count_or_0,
    'model_arguments': lambda field, value: tuple(sorted(mapping(field, value).items())),
    'optimizer': one_of(OPTIMIZERS),
    'nesterov': boolean,
    'beta1': share,
    'beta2': share,
    'clip': at_least_0,
    'schedule': one_of(schedule.SCHEDULES),
    'epochs': at_least_0,
    'updates': count_or_0,
    'examples': count_or_0,
    'milestones': tuple_of(above_0),
    'factor': numeric('a number above 1', lambda v: v > 1),
    'cap': count_or_0,
    'switch_to': tuple_of(batch_size),
    'warm_up': at_least_0,
    'warm_up_start': at_least_0,
    'base_batch_size': count_or_0,
    'scaling': one_of(SCALINGS),
    'beta_scaling': one_of(BETA_SCALINGS),
    'adapt_regime': boolean,
    'evaluate_epochs': above_0,
    'evaluate_updates': count_or_0,
}
OF_A_SCHEDULE = (
    *('schedule', 'batch_size', 'learning_rate', 'epochs', 'updates', 'examples', 'milestones', 'factor', 'cap'),
    *('switch_to', 'warm_up', 'warm_up_start', 'scaling', 'adapt_regime'),
)
# How the names of recipes abbreviate the fields that they show.
SHORT = {
    'batch_size': 'bs',
    'learning_rate': 'lr',
    'momentum': 'm',
    'weight_decay': 'wd',
    'subset': 'n',
    'label_noise': 'noise',
    'hidden': 'h',
}


def resolve(config: ConfigDict) -> Study:
    """Checks every field of `config` and returns the study it describes.

    Raises:
      UserError: a field is missing, unknown, or has a value that is not allowed.
    """
    from bsgap import claims  # which raises UserErrors itself

    known = default()
    _same_fields('', config, known)
    _same_fields('sweep.', config.sweep, known.sweep)
    study_claims = mapping('claims', config.claims)
    for claim in study_claims:
        claims.check(claim, study_claims[claim])
    claims.check_finding(text('finding', config.finding), study_claims)
    physical = count('max_physical_batch', config.max_physical_batch)
    recipes = _recipes(config)
    for recipe in recipes:
        whole = recipe.architecture.batch_norm and not recipe.architecture.ghost_batch
        if whole and (largest := max(stage.batch_size for stage in recipe.stages)) > physical:
            raise UserError(
                f'config.max_physical_batch: {physical} is not allowed (recipe {recipe.name}); batch normalization over'
                f' a whole batch must be at least {largest}, or set ghost_batch'
            )
    return Study(
        name=name('name', config.name),
        data=Data(
            dataset=text('dataset', config.dataset),
            validation=share('validation', config.validation),
            data_seed=count_or_0('data_seed', config.data_seed),
            mean=tuple_of(numeric('a number', lambda _: True))('mean', config.mean),
            std=tuple_of(above_0)('std', config.std),
        ),
        recipes=recipes,
        seeds=count('seeds', config.seeds),
        claims=study_claims,
        finding=config.finding,
        figures=tuple_of(one_of(FIGURES))('figures', config.figures),
        measurements=tuple_of(one_of(MEASUREMENTS))('measurements', config.measurements),
        lines=tuple_of(pair)('lines', config.lines),
        max_physical_batch=physical,
        precision=one_of(PRECISIONS)('precision', config.precision),
        across_runs=one_of(ACROSS_RUNS)('across_runs', config.across_runs),
        segment_seconds=above_0('segment_seconds', config.segment_seconds),
        checkpoint_seconds=at_least_0('checkpoint_seconds', config.checkpoint_seconds),
    )


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


def _recipes(config: ConfigDict) -> tuple[Recipe, ...]:
    """The sweep's recipes, then those with names; the base alone if there are neither."""
    base = {field: check(field, config[field]) for field, check in RECIPE_FIELDS.items()}
    axes = {field: tuple_of(check)(f'sweep.{field}', config.sweep[field]) for field, check in RECIPE_FIELDS.items()}
    axes = {field: values for field, values in axes.items() if values}
    tables = mapping('recipes', config.recipes)
    recipes = [
        _recipe(_swept_name(base, swept := dict(zip(axes, values, strict=True))), 'sweep.', base, swept)
        for values in itertools.product(*axes.values())
        if axes or not tables
    ]
    for label in sorted(tables):
        field = f'recipes.{name("recipes", label)}'
        changes = mapping(field, tables[label])
        _same_fields(f'{field}.', {**base, **changes}, {**base, 'stages': ()} if 'stages' in changes else base)
        checked = {key: RECIPE_FIELDS[key](f'{field}.{key}', changes[key]) for key in changes if key != 'stages'}
        recipes.append(_recipe(label, f'{field}.', base, checked, changes.get('stages')))
    names = [recipe.name for recipe in recipes]
    if twice := sorted({label for label in names if names.count(label) > 1}):
        raise UserError(f'config.sweep: {", ".join(twice)} is listed twice; each recipe must be given once')
    return tuple(recipes)


def _swept_name(base: dict[str, Any], swept: dict[str, Any]) -> str:
    """A name that depends on nothing but the recipe's own values, so that it stays when the sweep grows."""
    fields = {**base, **swept}
    shown = [key for key in RECIPE_FIELDS if key in ('batch_size', 'learning_rate') or fields[key] != base[key]]
    return '-'.join(SHORT.get(key, key.replace('_', '')) + _plain(fields[key]) for key in shown)


def _plain(value: Any) -> str:
    """A value as a part of a name."""
    if isinstance(value, tuple):
        return 'x'.join(map(_plain, value))
    return f'{value:.12g}' if isinstance(value, float) else re.sub(r'[^\w.]+', '.', str(value))


def _recipe(label: str, where: str, base: dict[str, Any], changes: dict[str, Any], table: Any = None) -> Recipe:
    """Makes a recipe of checked fields; `where` is what to put before a field's name in an error."""
    fields = {**base, **changes}
    if any(unit in changes for unit in schedule.UNITS):  # a length of its own replaces the base's
        fields.update({unit: changes.get(unit, 0) for unit in schedule.UNITS})
    if table is None:
        stages = _scheduled(where, fields)
    else:
        if not isinstance(table, tuple | list) or not table:
            raise UserError(f'config.{where}stages: {table!r} is not allowed; it must be a tuple of at least one stage')
        if unused := set(changes) & set(OF_A_SCHEDULE):
            raise UserError(f'config.{where}{min(unused)}: is not used beside stages; leave it out')
        stages = _table(f'{where}stages', table, fields['momentum'])
        fields = {key: value for key, value in fields.items() if key not in OF_A_SCHEDULE}
    momentum = max(stage.momentum for stage in stages)
    if momentum and fields['optimizer'] not in WITH_MOMENTUM:
        raise UserError(
            f'config.{where}momentum: {momentum} is not allowed with {fields["optimizer"]}, which has beta1'
        )
    return Recipe(
        name=label,
        stages=tuple(dataclasses.replace(stage, **_betas(where, fields, stage.batch_size)) for stage in stages),
        variant=Variant(fields['subset'], fields['label_noise']),
        architecture=Architecture(
            fields['model'],
            fields['hidden'],
            fields['channels'],
            fields['batch_norm'],
            fields['ghost_batch'],
            fields['model_arguments'],
        ),
        kind=Kind(fields['optimizer'], momentum > 0, fields['nesterov'], fields['clip'] > 0),
        weight_decay=fields['weight_decay'],
        clip=fields['clip'],
        label_smoothing=fields['label_smoothing'],
        evaluate_epochs=fields['evaluate_epochs'],
        evaluate_updates=fields['evaluate_updates'],
        fields=tuple(fields.items()),
    )


def _base(where: str, fields: dict[str, Any], rule: str) -> int:
    """The batch size that a rule compares with."""
    if not fields['base_batch_size']:
        raise UserError(
            f'config.{where}base_batch_size: 0 is not allowed with {rule}; give the batch size it scales from'
        )
    return fields['base_batch_size']


def _scheduled(where: str, fields: dict[str, Any]) -> tuple[Stage, ...]:
    """Expands a named schedule."""
    given = [unit for unit in schedule.UNITS if fields[unit]]
    if len(given) != 1:
        raise UserError(
            f'config.{where}epochs: {len(given)} of {", ".join(schedule.UNITS)} are above 0; exactly one must be'
        )
    (unit,) = given
    size, rate, stretch = fields['batch_size'], fields['learning_rate'], 1.0
    if fields['scaling'] != 'none':
        ratio = size / _base(where, fields, f'scaling={fields["scaling"]}')
        rate *= ratio if fields['scaling'] == 'linear' else math.sqrt(ratio)
    if fields['adapt_regime']:
        if unit == 'updates':
            raise UserError(
                f'config.{where}adapt_regime: True is not allowed with updates, which are equal as they are'
            )
        stretch = size / _base(where, fields, 'adapt_regime')
    plan = Plan(
        size,
        rate,
        stretch * fields[unit],
        unit,
        milestones=tuple(stretch * milestone for milestone in fields['milestones']),
        factor=fields['factor'],
        cap=fields['cap'] or None,
        switch_to=fields['switch_to'],
        warm_up=stretch * fields['warm_up'],
        warm_up_start=fields['warm_up_start'],
    )
    made = fields['schedule']
    if made in ('decay_learning_rate', 'grow_batch', 'hybrid', 'switch_batch'):
        edges = (0, *plan.milestones, plan.length)
        if len(edges) < 3 or any(first >= last for first, last in itertools.pairwise(edges)):
            raise UserError(
                f'config.{where}milestones: {fields["milestones"]} is not allowed; {made} needs ascending ones below'
                f' the length, {fields[unit]:g} {unit}'
            )
    if made == 'switch_batch' and len(plan.switch_to) != len(plan.milestones):
        raise UserError(f'config.{where}switch_to: {plan.switch_to} is not allowed; give one batch size a milestone')
    if made == 'warm_up' and not 0 < plan.warm_up < plan.length:
        raise UserError(
            f'config.{where}warm_up: {fields["warm_up"]:g} is not allowed; it must be above 0 and below the length,'
            f' {fields[unit]:g} {unit}'
        )
    stages = schedule.SCHEDULES[made](plan)
    return tuple(dataclasses.replace(stage, momentum=fields['momentum']) for stage in stages)


def _betas(where: str, fields: dict[str, Any], size: int) -> dict[str, Any]:
    """β₁ and β₂ at a batch size, k times the base.

    malladi: β → 1 − k(1 − β), both (Malladi et al. 2022, 2205.10287; its ε rule is `scaling='sqrt'`); half_life:
    β₂ → β₂^k, so that the second moment forgets after as many examples (Marek et al. 2025, 2507.07101).
    """
    betas = {key: fields[key] for key in ('beta1', 'beta2')}
    if (rule := fields['beta_scaling']) == 'none':
        return betas
    ratio = size / _base(where, fields, f'beta_scaling={rule}')
    if rule == 'half_life':
        return {**betas, 'beta2': betas['beta2'] ** ratio}
    scaled = {key: 1 - ratio * (1 - beta) for key, beta in betas.items()}
    if min(scaled.values()) < 0:
        raise UserError(
            f'config.{where}beta_scaling: malladi is not allowed at batch size {size}; {ratio:g} times the base makes'
            f' beta1 or beta2 negative'
        )
    return scaled


def _table(field: str, table: Iterable[Any], momentum: float) -> tuple[Stage, ...]:
    """Reads a table of stages that is written out."""
    stages: list[Stage] = []
    for i, row in enumerate(table):
        stages.append(_stage(f'{field}[{i}]', row, momentum, stages[-1] if stages else None))
    return tuple(stages)


def _stage(field: str, given: Any, momentum: float, before: Stage | None) -> Stage:
    row = mapping(field, given)
    units = [unit for unit in schedule.UNITS if unit in row]
    if len(units) != 1:
        raise UserError(
            f'config.{field}: a stage needs exactly one of {", ".join(schedule.UNITS)}; it has {len(units)}'
        )
    (unit,) = units
    known = {unit, 'batch_size', 'learning_rate', 'multiplier', 'rule', 'final_learning_rate', 'momentum'}
    if unknown := set(row) - known:
        raise UserError(f'config.{field}.{min(unknown)}: unknown field; known: {", ".join(sorted(known))}')
    if 'batch_size' not in row or ('learning_rate' in row) == ('multiplier' in row):
        raise UserError(f'config.{field}: a stage needs batch_size, and one of learning_rate and multiplier')
    if 'multiplier' in row:
        if before is None:
            raise UserError(f'config.{field}.multiplier: is not allowed in the first stage; give learning_rate')
        last = before.learning_rate if before.rule == 'constant' else before.final_learning_rate
        rate = last * at_least_0(f'{field}.multiplier', row['multiplier'])
    else:
        rate = at_least_0(f'{field}.learning_rate', row['learning_rate'])
    return Stage(
        batch_size(f'{field}.batch_size', row['batch_size']),
        rate,
        (above_0 if unit == 'epochs' else count)(f'{field}.{unit}', row[unit]),
        unit,
        one_of(schedule.RULES)(f'{field}.rule', row.get('rule', 'constant')),
        at_least_0(f'{field}.final_learning_rate', row.get('final_learning_rate', 0.0)),
        share(f'{field}.momentum', row.get('momentum', momentum)),
    )
