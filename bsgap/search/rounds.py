"""Which runs are trained next, when the answer is searched for: rounds, one after the other.

The first rounds search the learning rate of each batch size by successive halving; the last one trains fresh seeds with
what is recommended. What a round trains is a function of the rows before it, so a search that was killed goes on as it
was: its rounds are gone through again, and what they need is there. search.json says what was decided.

Learning rates are constant, so that a run's first updates are the whole of a shorter run: each budget is read off at
the update where it ends.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bsgap.analysis import answer, candidates
from bsgap.config import Recipe, Search, Study, recipe, schedule
from bsgap.config.checks import require
from bsgap.errors import UserError
from bsgap.files import read_json, write_json
from bsgap.training.rows import read_records
from bsgap.training.runs import MOST_UPDATES, Goal, Run

VALIDATION_RATIO = 1.25  # from one evaluation on validation data to the next, in updates
FIRST_VALIDATION = 1e-3  # of a run's updates


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


class Rounds:
    """A search's rounds: iterating yields the goals of each one, once those of the round before are reached.

    Args:
      study: one with a search.
      n: the number of training examples.
      seconds_per_update: measures the time of an update of a run; asked for what search.json does not have.
      workdir: where the runs and search.json are.
      write: whether decisions are written; of several processes, one does that, and makes its `Rounds` first.

    Raises:
      UserError: no budget leaves a batch size more than one update.
    """

    def __init__(
        self, study: Study, n: int, seconds_per_update: Callable[[Run], float], workdir: Path, write: bool
    ) -> None:
        assert study.search, 'the study is no search'
        self.study, self.search, self.n, self.workdir = study, study.search, n, workdir
        self.path, self.writes = workdir / 'search.json', write
        self.decisions = self._budgets(seconds_per_update)
        self._write()

    def __iter__(self) -> Iterator[list[Goal]]:
        yield from self._halving()
        yield self._fresh()

    def _write(self) -> None:
        """Writes search.json, unless it has decisions that are still to be gone through again."""
        known = read_json(self.path).get('rungs', ()) if self.path.exists() else ()
        if self.writes and len(self.decisions.rungs) >= len(known):
            write_json(self.path, dataclasses.asdict(self.decisions))

    def _budgets(self, measure: Callable[[Run], float]) -> Decisions:
        """The budgets and where they end; an update's time is measured once for a workdir."""
        search = self.search
        before = read_json(self.path, 'seconds_per_update') if self.path.exists() else {}
        times = dict(before.get('seconds_per_update', {}))
        for size in search.batch_sizes:
            if str(size) not in times:
                fields = {'batch_size': size, 'learning_rate': search.learning_rates[0], 'epochs': 1.0}
                times[str(size)] = measure(Run(self._made(f'bs{size}', fields), 0, self.n))
        middle = str(search.batch_sizes[(len(search.batch_sizes) - 1) // 2])
        examples = max(1, round(search.budget_epochs * self.n))
        epochs = {str(b): schedule.updates_between(0, examples, b, self.n) for b in search.batch_sizes}
        amounts = before.get('budgets') or {
            'epochs': search.budget_epochs,
            'updates': search.budget_updates or epochs[middle],
            'seconds': search.budget_seconds or epochs[middle] * times[middle],
        }
        updates = {
            'epochs': epochs,
            'updates': dict.fromkeys(epochs, amounts['updates']),
            'seconds': {label: max(1, int(amounts['seconds'] / times[label])) for label in epochs},
        }
        for label in epochs:
            if max(ends[label] for ends in updates.values()) < 2:
                refused = f'config.search.budget_epochs: {search.budget_epochs:g} is not allowed'
                raise UserError(f'{refused}; no budget leaves batch size {label} more than one update')
            for unit, ends in updates.items():
                most = f'{amounts[unit]:g} is not allowed; batch size {label} makes at most {MOST_UPDATES} updates'
                require(ends[label] <= MOST_UPDATES, f'search.budget_{unit}', most)
        device = before.get('device') or jax.devices()[0].device_kind
        return Decisions(search.target, amounts, updates, times, device, search.base['learning_rate'])

    def _made(self, name: str, changes: Mapping[str, Any]) -> Recipe:
        return recipe.make(name, f'recipes.{name}.', dict(self.search.base), dict(changes))

    def _length(self, batch_size: int) -> int:
        """The updates of a search's run: all that some budget asks for."""
        return max(ends[str(batch_size)] for ends in self.decisions.updates.values())

    def _rung(self, batch_size: int, rung: int) -> int:
        """The update at which a rung stands; the last one is the run's end."""
        return max(2, round(self._length(batch_size) * self.search.keep ** (self.search.rungs - 1 - rung)))

    def _recipe(self, key: Key, learning_rate: float) -> Recipe:
        """A constant recipe of the search, for all budgets."""
        size = key.batch_size
        length = self._length(size)
        swept = {'batch_size': size, 'learning_rate': learning_rate, 'momentum': key.momentum}
        first = max(1.0, FIRST_VALIDATION * length)
        steps = int(math.log(length / first, VALIDATION_RATIO)) + 1
        dense = {round(first * VALIDATION_RATIO**i) for i in range(steps)}
        dense |= {self._rung(size, rung) for rung in range(self.search.rungs)}
        ends = {ends[str(size)] for ends in self.decisions.updates.values()}
        evaluated = {'evaluate_at': tuple(sorted(ends)), 'validate_at': (0, *sorted(dense)), 'noise_scale': True}
        fields = {**swept, 'epochs': 0.0, 'updates': length, 'examples': 0, **evaluated}
        return self._made(recipe.swept_name(dict(self.search.base), swept), fields)

    def _runs(self, made: Recipe) -> list[Run]:
        return [Run(made, seed, self.n) for seed in range(self.study.seeds)]

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
                    for rate in sorted(alive[key])
                    for run in self._runs(self._recipe(key, rate))
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
            self._write()

    def _errors(self, alive: Mapping[Key, set[float]], rung: int) -> dict[Key, dict[float, float]]:
        """The validation error of each learning rate at a rung, mean over seeds; infinite where one diverged."""
        rows = {record.name: record.rows for record in read_records(self.workdir)}

        def error(key: Key, rate: float) -> float:
            runs, update = self._runs(self._recipe(key, rate)), self._rung(key.batch_size, rung)
            there = [row for run in runs for row in rows[run.name] if row['update'] == update]
            sound = [1 - row['validation_accuracy'] for row in there if math.isfinite(row['validation_loss'])]
            return float(np.mean(sound)) if len(sound) == len(runs) else math.inf

        return {key: {rate: error(key, rate) for rate in rates} for key, rates in alive.items()}

    def _note(self, key: Key, rung: int, errors: Mapping[float, float], kept: set[float]) -> None:
        recipes = {rate: self._recipe(key, rate) for rate in sorted(errors)}
        given = {*self.search.learning_rates, self.search.base['learning_rate']}
        self.decisions.rungs.append(
            {
                **key._asdict(),
                'update': self._rung(key.batch_size, rung),
                'errors': {r.name: errors[rate] if errors[rate] < math.inf else None for rate, r in recipes.items()},
                'kept': [recipes[rate].name for rate in sorted(kept)],
                'added': [made.name for rate, made in recipes.items() if rate not in given],
            }
        )
        stopped = [made for rate, made in recipes.items() if rate not in kept]
        self.decisions.stopped += [run.name for made in stopped for run in self._runs(made)]

    def _fresh(self) -> list[Goal]:
        """Fresh seeds at the recommended batch size of each budget, and beside it."""
        records, _ = answer.parted(read_records(self.workdir), self.study.seeds)
        about = read_json(self.workdir / 'study.json')
        sound = candidates.complete(candidates.candidates(records), self.study.seeds, about)
        goals: dict[Run, int] = {}
        for budget in answer.budgets(dataclasses.asdict(self.decisions), sound):
            for row in answer.with_neighbours(budget):
                made = self._recipe(Key(row['batch_size'], row['momentum']), row['learning_rate'])
                for seed in range(self.study.seeds, self.study.seeds + self.search.confirm_seeds):
                    run = Run(made, seed, self.n)
                    goals[run] = max(goals.get(run, 0), row['updates'])
        self.decisions.stopped += [run.name for run, until in goals.items() if until < run.updates]
        self._write()
        return [Goal(run, until) for run, until in goals.items()]


def best(errors: Mapping[float, float], keep: float) -> set[float]:
    """The share `keep` of the learning rates with the lowest errors, at least one; none whose error is infinite."""
    ranked = sorted((error, rate) for rate, error in errors.items())
    return {rate for error, rate in ranked[: max(1, math.ceil(keep * len(ranked)))] if error < math.inf}


def beyond(errors: Mapping[float, float], tried: Iterable[float], search: Search, reference: float) -> set[float]:
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
    wanted = None
    if first == min(near) and sum(rate < given[0] for rate in added) < search.widen:
        wanted = first / step
    elif first == max(near) and errors[first] < math.inf and sum(rate > given[-1] for rate in added) < search.widen:
        wanted = first * step
    # Rounded, so that the name stays short.
    return {float(f'{wanted:.3g}')} - set(tried) if wanted else set()
