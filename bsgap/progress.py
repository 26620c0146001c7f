"""What is shown while training: a live table where there is a terminal or a notebook, plain lines elsewhere."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.jupyter import JupyterMixin
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bsgap import cluster, config, data
from bsgap import study as study_lib

if TYPE_CHECKING:
    from bsgap.train import Seat


class View:
    """Shows a row a recipe. Use as a context manager; call `start`, then `add`, before `trained` and `evaluated`.

    The devices' threads may call it at once. Of several processes each shows its own runs, in plain lines.
    """

    def __init__(self, study: config.Study, datasets: Mapping[config.Variant, data.Dataset], workdir: Path) -> None:
        self._console = Console(highlight=False)
        self._study, self._datasets, self._workdir = study, datasets, workdir
        self._recipes: dict[str, list[Seat]] = {}
        self._goals: Sequence[study_lib.Goal] = ()
        self._begun: dict[str, tuple[Seat, int]] = {}  # runs, and the updates at which they were
        self._first: dict[str, tuple[int, float]] = {}  # where each recipe stood when it was added, and at what time
        self._speed: dict[str, float] = {}  # examples a second
        self._waited = 0.0  # seconds of compilation, which say nothing about the time left
        self._compiled_at = 0.0
        self._began = time.monotonic()
        self._doing = ''
        self._live: Live | _Notebook | None = None
        self._rounds = 0

    def __enter__(self) -> 'View':
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._now('')
            self._live.stop()

    def warn(self, message: str) -> None:
        """Prints a line that stays."""
        self._print(f'warning: {message}')

    def say(self, message: str) -> None:
        """Prints a line of progress."""
        self._print(message)

    def start(self, goals: Sequence[study_lib.Goal]) -> None:
        """Says what will be trained, and on what."""
        self._recipes, self._first = {}, {}
        self._goals, self._begun = goals, {}
        self._began, self._waited = time.monotonic(), 0.0
        self._rounds += 1
        if self._rounds == 1:
            self._head(goals)
        elif goals:
            sizes = sorted({goal.run.span(0).stage.batch_size for goal in goals})
            self._print(f'round {self._rounds}  {len(goals)} runs to go on, batch sizes {", ".join(map(str, sizes))}')

    def add(self, seats: 'Sequence[Seat]') -> None:
        """From now on these runs are trained."""
        recipes = dict(self._recipes)
        for seat in seats:
            recipes[seat.run.recipe.name] = [*recipes.get(seat.run.recipe.name, ()), seat]
            self._begun[seat.run.name] = seat, seat.update
        now = self._working()
        self._first |= {name: (_example(recipes[name]), now) for name in {seat.run.recipe.name for seat in seats}}
        self._recipes = recipes  # as a whole, since another thread may be drawing
        if seats and not self._live and cluster.count() == 1:
            if self._console.is_jupyter:
                self._live = _Notebook(self)
            elif self._console.is_terminal:
                self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2)
                self._live.start(refresh=True)

    def _head(self, goals: Sequence[study_lib.Goal]) -> None:
        recipes, wanted = len(self._study.recipes), len(self._study.recipes) * self._study.seeds
        resumed = sum(bool(study_lib.saved_updates(self._workdir, goal.run.name)) for goal in goals)
        going_on = f' to train{" here" * (cluster.count() > 1)}: {len(goals)}' + (
            f', {resumed} of them from where they were saved' if resumed else ''
        )
        if self._study.search:
            searched = f'a search from {recipes} recipes × {self._study.seeds} seeds; in its first round{going_on}'
            self._print(f'study    {self._study.name}: {searched}')
        else:
            runs = f'{recipes} recipes × {self._study.seeds} seeds = {wanted} runs'
            self._print(f'study    {self._study.name}: {runs};{going_on}')
        for variant, dataset in self._datasets.items():
            splits = ', '.join(f'{len(split.labels_N):,} {name}' for name, split in dataset.splits.items())
            noise = f', {variant.label_noise:.0%} of the labels changed' if variant.label_noise else ''
            self._print(f'data     {self._study.data.dataset}: {splits} examples, {dataset.classes} classes{noise}')
        for architecture in dict.fromkeys(recipe.architecture for recipe in self._study.recipes):
            self._print(f'model    {architecture.text}, {self._study.precision}')
        self._print(f'device   {cluster.describe()}')
        self._print(f'workdir  {self._workdir}')

    @contextlib.contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """Says that a program is being compiled."""
        began = time.monotonic()
        self._now(f'compiling: {what} …')
        yield
        ended = time.monotonic()
        self._waited += max(0.0, ended - max(began, self._compiled_at))  # devices compile at the same time
        self._compiled_at = ended
        self._now('')
        if not self._live:
            self._print(f'compiled {what} in {ended - began:.1f} s')

    def trained(self, seats: 'Sequence[Seat]', examples: int, seconds: float) -> None:
        """A cohort's segment has ended; `examples` is the sum over its runs."""
        for recipe in {seat.run.recipe.name for seat in seats}:
            share = sum(seat.run.recipe.name == recipe for seat in seats) / len(seats)
            self._speed[recipe] = share * examples / max(seconds, 1e-6)
        self._now('')

    def evaluated(self, seats: 'Sequence[Seat]') -> None:
        """Some of a cohort's runs have a new row."""
        self._now('')
        if not self._live:
            clock = _duration(time.monotonic() - self._began)
            for recipe in dict.fromkeys(seat.run.recipe.name for seat in seats):
                cells = '  '.join(f'{heading} {cell}' for heading, cell in self._cells(recipe).items())
                self._print(f'{clock}  {cells}')

    def _print(self, line: str) -> None:
        if cluster.count() > 1:
            line = f'[{cluster.index()}] {line}'
        self._console.print(line, markup=False, soft_wrap=True)

    def _now(self, doing: str) -> None:
        self._doing = doing
        if self._live:
            self._live.refresh()

    def _render(self) -> '_Picture':
        table = Table(box=None, pad_edge=False, header_style='bold')
        rows = [self._cells(recipe) for recipe in self._recipes]
        for heading in rows[0] if rows else ():  # a round has begun, but none of its runs yet
            table.add_column(heading, justify='left' if heading == 'recipe' else 'right', no_wrap=True)
        for row in rows:
            table.add_row(*row.values())
        seats = [seat for seat, _ in list(self._begun.values())]
        done = sum(seat.example for seat in seats)
        total = sum(seat.example if seat.diverged else seat.goal.last_example for seat in seats)
        total += sum(goal.last_example for goal in self._goals if goal.run.name not in self._begun)
        working = _duration(time.monotonic() - self._began)
        left = _duration(self._all_seconds_left())
        note = f' {done / max(total, 1):4.0%}  {working} passed, {left} left  {self._doing}'
        bar = Table.grid()
        bar.add_row(ProgressBar(total=total, completed=done, width=30), Text(note, no_wrap=True, overflow='ellipsis'))
        return _Picture(table, bar)

    def _cells(self, recipe: str) -> dict[str, str]:
        """What is known of a recipe, by heading: means over its runs' last rows that have it."""
        seats = self._recipes[recipe]
        run = seats[0].run
        diverged = sum(seat.diverged for seat in seats)
        going = [seat.rows for seat in seats if not seat.diverged]

        def mean(column: str, form: str = '.2%', scale: int = 1) -> str:
            known = [[row[column] for row in rows if column in row] for rows in going]
            last = [values[-1] for values in known if values]
            return f'{scale * statistics.fmean(last):{form}}' if last else '–'

        validation = {'validation': mean('validation_accuracy')} if self._study.data.validation else {}
        return {
            'recipe': recipe,
            'runs': f'{len(seats)}' + (f' ({diverged} diverged)' if diverged else ''),
            'epoch': f'{round(_example(seats) / run.n, 2):g}/{round(seats[0].goal.last_example / run.n, 2):g}',
            'train': mean('train_accuracy'),
            **validation,
            'test': mean('test_accuracy'),
            'gap': mean('gap', '+.2f', 100),
            'examples/s': f'{self._speed[recipe]:,.0f}' if recipe in self._speed else '–',
            'time left': _duration(self._seconds_left(recipe)),
        }

    def _seconds_left(self, recipe: str) -> float:
        """Recipes pass through their examples together, so each one's pace since it was added tells when it ends."""
        seats = [seat for seat in self._recipes[recipe] if not seat.diverged]
        if not seats:
            return 0.0
        first, began = self._first[recipe]
        passed, left = _example(seats) - first, seats[0].goal.last_example - _example(seats)
        return (self._working() - began) * left / passed if passed else float('nan') if left else 0.0

    def _working(self) -> float:
        """Seconds since the start of the round, compilation apart."""
        return time.monotonic() - self._began - self._waited

    def _all_seconds_left(self) -> float:
        """By what an update costs, because not all runs need be begun yet."""
        begun = list(self._begun.values())
        passed = sum(study_lib.cost(seat.goal, first, seat.update) for seat, first in begun)
        left = sum(study_lib.cost(seat.goal, seat.update) for seat, _ in begun if not seat.diverged)
        left += sum(study_lib.cost(goal) for goal in self._goals if goal.run.name not in self._begun)
        return self._working() * left / passed if passed else float('nan') if left else 0.0


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


def _example(seats: 'Sequence[Seat]') -> int:
    """Where the run that is furthest behind stands."""
    return min(seat.example for seat in seats)


def _duration(seconds: float) -> str:
    if seconds != seconds:
        return '–'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
