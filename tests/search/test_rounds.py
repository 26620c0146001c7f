"""The ladder on surfaces made by hand, and whole searches on real data, interrupted and not."""

import math
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, assert_same, read_json
from searches import known_times, settings

import bsgap
from bsgap import config
from bsgap.analysis import answer
from bsgap.errors import UserError
from bsgap.files import write_json
from bsgap.search import rounds as search
from bsgap.search.rounds import Rounds, rungs
from bsgap.training import rows
from bsgap.training.memory import Alone
from bsgap.training.rows import read_records
from bsgap.training.runs import Run
from bsgap.training.workdir import run_folder, saved_updates

Launch = Callable[..., subprocess.Popen[str]]
Surface = Callable[[int, float, int], float]  # the validation error of a batch size, learning rate and length


@pytest.mark.parametrize(
    ('ends', 'below', 'found'),
    [
        ([1000], 2, [250, 500, 1000]),
        ([1000, 250], 1, [125, 250, 500, 1000]),
        ([1000, 900], 1, [450, 900, 1000]),  # as near as that they are, and nothing between
        ([1000, 300], 0, [300, 500, 1000]),  # 250 would be shorter than the budget below
        ([1000, 250, 250], 0, [250, 500, 1000]),
        ([100, 2], 3, [2, 3, 6, 12, 25, 50, 100]),  # two updates are no trial, but they are the budget
        ([7], 5, [4, 7]),  # nor are trials shorter than four
    ],
)
def test_rungs_are_a_factor_of_about_two_apart(ends: list[int], below: int, found: list[int]) -> None:
    assert rungs(iter(ends), below) == found


def nothing(_: Sequence[Run]) -> list[Alone]:
    raise AssertionError('measured again')


def climbed(tmp_path: Path, surface: Surface, perfect: bool = False, **changes: Any) -> tuple[Rounds, list[list[Run]]]:
    """A search's rounds where the runs of each end as a surface has it; an infinite error is a run that diverged."""
    study = config.resolve(settings(confirm_seeds=0, **changes))
    made = Rounds(study, 400, nothing, known_times(tmp_path), write=True)
    trained = []
    for wanted in made:
        trained.append(wanted)
        for run in wanted:
            folder = run_folder(tmp_path, run.name)
            folder.mkdir(parents=True, exist_ok=True)
            stage = run.recipe.stages[-1]
            error = surface(stage.batch_size, stage.learning_rate, run.updates)
            accuracy = 1.0 if perfect else 1 - error
            row = {'update': run.updates, 'validation_accuracy': accuracy, 'validation_loss': error, 'distance': 1.0}
            rows.write(folder / 'metrics.csv', [row], list(row))
    return made, trained


def valley(best: Callable[[int, int], float]) -> Surface:
    """Errors grow with the distance from the best learning rate of a batch size and length, on a log scale."""
    return lambda size, rate, length: 0.1 + 0.1 * abs(math.log(rate / best(size, length)))


def tried(made: Rounds, size: int) -> list[list[float]]:
    return [rung['tried'] for rung in made.decisions.rungs if rung['batch_size'] == size]


def test_a_ladder_follows_the_best_learning_rate(tmp_path: Path) -> None:
    """It doubles from rung to rung at batch size 8; there each next rung finds it among the neighbours."""
    made, trained = climbed(tmp_path, valley(lambda size, length: 0.002 * length if size == 8 else 0.2))
    lengths = made.lengths(8)
    assert lengths == [50, 100]
    assert tried(made, 8) == [[0.025, 0.05, 0.1, 0.2], [0.05, 0.1, 0.2, 0.4]]
    assert [rung['best'] for rung in made.decisions.rungs if rung['batch_size'] == 8] == [0.1, 0.2]
    assert tried(made, 32) == [[0.1, 0.2, 0.4]] * len(made.lengths(32))
    first = {(run.recipe.stages[-1].batch_size, run.recipe.stages[-1].learning_rate) for run in trained[0]}
    assert first == {(size, rate) for size in (8, 32) for rate in (0.05, 0.2)}
    assert {run.updates for run in trained[0]} == {made.lengths(8)[0], made.lengths(32)[0]}


