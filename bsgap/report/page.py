"""All that is told of a workdir: results.csv, claims.csv, the figures, the page, and tables in the terminal."""

import collections
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from bsgap import config, data, output
from bsgap.analysis import answer, claims, table
from bsgap.analysis.statistics import difference, interval, level, plural
from bsgap.errors import UserError
from bsgap.files import expanded, of_study, read_json, replace, write_json
from bsgap.report import answer_figures, answer_words, figures, words
from bsgap.training.rows import Record, read_records

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader('bsgap.report', ''), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
ENVIRONMENT.filters['zip'] = lambda one, other: list(zip(one, other, strict=True))
TEMPLATE = ENVIRONMENT.get_template('report.html.jinja')
COLOURS = dict(zip(claims.VERDICTS, ('red', 'yellow', 'green'), strict=True))
QUESTION = 'Which batch size should I use to train a neural network, and what does it do to the generalization gap?'


class Contents(NamedTuple):
    """What a workdir holds, and what follows from it."""

    about: dict[str, Any]  # study.json
    records: list[Record]
    runs: pd.DataFrame  # the table of runs
    found: dict[str, Any] | None  # recommendation.json, of a search
    verdicts: list[claims.Verdict]
    notes: list[str]  # on the claims: which are left out, or not evaluated

    @property
    def kept(self) -> bool:
        """Whether the verdicts are those of claims.csv."""
        return any(note.startswith('claims as claims.csv has them') for note in self.notes)

    @property
    def says(self) -> list[str]:
        """What these runs say, in sentences."""
        if finding := claims.finding(self.about['config'].get('finding', ''), self.verdicts):
            return [finding]
        statuses = {record.name: record.status for record in self.records}
        return [] if self.found else words.sentences(self.runs, statuses, self.task)

    @property
    def task(self) -> config.Task:
        return config.task(self.about['config'].get('task', 'classification'))

    @property
    def tally(self) -> str:
        """How many claims there are of each verdict."""
        counts = collections.Counter(verdict.verdict for verdict in self.verdicts)
        each = ', '.join(f'{counts[word]} {word}' for word in claims.VERDICTS if counts[word])
        return f'{plural(len(self.verdicts), "claim")}: {each}.'

    @property
    def results(self) -> list[tuple[str, ...]]:
        """A table of the recipes, its headings first: means over the last rows of their runs."""
        task, counts = self.task, collections.Counter((run.about['recipe'], run.status) for run in self.records)
        of_scores = f'train {task.text}', f'test {task.text}', 'gap (points)' if task.is_share else 'gap'
        rows: list[tuple[str, ...]] = [('recipe', 'runs', 'epochs', 'updates', *of_scores, 's a run')]
        ends = dict(list(words.full(self.runs, task).groupby('run').tail(1).groupby('recipe')))
        for recipe in dict.fromkeys(run.about['recipe'] for run in self.records):
            lost, left = counts[recipe, 'diverged'], counts[recipe, 'running']
            if (last := ends.get(recipe)) is None:
                other = f'{left} unfinished' if left else f'{counts[recipe, "done"]} without test data'
                rows.append((recipe, f'{lost} diverged' if lost else other, *['–'] * 6))
                continue
            failed = int(last['run'].isin(self.runs.attrs['near_chance']).sum())
            made = f'{len(last)}' + f' + {lost} diverged' * (lost > 0) + f', {left} unfinished' * (left > 0)
            made += f', {failed} near chance' * (failed > 0)
            length = f'{round(last["epoch"].mean(), 2):g}', f'{last["update"].mean():,.0f}'
            scores = [level(interval(last[f'{split}_{task.score}']), task.is_share) for split in ('train', 'test')]
            gap = difference(interval(last['gap']), task.is_share).removesuffix(' points')
            seconds = f'{(last["train_seconds"] + last["eval_seconds"]).mean():.1f}'
            rows.append((recipe, made, *length, *scores, gap, seconds))
        return rows


