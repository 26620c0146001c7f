"""Every experiment file: its commands, its variants, its claims, and a smoke run of the whole of it."""

import csv
import html
import importlib
import json
import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import ROOT, read_json

import bsgap
from bsgap import config
from bsgap.analysis import claims
from bsgap.analysis.table import table
from bsgap.errors import UserError
from bsgap.report import answer_figures
from bsgap.training.rows import Record, read_records
from bsgap.training.runs import Run, cross
from bsgap.training.workdir import describe

NAMES = sorted(path.stem for path in (ROOT / 'experiments').glob('[!_]*.py'))
PUBLISHED = ROOT / 'docs' / 'results'
MEASURED = {
    'sharpness': ('sharpness_0.001', 'sharpness_0.0005'),
    'top_eigenvalue': ('top_eigenvalue',),
    'lowest_loss': ('lowest_loss',),
    'noise_scale': (),
    'gradient_norm': (
        *('gradient_norm_mean_growth', 'gradient_norm_mean_spread_growth'),
        *('gradient_norm_mean_bs1', 'gradient_norm_mean_bs64', 'gradient_norm_mean_bs1024'),
    ),
}
each_file = pytest.mark.parametrize('name', NAMES)


@pytest.fixture
def experiment(name: str) -> Any:
    return importlib.import_module(f'experiments.{name}')


def claimed(experiment: Any, variant: str = '') -> list[claims.Claim]:
    """What a file claims; some ask without a claim."""
    return experiment.claims(variant) if hasattr(experiment, 'claims') else []


def variants(get_config: Callable[[str], Any]) -> list[str]:
    """All that a file has, as it says where one is unknown."""
    with pytest.raises(UserError) as error:
        get_config('no')
    assert '\n' not in str(error.value)
    known = re.fullmatch(r"config.variant: 'no' is not known; it must be one of (.+)", str(error.value))
    assert known
    return known[1].split(', ')


def planned(study: config.Study) -> tuple[Run, ...]:
    left = 60000 - round(60000 * study.data.validation)
    sizes = {recipe.training_set: recipe.training_set.subset or left for recipe in study.recipes}
    assert max(sizes.values()) <= left
    return cross(study, sizes)


@each_file
def test_its_docstring_names_its_commands(experiment: Any, name: str) -> None:
    commands = re.findall(rf'^    python launch.py --config=experiments/{name}.py(?= |$|:)', experiment.__doc__, re.M)
    assert len(commands) >= 2
    assert 'smoke' in variants(experiment.get_config)
    for variant in variants(experiment.get_config):
        assert f':{variant}' in experiment.__doc__, variant


@each_file
def test_every_variant_fits_the_data(experiment: Any, name: str) -> None:
    for variant in ('', *variants(experiment.get_config)):
        settings = experiment.get_config(variant)
        resolved = config.resolve(settings)
        assert resolved.name == '-'.join(filter(None, [name.replace('_', '-'), variant]))
        assert resolved.variant == variant
        assert resolved.claims in ('', f'experiments.{name}:claims')
        assert planned(resolved)
        recipes = {recipe.name for recipe in resolved.recipes}
        assert {end for pair in resolved.lines for end in pair} <= recipes


def made_up(study: config.Study) -> pd.DataFrame:
    """The table of a study that has ended: each run learns at its own pace, and passes each target."""
    records = []
    for run in planned(study):
        pace, batch = zlib.crc32(run.name.encode()), run.recipe.stages[0].batch_size
        best = 0.98 + pace % 97 / 1e4
        rows = [
            {
                'epoch': 30 * done, 'update': round(run.updates * done), 'examples': round(run.examples * done),
                'batch_size': batch, 'learning_rate': 0.01, 'learning_rate_sum': done * (1 + pace % 3),
                'train_loss': 3.0 - 2.999 * done, 'train_accuracy': 1 - (1 - best) * (1 - done), 'validation_loss': 1.0,
                'validation_accuracy': best * done, 'test_loss': 1.0, 'test_accuracy': best * done, 'gap': 0.01,
                'distance': done**0.3, 'grad_norm': 1.0, 'train_seconds': 9.0 * done, 'eval_seconds': 1.0 * done,
            }
            for done in (0.0, 1 / 30, 2 / 30, 0.1, 0.25, 1 / 3, 0.5, 1.0)
        ]  # fmt: skip
        measured = {key: 1e-5 * (1 + run.seed) for name in study.measurements for key in MEASURED[name]}
        records.append(Record(describe(run), rows, measured))
    made = table(records)
    names = ['first_slope', 'last_slope', 'b_crit', 'learning_rate_exponent', 'loss_in_epochs', 'noise_growth']
    estimate = {'value': 1.0, 'low': 0.5, 'high': 2.0}
    made.attrs['answer'] = dict.fromkeys((*names, 'noise_over_b_crit'), estimate)
    return made


