"""Makes docs/results from the workdirs of studies: python docs/results/make.py WORKDIR …

Each study's verdicts, finding, first figures and results.csv, and one page that lists every claim. The studies of other
workdirs stay on it as they are.
"""

import collections
import contextlib
import csv
import math
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from bsgap import config
from bsgap.analysis import claims
from bsgap.analysis.loading import call
from bsgap.analysis.table import write_results
from bsgap.errors import UserError
from bsgap.files import read_json, write_json
from bsgap.report import answer_figures, page
from bsgap.report.numbers import between, difference

HERE = Path(__file__).parent
FIGURES = 2  # of each study
VERDICTS = *claims.VERDICTS, 'not run'
NUMBERS = {
    'first_slope': 'slope at small batches',
    'last_slope': 'slope at large batches',
    'b_crit': 'critical batch size',
    'learning_rate_exponent': 'best ε, exponent',
    'noise_growth': 'noise scale, longest / shortest trial',
    'noise_over_b_crit': 'noise scale / critical batch size',
}
POSITIVE, PLAIN = ('b_crit', 'noise_growth', 'noise_over_b_crit'), config.task('regression')  # no per cent, no points
BESIDE = (
    'Verdicts are given on `which-batch-mnist` alone: the bounds were written for this network on all of MNIST, with a'
    ' rate that falls. Here are the same numbers of every search, with 95 % intervals. Where the smallest batch sizes'
    ' lie near the critical one (the CNN, the characters) the slope there is not −1; the noise scale does not grow'
    ' fivefold everywhere; and the critical batch size is that of the middle one of the errors to be reached, so that'
    ' it changes with what one asks for.'
)
HEAD, FOOT = ((HERE / name).read_text(encoding='utf-8') for name in ('head.md', 'foot.md'))


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
        if (file := workdir / 'figures' / f'{figure}.png').exists():
            picture = Image.open(file).convert('RGB').quantize(256)  # a third of its size
            picture.save(folder / file.name, optimize=True)
            pictures.append(f'![{name}: {figure}]({name}/{figure}.png)')
    files = f'[results.csv]({name}/results.csv)'
    if not found:  # so that figures can be drawn anew, and seeds added, where the workdir is not
        rows = contents.runs.loc[:, ~contents.runs.columns.str.startswith('recipe.')].dropna(axis=1, how='all')
        rows.to_csv(folder / 'metrics.csv', index=False, float_format='%.9g')
        files += f', every evaluation: [metrics.csv]({name}/metrics.csv)'
    parts = [' '.join(contents.says), *pictures]
    if found:
        write_json(folder / 'recommendation.json', found)
        files += f', the answer as data: [recommendation.json]({name}/recommendation.json)'
        parts = [found['headline'], *pictures[:1], table(found['table']), ' '.join(contents.says)]
        parts.append(fold('The whole answer, and its other pictures', found['text'], *pictures[1:]))
    if verdicts:
        rows = [(v.claim, f'**{v.verdict}**', v.measured, v.expected, v.note) for v in verdicts]
        parts.append(table([('claim', 'verdict', 'measured', 'bound', 'note'), *rows]))
    provenience = f'<sub>{provenance(contents)} Every run: {files}.</sub>'
    return name, '\n\n'.join(filter(None, [f'## {name}', *parts, *contents.notes, provenience]))


def fold(title: str, *parts: str) -> str:
    return '\n\n'.join([f'<details><summary>{title}</summary>', *parts, '</details>'])


def provenance(contents: page.Contents) -> str:
    """How the numbers came about."""
    about, records, settings = contents.about, contents.records, contents.about['config']
    seconds = sum(record.rows[-1]['train_seconds'] + record.rows[-1]['eval_seconds'] for record in records)
    launches = [*about['earlier_launches'], about]
    trained, revisions = launches[0], ', '.join(dict.fromkeys(launch['git'] for launch in launches))
    # Where it went is nobody's business and changes nothing.
    words = ['python', *(word for word in about['command'].split() if not word.startswith('--workdir'))]
    command = re.sub(r'idx:\S*/', 'idx:FOLDER/', ' '.join(words))
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


