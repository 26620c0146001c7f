"""What a launch would do, without doing it: python launch.py --config=… --dry_run"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
from rich.table import Table

from bsgap import config, data, output
from bsgap.files import expanded
from bsgap.launch import processes
from bsgap.launch.progress import View
from bsgap.launch.share import deal_out
from bsgap.launch.tensorboard import Board
from bsgap.search.rounds import Rounds
from bsgap.training import memory, step
from bsgap.training.programs import Programs, run_axis
from bsgap.training.restore import reached
from bsgap.training.rows import read_records
from bsgap.training.runs import Goal, cross
from bsgap.training.workdir import check_workdir, compare_runs, depends_on, run_folder, saved_updates

HEADINGS = ('recipe', 'batch sizes', 'runs', 'done', 'to go on', 'to begin', 'updates left', 'seconds left')


class Share(NamedTuple):
    """What one device would do."""

    runs: int
    parallel_runs: int  # side by side
    seconds: float  # estimated: updates and evaluations, without compilation
    bytes: int  # of its memory, by XLA's count


class Plan(NamedTuple):
    """What a launch would do; of a search, in its next round."""

    goals: list[Goal]  # of the round, those that are reached included
    left: list[Goal]
    shares: dict[int, Share]  # by the device's place among all devices of the launch; those that have something to do
    seconds: dict[str, float]  # by run


def plan(settings: ConfigDict, workdir: str | Path) -> Plan:
    """Prints what `train` would do with the same arguments, and returns it; nothing is written.

    Time is estimated from some updates of each cohort, made on this device, which has to compile its programs.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used.
    """
    processes.start()
    workdir = expanded(workdir)
    study = config.resolve(settings)
    datasets = data.load(study.data, (recipe.training_set for recipe in study.recipes))
    runs = cross(study, {training_set: dataset.n for training_set, dataset in datasets.items()})
    if study.tensorboard:
        Board(workdir)  # says if it can't be had
    records = {record.name: record for record in read_records(workdir)}

    def missing(goals: list[Goal]) -> list[Goal]:
        compare_runs({run_folder(workdir, goal.run.name) / 'run.json': goal.run for goal in goals})
        return [goal for goal in goals if not reached(goal, workdir, records)]

    with View(study, datasets, workdir) as view, step.numerics(study.precision):
        programs = Programs(study, datasets, view, jax.local_devices()[0])
        models = [programs.model(recipe) for recipe in study.recipes]
        check_workdir(workdir, study, depends_on(datasets, models))
        goals = [Goal(run, run.updates) for run in runs]
        if study.search:
            rounds = Rounds(study, runs[0].n, programs.seconds_per_update, workdir, write=False)
            goals = next((goals for goals in rounds if missing(goals)), [])
        found = Plan(goals, missing(goals), {}, {})
        for place, share in enumerate(deal_out(goals, processes.all_devices(), run_axis(study) == 'vmap')):
            if runs_left := sum(goal in found.left for goal in share):
                limit = memory.parallel_runs(programs, share, study.max_parallel_runs)
                seconds: dict[str, float] = {}
                for first in range(0, len(share), limit):
                    wanted = [goal for goal in share[first : first + limit] if goal in found.left]
                    for cohort in _cohorts(programs, wanted):
                        seconds |= _seconds(programs, cohort, workdir)
                needed = memory.needed(programs, share[:limit])
                found.shares[place] = Share(runs_left, min(limit, runs_left), sum(seconds.values()), needed)
                found.seconds.update(seconds)
    if not processes.index():
        _show(study, workdir, found)
    return found


def _cohorts(programs: Programs, goals: Sequence[Goal]) -> Iterator[list[Goal]]:
    """The cohorts in which runs begin that are trained side by side."""
    alike: dict[object, list[Goal]] = {}
    for goal in goals:
        alike.setdefault((goal.run.cohort(0), goal.until), []).append(goal)
    for group in alike.values():
        yield from programs.cohorts(group, group[0].run.span(0).stage.batch_size)


def _seconds(programs: Programs, goals: Sequence[Goal], workdir: Path) -> dict[str, float]:
    """Each run's share of what is left of the run that is furthest behind, with the others beside it."""
    goal = min(goals, key=lambda goal: _saved(goal, workdir))
    update = _saved(goal, workdir)
    run, seconds = goal.run, 0.0
    for span in run.spans:
        if updates := max(0, min(goal.until, span.last_update) - max(update, span.first_update)):
            seconds += updates * programs.seconds_per_update(run, len(goals), span.stage.batch_size)
    due = [at for at in run.evaluations if update <= at <= goal.until]
    for full in (True, False):
        if number := sum((at in run.full_evaluations) == full for at in due):
            seconds += number * programs.seconds_per_evaluation(run, len(goals), full)
    return {goal.run.name: seconds / len(goals) for goal in goals}


def _saved(goal: Goal, workdir: Path) -> int:
    return max(saved_updates(workdir, goal.run.name), default=0)


def _show(study: config.Study, workdir: Path, found: Plan) -> None:
    console = output.console()
    console.width = max(console.width, 110)
    what = 'the next round of a search; what comes after depends on it' if study.search else 'all runs'
    console.print(f'study    {study.name}, in {workdir}', soft_wrap=True)
    console.print(f'device   {processes.describe()}')
    console.print(f'planned  {what}; {len(found.goals)} runs, {len(found.goals) - len(found.left)} of them done\n')
    table = Table(box=None, pad_edge=False, header_style='bold')
    for heading in HEADINGS:
        table.add_column(heading, justify='left' if heading == 'recipe' else 'right', no_wrap=True)
    for name in dict.fromkeys(goal.run.recipe.name for goal in found.goals):
        goals = [goal for goal in found.goals if goal.run.recipe.name == name]
        left = {goal: _saved(goal, workdir) for goal in goals if goal in found.left}
        begun = sum(map(bool, left.values()))
        sizes = ' → '.join(dict.fromkeys(str(span.stage.batch_size) for span in goals[0].run.spans))
        updates = sum(goal.until - update for goal, update in left.items())
        seconds = sum(found.seconds[goal.run.name] for goal in left)
        counts = len(goals), len(goals) - len(left), begun, len(left) - begun
        table.add_row(name, sizes, *map(str, counts), f'{updates:,}', f'{seconds:,.0f}')
    console.print(table)
    for place, share in found.shares.items():
        needs = f'about {share.bytes / 2**20:,.0f} MiB and {share.seconds:,.0f} s'
        console.print(f'\ndevice {place}: {share.runs} runs, {share.parallel_runs} side by side; {needs}')
    of_devices = [share.seconds for share in found.shares.values()]  # those of a CPU share its cores
    seconds = sum(of_devices) if jax.default_backend() == 'cpu' else max(of_devices, default=0.0)
    console.print(f'\nin all about {seconds:,.0f} s, and compilation; nothing was written')
