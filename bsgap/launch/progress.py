"""What is shown while training: a live table where there is a terminal or a notebook, plain lines elsewhere."""

import contextlib
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group
from rich.jupyter import JupyterMixin
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bsgap import config, data, output
from bsgap.analysis.statistics import plural
from bsgap.launch import processes
from bsgap.training.cohort import Member
from bsgap.training.runs import Run, cost
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import saved_updates

TOLD = 1e-3  # of what is left must have passed before the time left is told
SILENT_SECONDS = 30  # without a terminal, the longest without a line


class View(Watcher, contextlib.AbstractContextManager['View']):
    """Shows a row a recipe. Use as a context manager; call `start` at the start of each round.

    The devices' threads may call it at once. Of several processes each shows its own runs, in plain lines.
    """

    def __init__(self, study: config.Study, datasets: Mapping[config.TrainingSet, data.Dataset], workdir: Path) -> None:
        self._console = output.console()
        self._study, self._datasets, self._workdir = study, datasets, workdir
        self._recipes: dict[str, list[Member]] = {}
        self._runs: Sequence[Run] = ()
        self._begun: dict[str, tuple[Member, int]] = {}  # runs, and the updates at which they were
        self._speed: dict[str, float] = {}  # examples a second
        self._waited = self._compiled_at = 0.0  # seconds of compilation, which say nothing about the time left
        self._began = time.monotonic()
        self._doing, self._rounds = '', 0
        # By recipe: the last epoch that a line told of it, and whether it was its end.
        self._told: dict[str, tuple[float, bool]] = {}
        self._live: Live | _Notebook | None = None
        self._said_at, self._over = self._began, threading.Event()

    def __enter__(self) -> 'View':
        threading.Thread(target=self._break_silence, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._live:
            self._now('')
            self._live.stop()

    def _break_silence(self) -> None:
        """Without a terminal, says how far training is when nothing was said for a while."""
        while not self._over.wait(max(0.0, self._said_at + SILENT_SECONDS - time.monotonic())):
            if time.monotonic() >= self._said_at + SILENT_SECONDS:
                self._said_at = time.monotonic()
                if not self._live:
                    self.noted(self._progress())

    def warned(self, message: str) -> None:
        self.noted(f'warning: {message}')

    def start(self, runs: Sequence[Run]) -> None:
        """Says what will be trained, and on what."""
        self._recipes, self._runs, self._begun = {}, runs, {}
        self._began, self._waited = time.monotonic(), 0.0
        self._rounds += 1
        if self._rounds > 1:
            if runs:
                sizes = sorted({run.span(0).stage.batch_size for run in runs})
                shortest, longest = (f'{of(run.updates for run in runs):,}' for of in (min, max))
                lengths = shortest if shortest == longest else f'{shortest} to {longest}'
                what = 'fresh seeds of what is best' if any(run.keep for run in runs) else 'trials'
                made = f'{plural(len(runs), "run")} of {lengths} updates'
                batch_sizes = f'batch size{"s" * (len(sizes) > 1)} {", ".join(map(str, sizes))}'
                self.noted(f'round {self._rounds}  {what}: {made}, {batch_sizes}')
            return
        study, recipes = self._study, len(self._study.recipes)
        crossed = f'{plural(recipes, "recipe")} × {plural(study.seeds, "seed")}'
        what = f'{crossed} = {plural(recipes * study.seeds, "run")};'
        if study.search:
            what = f'a search from {crossed}; in its first round'
        resumed = sum(bool(saved_updates(self._workdir, run.name)) for run in runs)
        saved = f', {resumed} of them from where they were saved' * bool(resumed)
        here = ' here' * (processes.count() > 1)
        self.noted(f'study    {study.name}: {what} to train{here}: {len(runs)}{saved}')
        said = dict[str, None]()  # a search redraws its validation split
        for training_set, dataset in self._datasets.items():
            splits = ', '.join(f'{len(split.labels_N):,} {name}' for name, split in dataset.splits.items())
            noise = f', {training_set.label_noise:.0%} of the labels changed' if training_set.label_noise else ''
            fewer = f'; there are no {training_set.subset:,} to train on' * (dataset.n < training_set.subset)
            one, many = ('class', 'classes') if dataset.has_classes else ('target', 'targets')
            kinds = f'{dataset.outputs} {many if dataset.outputs > 1 else one}'
            of_data = f'{study.data.dataset}: {splits} examples, {kinds}{noise}{fewer}'
            said |= dict.fromkeys((of_data, *dataset.notes))
        for text in said:
            self.noted(f'data     {text}')
        for architecture in dict.fromkeys(recipe.architecture for recipe in study.recipes):
            self.noted(f'model    {architecture.text}, {study.precision}')
        self.noted(f'device   {processes.describe()}')
        self.noted(f'workdir  {self._workdir}')

    def began(self, members: Sequence[Member]) -> None:
        recipes = dict(self._recipes)
        for member in members:
            recipes[member.run.recipe.name] = [*recipes.get(member.run.recipe.name, ()), member]
            self._begun[member.run.name] = member, member.update
        self._recipes = recipes  # as a whole, since another thread may be drawing
        if members and not self._live and processes.count() == 1:
            if self._console.is_jupyter:
                self._live = _Notebook(self)
            elif self._console.is_terminal:
                self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2)
                self._live.start(refresh=True)

    def compiling(self, what: str) -> None:
        self._now(f'compiling: {what} …')

    def compiled(self, what: str, seconds: float) -> None:
        ended = time.monotonic()
        self._waited += max(0.0, ended - max(ended - seconds, self._compiled_at))  # devices compile at the same time
        self._compiled_at = ended
        self._now('')
        if not self._live and seconds >= 1:
            self.noted(f'compiled {what} in {seconds:.1f} s')

    def trained(self, members: Sequence[Member], examples: int, seconds: float) -> None:
        for recipe in {member.run.recipe.name for member in members}:
            share = sum(member.run.recipe.name == recipe for member in members) / len(members)
            self._speed[recipe] = share * examples / max(seconds, 1e-6)
        self._now('')

    def evaluated(self, members: Sequence[Member]) -> None:
        self._now('')
        if self._live or self._study.search:  # its trials are many and short
            return
        for recipe in dict.fromkeys(member.run.recipe.name for member in members):
            behind = _behind(self._recipes[recipe])
            at = behind.rows[-1]['examples'] if behind.rows else 0
            where = at // behind.run.n, at == behind.run.examples
            if self._told.get(recipe) != where:  # it may be evaluated more often
                self._told[recipe] = where
                cells = '  '.join(f'{heading} {cell}' for heading, cell in self._cells(self._recipes[recipe]).items())
                self.noted(f'{self._clock()}  {cells}')

    def noted(self, message: str) -> None:
        mine = f'[{processes.index()}] ' * (processes.count() > 1)
        self._said_at = time.monotonic()
        self._console.print(f'{mine}{message}', soft_wrap=True)

    def _now(self, doing: str) -> None:
        self._doing = doing
        if self._live:
            self._live.refresh()

    def _render(self) -> '_Picture':
        done, total = self._done()
        note = Text(f' {self._progress()}', no_wrap=True, overflow='ellipsis')
        bar = Table.grid()
        bar.add_row(ProgressBar(total=total, completed=done, width=30), note)
        return _Picture(as_table([self._cells(members) for members in self._recipes.values()]), bar)

    def _done(self) -> tuple[int, int]:
        """Examples of all runs of the round, those that are trained and all."""
        members = [member for member, _ in list(self._begun.values())]
        total = sum(member.example if member.diverged else member.run.examples for member in members)
        total += sum(run.examples for run in self._runs if run.name not in self._begun)
        return sum(member.example for member in members), total

    def _progress(self) -> str:
        done, total = self._done()
        return f'{done / total:4.0%}  {self._clock()}  {self._doing}'.rstrip() if total else self._doing or 'at work'

    def _cells(self, members: Sequence[Member]) -> dict[str, str]:
        """What is known of a recipe's runs, by heading: means over their last rows that have it, up to the last of the
        run that is behind."""
        run, behind = members[0].run, _behind(members)
        recipe, until = run.recipe.name, behind.rows[-1]['update'] if behind.rows else 0
        diverged = sum(member.diverged for member in members)
        going = [member.rows for member in members if not member.diverged]

        def mean(column: str, form: str, scale: int = 1) -> str:
            known = [[row[column] for row in rows if column in row and row['update'] <= until] for rows in going]
            last = [values[-1] for values in known if values]
            return f'{scale * statistics.fmean(last):{form}}'.replace('-', '−') if last else '–'

        task = config.task(self._study.data.task)
        form = '.2%' if task.is_share else '.4f'
        validation = {'validation': mean(f'validation_{task.score}', form)} if self._study.data.validation else {}
        return {
            'recipe': recipe,
            'runs': f'{len(members)}' + (f' ({diverged} diverged)' if diverged else ''),
            'epoch': f'{round(behind.example / run.n, 2):g}/{round(run.examples / run.n, 2):g}',
            'train': mean(f'train_{task.score}', form),
            **validation,
            'test': mean(f'test_{task.score}', form),
            'gap': mean('gap', '+.2f' if task.is_share else '+.4f', task.scale),
            'examples/s': f'{self._speed[recipe]:,.0f}' if recipe in self._speed else '–',
        }

    def _clock(self) -> str:
        """The time left is told by what an update costs, because not all runs need be begun yet."""
        begun = list(self._begun.values())
        passed = sum(cost(member.run, first, member.update) for member, first in begun)
        left = sum(cost(member.run, member.update) for member, _ in begun if not member.diverged)
        left += sum(cost(run) for run in self._runs if run.name not in self._begun)
        gone = time.monotonic() - self._began
        to_go = (gone - self._waited) * left / passed if passed > TOLD * left else float('nan') if left else 0.0
        return f'{_duration(gone)} passed, {_duration(to_go)} left'


