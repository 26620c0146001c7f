"""Makes docs/chapter-37.md and docs/pt-BR/capitulo-37.md: python docs/chapter/make.py

The texts stand beside this file. {STUDY.CLAIM} becomes what docs/results has of a claim: measured, the verdict, and the
bound; {SEARCH.NUMBER} a number of a search's answer, such as first_slope, or b_crit_6, its critical batch size for 6 %
validation error. Of what was not run yet the paragraph says so, and there is no picture.
"""

import re
from pathlib import Path

from bsgap import config
from bsgap.analysis import claims
from bsgap.files import read_json
from bsgap.report import numbers

DOCS = Path(__file__).resolve().parents[1]
NAMED = re.compile(r'\{([\w-]+\.[\w.]+)\}')
PAGES = {'en.md': 'chapter-37.md', 'pt.md': 'pt-BR/capitulo-37.md'}
PORTUGUESE = {
    'not reproduced': 'não confirmado',
    'reproduced': 'confirmado',
    'inconclusive': 'inconclusivo',
    'at least': 'pelo menos',
    'at most': 'no máximo',
    'within': 'de',
    ' points': ' p.p.',
    ' to ': ' a ',
}
# Below 2 the word is 'vez'; what was measured, its interval and its verdict stand before it.
SINGULAR = re.compile(r'(?<![\d,−])([01](?:,\d+)?(?: \([^)]*\)){1,2})(\s)vezes')


def told() -> dict[str, str]:
    """What docs/results has, by the names that the texts use."""
    known = {}
    for path in sorted((DOCS / 'results').glob('*/claims.csv')):
        for verdict in claims.read(path):
            known[f'{path.parent.name}.{verdict.id}'] = (
                f'{verdict.measured} (**{verdict.verdict}**: {verdict.expected})'
            )
    for path in sorted((DOCS / 'results').glob('*/recommendation.json')):
        name, found = path.parent.name, read_json(path, 'targets', 'numbers')
        for slope in {'first_slope', 'last_slope'} & found['numbers'].keys():
            known[f'{name}.{slope}'] = numbers.difference(found['numbers'][slope], config.task('regression'))
        for target in found['targets']:
            if target['curve']:
                error = numbers.number(100 * target['error'])
                known[f'{name}.b_crit_{error}'] = numbers.between(target['curve']['b_crit'])
    return known


def in_portuguese(text: str) -> str:
    """Numbers with a decimal comma, and the words that stand beside them."""
    text = text.translate(str.maketrans('.,', ',.'))
    for word, other in PORTUGUESE.items():
        text = text.replace(word, other)
    return text


def pages() -> dict[Path, str]:
    """What is to stand in each page."""
    known, made = told(), {}
    for source, page in PAGES.items():
        text = (Path(__file__).parent / source).read_text(encoding='utf-8')

        def fill(match: re.Match[str], source: str = source) -> str:
            return in_portuguese(known[match[1]]) if source == 'pt.md' else known[match[1]]

        def if_drawn(match: re.Match[str], page: str = page) -> str:
            return match[0] if ((DOCS / page).parent / match[1]).exists() else ''

        paragraphs = re.sub(r'<img src="(.*?)".*\n\n', if_drawn, text).split('\n\n')
        for i, paragraph in enumerate(paragraphs):
            if {*NAMED.findall(paragraph)} - {*known}:
                *_, last = paragraph.split('\n')
                waits = 'Ainda não medido' if source == 'pt.md' else 'Not measured yet'
                paragraphs[i] = f'*{waits}:* {last}' if last.startswith('`python') else f'*{waits}.*'
        filled = NAMED.sub(fill, '\n\n'.join(paragraphs))
        made[DOCS / page] = SINGULAR.sub(r'\1\2vez', filled) if source == 'pt.md' else filled
    return made


if __name__ == '__main__':
    for path, text in pages().items():
        path.write_text(text, encoding='utf-8')
