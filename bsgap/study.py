"""A study's runs, their grouping into cohorts, and the workdir that they live in.

workdir/study.json                  the resolved config, versions, devices, git revision
workdir/results.csv                 one row a run
workdir/runs/<run>/run.json         the recipe and the seed
workdir/runs/<run>/metrics.csv      one row an evaluation
workdir/runs/<run>/checkpoints/     Orbax
workdir/lock                        held by the launch that trains there
workdir/figures/, workdir/report.html
"""

import contextlib
import dataclasses
import datetime
import fcntl
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax

from bsgap import cluster, config, schedule

LENGTHS = ('epochs', 'updates', 'examples')
PACKAGES = ('bsgap', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


@dataclasses.dataclass(frozen=True)
class Run:
    """One recipe with one seed, on `n` training examples."""

    recipe: config.Recipe
    seed: int
    n: int

    @property
    def name(self) -> str:
        return f'{self.recipe.name}-seed{self.seed}'

    @functools.cached_property
    def spans(self) -> tuple[schedule.Span, ...]:
        return schedule.place(self.recipe.stages, self.n)

    @functools.cached_property
    def full_evaluations(self) -> frozenset[int]:
        """The updates before which the run is evaluated on all splits."""
        recipe = self.recipe
        if recipe.evaluate_at:
            end = set() if recipe.validate_at else {self.updates}
            return frozenset(end.union(u for u in recipe.evaluate_at if u <= self.updates))
        return frozenset(schedule.evaluations(self.spans, self.n, recipe.evaluate_epochs, recipe.evaluate_updates))

    @functools.cached_property
    def evaluations(self) -> tuple[int, ...]:
        """The updates before which the run is evaluated, on all splits or on the validation split alone, in order."""
        dense = {u for u in self.recipe.validate_at if u < self.updates}
        return tuple(sorted(self.full_evaluations | dense | {self.updates}))

    @property
    def updates(self) -> int:
        """In the whole run."""
        return self.spans[-1].last_update

    @property
    def examples(self) -> int:
        """In the whole run."""
        return self.spans[-1].last_example

    def example(self, update: int) -> int:
        """The number of examples seen before `update`."""
        return schedule.example_at(self.spans, update, self.n)

    def span(self, update: int) -> schedule.Span:
        """The stage that `update` belongs to, in its place."""
        return schedule.span_at(self.spans, update)

    @property
    def program(self) -> tuple[Any, ...]:
        """What decides its compiled programs, besides the batch size."""
        recipe = self.recipe
        return recipe.architecture, recipe.variant, recipe.kind, recipe.noise_scale

    def cohort(self, update: int) -> tuple[Any, ...]:
        """What the runs of a cohort have in common: all that is compiled, and the example that they stand at."""
        return *self.program, self.span(update).stage.batch_size, self.example(update)


class Goal(NamedTuple):
    """How far a run is to be trained in a round: before this update, at which it is evaluated."""

    run: Run
    until: int
    trunk: Run | None = None  # a shorter run whose seed and stages it begins with, and from whose end it may go on

    @property
    def last_example(self) -> int:
        return self.run.example(self.until)


def runs(study: config.Study, n: Mapping[config.Variant, int]) -> tuple[Run, ...]:
    """Crosses the recipes with the seeds; `n` is the number of training examples, by variant.

    Raises:
      UserError: a batch size is larger than the number of training examples.
    """
    for recipe in study.recipes:
        for i, stage in enumerate(recipe.stages):
            if stage.batch_size > n[recipe.variant]:
                raise config.UserError(
                    f'config.batch_size: {stage.batch_size} is not allowed (recipe {recipe.name}, stage {i + 1});'
                    f' it must be a whole number from 1 to {n[recipe.variant]}, the number of training examples'
                )
    return tuple(Run(recipe, seed, n[recipe.variant]) for recipe in study.recipes for seed in range(study.seeds))


def targets(goals: Iterable[Goal]) -> tuple[int, ...]:
    """The examples at which some run changes its stage or stops: there the runs are grouped into cohorts anew."""
    return tuple(sorted({min(span.last_example, goal.last_example) for goal in goals for span in goal.run.spans}))


def shares(goals: Sequence[Goal], devices: int, side_by_side: bool) -> list[list[Goal]]:
    """Deals runs out to devices so that the one that is busy longest is so for as short as may be.

    Runs with the same batch sizes stay together, so that they form cohorts, unless parting them helps. The longest go
    first, each to the device that has least (Graham 1969). A function of its arguments alone, not of what is trained.
    """
    alike: dict[Any, list[int]] = {}
    for i, goal in enumerate(goals):
        batch_sizes = tuple((span.stage.batch_size, span.last_example) for span in goal.run.spans)
        alike.setdefault((goal.run.program, batch_sizes, goal.until), []).append(i)

    def cost_of(piece: Sequence[int]) -> float:
        return cost(goals[piece[0]], runs=len(piece), side_by_side=side_by_side)

    def deal(pieces: Iterable[list[int]]) -> list[list[list[int]]]:
        dealt: list[list[list[int]]] = [[] for _ in range(devices)]
        for piece in sorted(pieces, key=cost_of, reverse=True):
            min(dealt, key=load).append(piece)
        return sorted(dealt, key=load, reverse=True)

    def load(device: Iterable[list[int]]) -> float:
        return sum(map(cost_of, device))

    pieces = list(alike.values())
    best = deal(pieces)
    while len(largest := max(best[0], key=cost_of, default=[])) > 1:
        parted = [piece for piece in pieces if piece is not largest] + [largest[::2], largest[1::2]]
        dealt = deal(parted)
        if list(map(load, dealt)) >= list(map(load, best)):
            break
        pieces, best = parted, dealt
    return [[goals[i] for i in sorted(itertools.chain.from_iterable(device))] for device in best]


def cost(
    goal: Goal, first_update: int = 0, last_update: int | None = None, runs: int = 1, side_by_side: bool = False
) -> float:
    """Roughly how long such runs take as a cohort, in examples: an update passes over a run's weights, which takes as
    long as 8 examples on a CPU; an accelerator, where the runs go side by side, has a latency besides."""
    overhead, of_run = (200, 32) if side_by_side else (0, 8)
    until = goal.until if last_update is None else last_update
    return sum(
        max(0, min(until, span.last_update) - max(first_update, span.first_update))
        * (overhead + runs * (of_run + span.stage.batch_size))
        for span in goal.run.spans
    )


def start_updates(saved: dict[Run, list[int]], cohort: Callable[[Run, int], list[str]]) -> dict[Run, int]:
    """Where each run goes on, given the updates at which it was saved and the cohort that it was saved with.

    That is where it was saved last, unless the process was killed after saving some runs of a cohort and before saving
    the others: then those that are ahead go back to where the others are, so that the cohort goes on as it was.
    """
    left = {run: sorted(updates) for run, updates in saved.items()}
    by_name = {run.name: run for run in saved}

    def last(run: Run, updates: list[int]) -> int:
        return run.example(updates[-1]) if updates else 0

    def ahead(run: Run) -> bool:
        updates = left[run]
        mates = [by_name[name] for name in cohort(run, updates[-1]) if name in by_name] if updates else []
        return any(last(mate, left[mate]) == last(run, updates[:-1]) for mate in mates if mate != run)

    while torn := [run for run in left if ahead(run)]:
        for run in torn:
            left[run].pop()
    return {run: updates[-1] if updates else 0 for run, updates in left.items()}


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other launches out of a workdir, which is made if need be; the lock ends with the process.

    The processes of a launch hold it together: the last one that lives keeps others out.

    Raises:
      UserError: another launch works there, or the workdir can't be written.
    """
    with contextlib.ExitStack() as stack:
        with cluster.first_goes_first():
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((workdir / 'lock').open('a+'))
            except OSError as error:
                raise unusable(workdir, error) from error
            _lock(workdir, file)
        yield


def _lock(workdir: Path, file: TextIO) -> None:
    try:
        if not cluster.index():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if cluster.count() > 1:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        raise config.UserError(
            f'--workdir: {workdir} is in use by {file.read().strip() or "another launch"};'
            ' wait for its end, stop it, or use another'
        ) from error
    except OSError:  # a file system without locks, as some that are mounted from elsewhere
        pass
    if not cluster.index():
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
            file.flush()


def unusable(workdir: Path, error: OSError) -> config.UserError:
    """What to say when a workdir can't be written or read."""
    return config.UserError(f'--workdir: {workdir} cannot be used: {error.strerror or error}')


def open_workdir(workdir: Path, study: config.Study, planned: tuple[Run, ...]) -> None:
    """Checks that what a workdir holds agrees with the study; writes study.json and each run.json.

    Raises:
      UserError: the workdir can't be written, or holds runs that were trained with other settings.
    """
    try:
        earlier = check_workdir(workdir, study)
        add_runs(workdir, planned)
        if not cluster.index():
            about = {'config': settings(study), **environment(), 'earlier_launches': earlier}
            write_json(workdir / 'study.json', about)
    except OSError as error:
        raise unusable(workdir, error) from error


def check_workdir(workdir: Path, study: config.Study) -> list[Any]:
    """What study.json says of the launches until now.

    Raises:
      UserError: it says something else than the study.
    """
    path = workdir / 'study.json'
    if path.exists():
        before = read_json(path, 'config', 'earlier_launches')
        _agree(workdir, settings(study), before.pop('config'))
        return [*before.pop('earlier_launches'), before]
    if any(workdir.glob('runs/*/metrics.csv')):
        raise config.UserError(f'--workdir: {workdir} has runs but no study.json, which says how; use another')
    return []


def add_runs(workdir: Path, planned: Iterable[Run]) -> None:
    """Writes the run.json of those runs that have none, and of those that are to be trained further than before.

    Raises:
      UserError: a run of that name was trained with other settings; nothing was written.
    """
    files = {run_folder(workdir, run.name) / 'run.json': run for run in planned}
    new, longer = compare_runs(files)
    for file in longer:  # what was measured of the weights with which a run ended before
        (file.parent / 'measurements.json').unlink(missing_ok=True)
        (workdir / 'lines.json').unlink(missing_ok=True)
    for file in new + longer:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, describe(files[file]))


