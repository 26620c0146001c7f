"""What a launch would do, without doing it: python launch.py --config=… --dry_run"""

import functools
import statistics
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
from ml_collections import ConfigDict

from bsgap import config, data, output
from bsgap.files import expanded
from bsgap.launch import processes
from bsgap.launch.progress import View, as_table
from bsgap.launch.share import deal_out
from bsgap.launch.tensorboard import Board
from bsgap.training import memory, step
from bsgap.training.programs import Programs, run_axis
from bsgap.training.restore import is_done
from bsgap.training.rows import read_records
from bsgap.training.runs import Run, cross
from bsgap.training.workdir import check_workdir, compare_runs, depends_on, run_folder, saved_updates

if TYPE_CHECKING:
    from bsgap.search.rounds import Rounds


class Share(NamedTuple):
    """What one device would do."""

    runs: int
    parallel_runs: int  # side by side
    seconds: float  # estimated: updates and evaluations, without compilation
    bytes: int  # of its memory, by XLA's count


class Plan(NamedTuple):
    """What a launch would do; of a search, at least."""

    runs: Sequence[Run]  # those that are done included
    left: list[Run]
    shares: dict[int, Share]  # by the device's place among all devices of the launch; those that have something to do
    seconds: dict[str, float]  # by run


def plan(settings: ConfigDict, workdir: str | Path, given: Collection[str] = ()) -> Plan:
    """Prints what `train` would do with the same arguments, and returns it; nothing is written.

    Time is estimated from some updates of each cohort, made on this device, which has to compile its programs.
    """
    processes.start()
    workdir = expanded(workdir)
    study = config.resolve(settings, given)
    datasets = data.load(study.data, study.training_sets, given)
    runs = cross(study, {training_set: dataset.n for training_set, dataset in datasets.items()})
    if study.tensorboard:
        Board(workdir)  # says if it can't be had
    records = {record.name: record for record in read_records(workdir)}

    def missing(runs: Sequence[Run]) -> list[Run]:
        compare_runs({run_folder(workdir, run.name) / 'run.json': run for run in runs})
        return [run for run in runs if not is_done(run, workdir, records)]

    with View(study, datasets, workdir) as view, step.numerics(study.precision):
        programs = Programs(study, datasets, view, jax.local_devices()[0])
        models = [programs.model(recipe) for recipe in study.recipes]
        check_workdir(workdir, study, depends_on(datasets, models, study.data.task))
        if study.search:
            from bsgap.search.rounds import Rounds  # here, for pandas

            measure = functools.partial(memory.measured_alone, programs)
            rounds = Rounds(study, runs[0].n, measure, workdir, write=False)
            wanted = rounds.expected()
            found = Plan(wanted, missing(wanted), {}, _of_search(programs, rounds, wanted))
            # Of each batch size, with all seeds and with those that screen: updates, two evaluations.
            compilation = 6 * len(study.search.batch_sizes) * statistics.fmean(programs.compile_seconds)
            if not processes.index():
                _show_search(study, workdir, found, compilation)
            return found
        found = Plan(runs, missing(runs), {}, {})
        for place, share in enumerate(deal_out(runs, processes.all_devices(), run_axis(study) == 'vmap')):
            if runs_left := sum(run in found.left for run in share):
                limit = memory.parallel_runs(programs, share, study.max_parallel_runs)
                seconds: dict[str, float] = {}
                for first in range(0, len(share), limit):
                    wanted = [run for run in share[first : first + limit] if run in found.left]
                    for cohort in _cohorts(programs, wanted):
                        seconds |= _seconds(programs, cohort, workdir)
                needed = memory.needed(programs, share[:limit])
                found.shares[place] = Share(runs_left, min(limit, runs_left), sum(seconds.values()), needed)
                found.seconds.update(seconds)
    if not processes.index():
        _show(study, workdir, found)
    return found


