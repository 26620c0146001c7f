"""The rules of successive halving by hand, and whole searches on real data, interrupted and not."""

import itertools
import math
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, assert_same, read_json
from searches import known_times, plan, settings

import bsgap
from bsgap import config
from bsgap.analysis import answer
from bsgap.errors import UserError
from bsgap.files import write_json
from bsgap.search.rounds import Key, Rounds, best, beyond
from bsgap.training.rows import read_records
from bsgap.training.workdir import saved_updates

Launch = Callable[..., subprocess.Popen[str]]


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
    assert best(errors, keep) == kept


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
    assert beyond(errors, errors, plan(), 0.01) == added


def test_a_reference_far_from_the_others_is_no_end() -> None:
    errors = {1e-5: 0.5, 0.03: 0.1, 0.1: 0.2, 0.3: 0.3}
    assert beyond(errors, errors, plan(), 1e-5) == {0.00949}
    errors = {0.03: 0.3, 0.1: 0.2, 0.3: 0.1, 50.0: 0.5}
    assert beyond(errors, errors, plan(), 50.0) == {0.949}


def test_a_step_that_rounding_hides_adds_nothing() -> None:
    made = settings()
    made.sweep.learning_rate = (0.1, 0.10001)
    narrow = config.resolve(made).search
    assert narrow
    assert beyond({0.1: 0.1, 0.10001: 0.2}, {0.1, 0.10001}, narrow, 0.1) == set()


def test_widening_goes_on_as_often_as_it_may() -> None:
    errors = {0.03: 0.4, 0.1: 0.3, 0.3: 0.2, 0.949: 0.1}
    assert beyond(errors, errors, plan(widen=2), 0.01) == {3.0}
    assert beyond(errors, errors, plan(widen=0), 0.01) == set()


@pytest.fixture(scope='module')
def finished(once: Callable[..., Path]) -> Path:
    return once('search', lambda workdir: bsgap.train(settings(), known_times(workdir)))


def test_a_search_leaves_its_decisions_and_the_runs_that_follow_from_them(finished: Path) -> None:
    decided = read_json(finished / 'search.json')
    records = {record.about['name']: record for record in read_records(finished)}
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
    """Killed in the second round and in the last one, in a process of its own each time, and ended in this one."""
    workdir = known_times(tmp_path / 'killed')
    file = tmp_path / 'study.py'
    file.write_text(
        f'import sys\nsys.path.insert(0, {str(ROOT / "tests")!r})\nfrom searches import settings\n'
        'def get_config():\n    return settings(**{})\n'
    )
    arguments = f'--config={file}', f'--workdir={workdir}'
    for last in ('round 2', 'round 3'):
        process = launch(*arguments)
        assert process.stdout
        lines = itertools.dropwhile(lambda line, last=last: not line.startswith(last), process.stdout)
        assert len(list(itertools.islice(lines, 5))) == 5  # the round has begun
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    bsgap.train(settings(), workdir)
    assert_same(finished, workdir)
    assert read_json(finished / 'search.json') == read_json(workdir / 'search.json')


