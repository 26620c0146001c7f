"""Makes docs/chapter-37.md and docs/pt-BR/capitulo-37.md: python docs/chapter/make.py

The texts stand beside this file. {STUDY.CLAIM} becomes what docs/results has of a claim: measured, and the verdict.
"""

import re
from pathlib import Path

from bsgap.analysis import claims

DOCS = Path(__file__).resolve().parents[1]
PAGES = {'en.md': 'chapter-37.md', 'pt.md': 'pt-BR/capitulo-37.md'}
PORTUGUESE = {
    'not reproduced': 'não confirmado',
    'reproduced': 'confirmado',
    'inconclusive': 'inconclusivo',
    'not run': 'ainda não medido',
    ' points': ' p.p.',
    ' to ': ' a ',
}


def told(verdicts: dict[str, claims.Verdict], name: str) -> str:
    if name not in verdicts:
        return '**not run**'
    measured = verdicts[name].measured.replace('-', '−')
    return f'{measured} (**{verdicts[name].verdict}**)'


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

        (DOCS / page).write_text(re.sub(r'\{([\w-]+\.\w+)\}', fill, text), encoding='utf-8')


if __name__ == '__main__':
    main()
