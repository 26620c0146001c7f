"""Recipes: from the fields that a user gives to the stages, the model and the optimizer that a run is trained with."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bsgap.config import schedule
from bsgap.config.checks import (
    WHOLE,
    Check,
    above_0,
    at_least_0,
    batch_size,
    count,
    hashable,
    mapping,
    one_of,
    require,
    share,
)
from bsgap.config.schedule import Plan, Stage

GROWING = ('grow_batch', 'hybrid')  # which `cap` is for
WITH_MOMENTUM = ('sgd', 'lars')  # the others have beta1 in its place
OF_A_SCHEDULE = (
    *('schedule', 'batch_size', 'learning_rate', 'epochs', 'updates', 'examples', 'milestones', 'factor', 'cap'),
    *('switch_to', 'warm_up', 'warm_up_start', 'scaling', 'adapt_regime'),
)
# What a stage of a table may have, with its check.
OF_A_STAGE: dict[str, Check] = {'epochs': above_0, 'updates': count, 'examples': count}
OF_A_STAGE |= {'batch_size': batch_size, 'rule': one_of(schedule.RULES), 'momentum': share}
OF_A_STAGE |= dict.fromkeys(('learning_rate', 'multiplier', 'final_learning_rate'), at_least_0)
# How the names of recipes abbreviate the fields that they show.
SHORT = {'batch_size': 'bs', 'learning_rate': 'lr', 'momentum': 'm', 'weight_decay': 'wd', 'hidden': 'h'}
SHORT |= {'subset': 'n', 'label_noise': 'noise'}
At = Callable[[str], str]


class Architecture(NamedTuple):
    """What of a recipe decides its model; the fields are `default`'s."""

    model: str
    hidden: tuple[int, ...]
    channels: tuple[int, ...]
    batch_norm: bool
    ghost_batch: int
    arguments: tuple[tuple[str, Any], ...]  # `model_arguments`

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> 'Architecture':
        """That of a recipe's fields, checked or as run.json has them."""
        arguments = sorted(dict(fields['model_arguments']).items())
        return cls(*hashable('model_arguments', [*(fields[name] for name in cls._fields[:-1]), arguments]))

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


class TrainingSet(NamedTuple):
    """What of a recipe decides its training examples; the fields are `default`'s."""

    subset: int
    label_noise: float
    data_seed: int = 0

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> 'TrainingSet':
        """That of a recipe's fields."""
        return cls(*(fields[name] for name in cls._fields))


