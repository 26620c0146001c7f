"""`--dry_run`: it says what is left, and writes nothing."""

import shutil
from pathlib import Path

import pytest
import searches
from helpers import tiny

from bsgap.errors import UserError
from bsgap.launch import job
from bsgap.launch.plan import plan
from bsgap.training import memory
from bsgap.training.programs import Programs


def files(workdir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}


def test_a_study_that_was_begun(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two recipes with a seed are done; a seed, an epoch and a recipe whose batch grows are added."""
    monkeypatch.setenv('COLUMNS', '120')
    workdir = shutil.copytree(trained, tmp_path / 'begun')
    for folder in workdir.glob('runs/*-seed1'):
        shutil.rmtree(folder)
    before = files(workdir)
    grow = {'grow': {'schedule': 'grow_batch', 'milestones': (1,), 'factor': 3.125, 'batch_size': 32}}
    found = plan(tiny(seeds=2, epochs=3, recipes=grow), workdir)
    assert files(workdir) == before
    assert len(found.runs) == len(found.left) == 6
    share = found.shares[0]
    assert share.runs == share.parallel_runs == 6
    assert set(found.seconds) == {run.name for run in found.runs}
    assert share.seconds == pytest.approx(sum(found.seconds.values()))
    output = capsys.readouterr().out
    assert 'planned  6 runs, 0 of them done' in output
    (row,) = [line.split() for line in output.splitlines() if line.startswith('bs32-lr0.1 ')]
    assert row[:7] == ['bs32-lr0.1', '32', '2', '0', '1', '1', '40']  # 30 updates a run, of which one has made 20
    assert '32 → 100' in output
    found = plan(tiny(batch_size=(32,)), workdir)
    assert [run.name for run in found.left] == ['bs32-lr0.1-seed1']
    assert '2 runs, 1 of them done' in capsys.readouterr().out


def test_a_study_that_is_done(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(trained)
    job.launch(tiny(), trained, dry_run=True)
    output = capsys.readouterr().out
    assert '4 runs, 4 of them done' in output
    assert 'device 0' not in output
    assert 'in all about 0 s, and compilation; nothing was written' in output
    again = plan(tiny(), trained)
    assert not again.left
    assert not again.shares
    with pytest.raises(UserError, match=r'config.hidden: \[8\] contradicts \[16\]'):
        plan(tiny(hidden=(8,)), trained)
    assert files(trained) == before


def test_evaluations_are_counted_by_what_they_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 updates: at 0, 10 and 20, on all splits or on the validation split alone."""
    monkeypatch.setattr(Programs, 'seconds_per_update', lambda *_: 0.0)
    monkeypatch.setattr(Programs, 'seconds_per_evaluation', lambda _, run, runs, full: 10.0 if full else 1.0)
    monkeypatch.setattr(memory, 'needed', lambda *_: 0)
    study = tiny(batch_size=(24,), seeds=1, validation=0.2, epochs=2)
    assert sum(plan(study, tmp_path).seconds.values()) == 30.0
    study.evaluate_on = 'validation'
    assert sum(plan(study, tmp_path).seconds.values()) == 3.0


def test_what_many_cohorts_share_is_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 runs train as 7, 7 and 6, 26 updates each (2 epochs of 300 examples), and are evaluated three times."""
    timed: list[tuple[str, int]] = []

    def seconds(what: str, runs: int, of_one: float) -> float:
        timed.append((what, runs))
        return of_one * runs

    monkeypatch.setattr(Programs, 'seconds_per_update', lambda _, run, runs, size: seconds('update', runs, 1.0))
    monkeypatch.setattr(Programs, 'seconds_per_evaluation', lambda _, run, runs, full: seconds('all', runs, 10.0))
    found = plan(tiny(batch_size=(24,), seeds=20, epochs=2), tmp_path)
    assert sorted(timed) == [('all', 6), ('all', 7), ('update', 6), ('update', 7)]
    assert set(found.seconds.values()) == {26 * 1.0 + 3 * 10.0}


def test_a_limit_on_parallel_runs_is_planned_with(tmp_path: Path) -> None:
    share = plan(tiny(batch_size=(32,), seeds=5, max_parallel_runs=2), tmp_path).shares[0]
    assert (share.runs, share.parallel_runs) == (5, 2)
    assert not list(tmp_path.iterdir())


def test_the_trials_of_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: of each batch size the grid and its middle's neighbours on the first rung, three rates on the others."""
    found = plan(searches.settings(), tmp_path / 'none')
    by_size: dict[int, dict[int, set[float]]] = {}
    for run in found.left:
        stage = run.recipe.stages[-1]
        by_size.setdefault(stage.batch_size, {}).setdefault(run.updates, set()).add(stage.learning_rate)
    assert by_size.keys() == {8, 32}
    for lengths in by_size.values():
        first, *others = (rates for _, rates in sorted(lengths.items()))
        assert first == {0.05, 0.1, 0.2, 0.4}
        assert all(rates == {0.1, 0.2, 0.4} for rates in others)
    output = capsys.readouterr().out
    assert f'planned  {len(found.left)} runs of trials at least, 0 of them done' in output
    assert not list(tmp_path.iterdir())