def test_a_best_at_the_edge_is_followed_as_far_as_may_be(tmp_path: Path) -> None:
    made, _ = climbed(tmp_path, lambda size, rate, length: 1 / (1 + rate))
    assert [len(rates) for rates in tried(made, 8)] == [3 + search.MOST_WIDENED] * 2
    assert tried(made, 8)[0] == [0.1 * 2**i for i in range(7)]
    assert made.decisions.rungs[-1]['best'] == max(made.decisions.rungs[-1]['tried'])


def test_what_diverged_is_never_the_best(tmp_path: Path) -> None:
    """Above 0.1 all diverge: the largest that does not is the best, though its neighbour has no error."""
    made, _ = climbed(tmp_path, lambda size, rate, length: math.inf if rate > 0.1 else 0.5 - rate)
    assert {rung['best'] for rung in made.decisions.rungs} == {0.1}
    made, _ = climbed(tmp_path / 'all', lambda size, rate, length: math.inf)
    best = [rung['best'] for rung in made.decisions.rungs if rung['batch_size'] == 8]
    assert best == [0.05 / 2**i for i in (1 + search.MOST_WIDENED, 2 * (1 + search.MOST_WIDENED))]  # lower and lower


def test_of_equal_errors_the_lower_loss_counts(tmp_path: Path) -> None:
    """A validation split that is answered perfectly can't tell learning rates apart: what is best is inside, then."""
    surface = valley(lambda size, length: 0.1)
    made, _ = climbed(tmp_path, surface, perfect=True)
    assert {rung['best'] for rung in made.decisions.rungs} == {0.1}


def test_on_a_plateau_the_lowest_learning_rate_counts_and_widening_ends(tmp_path: Path) -> None:
    made, _ = climbed(tmp_path, lambda size, rate, length: 0.3)
    assert all(len(rung['tried']) == 3 + search.MOST_WIDENED for rung in made.decisions.rungs)


def test_a_trial_has_its_own_length_and_a_budgets_end_is_evaluated_in_full(tmp_path: Path) -> None:
    made, trained = climbed(tmp_path, valley(lambda size, length: 0.2), warm_up=0.1)
    ends = {ends['8'] for ends in made.decisions.updates.values()}
    for run in (run for wanted in trained for run in wanted if run.recipe.stages[-1].batch_size == 8):
        first, last = run.recipe.stages
        assert (first.rule, first.length, first.final_learning_rate) == (
            'linear',
            round(0.1 * run.updates),
            last.learning_rate,
        )
        assert (last.rule, last.final_learning_rate) == ('linear', 0.0)
        assert run.evaluations == (run.updates,)
        assert run.full == (run.updates in ends)
        assert not run.keep


def test_settings_have_ladders_of_their_own(tmp_path: Path) -> None:
    study = settings(confirm_seeds=0)
    study.sweep.momentum = (0.0, 0.9)
    made = Rounds(config.resolve(study), 400, nothing, known_times(tmp_path), write=False)
    assert made.settings == [{'batch_size': b, 'momentum': m} for b in (8, 32) for m in (0.0, 0.9)]
    names = {run.recipe.name for run in next(iter(made))}
    assert {'bs8-lr0.05-updates50', 'bs8-lr0.05-m0.9-updates50'} < names


def test_budgets(tmp_path: Path) -> None:
    """By hand: 400 examples twice are 100 updates of 8, and 26 of 32, the larger half's; the middle one is 8."""
    made = Rounds(config.resolve(settings()), 400, nothing, known_times(tmp_path), write=False).decisions
    assert made.budgets == {'epochs': 2.0, 'updates': 100, 'seconds': 0.05}
    assert made.updates == {
        'epochs': {'8': 100, '32': 26},
        'updates': {'8': 100, '32': 100},
        'seconds': {'8': 100, '32': 50},  # at the medians, half a millisecond and one
    }
    unasked = Rounds(config.resolve(settings(budget_seconds=0.0)), 400, nothing, tmp_path, write=False).decisions
    assert unasked.budgets == {'epochs': 2.0, 'updates': 100}  # 0.05 s are too few to be told


