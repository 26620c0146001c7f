"""What a launch would do, without doing it: python launch.py --config=… --dry_run"""

import functools
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from ml_collections import ConfigDict

from bsgap import config, data, output
from bsgap.errors import UserError
from bsgap.files import expanded
from bsgap.launch import processes
from bsgap.launch.boards import boards
from bsgap.launch.progress import View, as_table
from bsgap.launch.share import deal_out
from bsgap.training import memory, step
from bsgap.training.programs import Programs, run_axis
from bsgap.training.restore import is_done
from bsgap.training.rows import read_records
from bsgap.training.runs import Run, cross
from bsgap.training.workdir import check_workdir, compare_runs, depends_on, saved_updates

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


def with_data(
    settings: ConfigDict, study: config.Study, given: Collection[str]
) -> tuple[config.Study, dict[config.TrainingSet, data.Dataset], tuple[Run, ...]]:
    """Loads a study's data; with them the study, as it was resolved of `settings`, gets its batch sizes of `whole`
    training sets, and its runs."""
    datasets = data.load(study.data, study.training_sets, given)
    examples = {training_set: dataset.n for training_set, dataset in datasets.items()}
    study = config.resolve(settings, given, examples)
    return study, datasets, cross(study, examples)


def plan(settings: ConfigDict, workdir: str | Path, given: Collection[str] = ()) -> Plan:
    """Prints what `train` would do with the same arguments, and returns it; nothing is written.

    Time is estimated from some updates of each cohort, made on this device, which has to compile its programs.
    """
    processes.start()
    workdir = expanded(workdir)
    if stands := next((path for path in (workdir, *workdir.parents) if path.exists() and not path.is_dir()), None):
        raise UserError(f'--workdir: {workdir} cannot be used: {stands} is not a folder')
    study, datasets, runs = with_data(settings, config.resolve(settings, given), given)
    boards(study, workdir)  # says if one can't be had
    records = {record.name: record for record in read_records(workdir)}

    def missing(runs: Sequence[Run]) -> list[Run]:
        compare_runs(workdir, runs)
        return [run for run in runs if not is_done(run, workdir, records)]

    with View(study, datasets, workdir) as view, step.numerics(study.precision):
        programs = Programs(study, datasets, view, jax.local_devices()[0])
        for recipe in study.recipes:
            programs.model(recipe)  # one that can't be made stops here
        check_workdir(workdir, study, depends_on(study, datasets))
        if study.search:
            from bsgap.search.rounds import Rounds  # here, for pandas

            measure = functools.partial(memory.measured_alone, programs)
            rounds = Rounds(study, runs[0].n, measure, workdir, write=False)
            wanted = rounds.expected()
            found = Plan(wanted, missing(wanted), {}, _of_search(programs, rounds, wanted))
            # Of each batch size, with all seeds and with those that screen: updates, two evaluations.
            compilation = 6 * len(study.search.batch_sizes) * statistics.fmean(programs.compile_seconds)
            in_all = sum(found.seconds[run.name] for run in found.left)
            beyond = 'where a best learning rate is at an edge, those beyond it come besides, as do the fresh seeds'
            needs = f'{in_all:,.0f} s, and {compilation:,.0f} s of compilation'
            lines = [f'in all about {needs}; {beyond}; nothing was written']
        else:
            found = Plan(runs, missing(runs), {}, {})
            times: dict[Any, float] = {}
            for place, share in enumerate(deal_out(runs, processes.all_devices(), run_axis(study) == 'vmap')):
                if any(run in found.left for run in share):
                    found.shares[place] = _of_share(study, programs, share, found, workdir, times)
            lines = []
            for place, todo in found.shares.items():
                needs = f'about {todo.bytes / 2**20:,.0f} MiB and {todo.seconds:,.0f} s'
                lines.append(f'device {place}: {todo.runs} runs, {todo.parallel_runs} side by side; {needs}')
            of_devices = [todo.seconds for todo in found.shares.values()]  # those of a CPU share its cores
            in_all = sum(of_devices) if jax.default_backend() == 'cpu' else max(of_devices, default=0.0)
            lines.append(f'in all about {in_all:,.0f} s, and compilation; nothing was written')
    if not processes.index():
        _show(study, workdir, found, lines)
    return found


