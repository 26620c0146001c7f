"""What is shown while training: plain lines, and a live table where there is a terminal."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import tiny
from rich.console import Console

from bsgap import config, data
from bsgap.launch import processes, progress
from bsgap.training.cohort import Member
from bsgap.training.runs import Run, cross

Shown = Callable[..., tuple[progress.View, list[Member], list[Run], io.StringIO]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shown:
    """A view of a study that has not begun, its runs, and what it prints."""

    def make(terminal: bool = False, **changes: Any) -> tuple[progress.View, list[Member], list[Run], io.StringIO]:
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=120, highlight=False, markup=False)
        monkeypatch.setattr(progress.output, 'console', lambda: console)
        study = config.resolve(tiny(**changes))
        datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
        runs = list(cross(study, {key: dataset.n for key, dataset in datasets.items()}))
        members = [Member(run, Path(), None, []) for run in runs]  # type: ignore[arg-type]
        return progress.View(study, datasets, tmp_path), members, runs, text

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that pass when they are told to."""
    told = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, 'time', SimpleNamespace(monotonic=lambda: told.now))
    return told


def train(member: Member, update: int, train_accuracy: float, test_accuracy: float, distance: float = 1.0) -> None:
    member.update = update
    accuracies = {'train_accuracy': train_accuracy, 'test_accuracy': test_accuracy}
    row = {'update': update, 'examples': member.example, 'gap': train_accuracy - test_accuracy, 'distance': distance}
    member.rows.append({**row, **accuracies})