def made(workdirs: Iterable[str]) -> tuple[str, str]:
    """The page, with the sections of these workdirs anew, and how many claims have each verdict."""
    page_before = (HERE / 'README.md').read_text(encoding='utf-8')
    sections = {text.partition('\n')[0]: text.strip() for text in re.split(r'(?m)^## ', page_before)[1:]}
    sections = {name: f'## {text}' for name, text in sections.items()} | dict(map(section, map(Path, workdirs)))
    shown = sorted((name for name in sections if (HERE / name).is_dir()), key=order)  # what is superseded was removed
    sections = {name: sections[name] for name in shown}
    first = {(row['study'], row['id']): f'{row["verdict"]}, {row["n"]}' for row in rows_of(HERE / 'first_edition.csv')}
    every = list[tuple[str, claims.Verdict]]()
    for name in sections:
        every += [(name, verdict) for verdict in claims.read(HERE / name / 'claims.csv')]
    decided = {(plain(name), verdict.id) for name, verdict in every}
    left = [
        (name, claim) for name, of in claimed().items() for claim in of.values() if (name, claim.name) not in decided
    ]
    every += [(name, not_run(claim)) for name, claim in left]
    counts = collections.Counter(verdict.verdict for _, verdict in every)
    summary = ', '.join(f'{counts[word]} {word}' for word in VERDICTS)
    every.sort(key=lambda one: VERDICTS.index(one[1].verdict))
    rows = []
    for name, one in every:
        n, before = str(one.n) if one.n > 1 else '–', earlier(first, name, one.id)
        where = f'{one.claim} ([{name}](#{name}))' if name in sections else f'{one.claim} ({name})'
        written, published = 'before' if one.bound_first else 'after', f'{one.source}: {one.published}'
        rows.append((where, published, one.measured, one.expected, written, f'**{one.verdict}**', n, before))
    listing = table([('claim', 'source', 'measured', 'bound', 'written', 'verdict', 'seeds', 'first edition'), *rows])
    parts = [
        HEAD.strip(),
        f'**{len(every)} claims: {summary}.**',
        listing,
        *sections.values(),
        searches(),
        FOOT.strip(),
    ]
    return '\n\n'.join(parts) + '\n', summary


def not_run(claim: claims.Claim) -> claims.Verdict:
    return claims.Verdict(
        *(claim.name, claim.text, claim.unit, math.nan, math.nan, math.nan, 0, *claim.bound, 'not run'),
        *(claim.published, claim.source, claim.status, claim.bound_first, ''),
    )


def searches() -> str:
    """The numbers of all searches, also where the claims are not about their data."""
    rows = [('search', *NUMBERS.values())]
    for file in sorted(HERE.glob('*/recommendation.json')):
        known = read_json(file, 'numbers')['numbers']
        found = {name: known.get(name) for name in NUMBERS}
        texts = [
            '–' if not of else between(of) if name in POSITIVE else difference(of, PLAIN) for name, of in found.items()
        ]
        rows.append((f'[{file.parent.name}](#{file.parent.name})', *texts))
    return f'## The searches side by side\n\n{BESIDE}\n\n{table(rows)}'


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding='utf-8').splitlines()))


def order(name: str) -> tuple[bool, str]:
    """Searches last."""
    return (HERE / name / 'recommendation.json').exists(), name


def plain(name: str) -> str:
    """A study's name without its part of the data."""
    return name.removesuffix('-quick')


def earlier(first: dict[tuple[str, str], str], name: str, claim: str) -> str:
    """What the first edition said, which called some studies otherwise."""
    names = name, f'{plain(name)}-quick', name.replace('which-batch-mnist', 'which-batch-cpu')
    return next((first[of, claim] for of in names if (of, claim) in first), '–')


if __name__ == '__main__':
    text, summary = made(sys.argv[1:])
    (HERE / 'README.md').write_text(text, encoding='utf-8')
    print(summary)