Examples = Mapping[TrainingSet, int]  # how many there are


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run is trained."""

    name: str
    stages: tuple[Stage, ...]
    training_set: TrainingSet
    architecture: Architecture
    kind: Kind
    weight_decay: float
    clip: float
    label_smoothing: float
    evaluate_epochs: float
    evaluate_updates: int
    evaluate_at: tuple[int, ...]
    evaluate_on: str
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


def sized(value: int | str, fields: Mapping[str, Any], examples: Examples) -> int:
    """A batch size of a recipe with such fields as a number: `whole` is 1, the least that can be, until it is known."""
    return examples.get(TrainingSet.of(fields), 1) if value == WHOLE else int(value)


def make(
    label: str,
    where: str,
    base: dict[str, Any],
    changes: dict[str, Any],
    table: Any = None,
    examples: Examples = MappingProxyType({}),
) -> Recipe:
    """Makes a recipe of checked fields: those of the base, and `changes`, which were given as config.`where`FIELD; or
    with a `table` of stages. `examples` says how large the batch `whole` is."""
    fields = {**base, **changes}
    fields['batch_size'] = sized(fields['batch_size'], fields, examples)
    fields['switch_to'] = tuple(sized(size, fields, examples) for size in fields['switch_to'])

    def at(field: str) -> str:
        """How a field is called in the config."""
        return where + field if field in changes else f'{field} (recipe {label})' if changes else field

    if any(unit in changes for unit in schedule.UNITS):  # a length of its own replaces the base's
        fields.update({unit: changes.get(unit, 0) for unit in schedule.UNITS})
    if table is None:
        stages = _scheduled(at, fields)
    else:
        ok = isinstance(table, tuple | list) and table
        require(ok, f'{where}stages', f'{table!r} is not allowed; it must be a tuple of at least one stage')
        for unused in sorted(set(changes) & set(OF_A_SCHEDULE)):
            require(False, where + unused, 'is not used beside stages; leave it out')
        listed: list[Stage] = []
        for i, row in enumerate(table):
            listed.append(_stage(f'{where}stages[{i}]', row, fields, listed[-1] if listed else None, examples))
        stages = tuple(listed)
        fields = {key: value for key, value in fields.items() if key not in OF_A_SCHEDULE}
    momentum = max(stage.momentum for stage in stages)
    if (optimizer := fields['optimizer']) not in WITH_MOMENTUM:
        require(not momentum, at('momentum'), f'{momentum} is not allowed with {optimizer}, which has beta1')
        require(not fields['nesterov'], at('nesterov'), f'True is not allowed with {optimizer}')
    return Recipe(
        name=label,
        stages=tuple(dataclasses.replace(stage, **_betas(at, fields, stage.batch_size)) for stage in stages),
        training_set=TrainingSet.of(fields),
        architecture=Architecture.of(fields),
        kind=Kind(fields['optimizer'], momentum > 0, fields['nesterov'], fields['clip'] > 0),
        fields=tuple(fields.items()),
        **{field.name: fields[field.name] for field in dataclasses.fields(Recipe) if field.name in fields},
    )


def _base(at: At, fields: dict[str, Any], rule: str) -> int:
    """The batch size that a rule compares with."""
    base = fields['base_batch_size']
    require(base, at('base_batch_size'), f'0 is not allowed with {rule}; give the batch size it scales from')
    return base


def _scheduled(at: At, fields: dict[str, Any]) -> tuple[Stage, ...]:
    """Expands a named schedule."""
    given = [unit for unit in schedule.UNITS if fields[unit]]
    units = ', '.join(schedule.UNITS)
    require(len(given) == 1, at('epochs'), f'{len(given)} of {units} are above 0; exactly one must be')
    (unit,) = given
    size, rate, stretch = fields['batch_size'], fields['learning_rate'], 1.0
    if fields['scaling'] != 'none':
        ratio = size / _base(at, fields, f'scaling={fields["scaling"]}')
        rate *= ratio if fields['scaling'] == 'linear' else math.sqrt(ratio)
    if fields['adapt_regime']:
        equal = 'True is not allowed with updates, which are equal as they are'
        require(unit != 'updates', at('adapt_regime'), equal)
        stretch = size / _base(at, fields, 'adapt_regime')
    milestones, warm_up, cap, made = (fields[field] for field in ('milestones', 'warm_up', 'cap', 'schedule'))
    plan = Plan(
        size,
        rate,
        stretch * fields[unit],
        unit,
        milestones=tuple(stretch * milestone for milestone in milestones),
        warm_up=stretch * warm_up,
        **{field: fields[field] for field in ('factor', 'cap', 'switch_to', 'warm_up_start')},
    )
    edges = (0, *plan.milestones, plan.length)
    ascending = len(edges) > 2 and all(first < last for first, last in itertools.pairwise(edges))
    sizes, length = len(plan.switch_to), f'the length, {fields[unit]:g} {unit}'
    for field, ok, needs in (
        ('milestones', unit == 'epochs' or not any(each % 1 for each in milestones), f'{unit} are whole numbers'),
        ('warm_up', unit == 'epochs' or not warm_up % 1, f'{unit} are whole numbers'),
        ('milestones', made in schedule.RULES or ascending, f'{made} needs ascending ones below {length}'),
        ('cap', made not in GROWING or not cap or cap >= size, f'it must be 0 or at least the batch size, {size}'),
        ('switch_to', made != 'switch_batch' or sizes == len(milestones), 'give one batch size a milestone'),
        ('warm_up', plan.warm_up < plan.length, f'it must be below {length}'),
    ):
        require(ok, at(field), f'{fields[field]} is not allowed; {needs}')
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
    makes = f'{ratio:g} times the base makes beta1 or beta2 negative'
    ok = min(scaled.values()) >= 0
    require(ok, at('beta_scaling'), f'malladi is not allowed at batch size {size}; {makes}')
    return scaled


def _stage(field: str, given: Any, fields: Mapping[str, Any], before: Stage | None, examples: Examples) -> Stage:
    """A stage of a table that is written out, of a recipe with these fields."""
    row = mapping(field, given)
    for key in sorted(row):
        require(key in OF_A_STAGE, f'{field}.{key}', f'unknown field; known: {", ".join(sorted(OF_A_STAGE))}')
    row = {key: OF_A_STAGE[key](f'{field}.{key}', value) for key, value in row.items()}
    units = [unit for unit in schedule.UNITS if unit in row]
    needs = f'a stage needs exactly one of {", ".join(schedule.UNITS)}; it has {len(units)}'
    require(len(units) == 1, field, needs)
    ok = 'batch_size' in row and ('learning_rate' in row) != ('multiplier' in row)
    require(ok, field, 'a stage needs batch_size, and one of learning_rate and multiplier')
    if 'multiplier' in row:
        require(before, f'{field}.multiplier', 'is not allowed in the first stage; give learning_rate')
        assert before
        last = before.learning_rate if before.rule == 'constant' else before.final_learning_rate
        row['learning_rate'] = last * row.pop('multiplier')
    row['batch_size'] = sized(row['batch_size'], fields, examples)
    (unit,) = units
    return Stage(**{'momentum': fields['momentum'], 'unit': unit, 'length': row.pop(unit), **row})
