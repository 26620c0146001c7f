"""A launch from its beginning to its end: train what is missing, measure, report."""

import concurrent.futures
import contextlib
import errno
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis.loading import call
from bsgap.analysis.table import write_results
from bsgap.errors import Interrupted, StoppedElsewhere, UserError, said
from bsgap.files import expanded
from bsgap.launch import plan, processes
from bsgap.launch.boards import boards
from bsgap.launch.lock import locked
from bsgap.launch.progress import View
from bsgap.launch.share import deal_out
from bsgap.launch.signals import Stop
from bsgap.measure.weights import measure
from bsgap.training import memory, step
from bsgap.training import workdir as files
from bsgap.training.cohort import Member
from bsgap.training.loop import Trainer
from bsgap.training.programs import Programs, run_axis
from bsgap.training.restore import is_done
from bsgap.training.rows import Record, read_records
from bsgap.training.runs import Run
from bsgap.training.watcher import Watcher, WatcherError, as_one


def launch(
    settings: ConfigDict,
    workdir: str | Path,
    dry_run: bool = False,
    experiment: str | Path | None = None,
    given: Collection[str] = (),
) -> None:
    """Trains a study, measures and reports, in as many processes as were started; or tells what that would be.

    `experiment` is the file that the settings come from; its claims are evaluated. The fields that were `given` on the
    command line must have an effect.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used.
      Interrupted: SIGINT, SIGTERM or SIGHUP came; all runs are saved.
    """
    if 'claims' in given and settings.claims:
        # Its errors now, not after the training.
        call(settings.claims, settings.variant, expanded(experiment) if experiment else None)
    with processes.together():
        if dry_run:
            with _others_errors():
                plan.plan(settings, workdir, given)
        else:
            train(settings, workdir, given=given)
            if not processes.index():
                try:
                    from bsgap.report import page  # here, because Matplotlib takes half a second to load
                except ValueError as error:  # it reads its variables when it is loaded
                    raise UserError(f'MPLBACKEND: {error}') from error
                page.report(workdir, experiment)
        processes.meet()


def train(
    settings: ConfigDict, workdir: str | Path, watchers: Sequence[Watcher] = (), given: Collection[str] = ()
) -> None:
    """Trains those runs of a study that are missing in `workdir`, then measures what the study wants measured.

    The fields that were `given` must have an effect. Where the launch has several processes, each calls this, and
    trains its share of the runs.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used, or `workdir` could not be written any more; what
        was saved before is kept, and the same call goes on with it.
      Interrupted: SIGINT, SIGTERM or SIGHUP came; all runs are saved, and the same call goes on with them.
      Exception: whatever one of `watchers` raised; all runs are saved.
    """
    processes.start()
    study, workdir, note = config.resolve(settings, given), expanded(workdir), keep_compiled()
    with step.numerics(study.precision), _others_errors():
        shown = boards(study, workdir)
        with processes.first_goes_first():  # it may prepare a copy of the data
            study, datasets, runs = plan.with_data(settings, study, given)
        planned = () if study.search else runs
        with View(study, datasets, workdir) as view, locked(workdir):
            if note:
                view.noted(note)
            watcher = as_one([*shown, view], watchers)
            programs = functools.cache(lambda device: Programs(study, datasets, watcher, device))
            here = programs(jax.local_devices()[0])
            for recipe in study.recipes:
                here.model(recipe)  # one that can't be made stops here
            about = {**files.environment(), 'processes': processes.count(), **files.depends_on(study, datasets)}
            try:
                with (stop := Stop()).on_signals():
                    with processes.first_goes_first(stop.check):
                        files.open_workdir(workdir, study, planned, about, write=not processes.index())
                    for wanted in filter(None, _rounds(study, runs, here, workdir, stop)):
                        _train_round(study, programs, wanted, workdir, view, watcher, stop)
                share = processes.index(), processes.count()
                measure(study, here, planned, workdir, watcher, processes.stop_if_told, share)
            except OSError as error:
                raise files.unusable(workdir, error) from error
    processes.meet()