def _cohorts(programs: Programs, runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The cohorts in which runs begin that are trained side by side."""
    alike: dict[object, list[Run]] = {}
    for run in runs:
        alike.setdefault((run.cohort(0), run.updates), []).append(run)
    for group in alike.values():
        yield from programs.cohorts(group, group[0].span(0).stage.batch_size)


def _seconds(programs: Programs, runs: Sequence[Run], workdir: Path) -> dict[str, float]:
    """Each run's share of what is left of the run that is furthest behind, with the others beside it."""
    run = min(runs, key=lambda run: _saved(run, workdir))
    update, seconds = _saved(run, workdir), 0.0
    for span in run.spans:
        if updates := max(0, span.last_update - max(update, span.first_update)):
            seconds += updates * programs.seconds_per_update(run, len(runs), span.stage.batch_size)
    if number := sum(update <= at for at in run.evaluations):
        seconds += number * programs.seconds_per_evaluation(run, len(runs), run.full)
    return {run.name: seconds / len(runs) for run in runs}


def _saved(run: Run, workdir: Path) -> int:
    return max(saved_updates(workdir, run.name), default=0)


def _of_search(programs: Programs, rounds: 'Rounds', runs: Sequence[Run]) -> dict[str, float]:
    """How long each of these runs takes, by the times that the search's budgets rest on."""
    per_update = {int(size): statistics.median(t) for size, t in rounds.decisions.seconds_per_update.items()}
    evaluation = {full: programs.seconds_per_evaluation(runs[0], full=full) for full in (True, False)}
    return {run.name: run.updates * per_update[run.span(0).stage.batch_size] + evaluation[run.full] for run in runs}


def _show_search(study: config.Study, workdir: Path, found: Plan, compilation: float) -> None:
    rows = []
    for size in dict.fromkeys(run.span(0).stage.batch_size for run in found.runs):
        runs = [run for run in found.runs if run.span(0).stage.batch_size == size]
        left = [run for run in runs if run in found.left]
        row = {'batch size': str(size), 'lengths (updates)': ' '.join(map(str, sorted({run.updates for run in runs})))}
        row |= {'runs': str(len(runs)), 'updates left': f'{sum(run.updates for run in left):,}'}
        rows.append({**row, 'seconds left': f'{sum(found.seconds[run.name] for run in left):,.0f}'})
    beyond = 'where a best learning rate is at an edge, those beyond it come besides, as do the fresh seeds'
    seconds = sum(found.seconds[run.name] for run in found.left)
    in_all = f'in all about {seconds:,.0f} s, and {compilation:,.0f} s of compilation; {beyond}; nothing was written'
    _print(study, workdir, found, 'runs of trials at least', rows, in_all)


def _show(study: config.Study, workdir: Path, found: Plan) -> None:
    rows = []
    for name in dict.fromkeys(run.recipe.name for run in found.runs):
        runs = [run for run in found.runs if run.recipe.name == name]
        left = {run: _saved(run, workdir) for run in runs if run in found.left}
        begun = sum(map(bool, left.values()))
        row = {'recipe': name, 'batch sizes': ' → '.join(dict.fromkeys(str(s.stage.batch_size) for s in runs[0].spans))}
        row |= {'runs': str(len(runs)), 'done': str(len(runs) - len(left))}
        row |= {'to go on': str(begun), 'to begin': str(len(left) - begun)}
        row['updates left'] = f'{sum(run.updates - update for run, update in left.items()):,}'
        rows.append({**row, 'seconds left': f'{sum(found.seconds[run.name] for run in left):,.0f}'})
    lines = []
    for place, share in found.shares.items():
        needs = f'about {share.bytes / 2**20:,.0f} MiB and {share.seconds:,.0f} s'
        lines.append(f'device {place}: {share.runs} runs, {share.parallel_runs} side by side; {needs}')
    of_devices = [share.seconds for share in found.shares.values()]  # those of a CPU share its cores
    seconds = sum(of_devices) if jax.default_backend() == 'cpu' else max(of_devices, default=0.0)
    in_all = f'in all about {seconds:,.0f} s, and compilation; nothing was written'
    _print(study, workdir, found, 'runs', rows, *lines, in_all)


def _print(
    study: config.Study, workdir: Path, found: Plan, what: str, rows: Sequence[dict[str, str]], *lines: str
) -> None:
    console = output.console()
    console.width = max(console.width, 110)
    console.print(f'study    {study.name}, in {workdir}', soft_wrap=True)
    done = f'{len(found.runs) - len(found.left)} of them done'
    console.print(f'device   {processes.describe()}\nplanned  {len(found.runs)} {what}, {done}\n')
    console.print(as_table(rows))
    for line in lines:
        console.print(f'\n{line}')
