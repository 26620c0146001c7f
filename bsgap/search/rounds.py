"""Which runs are trained next, when the answer is searched for.

A trial is a batch size, a learning rate and a length, trained with the schedule to its end. For each batch size the
lengths are a ladder, a factor of about 2 apart, that leads to the budgets' own: the shortest trials try the whole grid
of learning rates, each longer one the best of those before and its neighbours. At last fresh seeds are trained with
what is recommended, and beside it. What comes next is a function of the rows before it, so a search that was killed
goes on as it was: its rounds are gone through again, and what they need is there. search.json says what was decided.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from bsgap import config
from bsgap.analysis import answer, fresh
from bsgap.analysis.trials import SETTING
from bsgap.config import Recipe, Study, recipe, schedule
from bsgap.config.checks import require
from bsgap.files import read_json, write_json
from bsgap.training import rows
from bsgap.training.memory import Alone
from bsgap.training.runs import MOST_UPDATES, Run
from bsgap.training.workdir import run_folder

STEP = 2.0  # from one learning rate, or length, to its neighbour; exact in binary
SCREENING_SEEDS = 2  # that try the whole grid
MOST_WIDENED = 4  # how often a learning rate beyond an edge is added on a rung
SHORTEST = 4  # updates, of a trial
GROWN = 3  # how often the batch of the growing recipe doubles
LEAST_SECONDS = 1.0  # that a budget in seconds may have unless it is asked for

Setting = Mapping[str, float]  # what a ladder is climbed for: a batch size and the values of the search's settings
Measure = Callable[[Sequence[Run]], Iterable[Alone]]
Climb = Generator[list[Run], None, float]  # yields rounds, and returns a learning rate


@dataclasses.dataclass
class Decisions:
    """search.json: the budgets and the updates at which they end, times and memory, and what each rung decided."""

    version: int
    seeds: int
    data_seed: int  # of the trials; fresh seeds have another
    settings: dict[str, tuple[float, ...]]  # that are crossed with the batch sizes
    margin: float
    targets: tuple[float, ...]
    budgets: dict[str, float]
    updates: dict[str, dict[str, int]]  # by unit and batch size
    seconds_per_update: dict[str, list[float]]  # by batch size: each measurement
    bytes: dict[str, int]
    parts: dict[str, int]  # in which a batch is computed
    device: str  # that these times are of
    rungs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    fresh: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Rounds:
    """A search's rounds: iterating yields the runs of each one, once those of the round before are done.

    `n` is the number of training examples; `measure`, see `memory.measured_alone`, is asked for what search.json does
    not have. Of several processes one is to `write` decisions, and makes its `Rounds` first.

    Raises:
      UserError: no budget leaves a batch size more than one update, or search.json is of an earlier version.
    """

    def __init__(self, study: Study, n: int, measure: Measure, workdir: Path, write: bool) -> None:
        assert study.search, 'the study is no search'
        self.study, self.search, self.n, self.workdir, self.writes = study, study.search, n, workdir, write
        grid = {'batch_size': self.search.batch_sizes, **self.search.settings}
        self.settings: list[Setting] = [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
        before = answer.decided(workdir)
        self.decisions = self._budgets(before, measure)
        # A search that goes on replays its earlier decisions, which stay in the file until it has come to them again.
        self._write(**{key: before[key] for key in ('rungs', 'fresh') if key in before})

    def __iter__(self) -> Iterator[list[Run]]:
        climbing = [self._climb(setting) for setting in self.settings]
        while wanted := [run for ladder in climbing for run in next(ladder, [])]:
            yield wanted
        confirming = self._confirming() if self.search.confirm_seeds else []
        self._write()
        yield confirming

    def _write(self, **kept: Any) -> None:
        if self.writes:
            write_json(self.workdir / 'search.json', {**dataclasses.asdict(self.decisions), **kept})

    def _budgets(self, before: Mapping[str, Any], measure: Measure) -> Decisions:
        """The budgets and where they end; times are measured once for a workdir."""
        search, sizes = self.search, self.search.batch_sizes
        times, needed, parts = (dict(before.get(key, {})) for key in ('seconds_per_update', 'bytes', 'parts'))
        if missing := [size for size in sizes if str(size) not in times]:
            alike = [{'batch_size': size, 'learning_rate': search.learning_rates[0]} for size in missing]
            runs = [Run(self._made(named, {**named, 'epochs': 1.0}), 0, self.n, keep=False) for named in alike]
            for size, alone in zip(map(str, missing), measure(runs), strict=True):
                times[size], needed[size], parts[size] = alone
        per_update = {size: statistics.median(of_size) for size, of_size in times.items()}
        middle = str(sizes[(len(sizes) - 1) // 2])
        examples = max(1, round(search.budget_epochs * self.n))
        epochs = {str(size): schedule.updates_between(0, examples, size, self.n) for size in sizes}
        middle_seconds = epochs[middle] * per_update[middle]
        amounts = before.get('budgets') or {
            'epochs': search.budget_epochs,
            'updates': search.budget_updates or epochs[middle],
            'seconds': search.budget_seconds or middle_seconds * (middle_seconds >= LEAST_SECONDS),
        }
        amounts = {unit: amount for unit, amount in amounts.items() if amount}
        updates = {'epochs': epochs, 'updates': dict.fromkeys(epochs, int(amounts['updates']))}
        if 'seconds' in amounts:
            updates['seconds'] = {size: max(1, int(amounts['seconds'] / per_update[size])) for size in epochs}
        for size in epochs:
            needs = f'{search.budget_epochs:g} is not allowed; no budget leaves batch size {size} more than one update'
            require(max(ends[size] for ends in updates.values()) > 1, 'search.budget_epochs', needs)
            for unit, ends in updates.items():
                most = f'{amounts[unit]:g} is not allowed; batch size {size} makes at most {MOST_UPDATES} updates'
                require(ends[size] <= MOST_UPDATES, f'search.budget_{unit}', most)
        device = before.get('device') or jax.devices()[0].device_kind
        about = self.study.seeds, search.base['data_seed'], dict(search.settings), search.margin, search.targets
        return Decisions(answer.VERSION, *about, amounts, updates, times, needed, parts, device)

    def lengths(self, batch_size: float) -> list[int]:
        """The rungs of a batch size's ladder, in updates, ascending."""
        return rungs((ends[str(batch_size)] for ends in self.decisions.updates.values()), self.search.rungs)

    def expected(self) -> list[Run]:
        """The runs of all trials, if the middle of the grid is best everywhere; those with fresh seeds come besides."""
        grid = self.search.learning_rates
        near = _neighbours(grid[len(grid) // 2])
        found: dict[Run, None] = {}
        for setting in self.settings:
            lengths = self.lengths(setting['batch_size'])
            screened = [(lengths[0], rate, self._screening) for rate in grid]
            climbed = [(length, rate, range(self.study.seeds)) for length in lengths for rate in near]
            for length, rate, seeds in screened + climbed:
                found |= dict.fromkeys(self._trials(setting, rate, length, seeds))
        return list(found)

    @property
    def _screening(self) -> range:
        return range(min(SCREENING_SEEDS, self.study.seeds))

    def _trials(self, setting: Setting, learning_rate: float, updates: int, seeds: range, **drawn: int) -> list[Run]:
        """The runs of a trial; those at a budget's end are evaluated on all splits."""
        ends = {ends[str(setting['batch_size'])] for ends in self.decisions.updates.values()}
        named = {**setting, 'learning_rate': learning_rate, 'updates': updates, **drawn}
        changes = {
            'epochs': 0.0,
            'examples': 0,
            'warm_up': float(round(self.search.warm_up * updates)),
            'evaluate_at': (updates,),
            'evaluate_on': 'all' if updates in ends else 'validation',
            'noise_scale': not self.search.base['batch_norm'],
        }
        made = self._made(named, {**named, **changes})
        return [Run(made, seed, self.n, keep=bool(drawn)) for seed in seeds]

    def _made(self, named: Setting, changes: Mapping[str, Any], stages: Any = None, kind: str = '') -> Recipe:
        """A recipe whose name tells `named`."""
        base = dict(self.search.base)
        name = kind + recipe.swept_name(base, dict(named))
        return recipe.make(name, f'recipes.{name}.', base, dict(changes), stages)

    def _climb(self, setting: Setting) -> Iterator[list[Run]]:
        """The rounds of one ladder."""
        lengths, seeds = self.lengths(setting['batch_size']), range(self.study.seeds)
        best = yield from self._best(setting, self.search.learning_rates, lengths[0], self._screening)
        for length in lengths:
            tried = _neighbours(best)
            best = yield from self._best(setting, tried, length, seeds)
            while best in (tried[0], tried[-1]) and len(tried) < 3 + MOST_WIDENED:
                tried = sorted({*tried, *_neighbours(best)})
                best = yield from self._best(setting, tried, length, seeds)
            self.decisions.rungs.append({**setting, 'updates': length, 'tried': tried, 'best': best})

    def _best(self, setting: Setting, rates: Sequence[float], length: int, seeds: range) -> Climb:
        """Has trials with these learning rates trained, and returns the best: with the lowest mean validation error, of
        equals that with the lowest loss; the smallest where all diverged."""
        trials = {rate: self._trials(setting, rate, length, seeds) for rate in rates}
        yield [run for runs in trials.values() for run in runs]
        return min(trials, key=lambda rate: (*self._end(trials[rate]), rate))

    def _end(self, runs: Sequence[Run]) -> tuple[float, float]:
        """Validation error and loss, means over the runs; infinite if one diverged."""
        lasts = [rows.read(run_folder(self.workdir, run.name) / 'metrics.csv')[-1] for run in runs]
        if any(rows.status([last], run.updates) != 'done' for last, run in zip(lasts, runs, strict=True)):
            return math.inf, math.inf
        names = config.task(self.study.data.task).score, 'loss'
        highest = max(last[f'validation_{names[0]}'] for last in lasts)
        needs = f'gives a score of {highest:g}; a search takes scores of at most 1, which is the best there is'
        require(highest <= 1, 'task', f'{self.study.data.task} {needs}')
        score, loss = (statistics.fmean(last[f'validation_{of}'] for last in lasts) for of in names)
        return 1 - score, loss

    def _confirming(self) -> list[Run]:
        """Fresh seeds on a validation split drawn anew: at each budget's recommendation, at a quarter and four times
        its batch size, at half and twice its learning rate, and with a batch that grows in place of the decay."""
        seeds = range(self.study.seeds, self.study.seeds + self.search.confirm_seeds)
        data_seed = self.search.base['data_seed'] + 1
        found = answer.find(read_json(self.workdir / 'study.json'), dataclasses.asdict(self.decisions), self.workdir)
        wanted: dict[Run, None] = {}
        for budget in found['budgets']:
            for role, row in fresh.beside(budget):
                setting = {field: row[field] for field in ('batch_size', *self.search.settings)}
                made = self._growing if role == 'growing' else self._trials
                if runs := made(setting, row['learning_rate'], row['updates'], seeds, data_seed=data_seed):
                    told = {'unit': budget['unit'], 'role': role, **{field: row[field] for field in SETTING}}
                    self.decisions.fresh.append({**told, 'recipe': runs[0].recipe.name, 'seeds': list(seeds)})
                    wanted |= dict.fromkeys(runs)
        return list(wanted)

    def _growing(self, setting: Setting, rate: float, updates: int, seeds: range, data_seed: int) -> list[Run]:
        """As many examples as a trial sees, with the batch doubled wherever a straight line to zero halves the learning
        rate, which stays until the last stage takes it to zero (Smith et al. 2018, 1711.00489, §3); none where that
        would end beyond a tenth of the examples, where the paper's rule ends too."""
        size = int(setting['batch_size'])
        if size * 2**GROWN > self.n / 10 or self.search.base['schedule'] == 'constant':
            return []
        end = schedule.example_after(updates, 0, size, self.n)
        edges = [round(end * (1 - 0.5**i)) for i in range(GROWN + 1)] + [end]
        stages: list[dict[str, Any]] = [
            {'examples': last - first, 'batch_size': size * 2**i, 'learning_rate': rate}
            for i, (first, last) in enumerate(itertools.pairwise(edges))
        ]
        stages[-1]['rule'] = 'linear'
        if warm_up := round(self.search.warm_up * end):
            stages[0]['examples'] -= warm_up
            stages.insert(0, {**stages[0], 'examples': warm_up, 'learning_rate': 0.0, 'rule': 'linear'})
            stages[0]['final_learning_rate'] = rate
        if min(stage['examples'] for stage in stages) < 1:
            return []
        rest = {field: value for field, value in setting.items() if field != 'batch_size'}
        changes = {**rest, 'data_seed': data_seed, 'evaluate_at': (MOST_UPDATES,)}
        named = {**setting, 'learning_rate': rate, 'updates': updates}
        made = self._made(named, changes, tuple(stages), 'grow-')
        return [Run(made, seed, self.n) for seed in seeds]


def _neighbours(rate: float) -> list[float]:
    return [rate / STEP, rate, rate * STEP]


def rungs(ends: Iterable[int], below: int) -> list[int]:
    """Lengths a factor of √2 to 2√2 apart, with all `ends`, and down to the shortest of them halved `below` times."""
    made = sorted(set(ends))
    shortest = max(min(SHORTEST, made[0]), round(made[0] / STEP**below))
    found = {shortest, *made}
    for lower, upper in itertools.pairwise(sorted(found)):
        length = upper / STEP
        while length > math.sqrt(STEP) * lower:
            found.add(round(length))
            length /= STEP
    return sorted(found)
