"""Makes docs/results from the workdirs of studies: python docs/results/make.py WORKDIR …

Each study's verdicts, finding, first figures and results.csv, and one page that lists every claim. The studies of other
workdirs stay on it as they are.
"""

import collections
import contextlib
import re
import shutil
import sys
from pathlib import Path

from bsgap.analysis import claims
from bsgap.analysis.loading import call
from bsgap.analysis.table import write_results
from bsgap.errors import UserError
from bsgap.files import write_json
from bsgap.report import answer_figures, page

HERE = Path(__file__).parent
FIGURES = 2  # of each study
HEAD = (HERE / 'head.md').read_text(encoding='utf-8')


def table(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is the heading."""
    lines = ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows]
    return '\n'.join([lines[0], '|' + '--|' * len(rows[0]), *lines[1:]])


def section(workdir: Path) -> tuple[str, str]:
    """A study's name and its part of the page; copies its figures and results beside it."""
    contents = page.read(workdir)
    records, found, verdicts = contents.records, contents.found, contents.verdicts
    settings = contents.about['config']
    if unfinished := [record.name for record in records if record.status == 'running']:
        sys.exit(f'{workdir}: not finished: {", ".join(unfinished)}')
    name = workdir.name if found else settings['name']  # a search is asked of several models and datasets
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if contents.kept:
        shutil.copy(workdir / 'claims.csv', folder)
    elif verdicts:
        claims.write(folder / 'claims.csv', verdicts)
    write_results(folder, records)
    pictures = []
    for figure in answer_figures.FIGURES if found else settings['figures'][:FIGURES]:
        if (workdir / 'figures' / f'{figure}.png').exists():
            shutil.copy(workdir / 'figures' / f'{figure}.png', folder)
            pictures.append(f'![{name}: {figure}]({name}/{figure}.png)')
    files = f'[results.csv]({name}/results.csv)'
    parts: list[str] = []
    if found:
        write_json(folder / 'recommendation.json', found)
        files += f', the answer as data: [recommendation.json]({name}/recommendation.json)'
        parts = [found['text'], table(found['table'])]
    judged = table(contents.judged) if verdicts else ''
    provenience = f'<sub>{provenance(contents)} Every run: {files}.</sub>'
    parts = [f'## {name}', *parts, ' '.join(contents.says), judged, *contents.notes, *pictures, provenience]
    return name, '\n\n'.join(filter(None, parts))


def provenance(contents: page.Contents) -> str:
    """How the numbers came about."""
    about, records, settings = contents.about, contents.records, contents.about['config']
    seconds = sum(record.rows[-1]['train_seconds'] + record.rows[-1]['eval_seconds'] for record in records)
    launches = [*about['earlier_launches'], about]
    trained, revisions = launches[0], ', '.join(dict.fromkeys(launch['git'] for launch in launches))
    # Where it went is nobody's business and changes nothing.
    words = ['python', *(word for word in trained['command'].split() if not word.startswith('--workdir'))]
    command = re.sub(r'idx:\S*/', 'idx:', ' '.join(words))
    n = ', '.join(f'{n:,}' for n in sorted({record.about['n'] for record in records}))
    versions = ', '.join(f'{name} {version}' for name, version in trained['versions'].items() if name != 'bsgap')
    return (
        f'`{command}` at revision {revisions}: {len(records)} runs,'
        f' {settings["seeds"]} seeds, {n} training examples; {seconds / 60:.1f} min of training and evaluation'
        f' (compilation apart) on {trained["machine"]}, {", ".join(set(trained["devices"]))};'
        f' Python {trained["python"]}, {versions}.'
    )


def claimed() -> dict[str, dict[str, claims.Claim]]:
    """What each experiment that is no search claims, by its study's name and the claim's."""
    found = {}
    for path in sorted((HERE.parents[1] / 'experiments').glob('[!_]*.py')):
        with contextlib.suppress(UserError):  # it claims nothing
            made, study = call(f'experiments.{path.stem}:claims', '', None)
            found[study.name] = {} if study.search else {claim.name: claim for claim in made}
    return found


def main() -> None:
    page_before = (HERE / 'README.md').read_text(encoding='utf-8')
    sections = {text.partition('\n')[0]: text.strip() for text in re.split(r'(?m)^## ', page_before)[1:]}
    sections = {name: f'## {text}' for name, text in sections.items()} | dict(map(section, map(Path, sys.argv[1:])))
    known = {name: HERE / name / 'claims.csv' for name in sections}
    made = claimed()
    every = list[tuple[str, claims.Verdict]]()
    for name, path in known.items():
        of = made.get(name.removesuffix('-quick'), {})
        for verdict in claims.read(path):  # one of the first edition has no unit
            every.append((name, verdict._replace(unit=of[verdict.id].unit) if verdict.id in of else verdict))
    decided = {(name.removesuffix('-quick'), verdict.id) for name, verdict in every}
    counts = collections.Counter(verdict.verdict for _, verdict in every)
    summary = ', '.join(f'{counts[word]} {word}' for word in ('reproduced', 'not reproduced', 'inconclusive'))
    every.sort(key=lambda one: claims.VERDICTS.index(one[1].verdict))
    rows = [
        (f'[{name}](#{name})', one.claim, one.measured, one.expected, f'**{one.verdict}**', one.published, one.source)
        for name, one in every
    ]
    left = [(name, claim) for name, of in made.items() for claim in of.values() if (name, claim.name) not in decided]
    rows += [(name, claim.text, '–', '–', '**not run**', claim.published, claim.source) for name, claim in left]
    summary += f', and {len(left)} not run' * bool(left)
    listing = table([('study', 'claim', 'measured', 'bound', 'verdict', 'published', 'source'), *rows])
    whole = (
        '\n\n'.join([HEAD + f'\n**{len(every) + len(left)} claims: {summary}.**', listing, *sections.values()]) + '\n'
    )
    (HERE / 'README.md').write_text(whole)
    print(summary)


if __name__ == '__main__':
    main()