@each_file
def test_every_claim_can_be_measured(experiment: Any, name: str, tmp_path: Path) -> None:
    whole = [claim.name for claim in claimed(experiment)]
    for variant in ('', *variants(experiment.get_config)):
        study = config.resolve(experiment.get_config(variant))
        verdicts, lines = claims.verdicts(tmp_path, config.settings(study), made_up(study))
        assert lines == []
        ids = [verdict.id for verdict in verdicts]
        if study.claims:
            # What is published for the whole is not held against a part; else the claims stay the same.
            assert ids == [known for known in whole if known in ids]
        named = {name.partition('.')[0] for name in re.findall(r'\{([^{}]*)\}', study.finding)}
        assert named <= {*ids}
        found = claims.finding(study.finding, verdicts)
        assert (found != '') == (study.finding != '')
        assert found.count('. ') == study.finding.count('. ')  # no sentence is left out
        for verdict in verdicts:
            assert math.isfinite(verdict.value), verdict
            assert verdict.n == (1 if study.search else study.seeds), verdict
            assert 'cannot be computed' not in verdict.note
            assert math.isfinite(verdict.low) or 'time is measured once' in verdict.note


@pytest.mark.parametrize('folder', sorted(path.parent.name for path in PUBLISHED.glob('*/claims.csv')))
def test_what_was_published_is_what_is_claimed(folder: str) -> None:
    """Of the same texts, bounds and sources: docs/results is of these claims."""
    *words, variant = folder.split('-')
    if folder.replace('-', '_') in NAMES:
        words, variant = folder.split('-'), ''
    elif words == ['which', 'batch']:
        variant = 'cpu'
    experiment = importlib.import_module(f'experiments.{"_".join(words)}')
    made = {claim.name: claim for claim in claimed(experiment, variant)}
    for row in csv.DictReader((PUBLISHED / folder / 'claims.csv').read_text(encoding='utf-8').splitlines()):
        claim = made.pop(row['id'])
        assert (row['claim'], row['published'], row['source'], row['status']) == (
            *(claim.text, claim.published, claim.source, claim.status),
        )
        bounds = [f'{bound:.9g}' * math.isfinite(bound) for bound in claim.bound[1:]]
        assert [row['relation'], row['bound_low'], row['bound_high']] == [claim.bound[0], *bounds]
    page = (PUBLISHED / 'README.md').read_text(encoding='utf-8')
    for claim in made.values() if words != ['which', 'batch'] else ():  # they came later, and the page says so
        (line,) = (line for line in page.splitlines() if line.startswith(f'| {claim.text} ('))
        assert '**not run**' in line


def test_bounds_that_came_after_the_runs_say_so() -> None:
    """As the head of docs/results/README.md has it."""
    after = {
        f'{name}:{claim.name}'
        for name in NAMES
        for claim in claimed(importlib.import_module(f'experiments.{name}'))
        if not claim.bound_first
    }
    assert {name.partition(':')[0] for name in after} == {
        'mnist',
        'mnist_equal_updates',
        'mnist_learning_rate',
        'mnist_gradient_norm',
        'which_batch',
    }
    assert {name for name in after if name.startswith('mnist_l')} == {
        'mnist_learning_rate:collapse',
        'mnist_learning_rate:collapse_distance',
    }
    assert len(after) == 14 + 1 + 2 + 5 + 7


@pytest.mark.smoke
@each_file
def test_smoke(experiment: Any, name: str, tmp_path: Path) -> None:
    settings = experiment.get_config('smoke')
    bsgap.train(settings, tmp_path)
    records = read_records(tmp_path)
    page = html.unescape(bsgap.report(tmp_path).read_text(encoding='utf-8'))
    resolved = config.resolve(settings)
    if resolved.search:
        found = read_json(tmp_path / 'recommendation.json')
        assert found['headline'] in page
        assert [budget['unit'] for budget in found['budgets']] == ['epochs', 'updates']  # seconds are too few here
        assert all(budget['fresh'] for budget in found['budgets'])
        drawn = {path.stem for path in (tmp_path / 'figures').iterdir()}
        few = {'targets'} if len(resolved.search.batch_sizes) < 3 else set()
        assert {*answer_figures.FIGURES} - few <= drawn <= {*answer_figures.FIGURES}
        assert {record.status for record in records} <= {'done', 'diverged'}
        return
    assert len(records) == len(resolved.recipes) * resolved.seeds
    assert {record.status for record in records} <= {'done', 'diverged'}
    verdicts = claims.read(tmp_path / 'claims.csv')
    assert [verdict.id for verdict in verdicts] == [claim.name for claim in experiment.claims('smoke')]
    for verdict in verdicts:
        assert verdict.claim in page
        assert math.isfinite(verdict.value) or verdict.note.startswith('evaluated too seldom'), verdict
    (answer,) = re.findall(r'<div class="answer">(.*?)</div>', page, re.S)
    assert not set('{}') & set(answer)
    for measurement in resolved.measurements:
        for record in (record for record in records if record.status == 'done'):
            assert any(key.startswith(measurement) for key in record.measured)
            assert set(MEASURED[measurement]) <= set(record.measured)
    lines = json.loads((tmp_path / 'lines.json').read_text())['lines'] if resolved.lines else []
    assert len(lines) == len(resolved.lines) * resolved.seeds
    assert len(list((tmp_path / 'figures').iterdir())) == len(resolved.figures)
