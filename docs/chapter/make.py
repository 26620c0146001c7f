"""Makes docs/chapter-37.md and docs/pt-BR/capitulo-37.md: python docs/chapter/make.py

The texts stand beside this file. {STUDY.CLAIM} becomes what docs/results has of a claim: measured, and the verdict.
Of what was not run yet the paragraph says so, and there is no picture.
"""

import re
from pathlib import Path

from bsgap.analysis import claims

DOCS = Path(__file__).resolve().parents[1]
CLAIM = re.compile(r'\{([\w-]+\.\w+)\}')
PAGES = {'en.md': 'chapter-37.md', 'pt.md': 'pt-BR/capitulo-37.md'}
PORTUGUESE = {
    'not reproduced': 'não confirmado',
    'reproduced': 'confirmado',
    'inconclusive': 'inconclusivo',
    ' points': ' p.p.',
    ' to ': ' a ',
}


def told(verdicts: dict[str, claims.Verdict], name: str) -> str:
    return f'{verdicts[name].measured} (**{verdicts[name].verdict}**)'


def in_portuguese(text: str) -> str:
    """Numbers with a decimal comma, and the words that stand beside them."""
    text = text.translate(str.maketrans('.,', ',.'))
    for word, other in PORTUGUESE.items():
        text = text.replace(word, other)
    return text


def main() -> None:
    results = sorted((DOCS / 'results').glob('*/claims.csv'))
    known = {f'{path.parent.name}.{verdict.id}': verdict for path in results for verdict in claims.read(path)}
    for source, page in PAGES.items():
        text = (Path(__file__).parent / source).read_text(encoding='utf-8')

        def fill(match: re.Match[str], source: str = source) -> str:
            found = told(known, match[1])
            return in_portuguese(found) if source == 'pt.md' else found

        def if_drawn(match: re.Match[str], page: str = page) -> str:
            return match[0] if ((DOCS / page).parent / match[1]).exists() else ''

        paragraphs = re.sub(r'<img src="(.*?)".*\n\n', if_drawn, text).split('\n\n')
        for i, paragraph in enumerate(paragraphs):
            if {*CLAIM.findall(paragraph)} - {*known}:
                *_, last = paragraph.split('\n')
                waits = 'Ainda não medido' if source == 'pt.md' else 'Not measured yet'
                paragraphs[i] = f'*{waits}:* {last}' if last.startswith('`python') else f'*{waits}.*'
        (DOCS / page).write_text(CLAIM.sub(fill, '\n\n'.join(paragraphs)), encoding='utf-8')


if __name__ == '__main__':
    main()