def test_a_budget_of_one_update_is_refused(tmp_path: Path) -> None:
    study = config.resolve(settings(budget_epochs=0.01, budget_seconds=1.0))
    with pytest.raises(UserError, match=r'^config.search.budget_epochs: 0.01 is not allowed; no budget leaves batch'):
        Rounds(study, 400, lambda runs: [Alone([1.0], 1, 1)] * len(runs), tmp_path, write=True)
    assert not (tmp_path / 'search.json').exists()


def test_the_one_that_writes_tells_the_others_the_times(tmp_path: Path) -> None:
    """Of several processes the first one measures and writes, and the others read what it found."""
    study = config.resolve(settings())
    first = Rounds(study, 400, lambda _: [Alone([0.25, 0.5], 8, 1), Alone([0.5, 0.5], 9, 3)], tmp_path, write=True)
    others = Rounds(study, 400, nothing, tmp_path, write=False)
    assert others.decisions == first.decisions
    assert others.decisions.seconds_per_update == {'8': [0.25, 0.5], '32': [0.5, 0.5]}
    assert (others.decisions.bytes, others.decisions.parts) == ({'8': 8, '32': 9}, {'8': 1, '32': 3})


def test_a_search_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / 'search.json', {'seconds_per_update': {'8': 0.1, '32': 0.1}, 'stopped': []})
    with pytest.raises(UserError, match=r'search.json is of an earlier version of the search; use another workdir$'):
        Rounds(config.resolve(settings()), 400, nothing, tmp_path, write=True)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'validation': 0.0}, 'config.validation'),
        ({'sweep.learning_rate': (0.1,)}, 'config.sweep.learning_rate'),
        ({'sweep.batch_size': ()}, 'config.sweep.batch_size'),
        ({'sweep.hidden': ((4,), (8,))}, 'config.sweep: '),
        ({'sweep.learning_rate': (0.0, 0.1)}, 'config.sweep.learning_rate'),
        ({'recipes': {'x': {'learning_rate': 0.1}}}, 'config.recipes'),
        ({'schedule': 'grow_batch', 'milestones': (1,)}, 'config.schedule'),
        ({'warm_up': 0.5}, 'config.warm_up: 0.5 is not allowed in a search; it must be 0: set search.warm_up'),
        ({'search.margin': 0.0}, 'config.search.margin'),
        ({'search.keep': 0.5}, 'config.search.keep: unknown field'),
        ({'measurements': ('sharpness',)}, 'config.measurements: '),
        ({'noise_scale': True, 'batch_norm': True}, 'config.noise_scale'),
        ({'evaluate_on': 'validation', 'validation': 0.0, 'search.rungs': 0}, 'config.evaluate_on'),
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


@pytest.fixture(scope='module')
def finished(once: Callable[..., Path]) -> Path:
    return once('search', lambda workdir: bsgap.train(settings(), known_times(workdir)))


def test_a_search_leaves_its_decisions_and_the_runs_that_follow_from_them(finished: Path) -> None:
    """Each rung's best is the one with the lowest mean error of those tried; weights are there of fresh seeds alone."""
    decided, records = read_json(finished / 'search.json'), {record.name: record for record in read_records(finished)}
    for rung in decided['rungs']:
        errors = {}
        for rate in rung['tried']:
            runs = [
                records[f'bs{rung["batch_size"]}-lr{rate:.12g}-updates{rung["updates"]}-seed{seed}'] for seed in (0, 1)
            ]
            assert all(len(run.rows) == 1 for run in runs)
            sound = all(run.status == 'done' for run in runs)
            errors[rate] = sum(1 - run.rows[-1]['validation_accuracy'] for run in runs) / 2 if sound else math.inf
        assert rung['best'] == min(errors, key=lambda rate: (errors[rate], rate))
    for name, record in records.items():
        fresh = record.about['seed'] >= 2
        assert fresh == ('dataseed1' in name or name.startswith('grow'))
        assert bool(saved_updates(finished, name)) == (fresh and record.status == 'done')
    roles = {(entry['unit'], entry['role']) for entry in decided['fresh']}
    assert {(unit, 'recommended') for unit in ('epochs', 'updates', 'seconds')} < roles


