"""`--dry_run`: it says what is left, and writes nothing."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny

from bsgap import config, plan, programs, train


def files(workdir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}


def test_a_study_that_was_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two recipes with a seed are done; a seed, an epoch and a recipe whose batch grows are added."""
    train.train(tiny(seeds=1, epochs=2), tmp_path)
    before = files(tmp_path)
    grow = {'grow': {'schedule': 'grow_batch', 'milestones': (1,), 'factor': 3.0, 'batch_size': 32}}
    capsys.readouterr()
    found = plan.plan(tiny(seeds=2, epochs=3, recipes=grow), tmp_path)
    assert files(tmp_path) == before
    assert len(found.goals) == len(found.left) == 6
    (share,) = found.shares
    assert share.runs == share.parallel_runs == 6
    assert share.cohorts == {(32, 2): 2, (100, 2): 1}
    assert set(found.seconds) == {goal.run.name for goal in found.goals}
    assert share.seconds == pytest.approx(sum(found.seconds.values()))
    output = capsys.readouterr().out
    assert 'planned  all runs; 6 runs, 0 of them done' in output
    (row,) = [line.split() for line in output.splitlines() if line.startswith('bs32-lr0.1 ')]
    assert row[:7] == ['bs32-lr0.1', '32', '2', '0', '1', '1', '40']  # 30 updates a run, of which one has made 20
    assert '32 → 96' in output
    again = plan.plan(tiny(seeds=1, epochs=2), tmp_path)
    assert not again.left
    assert not again.shares


def test_evaluations_are_counted_by_what_they_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 updates: on all splits at 0, 10 and 20, on the validation split alone at 5 and 15."""
    monkeypatch.setattr(programs.Programs, 'seconds_per_update', lambda *_: 0.0)
    monkeypatch.setattr(programs.Programs, 'seconds_per_evaluation', lambda _, run, runs, full: 10.0 if full else 1.0)
    study = tiny(batch_size=(24,), seeds=1, validation=0.2, epochs=2, validate_at=(5, 15))
    assert sum(plan.plan(study, tmp_path).seconds.values()) == 32.0


def test_a_limit_on_parallel_runs_is_planned_with(tmp_path: Path) -> None:
    (share,) = plan.plan(tiny(batch_size=(100,), seeds=5, max_parallel_runs=2), tmp_path).shares
    assert share.cohorts == {(100, 2): 2, (100, 1): 1}
    assert share.parallel_runs == 2
    assert not list(tmp_path.iterdir())


def test_what_contradicts_the_workdir_is_told(tmp_path: Path) -> None:
    train.train(tiny(batch_size=(100,), seeds=1, epochs=1), tmp_path)
    with pytest.raises(config.UserError, match=r'config.hidden: \[8\] contradicts \[16\]'):
        plan.plan(tiny(batch_size=(100,), seeds=1, epochs=1, hidden=(8,)), tmp_path)


def test_the_next_round_of_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search: dict[str, Any] = {'batch_size': (30, 100), 'learning_rate': (0.1, 0.3), 'validation': 0.2, 'seeds': 1}
    study = tiny(**search)
    study.search.update({'rungs': 2, 'confirm_seeds': 1, 'budget_epochs': 2.0})
    found = plan.plan(study, tmp_path / 'none')
    assert len(found.left) >= 4
    assert all(goal.until < goal.run.updates for goal in found.left)
    assert 'the next round of a search; what comes after depends on it' in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_command(launch: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    arguments = ['--config=experiments/mnist.py:smoke', '--config.hidden=8,', '--dry_run', f'--workdir={tmp_path}/none']
    output, errors = launch(*arguments).communicate(timeout=120)
    assert not errors
    assert output.splitlines()[-1].startswith('in all about ')
    assert not list(tmp_path.iterdir())
