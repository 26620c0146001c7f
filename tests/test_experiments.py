"""Every experiment file: its commands, its variants, and a smoke run of the whole of it."""

import csv
import html
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, read_json

from bsgap import answer_plots, config, study
from bsgap.measure import measure
from bsgap.report import report
from bsgap.train import train

pytestmark = pytest.mark.parametrize('name', sorted(path.stem for path in (ROOT / 'experiments').glob('*.py')))


@pytest.fixture
def experiment(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module(f'experiments.{name}')


def variants(get_config: Callable[[str], Any]) -> list[str]:
    """All that a file has, as it says where one is unknown."""
    with pytest.raises(config.UserError) as error:
        get_config('no')
    assert '\n' not in str(error.value)
    known = re.fullmatch(r"config.variant: 'no' is not known; it must be one of (.+)", str(error.value))
    assert known
    return known[1].split(', ')


def test_its_docstring_names_its_commands(experiment: Any, name: str) -> None:
    commands = re.findall(rf'^    python launch.py --config=experiments/{name}.py(?= |$|:)', experiment.__doc__, re.M)
    assert len(commands) >= 2
    assert 'smoke' in variants(experiment.get_config)
    for variant in variants(experiment.get_config):
        assert f':{variant}' in experiment.__doc__, variant


def test_every_variant_fits_the_data(experiment: Any, name: str) -> None:
    for variant in ('', *variants(experiment.get_config)):
        settings = experiment.get_config(variant)
        resolved = config.resolve(settings)
        assert resolved.name == '-'.join(filter(None, [name.replace('_', '-'), variant]))
        left = 60000 - round(60000 * resolved.data.validation)
        sizes = {recipe.variant: recipe.variant.subset or left for recipe in resolved.recipes}
        assert max(sizes.values()) <= left
        assert study.runs(resolved, sizes)
        # What is published for the whole is not held against a part; else the claims stay the same.
        assert set(settings.claims) <= set(experiment.get_config().claims)
        recipes = {recipe.name for recipe in resolved.recipes}
        assert {end for pair in resolved.lines for end in pair} <= recipes


@pytest.mark.smoke
def test_smoke(experiment: Any, name: str, tmp_path: Path) -> None:
    settings = experiment.get_config('smoke')
    if name == 'mnist':
        settings.hidden = (32,)  # test_launch.py has it as it is
    records = train(settings, tmp_path)
    measure(settings, tmp_path)
    page = html.unescape(report(tmp_path).read_text())
    resolved = config.resolve(settings)
    if resolved.search:
        found = read_json(tmp_path / 'recommendation.json')
        assert found['text'] in page
        assert [budget['unit'] for budget in found['budgets']] == ['epochs', 'updates', 'seconds']
        assert found['confirmation']
        assert len(list((tmp_path / 'figures').iterdir())) == len(answer_plots.FIGURES)
        assert {record.status for record in records} <= {'done', 'diverged', 'stopped'}
        return
    assert len(records) == len(resolved.recipes) * resolved.seeds
    assert {record.status for record in records} <= {'done', 'diverged'}
    with (tmp_path / 'claims.csv').open() as file:
        verdicts = {row['id']: row for row in csv.DictReader(file)}
    assert list(verdicts) == list(resolved.claims)
    for row in verdicts.values():
        assert row['claim'] in page
        assert row['value'] or row['note'].startswith('evaluated too seldom'), row
    (answer,) = re.findall(r'<div class="answer">(.*?)</div>', page, re.S)
    assert not set('{}') & set(answer)
    for measurement in resolved.measurements:
        for record in (record for record in records if record.status == 'done'):
            found = read_json(tmp_path / 'runs' / record.about['name'] / 'measurements.json')
            assert any(key.startswith(measurement) for key in found)
    lines = read_json(tmp_path / 'lines.json')['lines'] if resolved.lines else []
    assert len(lines) == len(resolved.lines) * resolved.seeds
    assert len(list((tmp_path / 'figures').iterdir())) == len(resolved.figures)
