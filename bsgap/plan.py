"""What a launch would do, without doing it: python launch.py --config=… --dry_run"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from bsgap import cluster, config, data, metrics, progress, search
from bsgap import study as study_lib
from bsgap.programs import Programs, across_runs
from bsgap.tensorboard import Board
from bsgap.train import reached

HEADINGS = ('recipe', 'batch sizes', 'runs', 'done', 'to go on', 'to begin', 'updates left', 'seconds left')


class Share(NamedTuple):
    """What one device would do."""

    device: int  # its place among all devices of the launch
    runs: int
    parallel_runs: int  # side by side
    cohorts: dict[tuple[int, int], int]  # how many, by batch size and number of runs, at their first update
    seconds: float  # estimated: updates and evaluations, without compilation
    bytes: int  # of its memory, by XLA's count


class Plan(NamedTuple):
    """What a launch would do; of a search, in its next round."""

    goals: list[study_lib.Goal]  # of the round, those that are reached included
    left: list[study_lib.Goal]
    shares: list[Share]
    seconds: dict[str, float]  # by run


def plan(settings: ConfigDict, workdir: str | Path) -> Plan:
    """Prints what `train` would do with the same arguments, and returns it; nothing is written.

    Time is estimated from some updates of each cohort, made on this device, which has to compile its programs.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used.
    """
    workdir = Path(workdir)
    study = config.resolve(settings)
    datasets = data.load(study.data, (recipe.variant for recipe in study.recipes))
    runs = study_lib.runs(study, {variant: dataset.n for variant, dataset in datasets.items()})
    study_lib.check_workdir(workdir, study)
    if study.tensorboard:
        Board(workdir)  # says if it can't be had
    records = {record.about['name']: record for record in metrics.read_runs(workdir)}

    def missing(goals: list[study_lib.Goal]) -> list[study_lib.Goal]:
        study_lib.compare_runs({study_lib.run_folder(workdir, goal.run.name) / 'run.json': goal.run for goal in goals})
        return [goal for goal in goals if not reached(goal, workdir, records)]

    with progress.View(study, datasets, workdir) as view, jax.default_matmul_precision(study.precision):
        programs = Programs(study, datasets, view, jax.local_devices()[0])
        goals = [study_lib.Goal(run, run.updates) for run in runs]
        if study.search:
            rounds = search.rounds(study, study.search, runs[0].n, programs.seconds_per_update, workdir, write=False)
            goals = next((goals for goals in rounds if missing(goals)), [])
        left = missing(goals)
        estimates = _Estimates(study, programs, workdir)
        dealt = study_lib.shares(goals, cluster.all_devices(), side_by_side=across_runs(study) == 'vmap')
        shares = [estimates.share(i, share, left) for i, share in enumerate(dealt)]
        found = Plan(goals, left, [share for share in shares if share.runs], estimates.by_run)
    if not cluster.index():
        _show(study, workdir, found)
    return found


class _Estimates:
    def __init__(self, study: config.Study, programs: Programs, workdir: Path) -> None:
        self.study, self.programs, self.workdir = study, programs, workdir
        self.by_run: dict[str, float] = {}
        self._update = functools.cache(programs.seconds_per_update)
        self._evaluation = functools.cache(programs.seconds_per_evaluation)

    def share(self, device: int, goals: list[study_lib.Goal], left: list[study_lib.Goal]) -> Share:
        wanted = [goal for goal in goals if goal in left]
        if not wanted:
            return Share(device, 0, 0, {}, 0.0, 0)
        limit = self.study.max_parallel_runs or self.programs.parallel_runs(goals)
        cohorts: dict[tuple[int, int], int] = {}
        seconds = 0.0
        for first in range(0, len(goals), limit):
            alike: dict[tuple[int, ...], list[study_lib.Goal]] = {}
            for goal in goals[first : first + limit]:
                if goal in wanted:
                    key = hash(goal.run.cohort(0)), goal.run.span(0).stage.batch_size, goal.until
                    alike.setdefault(key, []).append(goal)
            for (_, batch_size, _), group in alike.items():
                for part in self.programs.cohorts(group, batch_size):
                    cohorts[batch_size, len(part)] = cohorts.get((batch_size, len(part)), 0) + 1
                    seconds += self._cohort(part)
        needed = self.programs.memory(goals[:limit])
        return Share(device, len(wanted), min(limit, len(wanted)), cohorts, seconds, needed)

    def _cohort(self, goals: list[study_lib.Goal]) -> float:
        """What is left of the run that is furthest behind, with the others beside it."""
        start = {goal.run.name: max(study_lib.saved_updates(self.workdir, goal.run.name), default=0) for goal in goals}
        goal = min(goals, key=lambda goal: start[goal.run.name])
        run, update = goal.run, start[goal.run.name]
        seconds = 0.0
        for span in run.spans:
            if updates := max(0, min(goal.until, span.last_update) - max(update, span.first_update)):
                seconds += updates * self._update(run, len(goals), span.stage.batch_size)
        due = [at for at in run.evaluations if update <= at <= goal.until]
        for full in (True, False):
            if number := sum((at in run.full_evaluations) == full for at in due):
                seconds += number * self._evaluation(run, len(goals), full)
        self.by_run |= {goal.run.name: seconds / len(goals) for goal in goals}
        return seconds


def _show(study: config.Study, workdir: Path, found: Plan) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, 110)
    console.print(f'study    {study.name}, in {workdir}', markup=False, soft_wrap=True)
    console.print(f'device   {cluster.describe()}', markup=False)
    what = 'the next round of a search; what comes after depends on it' if study.search else 'all runs'
    console.print(f'planned  {what}; {len(found.goals)} runs, {len(found.goals) - len(found.left)} of them done\n')
    table = Table(box=None, pad_edge=False, header_style='bold')
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify='left' if not i else 'right', no_wrap=True)
    recipes: dict[str, list[study_lib.Goal]] = {}
    for goal in found.goals:
        recipes.setdefault(goal.run.recipe.name, []).append(goal)
    for name, goals in recipes.items():
        left = [goal for goal in goals if goal in found.left]
        saved = [max(study_lib.saved_updates(workdir, goal.run.name), default=0) for goal in left]
        table.add_row(
            name,
            ' → '.join(dict.fromkeys(str(span.stage.batch_size) for span in goals[0].run.spans)),
            f'{len(goals)}',
            f'{len(goals) - len(left)}',
            f'{sum(map(bool, saved))}',
            f'{len(left) - sum(map(bool, saved))}',
            f'{sum(goal.until - update for goal, update in zip(left, saved, strict=True)):,}',
            f'{sum(found.seconds[goal.run.name] for goal in left):,.0f}',
        )
    console.print(table)
    for share in found.shares:
        cohorts = ', '.join(
            f'{count} × ' * (count > 1) + f'{runs} run{"s"[: runs > 1]} of batch size {batch_size}'
            for (batch_size, runs), count in share.cohorts.items()
        )
        console.print(
            f'\ndevice {share.device}: {share.runs} runs, {share.parallel_runs} side by side; cohorts: {cohorts};'
            f' about {share.bytes / 2**20:,.0f} MiB and {share.seconds:,.0f} s',
            markup=False,
            soft_wrap=True,
        )
    of_devices = [share.seconds for share in found.shares]  # those of a CPU share its cores
    seconds = sum(of_devices) if jax.default_backend() == 'cpu' else max(of_devices, default=0.0)
    console.print(f'\nin all about {seconds:,.0f} s, and compilation; nothing was written')
