"""Makes docs/results from the workdirs of studies: python docs/results/make.py WORKDIR …

Each study's verdicts, finding, first figures and results.csv, and one page that lists every claim.
"""

import collections
import re
import shutil
import sys
from pathlib import Path

from bsgap.analysis import claims
from bsgap.analysis.table import write_results
from bsgap.files import write_json
from bsgap.report import answer_figures, page

HERE = Path(__file__).parent
FIGURES = 2  # of each study
HEAD = """# What the literature claims, and what these runs say of it

Each study is a file in [experiments/](../../experiments); `:quick` variants use part of MNIST so that they take
minutes on two CPU cores, which the text beside each says. A claim is *reproduced* if the whole 95 % interval
(Student's t over seeds) of what was measured lies within its bound, *not reproduced* if all of it lies outside, and
*inconclusive* otherwise. What is compared is paired by seed; what is selected is selected on validation data, by each
seed alone. Bounds were written down before the runs, with exceptions: the claims of `mnist` came after its runs, with
the figures of the source and the bounds of the first plan (0.3 points); in `mnist-learning-rate-quick` the three
recipes that are compared at equal ε × updates were exchanged after the run, because those first named are not
evaluated often enough to be compared on a tenth of the data; and the claims of searches (`which-batch`) were written
while an earlier one ran. With 3 seeds t is 4.3, so that a bound of 0.3 points is often inconclusive. Published
figures are those of the source's own network and data.

The searches of the first edition are withdrawn, as their method could not tell what it told (± half a 95 % interval,
3 seeds, 57,000 training examples of MNIST and Fashion-MNIST and 12,000 for the CNN, in place of 50,000 and 10,000):

| asked of | the first edition said | these runs say |
|--|--|--|
| MNIST, 2 epochs | 4 at ε 0.01: 97.65 ± 0.43 %; up to 256 not told apart | 4 at 0.05: 98.26 % (98.03 to 98.47); 16 undecided, all others worse |
| MNIST, 250 updates | 1024 at 0.3: 97.00 ± 0.27 %; 256 not told apart | 1024 at 0.4: 96.65 % (96.31 to 96.96); all others worse |
| MNIST, seconds | 256 for 15.9 s; from 4 to 256 not told apart | 64 for 4.35 s; all others worse |
| MNIST, B_crit | 250 (200 to 360) for 3.2 % error | 94 (86 to 100) for 3 % |
| Fashion-MNIST, 2 epochs | 4 at 0.01: 86.59 ± 2.84 %; none told apart | 4 at 0.025: 88.43 % (87.83 to 89.01); 16 and 64 undecided, 256 and 1024 worse |
| Fashion-MNIST, 250 updates | 1024 at 0.1: 84.91 ± 0.32 %; from 64 not told apart | 1024 at 0.4: 86.57 % (85.92 to 87.19); all others worse |
| Fashion-MNIST, seconds | 256 for 8.69 s, though 16 won | 64 for 4.27 s; all others worse |
| Fashion-MNIST, B_crit | 170 (110 to 260) for 15 % error | 92 (85 to 97) for 15 % |
| CNN on MNIST, epochs | 8 at 0.03 for 1: 96.22 ± 1.36 %; none told apart | 8 at 0.1 for 2: 97.93 % (97.69 to 98.14); all others worse |
| CNN on MNIST, 100 updates | 512 at 0.1: 95.04 ± 0.60 %; 128 not told apart | 512 at 0.2: 95.00 % (94.49 to 95.46); 128 undecided, 8 and 32 worse |

They differ because learning rates were constant then, which costs small batches most and hides differences in the noise
of the last update; because runs were stopped early for errors at a fraction of their length; because a batch size could
be recommended that had not won; and because intervals of three seeds that overlapped counted as a tie.

This page is the output of `python docs/results/make.py` on the workdirs of the commands below.
"""


def table(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is the heading."""
    lines = ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows]
    return '\n'.join([lines[0], '|' + '--|' * len(rows[0]), *lines[1:]])


def section(workdir: Path) -> tuple[str, list[claims.Verdict]]:
    """A study's part of the page; copies its figures and results beside it."""
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
    else:
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
    return '\n\n'.join(filter(None, parts)), verdicts


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


def main() -> None:
    sections, every = [], []
    for workdir in map(Path, sys.argv[1:]):
        text, verdicts = section(workdir)
        sections.append(text)
        name = text.partition('\n')[0].removeprefix('## ')
        every += [(name, verdict) for verdict in verdicts]
    counts = collections.Counter(verdict.verdict for _, verdict in every)
    summary = ', '.join(f'{counts[word]} {word}' for word in ('reproduced', 'not reproduced', 'inconclusive'))
    listing = table(
        [
            ('study', 'claim', 'verdict'),
            *[(f'[{name}](#{name})', verdict.claim, f'**{verdict.verdict}**') for name, verdict in every],
        ]
    )
    whole = '\n\n'.join([HEAD + f'\n**{len(every)} claims: {summary}.**', listing, *sections]) + '\n'
    (HERE / 'README.md').write_text(whole)
    print(summary)


if __name__ == '__main__':
    main()