@contextlib.contextmanager
def _others_errors() -> Iterator[None]:
    """A watcher's error goes on as it was. Memory that runs out elsewhere than in training is told in one line too."""
    try:
        yield
    except WatcherError as error:
        raise error.__cause__ or error from None
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if memory.is_full(error):
            raise UserError(f'memory is full: {said(error)}; make the model or the dataset smaller') from error
        raise


def _rounds(
    study: config.Study, runs: Sequence[Run], programs: Programs, workdir: Path, stop: Stop
) -> Iterable[Sequence[Run]]:
    """What is trained, one list of runs after the other; of a search, each depends on what came of the one before."""
    if study.search is None:
        yield runs
        return
    from bsgap.search.rounds import Rounds  # here, for pandas, which no other study needs while it trains

    with processes.first_goes_first(stop.check):
        measure = functools.partial(memory.measured_alone, programs)
        rounds = Rounds(study, runs[0].n, measure, workdir, write=not processes.index())
    for wanted in rounds:
        with processes.first_goes_first(stop.check):
            files.add_runs(workdir, wanted)
        yield wanted


def _train_round(
    study: config.Study,
    programs: Callable[[jax.Device], Programs],
    runs: Sequence[Run],
    workdir: Path,
    view: View,
    watcher: Watcher,
    stop: Stop,
) -> None:
    """Trains runs from where they are to their ends, on this process's devices, or until the training shall end."""
    records = {record.name: record for record in read_records(workdir)}
    axis = run_axis(study)
    dealt = deal_out(runs, processes.all_devices(), side_by_side=axis == 'vmap')
    plan_of_all = repr([axis, *([(run.name, run.updates) for run in share] for share in dealt)])
    missing = [[run for run in share if not is_done(run, workdir, records)] for share in dealt]
    shares = {device: dealt[place] for place, device in processes.devices().items() if missing[place]}
    processes.meet(stop.check, plan_of_all)
    view.start([run for place in processes.devices() for run in missing[place]])
    told = as_one([_Results(workdir, records), watcher])

    def train_share(device: jax.Device) -> None:
        try:
            Trainer(study, programs(device), workdir, told, stop.check).train(shares[device], records)
        except BaseException:
            stop.failed = True  # so that the other devices save and end too
            raise

    if len(shares) == 1:
        train_share(*shares)
    elif shares:
        with concurrent.futures.ThreadPoolExecutor(len(shares)) as pool:
            futures = [pool.submit(train_share, device) for device in shares]
            try:
                concurrent.futures.wait(futures)
            except KeyboardInterrupt:  # a second signal
                stop.failed = True
                raise
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Interrupted | StoppedElsewhere)):
            raise error
    stop.check()  # a signal may have come in the last segment, or while it was saved
    processes.meet(stop.check)
    if not processes.index():
        write_results(workdir, read_records(workdir))


class _Results(Watcher):
    """Shows in results.csv how far the runs are; where others train some, process 0 does so at the end."""

    def __init__(self, workdir: Path, records: Mapping[str, Record]) -> None:
        self._workdir, self._records = workdir, records
        self._writing = threading.Lock()

    def evaluated(self, members: Sequence[Member]) -> None:
        if processes.count() == 1:
            with self._writing:
                write_results(self._workdir, list(self._records.values()))


def keep_compiled() -> str:
    """Lets later launches find the compiled programs, in the user's cache unless JAX was told another place; says so
    where that can't be."""
    if not jax.config.values.get('jax_compilation_cache_dir'):
        cache = expanded(os.environ.get('XDG_CACHE_HOME') or '~/.cache').absolute() / 'bsgap' / 'compiled'
        try:
            if '~' in cache.parts:
                raise FileNotFoundError(errno.ENOENT, 'there is no home folder')
            cache.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache).close()
        except OSError as error:
            return f'cache    none: {cache} cannot be used ({error.strerror}), so programs are compiled anew'
        jax.config.update('jax_compilation_cache_dir', str(cache))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    return ''