def drawn(text: io.StringIO) -> list[str]:
    """The lines on a terminal, without colours and what moves the cursor."""
    lines = (re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', line) for line in text.getvalue().splitlines())
    return [line for line in lines if line.strip()]


def test_a_subset_of_more_than_there_is_is_told(shown: Shown) -> None:
    view, _, runs, text = shown(batch_size=(100,), seeds=1, subset=60001)
    with view:
        view.start(runs)
    assert 'mnist: 60,000 train, 10,000 test examples, 10 classes; there are no 60,001 to train on\n' in text.getvalue()


def test_plain_lines(shown: Shown, clock: SimpleNamespace, tmp_path: Path) -> None:
    """Where there is no terminal, a line for whatever is new; what a library says is not taken for markup."""
    view, members, runs, text = shown(batch_size=(100,), seeds=2, label_noise=0.3)
    (tmp_path / 'runs' / runs[0].name / 'checkpoints' / '3').mkdir(parents=True)
    with view:
        view.start(runs)
        clock.now += 1
        view.compiling('batch size 100, 2 runs')
        clock.now += 2.5
        view.compiled('batch size 100, 2 runs', 2.5)
        view.began(members)
        clock.now += 10
        for member, train_accuracy in zip(members, (0.4, 0.6), strict=True):
            train(member, 3, train_accuracy, 0.45)
        view.trained(members, 600, 2.0)
        view.evaluated(members)
        view.saved(members)
        view.warned('[bold]x[/bold] is damaged')
        view.noted('measured y')
    assert text.getvalue().splitlines() == [
        'study    tiny: 1 recipe × 2 seeds = 2 runs; to train: 2, 1 of them from where they were saved',
        'data     mnist: 300 train, 10,000 test examples, 10 classes, 30% of the labels changed',
        'model    MLP 16, float32',
        'device   cpu (cpu)',
        f'workdir  {tmp_path}',
        'compiled batch size 100, 2 runs in 2.5 s',
        '0:14 passed, 0:11 left  recipe bs100-lr0.1  runs 2  epoch 1/2  train 50.00%  test 45.00%  gap +5.00'
        '  examples/s 300',
        'warning: [bold]x[/bold] is damaged',
        'measured y',
    ]


def test_the_time_left_is_without_compilation_and_by_what_updates_cost(
    shown: Shown, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two devices that compile at the same time make nobody wait twice; not all runs have begun."""
    view, members, runs, _ = shown(batch_size=(100,), seeds=3)
    view.start(runs)
    view.began(members[:2])
    assert view._clock() == '0:00 passed, – left'
    clock.now += 50
    view.compiled('one', 50.0)
    clock.now += 10
    view.compiled('other', 55.0)
    clock.now += 20
    for member in members[:2]:
        train(member, 3, 0.5, 0.5)
    assert view._clock() == '1:20 passed, 0:40 left'  # a third is done in 20 s
    with monkeypatch.context() as patch:
        patch.setattr(progress, 'TOLD', 0.6)
        assert view._clock() == '1:20 passed, – left'  # too little to tell
    for member in members[:2]:
        train(member, 6, 0.5, 0.5)
    assert view._clock() == '1:20 passed, 0:10 left'
    view.began(members[2:])
    train(members[2], 6, 0.5, 0.5)
    assert view._clock() == '1:20 passed, 0:00 left'
    clock.now += 3600
    assert view._clock().startswith('1:01:20 passed')


def test_runs_that_diverged_are_counted_and_left_out(shown: Shown, clock: SimpleNamespace) -> None:
    view, members, runs, text = shown(terminal=True, batch_size=(100,), seeds=2)
    with view:
        view.start(runs)
        view.began(members)
        train(members[0], 3, 0.1, 0.1, distance=float('inf'))
        train(members[1], 6, 0.75, 0.5)
        view.evaluated(members)
    *_, recipe, bar = drawn(text)
    assert re.search(r'bs100-lr0.1 +2 \(1 diverged\) +2/2 +75.00% +50.00% +\+25.00 +–', recipe)
    assert '100%' in bar
    assert '0:00 left' in bar


def test_a_validation_split_is_shown_and_rows_may_lack_the_others(shown: Shown, clock: SimpleNamespace) -> None:
    view, members, runs, text = shown(batch_size=(100,), seeds=1, validation=0.1)
    view.start(runs)
    view.began(members)
    train(members[0], 3, 0.5, 0.25)
    members[0].rows += [{'update': 4, 'examples': 400, 'validation_accuracy': 0.375, 'distance': 1.0}]
    members[0].update = 4
    view.evaluated(members)
    assert 'epoch 1.33/2  train 50.00%  validation 37.50%  test 25.00%  gap +25.00' in text.getvalue()


def test_a_recipe_has_a_line_an_epoch_and_one_at_its_end(shown: Shown, clock: SimpleNamespace) -> None:
    """Six updates are two epochs; the seed that is behind counts, and is told of when it comes later."""
    view, members, runs, text = shown(batch_size=(100,), seeds=2)
    view.start(runs)
    view.began(members)
    for update in (1, 2, 3, 4, 5, 6):
        train(members[0], update, 0.5, 0.5)
        view.evaluated(members)
    assert len(re.findall('recipe bs100', text.getvalue())) == 1
    for update in (1, 2, 3, 4, 5, 6):
        train(members[1], update, 0.5, 0.5)
        view.evaluated(members)
    assert re.findall(r'epoch (\S+)', text.getvalue()) == ['0/2', '1/2', '2/2']


def test_means_are_of_seeds_that_were_evaluated_equally_often(shown: Shown, clock: SimpleNamespace) -> None:
    """One seed is at its end; the other has come as far but for one update, and was evaluated at its start alone."""
    view, members, runs, text = shown(batch_size=(100,), seeds=2, evaluate_epochs=2)
    view.start(runs)
    view.began(members)
    for member in members:
        train(member, 0, 0.125, 0.125)
        view.evaluated(members)
    train(members[0], 6, 0.75, 0.75)
    members[1].update = 5
    view.evaluated(members)
    assert re.findall(r'epoch (\S+) +train (\S+)', text.getvalue()) == [('0/2', '12.50%')]
    train(members[1], 6, 0.25, 0.25)
    view.evaluated(members)
    assert 'epoch 2/2  train 50.00%' in text.getvalue()


def test_a_recipe_is_told_of_though_a_seed_of_it_diverged(shown: Shown, clock: SimpleNamespace) -> None:
    view, members, runs, text = shown(batch_size=(100,), seeds=2)
    view.start(runs)
    view.began(members)
    train(members[0], 3, 0.1, 0.1, distance=float('inf'))
    for update in (3, 6):
        train(members[1], update, 0.5, 0.5)
        view.evaluated(members)
    assert len(re.findall(r'runs 2 \(1 diverged\)', text.getvalue())) == 2


def test_a_live_table_in_a_terminal(shown: Shown) -> None:
    view, members, runs, text = shown(terminal=True)
    with view:
        view.start(runs)
        assert '%' not in text.getvalue()
        view.began(members)
        view.compiling('batch size 32, 2 runs')
        assert 'compiling: batch size 32, 2 runs …' in text.getvalue()
        view.compiled('batch size 32, 2 runs', 1.0)
        assert 'compiled' not in text.getvalue()  # the table has gone on
        for member in members:
            train(member, member.run.updates, 0.9, 0.8)
        view.trained(members, 4 * 600, 2.0)
        view.evaluated(members)
    *_, small, large, bar = drawn(text)
    for recipe, line in (('bs32-lr0.1', small), ('bs100-lr0.1', large)):
        assert re.search(rf'{recipe} +2 +2/2 +90.00% +80.00% +\+10.00 +600', line)
    assert '100%' in bar
    assert re.search(r'recipe +runs +epoch +train +test +gap +examples/s', ' '.join(drawn(text)))


def test_the_live_table_has_nothing_to_draw_between_two_rounds(shown: Shown) -> None:
    view, members, runs, text = shown(terminal=True, batch_size=(20, 100))
    with view:
        view.start(runs)
        view.began(members)
        view.start(runs)
        view.start(runs[:1])
        view.compiling('batch size 20')
    assert 'round 3  fresh seeds of what is best: 1 run of 30 updates, batch size 20\n' in text.getvalue()
    assert 'round 2  fresh seeds of what is best: 4 runs of 6 to 30 updates, batch sizes 20, 100' in text.getvalue()
    assert 'compiling: batch size 20' in text.getvalue()


def test_a_search_does_not_say_how_many_runs_there_will_be(shown: Shown) -> None:
    view, _, runs, text = shown()
    search = tiny(batch_size=(30, 100), learning_rate=(0.1, 0.3), validation=0.2, seeds=1)
    search.search.update({'rungs': 2, 'confirm_seeds': 1, 'budget_epochs': 2.0})
    view._study = config.resolve(search)
    view.start(runs[:3])
    head = 'study    tiny: a search from 4 recipes × 1 seed; in its first round to train: 3'
    assert text.getvalue().splitlines()[0] == head


def test_each_of_several_processes_shows_its_own_runs_in_plain_lines(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, 'count', lambda: 2)
    monkeypatch.setattr(processes, 'index', lambda: 1)
    view, members, runs, text = shown(terminal=True)
    with view:
        view.start(runs[:1])
        view.began(members[:1])
    lines = text.getvalue().splitlines()
    assert lines[0] == '[1] study    tiny: 2 recipes × 2 seeds = 4 runs; to train here: 1'
    assert all(line.startswith('[1] ') for line in lines)
    assert len(lines) == 5


def test_silence_is_broken(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, whatever it is that takes so long; a line in time breaks it as well."""
    monkeypatch.setattr(progress, 'SILENT_SECONDS', 0.4)
    view, members, runs, text = shown(batch_size=(100,), seeds=1, epochs=10)
    with view:
        view.start(runs)
        view.began(members)
        members[0].update = 3
        view.compiling('evaluation, 1 run')
        for _ in range(4):
            time.sleep(0.2)
            view.noted('still here')
        assert 'compiling' not in text.getvalue()
        time.sleep(1)
    (first, *others) = [line for line in drawn(text) if 'compiling' in line]
    assert re.fullmatch(r' 10%  0:0\d passed, 0:\d\d left  compiling: evaluation, 1 run …', first)
    assert others
    lines = len(drawn(text))
    time.sleep(0.6)
    assert len(drawn(text)) == lines


def test_a_terminal_needs_no_such_lines(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, 'SILENT_SECONDS', 0.05)
    view, members, runs, _ = shown(terminal=True, batch_size=(100,), seeds=1)
    with view:
        view.start(runs)
        view.began(members)
        said = list[str]()
        view.noted = said.append  # type: ignore[method-assign]
        time.sleep(0.3)
    assert not said
