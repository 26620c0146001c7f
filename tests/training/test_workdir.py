"""A workdir says how its runs were trained, and refuses what contradicts that."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest
from helpers import read_json, tiny
from trainings import runs_of

from bsgap import config, data
from bsgap.errors import UserError
from bsgap.training import workdir as files
from bsgap.training.runs import Run


def stages(*table: tuple[str, int, int]) -> dict[str, Any]:
    return {'stages': tuple({unit: length, 'batch_size': size, 'learning_rate': 0.1} for unit, length, size in table)}


def opened(workdir: Path, about: dict[str, Any] | None = None, **changes: Any) -> tuple[Run, ...]:
    """Opens a workdir with a study, as a launch does."""
    study = config.resolve(tiny(**{'batch_size': (300,), 'seeds': 1, **changes}))
    runs = runs_of(study)
    datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
    files.open_workdir(workdir, study, runs, {**files.depends_on(study, datasets), **(about or {})})
    return runs


def content(workdir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}


def test_it_says_how_each_run_is_trained(tmp_path: Path) -> None:
    (run,) = opened(tmp_path, {'processes': 1}, batch_size=(100,), model_arguments={'width': 3}, momentum=0.5)
    study = read_json(tmp_path / 'study.json')
    assert (study['processes'], study['earlier_launches']) == (1, [])
    assert study['config']['recipes']['bs100-lr0.1']['fields']['hidden'] == [16]
    about = read_json(tmp_path / 'runs' / 'bs100-lr0.1-seed0' / 'run.json')
    assert about == files.describe(run)
    facts = {'name': 'bs100-lr0.1-seed0', 'recipe': 'bs100-lr0.1', 'seed': 0, 'n': 300, 'updates': 6, 'examples': 600}
    assert {key: about[key] for key in facts} == facts
    assert about['fields']['model_arguments'] == {'width': 3}
    (stage,) = about['stages']
    assert (stage['batch_size'], stage['learning_rate'], stage['momentum'], stage['unit']) == (100, 0.1, 0.5, 'epochs')


def test_earlier_launches_are_kept(tmp_path: Path) -> None:
    for processes in (1, 2, 4):
        opened(tmp_path, {'processes': processes})
    study = read_json(tmp_path / 'study.json')
    assert study['processes'] == 4
    assert [launch['processes'] for launch in study['earlier_launches']] == [1, 2]
    assert 'config' in study
    assert not any('config' in launch for launch in study['earlier_launches'])


def test_the_training_sets_of_earlier_launches_are_kept_once_each(tmp_path: Path) -> None:
    """Runs that a later study does not have are used too."""
    few, all_of_them = {'few': {'subset': 100}}, {'all': {'subset': 0}}
    for recipes in (few, few, all_of_them, few):
        opened(tmp_path, batch_size=(), recipes=recipes)
    sets = read_json(tmp_path / 'study.json')['training_sets']
    assert sorted(known['examples'] for known in sets) == [100, 60000]


GROW = stages(('epochs', 2, 50))


@pytest.mark.parametrize(
    ('field', 'value', 'says'),
    [
        (
            'epochs',
            1,
            r'config.epochs: 1.0 contradicts 2.0 in .*bs300-lr0.1-seed0/run.json; use the same, another name',
        ),
        ('hidden', (17,), r'config.hidden: \[17\] contradicts \[16\]'),
        ('subset', 400, 'config.subset: 400 contradicts 300'),
        ('optimizer', 'adam', 'config.optimizer: adam contradicts sgd'),
        ('precision', 'bfloat16', 'config.precision: bfloat16 contradicts float32, with which runs in'),
        ('validation', 0.1, 'config.validation: 0.1 contradicts 0.0, with which runs in'),
        (
            'recipes',
            {'grow': stages(('epochs', 1, 50))},
            r'config.recipes.grow: its stages, or the number of examples, contradict',
        ),
    ],
)
def test_a_setting_that_contradicts_it_is_named_and_changes_nothing(
    tmp_path: Path, field: str, value: Any, says: str
) -> None:
    opened(tmp_path, recipes={'grow': GROW})
    before = content(tmp_path)
    with pytest.raises(UserError, match=says):
        opened(tmp_path, **{'batch_size': (100, 300), 'recipes': {'grow': GROW}, field: value})
    assert before == content(tmp_path)


def test_what_changes_rounding_at_most_may_differ(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path, name='x', run_axis='vmap', max_parallel_runs=1, segment_seconds=9.0, figures=('curves',), seeds=3)
    assert len(list(tmp_path.glob('runs/*/run.json'))) == 3


@pytest.mark.parametrize(
    ('before', 'after', 'goes_on'),
    [
        (stages(('epochs', 2, 50)), stages(('epochs', 3, 50)), True),
        (stages(('updates', 13, 50)), stages(('epochs', 3, 50)), True),
        (stages(('examples', 120, 50)), stages(('epochs', 3, 50)), False),  # its last batch was cut short
        (stages(('epochs', 2, 50)), stages(('epochs', 2, 50), ('updates', 1, 100)), True),
        (stages(('epochs', 1, 50), ('updates', 1, 100)), stages(('epochs', 1, 50), ('updates', 9, 100)), True),
        (stages(('epochs', 1, 50), ('updates', 1, 100)), stages(('epochs', 2, 50), ('updates', 1, 100)), False),
        ({'schedule': 'cosine'}, {'schedule': 'cosine', 'epochs': 3}, False),  # its learning rate was another one
        ({'warm_up': 1.0}, {'warm_up': 1.0, 'epochs': 3}, True),
    ],
)
def test_a_longer_run_goes_on_where_it_begins_alike(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], goes_on: bool
) -> None:
    """What was measured of the weights at its end is deleted then."""
    opened(tmp_path, batch_size=(), recipes={'mine': before})
    measured = [tmp_path / 'lines.json', tmp_path / 'runs' / 'mine-seed0' / 'measurements.json']
    for path in measured:
        path.write_text('{}')
    opened(tmp_path, batch_size=(), recipes={'mine': before})
    was = content(tmp_path)
    assert all(path.exists() for path in measured)
    if goes_on:
        (run,) = opened(tmp_path, batch_size=(), recipes={'mine': after})
        assert read_json(tmp_path / 'runs' / 'mine-seed0' / 'run.json') == files.describe(run)
        assert not any(path.exists() for path in measured)
    else:
        with pytest.raises(UserError, match=r'contradict'):
            opened(tmp_path, batch_size=(), recipes={'mine': after})
        assert content(tmp_path) == was


def test_nothing_is_written_when_one_of_many_runs_contradicts(tmp_path: Path) -> None:
    opened(tmp_path, batch_size=(100,))
    before = content(tmp_path)
    study = config.resolve(tiny(batch_size=(32, 100), momentum=0.5))
    with pytest.raises(UserError, match=r'config.momentum: 0.5 contradicts 0.0'):
        files.add_runs(tmp_path, runs_of(study))
    assert content(tmp_path) == before


def test_a_workdir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'--workdir: .*file/x cannot be used: Not a directory'):
        opened(tmp_path / 'file' / 'x')


@pytest.mark.parametrize('text', ['', '{"config": {', '{"config": {}}', '[]'])
def test_a_damaged_study_is_named_and_left(tmp_path: Path, text: str) -> None:
    opened(tmp_path)
    (tmp_path / 'study.json').write_text(text)
    with pytest.raises(UserError, match=r'workdir: .*study.json is damaged: .*; restore it or use another workdir'):
        opened(tmp_path)
    assert (tmp_path / 'study.json').read_text() == text


def test_runs_of_which_nothing_says_how_they_were_trained_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / 'runs' / 'bs300-lr0.1-seed0'
    folder.mkdir(parents=True)
    (folder / 'metrics.csv').touch()
    with pytest.raises(UserError, match=r'--workdir: .* has runs but no study.json, which says how; use another'):
        opened(tmp_path)


def test_it_has_all_that_a_trained_model_needs_of_the_data() -> None:
    study = config.resolve(tiny(batch_size=(), recipes={'few': {'subset': 100}, 'noisy': {'label_noise': 0.5}}))
    datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
    few, noisy = files.depends_on(study, datasets)['training_sets']
    assert (few['subset'], few['label_noise'], few['examples']) == (100, 0.0, 100)
    assert (noisy['subset'], noisy['label_noise'], noisy['examples']) == (300, 0.5, 300)
    for described, dataset in zip((few, noisy), datasets.values(), strict=True):
        assert (described['shape'], described['outputs']) == ([28, 28, 1], 10)
        assert dataset.mean_C.tolist() == described['mean'] != few['std']  # of float32, bit for bit
        assert dataset.std_C.tolist() == described['std']


def test_the_environment_names_what_a_result_depends_on() -> None:
    found = json.loads(json.dumps(files.environment()))
    assert found['versions']['jax'] == jax.__version__
    assert set(found['versions']) == set(files.PACKAGES)
    assert found['devices']
    assert found['platform'] == jax.default_backend()


def test_a_workdir_of_a_bsgap_that_had_fewer_fields_is_gone_on_with(tmp_path: Path) -> None:
    opened(tmp_path)
    study = read_json(tmp_path / 'study.json')
    for field in ('task', 'target', 'image_size', 'test_share'):
        del study['config'][field]
    (tmp_path / 'study.json').write_text(json.dumps(study))
    opened(tmp_path)
    (tmp_path / 'study.json').write_text(json.dumps(study))
    with pytest.raises(UserError, match=r'config.test_share: 0.5 contradicts 0.2'):
        opened(tmp_path, test_share=0.5)
