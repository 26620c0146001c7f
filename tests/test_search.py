"""The search: its rules by hand, and whole searches on real data, interrupted and not."""

import dataclasses
import functools
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_same, read_json, tiny
from ml_collections import ConfigDict

from bsgap import checkpoint, config, metrics, scaling, search, study
from bsgap.measure import measure
from bsgap.report import report
from bsgap.train import train

Launch = Callable[..., subprocess.Popen[str]]


def settings(**changes: Any) -> ConfigDict:
    """A search of a few seconds: two batch sizes, three learning rates, one seed."""
    made = tiny(
        batch_size=(8, 32),
        learning_rate=(0.03, 0.1, 0.3),
        subset=400,
        validation=0.01,
        measurements=('noise_scale',),
        seeds=1,
    )
    made.learning_rate = 0.01
    given: dict[str, Any] = {'rungs': 2, 'widen': 1, 'moments': (0.1, 1.0), 'confirm_seeds': 1}
    given |= {'budget_epochs': 2.0, 'budget_seconds': 0.05}
    made.search.update({**given, **changes})
    return made


def known_times(workdir: Path) -> Path:
    """A workdir in which the times of an update are known, as they are measured once and decide how long runs are."""
    workdir.mkdir()
    study.write_json(workdir / 'search.json', {'seconds_per_update': {'8': 0.0005, '32': 0.001}, 'stopped': []})
    return workdir