def test_a_growing_batch_sees_as_many_examples_as_the_trial_it_stands_beside(finished: Path) -> None:
    """It doubles where a straight line has halved the learning rate."""
    study = config.resolve(settings())
    made = Rounds(study, 4000, nothing, finished, write=False)
    (run, _) = made._growing({'batch_size': 8}, 0.2, 1000, range(2, 4), 1)
    spans = [(span.stage.batch_size, span.stage.rule, span.first_example, span.last_example) for span in run.spans]
    assert spans == [
        (8, 'linear', 0, 400), (8, 'constant', 400, 4000), (16, 'constant', 4000, 6000), (32, 'constant', 6000, 7000),
        (64, 'linear', 7000, 8000),
    ]  # fmt: skip
    assert [span.stage.learning_rate for span in run.spans] == [0.0, 0.2, 0.2, 0.2, 0.2]
    assert run.recipe.training_set.data_seed == 1
    assert not made._growing({'batch_size': 64}, 0.2, 1000, range(2), 1)  # beyond a tenth of the examples
    long = Rounds(config.resolve(settings(warm_up=0.6)), 4000, nothing, finished, write=False)
    assert not long._growing({'batch_size': 8}, 0.2, 1000, range(2), 1)  # the warm-up would outlast the first stage


@pytest.mark.smoke
def test_a_search_goes_on_as_it_was_bit_for_bit(finished: Path, tmp_path: Path, launch: Launch) -> None:
    """Killed at rounds on its way, in a process of its own each time, and ended in this one."""
    workdir = known_times(tmp_path / 'killed')
    file = tmp_path / 'study.py'
    file.write_text(
        f'import sys\nsys.path.insert(0, {str(ROOT / "tests")!r})\nfrom searches import settings\n'
        'def get_config():\n    return settings(**{})\n'
    )

    def told(process: subprocess.Popen[str], beginning: str) -> Iterator[str]:
        assert process.stdout
        yield from (line for line in process.stdout if line.startswith(beginning))

    for last in ('round 2', 'round 4'):
        process = launch(f'--config={file}', f'--workdir={workdir}')
        assert next(told(process, last))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    bsgap.train(settings(), workdir)
    assert_same(finished, workdir)
    assert read_json(finished / 'search.json') == read_json(workdir / 'search.json')


def test_a_finished_search_trains_and_writes_nothing_more(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / 'again'
    shutil.copytree(finished, workdir)
    before = {path: path.read_bytes() for path in workdir.rglob('metrics.csv')}
    decided = read_json(workdir / 'search.json')
    runs = {
        run.name for wanted in Rounds(config.resolve(settings()), 400, nothing, workdir, write=False) for run in wanted
    }
    assert runs == {path.parent.name for path in before}
    bsgap.train(settings(), workdir)
    assert {path: path.read_bytes() for path in workdir.rglob('metrics.csv')} == before
    assert read_json(workdir / 'search.json') == decided


def test_what_may_change_between_launches(finished: Path, tmp_path: Path) -> None:
    """Batch sizes, seeds and what is compared; the budgets stay as they were."""
    workdir = tmp_path / 'other'
    shutil.copytree(finished, workdir)
    with pytest.raises(UserError, match=r'config\.search\.warm_up: 0\.5 contradicts'):
        bsgap.train(settings(warm_up=0.5), workdir)
    more = settings(margin=0.5, confirm_seeds=0)
    more.sweep.batch_size = (8, 16, 32)
    bsgap.train(more, workdir)
    decided = read_json(workdir / 'search.json')
    assert decided['margin'] == 0.5
    assert decided['budgets'] == read_json(finished / 'search.json')['budgets']
    assert {rung['batch_size'] for rung in decided['rungs']} == {8, 16, 32}
    assert decided['fresh'] == []
    fewer = settings(confirm_seeds=0)
    fewer.sweep.batch_size = (8, 16)
    bsgap.train(fewer, workdir)
    decided = read_json(workdir / 'search.json')
    assert {rung['batch_size'] for rung in decided['rungs']} == {8, 16}
    found = answer.find(read_json(workdir / 'study.json'), decided, workdir)
    assert {row['batch_size'] for row in found['trials']} == {8, 16}