def settings(study: config.Study) -> dict[str, Any]:
    """The study as plain data, under the names that the config has."""
    fields = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    fields.update(dataclasses.asdict(fields.pop('data')))
    if search := fields.pop('search'):
        fields |= {f'search.{name}': getattr(search, name) for name in config.SEARCH_FIELDS}
    fields['recipes'] = {recipe.name: _recipe(recipe) for recipe in study.recipes}
    return json.loads(json.dumps(fields))


def _recipe(recipe: config.Recipe) -> dict[str, Any]:
    """A recipe as plain data: its fields as they were given, and its stages."""
    fields = dict(recipe.fields) | {'model_arguments': dict(recipe.architecture.arguments)}
    return {'fields': fields, 'stages': [dataclasses.asdict(stage) for stage in recipe.stages]}


def _agree(workdir: Path, new: dict[str, Any], old: dict[str, Any]) -> None:
    for field, value in new.items():
        if field not in config.FREE_FIELDS and value != old.get(field):
            raise config.UserError(
                f'config.{field}: {value} contradicts {old.get(field)}, with which the runs in {workdir} were trained;'
                ' use the same, or another --workdir'
            )


def compare_runs(files: Mapping[Path, Run]) -> tuple[list[Path], list[Path]]:
    """Of the run.json of these runs, those that are missing, and those that describe a shorter run.

    Raises:
      UserError: one describes another run.
    """
    new = [file for file in files if not file.exists()]
    return new, [file for file in files if file not in new and _continues(file, files[file])]