@pytest.fixture(scope='module', autouse=True)
def few_resamples() -> Iterator[None]:
    """No test is about the width of the curve's interval."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, 'fit', functools.partial(scaling.fit, resamples=10))
        yield


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = known_times(tmp_path_factory.mktemp('search') / 'whole')
    train(settings(), workdir)
    measure(settings(), workdir)
    return workdir


def plan(**changes: Any) -> config.Search:
    made = config.resolve(settings(**changes)).search
    assert made
    return made


@pytest.mark.parametrize(
    ('errors', 'keep', 'kept'),
    [
        ({0.1: 0.2, 0.3: 0.1, 1.0: 0.3}, 1 / 3, {0.3}),
        ({0.1: 0.2, 0.3: 0.1, 1.0: 0.3, 3.0: 0.4}, 1 / 3, {0.3, 0.1}),  # two of four, not one
        ({0.1: 0.2, 0.3: 0.2}, 0.5, {0.1}),  # the lower of equals
        ({0.1: 0.2, 0.3: math.inf, 1.0: math.inf}, 0.9, {0.1}),
        ({0.1: math.inf}, 0.5, set()),
    ],
)
def test_a_rung_keeps_the_best(errors: dict[float, float], keep: float, kept: set[float]) -> None:
    assert search.best(errors, keep) == kept


@pytest.mark.parametrize(
    ('errors', 'added'),
    [
        ({0.03: 0.3, 0.1: 0.2, 0.3: 0.4}, set()),  # inside
        ({0.03: 0.3, 0.1: 0.2, 0.3: 0.1}, {0.949}),  # at the upper end; the step is √10
        ({0.03: 0.1, 0.1: 0.2, 0.3: 0.4, 0.01: 0.3}, set()),  # the reference is below it
        ({0.03: 0.2, 0.1: 0.2, 0.3: 0.4, 0.01: 0.1}, {0.00316}),
        ({0.03: math.inf, 0.1: math.inf, 0.3: math.inf}, {0.00949}),  # all diverged
        ({0.03: 0.3, 0.1: 0.2, 0.3: math.inf}, set()),  # what diverged bounds the range
        ({0.03: 0.3, 0.1: 0.2, 0.3: 0.2, 0.949: 0.1}, set()),  # widened already
        ({}, set()),  # none is left
    ],
)
def test_the_range_is_widened_where_the_best_is_at_its_end(errors: dict[float, float], added: set[float]) -> None:
    assert search.beyond(errors, errors, plan(), 0.01) == added


def test_a_reference_far_from_the_others_is_no_end() -> None:
    errors = {1e-5: 0.5, 0.03: 0.1, 0.1: 0.2, 0.3: 0.3}
    assert search.beyond(errors, errors, plan(), 1e-5) == {0.00949}


def test_a_step_that_rounding_hides_adds_nothing() -> None:
    made = settings()
    made.sweep.learning_rate = (0.1, 0.10001)
    narrow = config.resolve(made).search
    assert narrow
    assert search.beyond({0.1: 0.1, 0.10001: 0.2}, {0.1, 0.10001}, narrow, 0.1) == set()


def test_widening_goes_on_as_often_as_it_may() -> None:
    errors = {0.03: 0.4, 0.1: 0.3, 0.3: 0.2, 0.949: 0.1}
    assert search.beyond(errors, errors, plan(widen=2), 0.01) == {3.0}
    assert search.beyond(errors, errors, plan(widen=0), 0.01) == set()


def test_a_search_leaves_its_decisions_and_the_runs_that_follow_from_them(finished: Path) -> None:
    decided = read_json(finished / 'search.json')
    records = {record.about['name']: record for record in metrics.read_runs(finished)}
    assert decided['budgets'] == {'epochs': 2, 'updates': 100, 'seconds': 0.05}  # 2 epochs of batch 8, the smaller half
    assert decided['updates']['epochs'] == {'8': 100, '32': 26}
    assert decided['updates']['seconds'] == {'8': 100, '32': 50}
    for rung in decided['rungs']:
        assert 'bs{batch_size}-lr0.01'.format(**rung) in rung['kept']  # the reference
        finite = {name: error for name, error in rung['errors'].items() if error is not None}
        for name, error in finite.items():
            found = [
                1 - row['validation_accuracy']
                for row in records[f'{name}-seed0'].rows
                if row['update'] == rung['update']
            ]
            assert found == [pytest.approx(error)]
        ranked = sorted(finite, key=lambda name: finite[name])
        if rung['update'] < 100:
            assert ranked[0] in rung['kept']
            assert len(rung['kept']) <= math.ceil(len(rung['errors']) / 3) + 1
    stopped = {name for name, record in records.items() if record.status == 'stopped'}
    assert stopped
    assert stopped <= set(decided['stopped'])
    for name in stopped:
        if name.endswith('seed0'):
            assert records[name].rows[-1]['update'] == round(100 / 3)


def test_a_search_goes_on_as_it_was_bit_for_bit(finished: Path, tmp_path: Path, launch: Launch) -> None:
    """Killed in the first rungs and in the last round, in a process of its own each time, and ended in this one."""
    workdir = known_times(tmp_path / 'killed')
    file = tmp_path / 'study.py'
    file.write_text(
        f'import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_search import settings\n'
        'def get_config():\n    return settings(**{})\n'
    )
    arguments = f'--config={file}', f'--workdir={workdir}'
    for moment in ('round 2', 'moment'):
        process = launch(*arguments)
        assert process.stdout
        for line in process.stdout:
            if moment in line:
                break
        process.kill()
        process.communicate()
    train(settings(), workdir)
    measure(settings(), workdir)
    assert_same(finished, workdir)
    assert read_json(finished / 'search.json') == read_json(workdir / 'search.json')


def test_a_finished_search_trains_nothing_more(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / 'again'
    shutil.copytree(finished, workdir)
    before = {path: path.read_bytes() for path in workdir.rglob('metrics.csv')}
    train(settings(), workdir)
    assert {path: path.read_bytes() for path in workdir.rglob('metrics.csv')} == before
    assert_same(finished, workdir)


def test_what_may_change_between_launches(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / 'other'
    shutil.copytree(finished, workdir)
    with pytest.raises(config.UserError, match=r'config\.search\.keep: 0\.5 contradicts'):
        train(settings(keep=0.5), workdir)
    more = settings(target=0.5, confirm_seeds=0, grow=False)
    more.sweep.batch_size = (8, 16, 32)
    train(more, workdir)
    report(workdir)
    found, decided = read_json(workdir / 'recommendation.json'), read_json(workdir / 'search.json')
    assert decided['target'] == found['target']['error'] == 0.5
    assert decided['budgets'] == read_json(finished / 'search.json')['budgets']
    assert [point['batch_size'] for point in found['to_target']] == [8, 16, 32]
    # What was trained for the earlier target stays, but is no part of the answer.
    trunks = {name for name in decided['recipes'] if name.startswith('moment') and '-to-' not in name}
    there = {record.about['recipe'] for record in metrics.read_runs(workdir)}
    assert (
        len(found['noise_scale']['branched'])
        <= len(trunks)
        < len({name for name in there if name.startswith('moment') and '-to-' not in name})
    )


def test_moments_are_measured_and_nothing_else(finished: Path) -> None:
    assert read_json(finished / 'search.json')['rungs']  # measuring leaves the decisions as they are
    measured = {path.parent.name for path in finished.rglob('measurements.json')}
    names = {record.about['name'] for record in metrics.read_runs(finished)}
    trunks = {name for name in names if name.startswith('moment') and '-to-' not in name}
    assert measured == trunks
    assert trunks


def test_a_branch_is_what_it_would_be_without_its_trunk(finished: Path, tmp_path: Path) -> None:
    branches = [
        r for r in metrics.read_runs(finished) if r.about['recipe'].startswith('moment') and r.about['seed'] == 0
    ]
    branch = next(r for r in branches if len(r.about['stages']) == 2)
    alone = settings(rungs=0)
    alone.measurements = ()
    alone.sweep.batch_size, alone.sweep.learning_rate, alone.seeds = (), (), 1
    first, second = branch.about['stages']
    keys = ('batch_size', 'learning_rate', 'momentum')
    fields = branch.about['fields']
    alone.recipes = {
        'alone': {
            'stages': (
                {'updates': int(first['length']), **{key: first[key] for key in keys}},
                {'examples': int(second['length']), **{key: second[key] for key in keys}},
            ),
            **{key: tuple(fields[key]) for key in ('evaluate_at', 'validate_at')},
        }
    }
    (trained,) = train(alone, tmp_path)
    assert [row['update'] for row in trained.rows] == [row['update'] for row in branch.rows]
    for row, other in zip(trained.rows, branch.rows, strict=True):
        for column in ('validation_loss', 'distance', 'learning_rate_sum'):
            assert row[column] == pytest.approx(other[column], rel=1e-4), column


def test_a_branch_whose_trunk_is_damaged_is_trained_from_its_start(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / 'damaged'
    shutil.copytree(finished, workdir)
    branch = next(path for path in sorted((workdir / 'runs').glob('moment*-to-*-seed0')))
    trunk = workdir / 'runs' / f'{branch.name.partition("-to-")[0]}-seed0'
    rows = metrics.read(branch / 'metrics.csv')
    shutil.rmtree(branch)
    for path in trunk.glob('checkpoints/*/**/*'):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(b'')
    train(settings(), workdir)
    again = metrics.read(branch / 'metrics.csv')
    assert [row['update'] for row in again] == [row['update'] for row in rows]
    assert again[-1]['validation_loss'] == pytest.approx(rows[-1]['validation_loss'], rel=1e-4)


def test_growing_follows_the_noise_scale_and_ends_where_each_budget_does(finished: Path) -> None:
    """A noise scale made by hand: it passes √(8·32) = 16 between the examples 64 and 160, and falls again."""
    rounds = search._Rounds(config.resolve(settings()), plan(), 400, lambda _: math.nan, finished, write=False)
    tuned = [
        {'batch_size': size, 'learning_rate': rate, 'momentum': 0.0, 'runs': [{'updates': 20.0}]}
        for size, rate in ((8, 0.1), (32, 0.3))
    ]
    points = [{'examples': e, 'noise_scale': {'value': v}} for e, v in ((8, 6.0), (64, 15.0), (160, 20.0), (320, 9.0))]
    line = {'batch_size': 8, 'learning_rate': 0.1, 'points': points}
    rounds.found = {'to_target': tuned, 'curve': None, 'noise_scale': {'training': [line]}}
    goals = rounds._grow()
    assert [goal.run.seed for goal in goals] == [0]
    run = goals[0].run
    assert [(stage.batch_size, stage.learning_rate) for stage in run.recipe.stages] == [(8, 0.1), (32, 0.3)]
    assert run.spans[0].last_example == 160
    # 20 updates of 8 make 160 examples in 0.01 s. Left are 640 examples of 2 epochs, in 21 updates, as each epoch ends
    # with a partial batch (240 = 7·32 + 16 and 400 = 12·32 + 16); 0.04 s, in 40 updates; 80 of 100 updates.
    assert run.recipe.evaluate_at == (20 + 8 + 13, 20 + 40, 100)
    assert goals[0].until == run.updates == 100
    points[2]['noise_scale']['value'] = 15.0
    assert rounds._grow() == []


def test_fresh_seeds_are_those_that_the_search_has_not_seen(finished: Path) -> None:
    fresh = [record for record in metrics.read_runs(finished) if record.about['seed'] >= 1]
    assert fresh
    for record in fresh:
        assert record.about['recipe'].startswith('bs')
        assert 'test_accuracy' in record.rows[-1]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'validation': 0.0}, 'config.validation'),
        ({'sweep.learning_rate': (0.1,)}, 'config.sweep.learning_rate'),
        ({'sweep.batch_size': ()}, 'config.sweep.batch_size'),
        ({'sweep.hidden': ((4,), (8,))}, 'config.sweep: '),
        ({'sweep.learning_rate': (0.0, 0.1)}, 'config.sweep.learning_rate'),
        ({'recipes': {'x': {'learning_rate': 0.1}}}, 'config.recipes'),
        ({'schedule': 'cosine'}, 'config.schedule'),
        ({'search.keep': 1.0}, 'config.search.keep'),
        ({'search.keeps': 0.5}, 'config.search.keeps: unknown field'),
        ({'search.moments': (0.0,)}, 'config.search.moments'),
        ({'noise_scale': True, 'batch_norm': True}, 'config.noise_scale'),
        ({'validate_at': (5,), 'validation': 0.0, 'search.rungs': 0}, 'config.validate_at'),
    ],
)
def test_what_a_search_cannot_do_is_named(changes: dict[str, Any], message: str) -> None:
    made = settings()
    with made.ignore_type(), made.unlocked():
        for field, value in changes.items():
            owner, _, name = field.rpartition('.')
            (made[owner] if owner else made)[name] = value
    with pytest.raises(config.UserError) as error:
        config.resolve(made)
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


OTHER = {
    'rungs': 3,
    'keep': 0.5,
    'widen': 2,
    'budget_epochs': 1.5,
    'budget_updates': 40,
    'budget_seconds': 0.1,
    'target': 0.2,
    'moments': (0.5,),
    'grow': False,
    'confirm_seeds': 2,
}


@pytest.mark.parametrize('field', config.SEARCH_FIELDS)
def test_every_field_of_a_search_is_read(field: str) -> None:
    """Each changes itself alone, in the plan and in the settings that are compared with those of a workdir."""
    resolved = [config.resolve(settings(**changes)) for changes in ({}, {field: OTHER[field]})]
    before, after = (dataclasses.asdict(each.search) for each in resolved if each.search)
    assert after == {**before, field: OTHER[field]} != before
    written, again = map(study.settings, resolved)
    assert {name for name in written if written[name] != again[name]} == {f'search.{field}'}


def test_a_run_is_kept_to_its_goal(finished: Path) -> None:
    """Rows, checkpoints and goals agree: none is trained beyond its rung."""
    for record in metrics.read_runs(finished):
        checkpoints = checkpoint.Checkpoints(study.run_folder(finished, record.about['name']) / 'checkpoints')
        if record.status != 'diverged':
            assert checkpoints.updates()[-1] == record.rows[-1]['update']
        checkpoints.close()
