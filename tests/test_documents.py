"""What the documents link to is there: files, and headings in them; and what is made is what its command makes."""

import re
import runpy
from pathlib import Path

import pytest
from helpers import ROOT

from bsgap.analysis import claims
from bsgap.analysis.loading import call

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), ROOT / 'bsgap' / 'data' / 'mnist' / 'README.md'])
PAGES = [
    page for page in PAGES if page.parent != ROOT / 'docs' / 'chapter' and page.name != 'head.md'
]  # parts of pages


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(encoding='utf-8'), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r'```.*?```|`[^`\n]*`', '', page.read_text(encoding='utf-8'), flags=re.S)
    links = re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        place, _, anchor = link.partition('#')
        if place.startswith(('http:', 'https:', 'mailto:')):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_files_that_are_named_are_there() -> None:
    """In documents and docstrings, by their path from the root or from beside what names them."""
    named = re.compile(
        r'(?<![\w/.-])(?:bsgap|experiments|docs|benchmarks|tests)/[\w/.-]+\.(?:py|md|png|svg|ipynb|csv)\b'
    )
    code = [file for folder in ('bsgap', 'experiments', 'benchmarks') for file in (ROOT / folder).rglob('*.py')]
    for file in (*PAGES, *code):
        for path in named.findall(file.read_text(encoding='utf-8')):
            assert (ROOT / path).exists() or (file.parent / path).exists(), f'{file}: {path}'


def test_pages_that_are_made_are_what_their_commands_make() -> None:
    """From the committed results: nobody has changed one and not the other."""
    pages = runpy.run_path(str(ROOT / 'docs' / 'chapter' / 'make.py'))['pages']()
    results, _ = runpy.run_path(str(ROOT / 'docs' / 'results' / 'make.py'))['made']([])
    for file in (ROOT / 'docs' / 'results').glob('*/claims.csv'):
        section = results.partition(f'\n## {file.parent.name}\n')[2].partition('\n## ')[0]
        for one in claims.read(file):
            assert f'| {one.claim} | **{one.verdict}** | {one.measured} | {one.expected} | {one.note} |' in section
        if not (file.parent / 'recommendation.json').exists():  # a search says what it found in other words
            named = re.search(r'experiments/(\w+)\.py(?::(\w+))?', section[section.rindex('<sub>`python launch.py') :])
            assert named, file
            _, study = call(f'experiments.{named[1]}:claims', named[2] or '')
            assert section.strip().partition('\n\n')[0] == claims.finding(study.finding, claims.read(file))
    for page, text in {**pages, ROOT / 'docs' / 'results' / 'README.md': results}.items():
        assert page.read_text(encoding='utf-8') == text, page
