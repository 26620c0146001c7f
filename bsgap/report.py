"""The figures and the report of a workdir, from its files alone: python -m bsgap.report WORKDIR"""

import base64
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from rich.console import Console
from rich.table import Table

from bsgap import analysis, answer, answer_plots, claims, config, data, metrics, plots, recommend, study

QUESTION = 'Which batch size should I use to train a neural network, and what does it do to the generalization gap?'
HEADINGS = ('recipe', 'runs', 'epochs', 'updates', 'train accuracy', 'test accuracy', 'gap (points)', 's a run')


class Contents(NamedTuple):
    """What a workdir holds, and what follows from it."""

    about: dict[str, Any]  # study.json
    records: list[metrics.Record]
    found: dict[str, Any] | None  # recommendation.json, of a search
    verdicts: list[claims.Verdict]


def read(workdir: Path) -> Contents:
    """Reads a workdir.

    Raises:
      UserError: a file is damaged.
    """
    about = study.read_json(workdir / 'study.json', 'config', 'time', 'devices', 'machine')
    records, search = metrics.read_runs(workdir), workdir / 'search.json'
    found = answer.find(about, study.read_json(search), records) if search.exists() else None
    numbers = found['numbers'] if found else None
    verdicts = claims.evaluate(about['config']['claims'], [record.full for record in records], numbers)
    return Contents(about, records, found, verdicts)


def report(workdir: str | Path) -> Path:
    """Writes results.csv, claims.csv, figures/ and report.html, prints the tables, and returns the report's path.

    Of a search, recommendation.json as well.

    Raises:
      UserError: `workdir` holds no study, or can't be written.
    """
    workdir = Path(workdir)
    if not (workdir / 'study.json').exists():
        raise config.UserError(f'workdir: {workdir} holds no study; give a folder that launch.py has trained in')
    about, records, found, verdicts = read(workdir)
    settings, groups = about['config'], analysis.groups(records)
    lines, path = workdir / 'lines.json', workdir / 'report.html'
    rows = [_cells(group) for group in groups if group.runs]
    try:
        metrics.write_results(workdir, records)
        if verdicts:
            claims.write(workdir / 'claims.csv', verdicts)
        drawn = study.read_json(lines, 'lines')['lines'] if lines.exists() else []
        model = f', {found["model"]}' if found else ''
        title = f'{settings["name"]} ({data.title(settings["dataset"])}{model})'
        if found is None:
            figures = plots.draw(groups, workdir / 'figures', title, settings['figures'], drawn)
        else:
            study.write_json(workdir / 'recommendation.json', found)
            figures = answer_plots.draw(found, workdir / 'figures', title)
        study.replace(path, _page(about, groups, rows, verdicts, figures, found))
    except OSError as error:
        raise config.UserError(f'workdir: {workdir} cannot be written: {error.strerror or error}') from error
    _show(rows, verdicts, path, found)
    return path


def _cells(group: analysis.Group) -> tuple[str, ...]:
    """A recipe's row under HEADINGS."""
    runs = f'{len(group.runs)}' + (f' + {group.diverged} diverged' if group.diverged else '')
    seconds = analysis.interval(
        row['train_seconds'] + row['eval_seconds'] for row in (run.rows[-1] for run in group.runs)
    )
    return (
        group.recipe,
        runs + (f', {group.unfinished} unfinished' if group.unfinished else ''),
        f'{group.last("epoch").mean:g}',
        f'{group.last("update").mean:,.0f}',
        analysis.percent(group.last('train_accuracy')),
        analysis.percent(group.last('test_accuracy')),
        analysis.points(group.last('gap')),
        f'{seconds.mean:.1f}',
    )


def _page(
    about: dict[str, Any],
    groups: list[analysis.Group],
    rows: list[tuple[str, ...]],
    verdicts: list[claims.Verdict],
    figures: dict[str, Path],
    found: dict[str, Any] | None,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('bsgap', ''), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    settings = about['config']
    finding = claims.finding(settings['finding'], verdicts)
    return environment.get_template('report.html.jinja').render(
        question=QUESTION,
        name=settings['name'],
        answer=[finding] if finding else [] if found else analysis.answer(groups),
        found=found,
        recommended=recommend.table(found) if found else [],
        predictions=recommend.predictions(found) if found else [],
        claim_headings=claims.HEADINGS,
        claims=[claims.cells(verdict) for verdict in verdicts],
        headings=HEADINGS,
        rows=rows,
        figures={caption: base64.b64encode(path.read_bytes()).decode() for caption, path in figures.items()},
        settings={key: value for key, value in settings.items() if key not in ('recipes', 'claims', 'finding')},
        recipes=settings['recipes'],
        facts={key: value for key, value in about.items() if key != 'config'},
    )


def _show(
    rows: list[tuple[str, ...]], verdicts: list[claims.Verdict], path: Path, found: dict[str, Any] | None
) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # a table that is cut off is worse than one that wraps
    console.print()
    if found:
        headings, *cells = recommend.table(found)
        console.print(found['text'], markup=False)
        console.print()
        console.print(_table(headings, cells, wrap=True))
    else:
        console.print(_table(HEADINGS, rows))
    if verdicts:
        shown = ('claim', 'measured', 'bound', 'verdict', 'note')
        judged = [dict(zip(claims.HEADINGS, claims.cells(verdict), strict=True)) for verdict in verdicts]
        console.print()
        console.print(_table(shown, [[row[heading] for heading in shown] for row in judged], wrap=True))
    console.print(f'\nreport   {path}', markup=False, soft_wrap=True)


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]], wrap: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, header_style='bold', padding=(0, 1, wrap, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify='left' if wrap or not i else 'right', no_wrap=not wrap)
    for row in rows:
        table.add_row(*row)
    return table


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit('usage: python -m bsgap.report WORKDIR')
    try:
        report(Path(sys.argv[1]))
    except config.UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