def _behind(members: Sequence[Member]) -> Member:
    """Of a recipe's runs that which has come least far; one that diverged comes no further."""
    return min([member for member in members if not member.diverged] or members, key=lambda member: member.example)


def as_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """A table of rows by heading; it may have none yet."""
    table = Table(box=None, pad_edge=False, header_style='bold')
    for heading in rows[0] if rows else ():
        words = heading in ('recipe', 'batch sizes', 'lengths (updates)')  # what has no room goes on in the next line
        table.add_column(heading, justify='left' if words else 'right', no_wrap=not words, overflow='fold')
    for row in rows:
        table.add_row(*row.values())
    return table


class _Picture(Group, JupyterMixin):
    """What is drawn, for a terminal or a notebook."""


class _Notebook:
    """`Live` for a notebook; rich's own shows nothing without ipywidgets, and a saved notebook does not keep it."""

    def __init__(self, view: View) -> None:
        from IPython.display import display

        self._view, self._drawn_at = view, time.monotonic()
        self._output = display(view._render(), display_id=True)

    def refresh(self) -> None:
        if self._view._doing or time.monotonic() - self._drawn_at > 0.5:  # a browser may not keep up with each epoch
            self.stop()

    def stop(self) -> None:
        self._output.update(self._view._render())
        self._drawn_at = time.monotonic()


def _duration(seconds: float) -> str:
    if seconds != seconds:
        return '–'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
