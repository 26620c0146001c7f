"""Recipes: from the fields that a user gives to the stages, the model and the optimizer that a run is trained with."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bsgap import schedule
from bsgap.check import (
    UserError,
    above_0,
    at_least_0,
    batch_size,
    count,
    mapping,
    one_of,
    share,
)
from bsgap.schedule import Plan, Stage

WITH_MOMENTUM = ('sgd', 'lars')  # the others have beta1 in its place
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


At = Callable[[str], str]


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
    evaluate_at: tuple[int, ...]
    validate_at: tuple[int, ...]
    noise_scale: bool
    fields: tuple[tuple[str, Any], ...]  # as they were given


def swept_name(base: dict[str, Any], swept: dict[str, Any]) -> str:
    """A name that depends on nothing but the recipe's own values, so that it stays when the sweep grows."""
    fields = {**base, **swept}
    shown = [key for key in fields if key in ('batch_size', 'learning_rate') or fields[key] != base[key]]
    return '-'.join(SHORT.get(key, key.replace('_', '')) + _plain(fields[key]) for key in shown)


def _plain(value: Any) -> str:
    """A value as a part of a name."""
    if isinstance(value, tuple):
        return 'x'.join(map(_plain, value))
    return f'{value:.12g}' if isinstance(value, float) else re.sub(r'[^\w.]+', '.', str(value))


def make(label: str, where: str, base: dict[str, Any], changes: dict[str, Any], table: Any = None) -> Recipe:
    """Makes a recipe of checked fields: those of the base, and `changes`, which were given as config.`where`FIELD."""
    fields = {**base, **changes}

    def at(field: str) -> str:
        """How a field is called in the config."""
        return where + field if field in changes else f'{field} (recipe {label})' if changes else field

    if any(unit in changes for unit in schedule.UNITS):  # a length of its own replaces the base's
        fields.update({unit: changes.get(unit, 0) for unit in schedule.UNITS})
    if table is None:
        stages = _scheduled(at, fields)
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
            f'config.{at("momentum")}: {momentum} is not allowed with {fields["optimizer"]}, which has beta1'
        )
    if fields['nesterov'] and fields['optimizer'] not in WITH_MOMENTUM:
        raise UserError(f'config.{at("nesterov")}: True is not allowed with {fields["optimizer"]}')
    return Recipe(
        name=label,
        stages=tuple(dataclasses.replace(stage, **_betas(at, fields, stage.batch_size)) for stage in stages),
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
        evaluate_at=fields['evaluate_at'],
        validate_at=fields['validate_at'],
        noise_scale=fields['noise_scale'],
        fields=tuple(fields.items()),
    )


def _base(at: At, fields: dict[str, Any], rule: str) -> int:
    """The batch size that a rule compares with."""
    if not fields['base_batch_size']:
        raise UserError(
            f'config.{at("base_batch_size")}: 0 is not allowed with {rule}; give the batch size it scales from'
        )
    return fields['base_batch_size']


def _scheduled(at: At, fields: dict[str, Any]) -> tuple[Stage, ...]:
    """Expands a named schedule."""
    given = [unit for unit in schedule.UNITS if fields[unit]]
    if len(given) != 1:
        raise UserError(
            f'config.{at("epochs")}: {len(given)} of {", ".join(schedule.UNITS)} are above 0; exactly one must be'
        )
    (unit,) = given
    size, rate, stretch = fields['batch_size'], fields['learning_rate'], 1.0
    if fields['scaling'] != 'none':
        ratio = size / _base(at, fields, f'scaling={fields["scaling"]}')
        rate *= ratio if fields['scaling'] == 'linear' else math.sqrt(ratio)
    if fields['adapt_regime']:
        if unit == 'updates':
            raise UserError(
                f'config.{at("adapt_regime")}: True is not allowed with updates, which are equal as they are'
            )
        stretch = size / _base(at, fields, 'adapt_regime')
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
    for field in ('milestones', 'warm_up'):
        lengths = fields[field] if field == 'milestones' else (fields[field],)
        if unit != 'epochs' and any(length % 1 for length in lengths):
            raise UserError(f'config.{at(field)}: {fields[field]} is not allowed; {unit} are whole numbers')
    if made in ('decay_learning_rate', 'grow_batch', 'hybrid', 'switch_batch'):
        edges = (0, *plan.milestones, plan.length)
        if len(edges) < 3 or any(first >= last for first, last in itertools.pairwise(edges)):
            raise UserError(
                f'config.{at("milestones")}: {fields["milestones"]} is not allowed; {made} needs ascending ones below'
                f' the length, {fields[unit]:g} {unit}'
            )
    if made in ('grow_batch', 'hybrid') and fields['cap'] and fields['cap'] < size:
        raise UserError(
            f'config.{at("cap")}: {fields["cap"]} is not allowed; it must be 0 or at least the batch size, {size}'
        )
    if made == 'switch_batch' and len(plan.switch_to) != len(plan.milestones):
        raise UserError(f'config.{at("switch_to")}: {plan.switch_to} is not allowed; give one batch size a milestone')
    if made == 'warm_up' and not 0 < plan.warm_up < plan.length:
        raise UserError(
            f'config.{at("warm_up")}: {fields["warm_up"]:g} is not allowed; it must be above 0 and below the length,'
            f' {fields[unit]:g} {unit}'
        )
    stages = schedule.SCHEDULES[made](plan)
    return tuple(dataclasses.replace(stage, momentum=fields['momentum']) for stage in stages)


def _betas(at: At, fields: dict[str, Any], size: int) -> dict[str, Any]:
    """β₁ and β₂ at a batch size, k times the base.

    malladi: β → 1 − k(1 − β), both (Malladi et al. 2022, 2205.10287; its ε rule is `scaling='sqrt'`); half_life:
    β₂ → β₂^k, so that the second moment forgets after as many examples (Marek et al. 2025, 2507.07101).
    """
    betas = {key: fields[key] for key in ('beta1', 'beta2')}
    if (rule := fields['beta_scaling']) == 'none':
        return betas
    ratio = size / _base(at, fields, f'beta_scaling={rule}')
    if rule == 'half_life':
        return {**betas, 'beta2': betas['beta2'] ** ratio}
    scaled = {key: 1 - ratio * (1 - beta) for key, beta in betas.items()}
    if min(scaled.values()) < 0:
        raise UserError(
            f'config.{at("beta_scaling")}: malladi is not allowed at batch size {size}; {ratio:g} times the base makes'
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