def _continues(path: Path, run: Run) -> bool:
    """Whether a run goes further than its run.json says, and up to there as that says; False if it says the same.

    Raises:
      UserError: it says something else.
    """
    old, new = read_json(path, 'fields', 'stages', 'n', 'updates'), describe(run)
    if new == old:
        return False
    longer = _is_start(old, run)
    for field, value in new['fields'].items():
        if (field not in old['fields'] or value != old['fields'][field]) and not (longer and field in LENGTHS):
            raise config.UserError(
                f'config.{field}: {value} contradicts {old["fields"].get(field)} in {path}; use the same, another name'
                ' for the recipe, or another --workdir'
            )
    if not longer:
        raise config.UserError(
            f'config.recipes.{new["recipe"]}: its stages, or the number of examples, contradict those in {path};'
            ' use the same, another name, or another --workdir'
        )
    return True


def _is_start(old: Mapping[str, Any], run: Run) -> bool:
    """Whether what a run.json describes is the start of a run: the same updates, and fewer."""
    if old['n'] != run.n or old['updates'] >= run.updates:
        return False
    spans = schedule.place(tuple(schedule.Stage(**stage) for stage in old['stages']), run.n)
    for span in spans:
        now = run.span(span.first_update)
        same = (now.first_update, now.first_example) == (span.first_update, span.first_example)
        to_its_end = span.last_update <= now.last_update and run.example(span.last_update) == span.last_example
        constant = now.stage.rule == 'constant' or span.last_update == now.last_update
        stage = dataclasses.replace(span.stage, length=now.stage.length, unit=now.stage.unit)
        if not (same and to_its_end and constant and stage == now.stage):
            return False
    return True