def test_a_finished_search_trains_nothing_more(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / 'again'
    shutil.copytree(finished, workdir)
    before = {path: path.read_bytes() for path in workdir.rglob('metrics.csv')}
    bsgap.train(settings(), workdir)
    assert {path: path.read_bytes() for path in workdir.rglob('metrics.csv')} == before
    assert_same(finished, workdir)


def test_what_may_change_between_launches(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / 'other'
    shutil.copytree(finished, workdir)
    with pytest.raises(UserError, match=r'config\.search\.keep: 0\.5 contradicts'):
        bsgap.train(settings(keep=0.5), workdir)
    more = settings(target=0.5, confirm_seeds=0)
    more.sweep.batch_size = (8, 16, 32)
    bsgap.train(more, workdir)
    decided = read_json(workdir / 'search.json')
    found = answer.find(read_json(workdir / 'study.json'), decided, read_records(workdir))
    assert decided['target'] == found['target']['error'] == 0.5
    assert decided['budgets'] == read_json(finished / 'search.json')['budgets']
    assert [point['batch_size'] for point in found['to_target']] == [8, 16, 32]


def test_a_search_of_an_earlier_revision_is_gone_on_with(finished: Path, tmp_path: Path) -> None:
    """It had settings, decisions and runs that are none any more; these stay, and nothing is trained."""
    workdir = tmp_path / 'earlier'
    shutil.copytree(finished, workdir)
    about, decided = read_json(workdir / 'study.json'), read_json(workdir / 'search.json')
    about['config'] |= {'search.moments': [0.1], 'search.grow': True, 'measurements': ['noise_scale']}
    write_json(workdir / 'study.json', about)
    write_json(workdir / 'search.json', {**decided, 'recipes': ['moment40-bs8-lr0.1', 'bs8-lr0.1']})
    moment = workdir / 'runs' / 'moment40-bs8-lr0.1-seed0'
    shutil.copytree(workdir / 'runs' / 'bs8-lr0.1-seed0', moment)
    run = read_json(moment / 'run.json')
    write_json(moment / 'run.json', {**run, 'name': moment.name, 'recipe': 'moment40-bs8-lr0.1'})
    write_json(moment / 'measurements.json', {'noise_scale': 20.0})
    bsgap.train(settings(), workdir)
    assert read_json(workdir / 'search.json') == decided
    assert len(read_records(workdir)) == len(read_records(finished)) + 1
    bsgap.report(workdir)
    shutil.rmtree(moment)
    assert_same(finished, workdir)


def test_rounds_of_a_finished_search_are_reached_and_write_nothing(finished: Path) -> None:
    """Nothing is measured anew, and each goal is a run that is there, as far as it is asked for."""

    def measure(_: Any) -> float:
        raise AssertionError

    before = (finished / 'search.json').read_bytes()
    goals = [
        goal for goals in Rounds(config.resolve(settings()), 400, measure, finished, write=False) for goal in goals
    ]
    records = {record.name: record for record in read_records(finished)}
    assert {goal.run.name for goal in goals} == records.keys()
    for goal in goals:
        if records[goal.run.name].status != 'diverged':
            assert records[goal.run.name].rows[-1]['update'] >= goal.until
    assert (finished / 'search.json').read_bytes() == before


def test_the_one_that_writes_tells_the_others_the_times(finished: Path, tmp_path: Path) -> None:
    """Of several processes the first one measures and writes, and the others read what it found."""
    study, times = config.resolve(settings()), iter([0.25, 0.5])
    assert Rounds(study, 400, lambda _: next(times), tmp_path, write=True).decisions.seconds_per_update['32'] == 0.5
    assert read_json(tmp_path / 'search.json')['seconds_per_update'] == {'8': 0.25, '32': 0.5}
    others = Rounds(study, 400, lambda _: next(times), tmp_path, write=False).decisions
    assert others.seconds_per_update == {'8': 0.25, '32': 0.5}


def test_a_budget_of_one_update_is_refused(tmp_path: Path) -> None:
    study = config.resolve(settings(budget_epochs=0.01, budget_seconds=1.0))
    with pytest.raises(UserError, match=r'^config.search.budget_epochs: 0.01 is not allowed; no budget leaves batch'):
        Rounds(study, 400, lambda _: 1.0, tmp_path, write=True)
    assert not (tmp_path / 'search.json').exists()


def test_fresh_seeds_are_those_that_the_search_has_not_seen(finished: Path) -> None:
    about, records = read_json(finished / 'study.json'), read_records(finished)
    rows = answer.find(about, read_json(finished / 'search.json'), records)['confirmation']
    fresh = {record.name for record in records if record.about['seed'] >= 1}
    assert fresh == {'bs{batch_size}-lr{learning_rate:.12g}-seed1'.format(**row) for row in rows}
    assert {row['seeds'] for row in rows} == {1}
    assert {row['unit'] for row in rows} == {'epochs', 'updates', 'seconds'}


def test_fresh_seeds_go_as_far_as_the_last_budget_that_wants_them(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def budget(*rows: tuple[int, float, int]) -> dict[str, Any]:
        names = 'batch_size', 'learning_rate', 'updates'
        made = [dict(zip(names, row, strict=True)) | {'momentum': 0.0} for row in rows]
        return {'rows': made, 'recommended': rows[0][0] if rows else None}

    given = [budget((8, 0.1, 60), (32, 0.3, 26)), budget((8, 0.1, 100), (32, 0.1, 50)), budget((8, 0.1, 60)), budget()]
    monkeypatch.setattr(answer, 'budgets', lambda *_: given)
    rounds = Rounds(config.resolve(settings(confirm_seeds=2)), 400, lambda _: math.nan, finished, write=False)
    ends = [('bs8-lr0.1', 100), ('bs32-lr0.3', 26), ('bs32-lr0.1', 50)]
    goals = [(goal.run.name, goal.until) for goal in rounds._fresh()]
    assert goals == [(f'{name}-seed{seed}', end) for name, end in ends for seed in (1, 2)]
    assert rounds.decisions.stopped == [name for name, end in goals if end < 100]


def test_an_error_that_is_infinite_is_null(finished: Path) -> None:
    rounds = Rounds(config.resolve(settings()), 400, lambda _: math.nan, finished, write=False)
    rounds._note(Key(8, 0.0), 0, {0.1: 0.5, 9.0: math.inf, 0.3: 0.25}, {0.3})
    (rung,) = rounds.decisions.rungs
    assert rung['errors'] == {'bs8-lr0.1': 0.5, 'bs8-lr0.3': 0.25, 'bs8-lr9': None}
    assert (rung['kept'], rung['added'], rung['update']) == (['bs8-lr0.3'], ['bs8-lr9'], 33)
    assert rounds.decisions.stopped == ['bs8-lr0.1-seed0', 'bs8-lr9-seed0']


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
        ({'search.moments': (0.1,)}, 'config.search.moments: unknown field'),
        ({'measurements': ('sharpness',)}, 'config.measurements: '),
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
    with pytest.raises(UserError) as error:
        config.resolve(made)
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


def test_a_run_is_kept_to_its_goal(finished: Path) -> None:
    """Rows, checkpoints and goals agree: none is trained beyond its rung."""
    for record in read_records(finished):
        if record.status != 'diverged':
            assert saved_updates(finished, record.name)[-1] == record.rows[-1]['update']