def _of_share(
    study: config.Study, programs: Programs, share: Sequence[Run], found: Plan, workdir: Path, times: dict[Any, float]
) -> Share:
    """What a device would do, whose runs' seconds are added to what was found, and times of programs to `times`."""
    left = [run for run in share if run in found.left]
    limit = memory.parallel_runs(programs, share, study.max_parallel_runs)
    for first in range(0, len(share), limit):
        for cohort in _cohorts(programs, [run for run in share[first : first + limit] if run in left]):
            found.seconds.update(_seconds(programs, cohort, workdir, times))
    seconds = sum(found.seconds[run.name] for run in left)
    return Share(len(left), min(limit, len(left)), seconds, memory.needed(programs, share[:limit]))


def _cohorts(programs: Programs, runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The cohorts in which runs begin that are trained side by side."""
    alike: dict[object, list[Run]] = {}
    for run in runs:
        alike.setdefault((run.cohort(0), run.updates), []).append(run)
    for group in alike.values():
        yield from programs.cohorts(group, group[0].span(0).stage.batch_size)


def _seconds(programs: Programs, runs: Sequence[Run], workdir: Path, times: dict[Any, float]) -> dict[str, float]:
    """Each run's share of what is left of the run that is furthest behind, with the others beside it."""

    def timed(program: object, measure: Callable[[], float]) -> float:
        if program not in times:  # many cohorts share one
            times[program] = measure()
        return times[program]

    run, n = min(runs, key=lambda run: _saved(run, workdir)), len(runs)
    update, seconds = _saved(run, workdir), 0.0
    for span in run.spans:
        if updates := max(0, span.last_update - max(update, span.first_update)):
            size = span.stage.batch_size
            per_update = functools.partial(programs.seconds_per_update, run, n, size)
            seconds += updates * timed(programs.segment_program(run, size, n), per_update)
    if number := sum(update <= at for at in run.evaluations):
        each = functools.partial(programs.seconds_per_evaluation, run, n, run.full)
        seconds += number * timed(programs.evaluation_program(run, n, run.full), each)
    return {run.name: seconds / n for run in runs}


def _saved(run: Run, workdir: Path) -> int:
    return max(saved_updates(workdir, run.name), default=0)


def _of_search(programs: Programs, rounds: 'Rounds', runs: Sequence[Run]) -> dict[str, float]:
    """How long each of these runs takes, by the times that the search's budgets rest on."""
    per_update = {int(size): statistics.median(t) for size, t in rounds.decisions.seconds_per_update.items()}
    evaluation = {full: programs.seconds_per_evaluation(runs[0], full=full) for full in (True, False)}
    return {run.name: run.updates * per_update[run.span(0).stage.batch_size] + evaluation[run.full] for run in runs}


def _show(study: config.Study, workdir: Path, found: Plan, lines: Sequence[str]) -> None:
    """Prints a row a recipe, or of a search a batch size, and then these lines."""

    def label(run: Run) -> str:
        return str(run.span(0).stage.batch_size) if study.search else run.recipe.name

    rows = []
    for name in dict.fromkeys(map(label, found.runs)):
        runs = [run for run in found.runs if label(run) == name]
        left = {run: _saved(run, workdir) for run in runs if run in found.left}
        begun = sum(map(bool, left.values()))
        if study.search:
            row = {'batch size': name, 'lengths (updates)': ' '.join(map(str, sorted({run.updates for run in runs})))}
        else:
            sizes = dict.fromkeys(str(span.stage.batch_size) for span in runs[0].spans)
            row = {'recipe': name, 'batch sizes': ' → '.join(sizes)}
        row |= {'runs': str(len(runs)), 'done': str(len(runs) - len(left))}
        row |= {'to go on': str(begun), 'to begin': str(len(left) - begun)}
        row['updates left'] = f'{sum(run.updates - update for run, update in left.items()):,}'
        row['seconds left'] = f'{sum(found.seconds[run.name] for run in left):,.0f}'
        rows.append(row)
    console = output.console()
    console.print(f'study    {study.name}, in {workdir}', soft_wrap=True)
    what = 'runs of trials at least' if study.search else 'runs'
    done = f'{len(found.runs) - len(found.left)} of them done'
    console.print(f'device   {processes.describe()}\nplanned  {len(found.runs)} {what}, {done}\n')
    console.print(as_table(rows))
    for line in lines:
        console.print(f'\n{line}')