def describe(run: Run) -> dict[str, Any]:
    """What run.json says."""
    about = {'name': run.name, 'recipe': run.recipe.name, 'seed': run.seed, 'n': run.n}
    about |= {'updates': run.updates, 'examples': run.examples}
    return json.loads(json.dumps({**about, **_recipe(run.recipe)}))


def run_folder(workdir: Path, name: str) -> Path:
    return workdir / 'runs' / name


def saved_updates(workdir: Path, name: str) -> list[int]:
    """The updates at which a run was saved, ascending, as the names of folders say."""
    saved = (run_folder(workdir, name) / 'checkpoints').glob('[0-9]*')
    return sorted(int(path.name) for path in saved if path.name.isdigit())


def environment() -> dict[str, Any]:
    """What a result depends on besides the config."""
    return {
        'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'command': ' '.join(sys.argv),
        'python': platform.python_version(),
        'versions': {package: importlib.metadata.version(package) for package in PACKAGES},
        'devices': [device.device_kind for device in jax.devices()],
        'platform': jax.default_backend(),
        'processes': cluster.count(),
        'machine': f'{platform.machine()}, {os.cpu_count()} CPU cores',
        'git': _git_revision(),
    }


def _git_revision() -> str | None:
    """The revision of the checkout that bsgap runs from, with -dirty if it was changed; None outside a checkout."""
    command = ['git', '-C', str(Path(__file__).parent), 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UserError: it can't be read, or lacks one of `keys`.
    """
    try:
        content = json.loads(path.read_text())
        missing = [key for key in keys if key not in content]
    except (OSError, TypeError, ValueError) as error:
        raise config.UserError(f'workdir: {path} is damaged: {error}; restore it or use another workdir') from error
    if missing or not isinstance(content, dict):
        raise config.UserError(f'workdir: {path} is damaged: {missing} missing; restore it or use another workdir')
    return content


def write_json(path: Path, content: Any) -> None:
    replace(path, json.dumps(content, indent=2) + '\n')


def replace(path: Path, text: str) -> None:
    """Writes a file as a whole, so that a killed process leaves the old one or the new one."""
    part = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}')
    part.write_text(text)
    part.replace(path)