def read(workdir: Path, experiment: Path | None = None) -> Contents:
    """Reads a workdir; `experiment` is the file with its claims, if it is not one of the checkout's.

    Raises:
      UserError: `workdir` holds no study, or a file is damaged.
    """
    about = read_json(of_study(workdir) / 'study.json', 'config', 'time', 'devices', 'machine')
    records, search = read_records(workdir), answer.decided(workdir)
    found = answer_words.add_words(answer.find(about, search, workdir)) if 'budgets' in search else None
    task = config.task(about['config'].get('task', 'classification'))
    runs = table.table(records, task.score)
    runs.attrs |= {'answer': found['numbers'] if found else {}, 'near_chance': table.near_chance(runs, about, task)}
    return Contents(about, records, runs, found, *claims.verdicts(workdir, about['config'], runs, experiment))


def report(workdir: str | Path, experiment: str | Path | None = None) -> Path:
    """Writes results.csv, claims.csv, figures/ and report.html, prints the tables, and returns the report's path.

    Of a search, recommendation.json as well. `experiment` and errors are `read`'s; UserError too if it can't write.
    """
    workdir = expanded(workdir)
    contents = read(workdir, expanded(experiment) if experiment else None)
    about, found, lines = contents.about, contents.found, workdir / 'lines.json'
    settings, model = about['config'], f', {found["model"]}' if found else ''
    dataset = data.title(settings['dataset'])
    title = f'{settings["name"]} ({dataset}{model})'.replace(f'{dataset} ({dataset})', dataset)
    where = f'{", ".join(about["devices"])} ({about["machine"]})'
    subtitle = f'{dataset}{model} · {plural(settings["seeds"], "seed")} · {about["time"][:10]} · {where}'
    try:
        table.write_results(workdir, contents.records)
        if contents.verdicts and not contents.kept:
            claims.write(workdir / 'claims.csv', contents.verdicts)
        elif not contents.kept:
            (workdir / 'claims.csv').unlink(missing_ok=True)  # it is about what was there before
        if found:
            write_json(workdir / 'recommendation.json', found)
            drawn = answer_figures.draw(found, workdir / 'figures', title)
        else:
            between = read_json(lines, 'lines')['lines'] if lines.exists() else []
            drawn = figures.draw(contents.runs, workdir / 'figures', title, settings['figures'], contents.task, between)
        shown = TEMPLATE.render(contents=contents, question=QUESTION, subtitle=subtitle, figures=drawn)
        replace(workdir / 'report.html', shown)
    except OSError as error:
        raise UserError(f'workdir: {workdir} cannot be written: {error.strerror or error}') from error
    _show(contents, workdir / 'report.html')
    return workdir / 'report.html'


def _show(contents: Contents, path: Path) -> None:
    """In the terminal's width; what stands below a claim is about it."""
    console, found, parts = output.console(), contents.found, list[Any]()
    if found:
        of_budgets = list(zip(*found['table'], strict=True))
        parts += [*found['warnings'], found['headline'], _table(('', *of_budgets[0][1:]), of_budgets[1:])]
    else:
        parts.append(_results(contents.results, console.width))
    if contents.verdicts:
        rows = [
            (
                Text.assemble(v.claim, (f'\nclaimed: {v.expected}' + f'\n{v.note}' * bool(v.note), 'dim')),
                v.measured,
                Text(v.verdict, COLOURS.get(v.verdict, '')),
            )
            for v in contents.verdicts
        ]
        parts += [_table(('claim', 'measured', 'verdict'), rows, space=1), contents.tally]
    for part in (*parts, *contents.notes):
        console.print()
        console.print(part)
    console.print(f'\nreport   {path}', soft_wrap=True)


def _results(rows: Sequence[Sequence[str]], width: int) -> Table:
    """The results, without those columns that have no room and can be done without."""
    columns = list(zip(*rows, strict=True))
    for spare in ('s a run', 'updates', 'epochs'):
        if sum(max(map(cell_len, column)) + 2 for column in columns) > width + 2:
            columns = [column for column in columns if column[0] != spare]
    headings, *others = zip(*columns, strict=True)
    return _table(headings, others, numbers=True)


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]], space: int = 0, numbers: bool = False) -> Table:
    """For the terminal: what has no room goes on in the next line, and nothing is cut; `numbers` stand on the right."""
    made = Table(box=None, pad_edge=False, header_style='bold', padding=(0, 2, space, 0))
    for i, heading in enumerate(headings):
        look: Any = {'justify': 'right'} if numbers and i else {'min_width': 8 * (not i) or None}
        made.add_column(heading, overflow='fold', **look)
    for row in rows:
        made.add_row(*row)
    return made
