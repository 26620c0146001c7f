"""Which runs are trained next, when the answer is searched for: a generator of rounds.

The first rounds search the learning rate of each batch size by successive halving; the others train what the answer
needs besides: moments at which the noise scale is measured, branches from them, a batch that grows, fresh seeds. What a
round trains is a function of the rows of the rounds before, so a search that was killed goes on as it was: its rounds
are gone through again, and what they need is there. `search.json` says what was decided; metrics.csv says why.

The schedules are constant, so that a run's first updates are the whole of a shorter run: each budget is read off at
the update where it ends.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bsgap import answer, cluster, config, metrics, recipe, schedule
from bsgap import study as study_lib
from bsgap.study import Goal, Run

UNITS = ('epochs', 'updates', 'seconds')  # of a budget
VALIDATION_RATIO = 1.25  # from one evaluation on validation data to the next, in updates
FIRST_VALIDATION = 1e-3  # of a run's updates
BRANCH_SHARE = 0.5  # of the examples that a trunk has seen, a branch sees
BRANCH_UPDATES = 4  # at least, in a branch


class Key(NamedTuple):
    """What the learning rate is searched for."""

    batch_size: int
    momentum: float


@dataclasses.dataclass
class Decisions:
    """search.json: the budgets and the updates at which they end, what each rung kept, and which runs were stopped."""

    target: float
    budgets: dict[str, float]
    updates: dict[str, dict[str, int]]
    seconds_per_update: dict[str, float]
    device: str  # that these times are of
    reference: float
    rungs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    stopped: list[str] = dataclasses.field(default_factory=list)
    recipes: list[str] = dataclasses.field(default_factory=list)  # of the later rounds


def rounds(
    study: config.Study,
    search: config.Search,
    n: int,
    seconds_per_update: Callable[[Run], float],
    workdir: Path,
    write: bool = True,
) -> Iterator[list[Goal]]:
    """Yields the goals of each round, once those of the round before are reached in `workdir`.

    `n` is the number of training examples; `seconds_per_update` measures a run's. Decisions are written if `write`.
    """
    return _Rounds(study, search, n, seconds_per_update, workdir, write).all()


def trunks(study: config.Study, search: config.Search, n: int, workdir: Path) -> list[Run]:
    """The runs of a finished search that end at the moments at which the noise scale is measured."""
    rounds = _Rounds(study, search, n, lambda _: math.nan, workdir, write=False)
    return rounds._seeded(rounds._trunks())


class _Rounds:
    def __init__(
        self,
        study: config.Study,
        search: config.Search,
        n: int,
        seconds_per_update: Callable[[Run], float],
        workdir: Path,
        write: bool,
    ) -> None:
        self.study, self.search, self.n, self.workdir = study, search, n, workdir
        self.path, self.writes = workdir / 'search.json', write and not cluster.index()
        with cluster.first_goes_first() if write else contextlib.nullcontext():  # others read what it measures
            self.decisions = self._budgets(seconds_per_update)
            self.write()

    def all(self) -> Iterator[list[Goal]]:
        yield from self._halving()
        trunks = self._trunks()
        others = [*self._branches(trunks), *self._grow(), *self._fresh()]
        later = [made.name for made in trunks] + [goal.run.recipe.name for goal in others]
        self.decisions.recipes = list(dict.fromkeys(later))
        self.write()
        yield [Goal(run, run.updates) for run in self._seeded(trunks)]
        yield others

    def write(self) -> None:
        """Writes search.json, unless it has decisions that are still to be gone through again."""
        if not self.writes:
            return
        if not self.path.exists() or len(self.decisions.rungs) >= len(study_lib.read_json(self.path).get('rungs', ())):
            study_lib.write_json(self.path, dataclasses.asdict(self.decisions))

    @functools.cached_property
    def found(self) -> dict[str, Any]:
        """The answer once the halving is over; later rounds add to it and change nothing of it."""
        about = study_lib.read_json(self.workdir / 'study.json')
        return answer.find(about, dataclasses.asdict(self.decisions), metrics.read_runs(self.workdir))

    def _budgets(self, measure: Callable[[Run], float]) -> Decisions:
        """The budgets and where they end; an update's time is measured once for a workdir."""
        search = self.search
        before = study_lib.read_json(self.path, 'seconds_per_update') if self.path.exists() else {}
        times = dict(before.get('seconds_per_update', {}))
        for size in search.batch_sizes:
            if str(size) not in times:
                an_epoch = {'epochs': 1.0, 'updates': 0, 'examples': 0}
                fields = {'batch_size': size, 'learning_rate': search.learning_rates[0], **an_epoch}
                times[str(size)] = measure(Run(self._made(f'bs{size}', fields), 0, self.n))
        middle = search.batch_sizes[(len(search.batch_sizes) - 1) // 2]
        epochs = {str(size): self._updates_in(size, search.budget_epochs) for size in search.batch_sizes}
        budgets = before.get('budgets') or {
            'epochs': search.budget_epochs,
            'updates': search.budget_updates or epochs[str(middle)],
            'seconds': search.budget_seconds or epochs[str(middle)] * times[str(middle)],
        }
        updates = {
            'epochs': epochs,
            'updates': dict.fromkeys(epochs, budgets['updates']),
            'seconds': {label: max(1, int(budgets['seconds'] / times[label])) for label in epochs},
        }
        for label in epochs:
            if max(ends[label] for ends in updates.values()) < 2:
                raise config.UserError(
                    f'config.search.budget_epochs: {search.budget_epochs:g} is not allowed; no budget leaves batch size'
                    f' {label} more than one update'
                )
        device = before.get('device') or jax.devices()[0].device_kind
        decided = Decisions(search.target, budgets, updates, times, device, search.base['learning_rate'])
        return dataclasses.replace(decided, recipes=before.get('recipes', []))

    def _updates_in(self, batch_size: int, epochs: float) -> int:
        return schedule.updates_between(0, max(1, round(epochs * self.n)), batch_size, self.n)

    def _made(self, name: str, changes: Mapping[str, Any], stages: Any = None) -> config.Recipe:
        return recipe.make(name, f'recipes.{name}.', dict(self.search.base), dict(changes), stages)

    def _length(self, batch_size: int) -> int:
        """The updates of a search's run: all that some budget asks for."""
        return max(self.decisions.updates[unit][str(batch_size)] for unit in UNITS)

    def _rung(self, batch_size: int, rung: int) -> int:
        """The update at which a rung stands; the last one is the run's end."""
        return max(2, round(self._length(batch_size) * self.search.keep ** (self.search.rungs - 1 - rung)))

    def _recipe(self, key: Key, learning_rate: float) -> config.Recipe:
        """A constant recipe of the search, for all budgets."""
        size = key.batch_size
        length = self._length(size)
        swept = {'batch_size': size, 'learning_rate': learning_rate, 'momentum': key.momentum}
        first = max(1.0, FIRST_VALIDATION * length)
        steps = int(math.log(length / first, VALIDATION_RATIO)) + 1
        dense = {round(first * VALIDATION_RATIO**i) for i in range(steps)}
        dense |= {self._rung(size, rung) for rung in range(self.search.rungs)}
        fields = {
            **_length(length),
            'evaluate_at': tuple(sorted({self.decisions.updates[unit][str(size)] for unit in UNITS})),
            'validate_at': (0, *sorted(dense)),
            'noise_scale': True,
        }
        return self._made(recipe.swept_name(dict(self.search.base), swept), {**swept, **fields})

    def _seeded(self, recipes: Sequence[config.Recipe]) -> list[Run]:
        return [Run(made, seed, self.n) for made in recipes for seed in range(self.study.seeds)]

    def _halving(self) -> Iterator[list[Goal]]:
        """Successive halving (Jamieson & Talwalkar 2016, 1502.07943), for all batch sizes side by side.

        Where the best of a batch size is at an end of what was tried, the next learning rate beyond it joins, and the
        rung is gone through again. The reference learning rate is never stopped.
        """
        search, reference = self.search, self.search.base['learning_rate']
        keys = [Key(size, momentum) for size in search.batch_sizes for momentum in search.momenta]
        kept = {key: {reference} if key.momentum == search.base['momentum'] else set() for key in keys}
        tried = {key: {*search.learning_rates, *kept[key]} for key in keys}
        alive = {key: set(rates) for key, rates in tried.items()}
        for rung in range(search.rungs):
            widened = True
            while widened:
                yield [
                    Goal(run, self._rung(key.batch_size, rung))
                    for key in keys
                    for run in self._seeded([self._recipe(key, rate) for rate in sorted(alive[key])])
                ]
                errors = self._errors(alive, rung)
                added = {key: beyond(errors[key], tried[key], search, reference) for key in keys}
                for key, rates in added.items():
                    tried[key] |= rates
                    alive[key] |= rates
                widened = any(added.values())
            for key in keys:
                if rung < search.rungs - 1:
                    alive[key] = best(errors[key], search.keep) | kept[key]
                self._note(key, rung, errors[key], alive[key])
            self.write()

    def _errors(self, alive: Mapping[Key, set[float]], rung: int) -> dict[Key, dict[float, float]]:
        """The validation error of each learning rate at a rung, mean over seeds; infinite where one diverged."""
        rows = {record.about['name']: record.rows for record in metrics.read_runs(self.workdir)}
        errors: dict[Key, dict[float, float]] = {}
        for key, rates in alive.items():
            update = self._rung(key.batch_size, rung)
            errors[key] = {}
            for rate in rates:
                runs = self._seeded([self._recipe(key, rate)])
                there = [row for run in runs for row in rows[run.name] if row['update'] == update]
                sound = [1 - row['validation_accuracy'] for row in there if math.isfinite(row['validation_loss'])]
                errors[key][rate] = float(np.mean(sound)) if len(sound) == len(runs) else math.inf
        return errors

    def _note(self, key: Key, rung: int, errors: Mapping[float, float], kept: set[float]) -> None:
        names = {rate: self._recipe(key, rate).name for rate in errors}
        given = {*self.search.learning_rates, self.search.base['learning_rate']}
        self.decisions.rungs.append(
            {
                **key._asdict(),
                'update': self._rung(key.batch_size, rung),
                'errors': {names[rate]: error if error < math.inf else None for rate, error in sorted(errors.items())},
                'kept': [names[rate] for rate in sorted(kept)],
                'added': [names[rate] for rate in sorted(errors) if rate not in given],
            }
        )
        stopped = [self._recipe(key, rate) for rate in sorted(errors) if rate not in kept]
        self.decisions.stopped += [run.name for run in self._seeded(stopped)]

    def _tuned(self) -> dict[int, Mapping[str, Any]]:
        """The recipe that needs the fewest updates to the target, by batch size; those that reach it."""
        points = self.found['to_target']
        return {p['batch_size']: p for p in points if all(run['updates'] is not None for run in p['runs'])}

    def _trunk(self) -> tuple[Mapping[str, Any], float] | None:
        """The tuned point whose batch size is nearest to the critical one (the middle one if that is unknown), and the
        updates that it needs to the target."""
        tuned = {size: point for size, point in self._tuned().items() if size > 1}
        if not tuned:
            return None
        curve = self.found['curve']
        sizes = sorted(tuned)
        centre = curve['b_crit']['value'] if curve else sizes[(len(sizes) - 1) // 2]
        point = tuned[min(sizes, key=lambda size: abs(math.log(size / centre)))]
        return point, float(np.exp(np.mean([math.log(max(1, run['updates'])) for run in point['runs']])))

    def _trunks(self) -> list[config.Recipe]:
        """Recipes that end at the moments at which the noise scale is measured."""
        if (found := self._trunk()) is None:
            return []
        point, updates = found
        moments = sorted({max(2, round(share * updates)) for share in self.search.moments})
        return [self._made(f'moment{update}-{self._name(point)}', _constant(point, update)) for update in moments]

    def _name(self, point: Mapping[str, Any]) -> str:
        return recipe.swept_name(dict(self.search.base), _stage(point))

    def _branches(self, trunks: Sequence[config.Recipe]) -> list[Goal]:
        """From each moment, some examples more at each batch size, at the learning rate that is tuned for it."""
        tuned, goals = self._tuned(), []
        for trunk in trunks:
            (stage,) = trunk.stages
            update = int(stage.length)
            more = max(1, round(BRANCH_SHARE * Run(trunk, 0, self.n).examples))
            first = {'updates': update, 'batch_size': stage.batch_size, 'learning_rate': stage.learning_rate}
            for size, point in tuned.items():
                if size * BRANCH_UPDATES > more:
                    continue
                second = {'examples': more, 'batch_size': size, 'learning_rate': point['learning_rate']}
                changes = {'evaluate_at': (update,), 'validate_at': (update,)}
                stages = [first | {'momentum': stage.momentum}, second | {'momentum': point['momentum']}]
                made = self._made(f'{trunk.name}-to-{self._name(point)}', changes, stages)
                goals += [Goal(run, run.updates, Run(trunk, run.seed, self.n)) for run in self._seeded([made])]
        return goals

    def _grow(self) -> list[Goal]:
        """The batch follows the noise scale that was measured during training, at each size's tuned learning rate."""
        found, tuned = self._trunk(), self._tuned()
        if not self.search.grow or found is None:
            return []
        points = [
            point
            for line in self.found['noise_scale']['training']
            if line['batch_size'] == found[0]['batch_size']
            for point in line['points']
        ]
        sizes = sorted(tuned)
        steps: list[tuple[int, int]] = []  # from which example on, which batch size
        for point in points:
            size = min(sizes, key=lambda size: abs(math.log(size / point['noise_scale']['value'])))
            if not steps or size > steps[-1][1]:
                steps.append((point['examples'] if steps else 0, size))
        if len(steps) < 2:
            return []
        budgets, times = self.decisions.budgets, self.decisions.seconds_per_update
        stages: list[dict[str, Any]] = []
        updates, seconds = 0, 0.0
        for (first, size), (last, _) in itertools.pairwise(steps):
            stages.append(_stage(tuned[size]) | {'examples': last - first})
            more = schedule.updates_between(first, last, size, self.n)
            updates, seconds = updates + more, seconds + more * times[str(size)]
        first, size = steps[-1]
        left = {
            'epochs': self._updates_in(size, max(0.0, budgets['epochs'] - first / self.n)) + 1,
            'updates': int(budgets['updates']) - updates,
            'seconds': int((budgets['seconds'] - seconds) / times[str(size)]),
        }
        stages.append(_stage(tuned[size]) | {'updates': max(1, *left.values())})
        ends = self._ends(Run(self._made('grow', {}, stages), 0, self.n))
        length = max(ends)
        stages[-1]['updates'] = max(1, length - updates)
        dense = {round(length / VALIDATION_RATIO**i) for i in range(int(math.log(length, VALIDATION_RATIO)) + 1)}
        label = f'grow-{hashlib.sha256(json.dumps([stages, ends]).encode()).hexdigest()[:8]}'
        made = self._made(label, {'evaluate_at': ends, 'validate_at': (0, *sorted(dense))}, stages)
        return [Goal(run, run.updates) for run in self._seeded([made])]

    def _ends(self, run: Run) -> tuple[int, ...]:
        """The updates at which a run has used up each budget."""
        budgets, times = self.decisions.budgets, self.decisions.seconds_per_update

        def spent(update: int, unit: str) -> float:
            if unit == 'updates':
                return update
            if unit == 'epochs':
                return run.example(update) / self.n
            return sum(
                max(0, min(update, span.last_update) - span.first_update) * times[str(span.stage.batch_size)]
                for span in run.spans
            )

        def end(unit: str) -> int:
            """The last update that the budget allows; it may pass the end of an epoch by a part of a batch."""
            low, high = 1, run.updates
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if spent(middle, unit) <= budgets[unit] else (low, middle - 1)
            return low

        return tuple(sorted({end(unit) for unit in UNITS}))

    def _fresh(self) -> list[Goal]:
        """Fresh seeds at the recommended batch size of each budget, and at a quarter and four times of it."""
        goals: dict[Run, int] = {}
        seeds = range(self.study.seeds, self.study.seeds + self.search.confirm_seeds)
        for budget in self.found['budgets'] if seeds else ():
            beside = answer.neighbours([row['batch_size'] for row in budget['rows']], budget['recommended'])
            for row in budget['rows']:
                if row['batch_size'] in beside:
                    made = self._recipe(Key(row['batch_size'], row['momentum']), row['learning_rate'])
                    for seed in seeds:
                        run = Run(made, seed, self.n)
                        goals[run] = max(goals.get(run, 0), row['updates'])
        self.decisions.stopped += [run.name for run, until in goals.items() if until < run.updates]
        return [Goal(run, until) for run, until in goals.items()]


def best(errors: Mapping[float, float], keep: float) -> set[float]:
    """The share `keep` of the learning rates with the lowest errors, at least one; none whose error is infinite."""
    ranked = sorted((error, rate) for rate, error in errors.items())
    return {rate for error, rate in ranked[: max(1, math.ceil(keep * len(ranked)))] if error < math.inf}


def beyond(
    errors: Mapping[float, float], tried: Iterable[float], search: config.Search, reference: float
) -> set[float]:
    """The learning rate to be added, if the best one is at an end of those that were tried; else none.

    It is a step of the given ones beyond that end, `search.widen` times at most at either end. Where all have diverged,
    a lower one is added. A reference that is further away than a step is no end.
    """
    if not errors:
        return set()
    given = search.learning_rates
    step = (given[-1] / given[0]) ** (1 / (len(given) - 1))
    first = min(errors, key=lambda rate: (errors[rate], rate))
    added = set(tried) - {*given, reference}
    near = {rate for rate in tried if rate != reference or given[0] / step <= 1.01 * rate <= 1.03 * step * given[-1]}
    found = set()
    if first == min(near) and sum(rate < given[0] for rate in added) < search.widen:
        found.add(_rounded(first / step))
    elif first == max(near) and errors[first] < math.inf and sum(rate > given[-1] for rate in added) < search.widen:
        found.add(_rounded(first * step))
    return found - set(tried)


def _length(updates: int) -> dict[str, Any]:
    return {'epochs': 0.0, 'updates': updates, 'examples': 0}


def _stage(point: Mapping[str, Any]) -> dict[str, Any]:
    return {field: point[field] for field in ('batch_size', 'learning_rate', 'momentum')}


def _constant(point: Mapping[str, Any], updates: int) -> dict[str, Any]:
    """The fields of a point's recipe, ended after some updates."""
    return {**_stage(point), **_length(updates), 'evaluate_at': (updates,), 'validate_at': ()}


def _rounded(rate: float) -> float:
    """So that the name stays short."""
    return float(f'{rate:.3g}')
