"""All that is told of a workdir: results.csv, claims.csv, the figures, the page, and tables in the terminal."""

import base64
import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from rich.table import Table

from bsgap import config, data, output
from bsgap.analysis import answer, claims, table
from bsgap.analysis.statistics import difference, interval, level
from bsgap.errors import UserError
from bsgap.files import expanded, of_study, read_json, replace, write_json
from bsgap.report import answer_figures, answer_words, figures, words
from bsgap.training.rows import Record, read_records

TEMPLATE = jinja2.Environment(
    loader=jinja2.PackageLoader('bsgap.report', ''), autoescape=True, trim_blocks=True, lstrip_blocks=True
).get_template('report.html.jinja')
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
    def judged(self) -> list[tuple[str, ...]]:
        """A table of the claims, its headings first; none without claims."""
        return [claims.HEADINGS, *map(claims.cells, self.verdicts)] if self.verdicts else []

    @property
    def results(self) -> list[tuple[str, ...]]:
        """A table of the recipes, its headings first: means over the last rows of their runs."""
        task, counts = self.task, collections.Counter((run.about['recipe'], run.status) for run in self.records)
        of_scores = f'train {task.text}', f'test {task.text}', 'gap (points)' if task.is_share else 'gap'
        rows: list[tuple[str, ...]] = [('recipe', 'runs', 'epochs', 'updates', *of_scores, 's a run')]
        for recipe, last in words.full(self.runs, task).groupby('run').tail(1).groupby('recipe', sort=False):
            lost, left = counts[recipe, 'diverged'], counts[recipe, 'running']
            made = f'{len(last)}' + f' + {lost} diverged' * (lost > 0) + f', {left} unfinished' * (left > 0)
            length = f'{last["epoch"].mean():g}', f'{last["update"].mean():,.0f}'
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
    runs = table.table(records, config.task(about['config'].get('task', 'classification')).score)
    runs.attrs['answer'] = found['numbers'] if found else {}
    return Contents(about, records, runs, found, *claims.verdicts(workdir, about['config'], runs, experiment))


def report(workdir: str | Path, experiment: str | Path | None = None) -> Path:
    """Writes results.csv, claims.csv, figures/ and report.html, prints the tables, and returns the report's path.

    Of a search, recommendation.json as well. `experiment` and errors are `read`'s; UserError too if it can't write.
    """
    workdir = expanded(workdir)
    contents = read(workdir, expanded(experiment) if experiment else None)
    settings, found, lines = contents.about['config'], contents.found, workdir / 'lines.json'
    model = f', {found["model"]}' if found else ''
    title = f'{settings["name"]} ({data.title(settings["dataset"])}{model})'
    try:
        table.write_results(workdir, contents.records)
        if contents.verdicts and not contents.kept:
            claims.write(workdir / 'claims.csv', contents.verdicts)
        if found:
            write_json(workdir / 'recommendation.json', found)
            drawn = answer_figures.draw(found, workdir / 'figures', title)
        else:
            between = read_json(lines, 'lines')['lines'] if lines.exists() else []
            drawn = figures.draw(contents.runs, workdir / 'figures', title, settings['figures'], contents.task, between)
        pictures = {caption: base64.b64encode(path.read_bytes()).decode() for caption, path in drawn.items()}
        replace(workdir / 'report.html', TEMPLATE.render(contents=contents, question=QUESTION, figures=pictures))
    except OSError as error:
        raise UserError(f'workdir: {workdir} cannot be written: {error.strerror or error}') from error
    _show(contents, workdir / 'report.html')
    return workdir / 'report.html'


def _show(contents: Contents, path: Path) -> None:
    found, parts = contents.found, list[Any]()
    if found:
        parts += [*found['warnings'], found['headline'], _table(found['table'], wrap=True)]
    else:
        parts.append(_table(contents.results))
    if judged := [(*row[:3], row[4], row[6]) for row in contents.judged]:  # without the source
        parts.append(_table(judged, wrap=True))
    console = output.console()
    console.width = max(console.width, 110)  # a table that is cut off is worse than one that wraps
    for part in parts:
        console.print()
        console.print(part)
    for line in (*contents.notes, f'report   {path}'):
        console.print(f'\n{line}', soft_wrap=True)


def _table(rows: Sequence[Sequence[str]], wrap: bool = False) -> Table:
    """For the terminal; the first row are the headings."""
    made = Table(box=None, pad_edge=False, header_style='bold', padding=(0, 1, wrap, 0))
    for i, heading in enumerate(rows[0]):
        made.add_column(heading, justify='left' if wrap or not i else 'right', no_wrap=not wrap)
    for row in rows[1:]:
        made.add_row(*row)
    return made
