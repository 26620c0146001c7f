"""As many runs are trained side by side as there is memory for, with the same result."""

import math
from pathlib import Path

import jax
import pytest
from helpers import assert_close, assert_same, tiny
from launching import Noting
from trainings import programs_of, runs_of, train

from bsgap import config, data
from bsgap.errors import UserError
from bsgap.training import memory
from bsgap.training.programs import Programs


@pytest.mark.parametrize('how', ['map', 'vmap'])
def test_a_limit_on_parallel_runs_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Four runs, two at a time; then as many as a device holds that has room for two, but not for three."""
    settings = {'batch_size': (100,), 'seeds': 4, 'run_axis': how, 'epochs': 1}
    study = config.resolve(tiny(**settings))
    programs, runs = programs_of(study), list(runs_of(study))
    assert memory.parallel_runs(programs, runs) == 4  # of this machine's memory
    needed = [memory.needed(programs, runs, limit) for limit in (4, 3, 2, 1)]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] == memory.needed(programs, runs)
    run, state = runs[0], programs.abstract_state(runs[0])
    resident = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state, state.params))) + 4 * 300
    made = programs.segment_program(run, 100, 4), programs.evaluation_program(run, 4, full=True)
    analyses = [program.memory_analysis() for program in made]
    transient = max(m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes for m in analyses)
    assert programs.data_bytes == (784 + 4) * 10_300
    assert transient > 2000 * 784 * 4  # the images of a part of the test split, normalised
    assert needed[0] == programs.data_bytes + 4 * resident + transient
    assert needed[2] == programs.data_bytes + 2 * resident + (transient if how == 'map' else transient // 2)
    train(tiny(**settings), tmp_path / 'all')
    watcher = Noting()
    train(tiny(**settings, max_parallel_runs=2), tmp_path / 'two', watcher)
    for room, limit in ((needed[2], 2), (needed[2] - 1, 1), (math.inf, 4)):
        monkeypatch.setattr(memory, '_memory', lambda _, room=room: (math.inf, room))
        assert memory.parallel_runs(programs, runs) == limit
    assert memory.parallel_runs(programs, runs, asked=3) == 3
    monkeypatch.setattr(memory, '_memory', lambda _: (math.inf, needed[2]))
    train(tiny(**settings), tmp_path / 'room', watcher)
    assert [len(event.runs) for event in watcher.events if event.what == 'began'] == [2] * 4
    for other in ('two', 'room'):
        if how == 'map':
            assert_same(tmp_path / 'all', tmp_path / other)
        assert_close(tmp_path / 'all', tmp_path / other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('how', ['map', pytest.param('vmap', marks=pytest.mark.smoke)])
def test_where_one_run_does_not_fit_its_batches_are_computed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Room for one run whose batches of 300 are halved twice, and evaluations as often; the same comes out."""
    settings = {'batch_size': (300,), 'seeds': 2, 'run_axis': how, 'epochs': 3, 'max_physical_batch': 300}
    study, watcher = config.resolve(tiny(**settings)), Noting()
    datasets, runs = data.load(study.data, study.training_sets), list(runs_of(study))
    programs = Programs(study, datasets, watcher, jax.local_devices()[0])
    train(tiny(**settings), tmp_path / 'whole')
    needed = [memory.needed(programs, runs, 1)]
    for _ in range(2):
        assert programs.halve()
        needed.append(memory.needed(programs, runs, 1))
    assert needed[2] < needed[1] <= needed[0]
    monkeypatch.setattr(memory, '_memory', lambda _: (math.inf, needed[2]))
    fitted = Programs(study, datasets, watcher, jax.local_devices()[0])
    train(tiny(**settings), tmp_path / 'parts', watcher, programs=fitted)
    assert fitted.physical_batch == 75
    assert [len(event.runs) for event in watcher.events if event.what == 'began'] == [1, 1]
    assert ('batch size 300 in 4 parts, 1 run',) in [event.said[:1] for event in watcher.events]
    assert_close(tmp_path / 'whole', tmp_path / 'parts', rtol=1e-4, atol=1e-6)
    while fitted.halve():
        pass
    assert fitted.physical_batch == 8
    monkeypatch.setattr(memory, '_memory', lambda _: (math.inf, 0))
    assert memory.parallel_runs(fitted, runs) == 1


def test_a_batch_that_is_normalised_as_a_whole_stays_whole() -> None:
    for fields, parts in (({'batch_norm': True}, (1, 96)), ({'batch_norm': True, 'ghost_batch': 20}, (2, 60))):
        study = config.resolve(tiny(batch_size=(96,), max_physical_batch=128, **fields))
        programs = Programs(study, data.load(study.data, study.training_sets), Noting(), jax.local_devices()[0])
        assert programs.halve()
        assert programs.parts(study.recipes[0], 96) == parts


def test_the_room_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: four fifths of an accelerator's memory; half of a CPU's, or of what a limit leaves of it."""

    class Device:
        def __init__(self, platform: str, limit: int | None) -> None:
            self.platform, self.limit = platform, limit

        def memory_stats(self) -> dict[str, int] | None:
            return None if self.limit is None else {'bytes_limit': self.limit}

    assert memory._memory(Device('gpu', 1000)) == (1000, 800)  # type: ignore[arg-type]
    assert memory._memory(Device('gpu', None)) == (math.inf, math.inf)  # type: ignore[arg-type]
    monkeypatch.setattr(memory, '_limits', lambda: iter([8000, 6000]))
    monkeypatch.setattr(jax, 'local_devices', lambda: [None] * 3)
    assert memory._memory(Device('cpu', None)) == (2000, 1000)  # type: ignore[arg-type]


def test_a_run_that_is_larger_than_the_memory_is_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    """784 × 10⁹ weights of 4 bytes, twice, and their biases, are 5.8 TiB; the data besides."""
    watcher = Noting()
    says = r'config.model: MLP 1000000000 does not do \(recipe bs32-lr0.1\), .* one run needs more than 5\.9e\+03 GiB'
    for asked in (0, 1):
        with pytest.raises(UserError, match=says):
            train(tiny(hidden=(10**9,), max_parallel_runs=asked), tmp_path, watcher)
    assert not watcher.events
