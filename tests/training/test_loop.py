"""The loop on real data: what it writes and when, that nothing is lost where it ends early, and what it is told."""

import itertools
import signal
import time
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import assert_same, final_leaves, read_json, rows, tiny
from launching import Noting
from trainings import stop, train, two_cohorts

from bsgap import config, data
from bsgap.errors import Interrupted, StoppedElsewhere, UserError
from bsgap.training import loop, programs
from bsgap.training.rows import CHECKSUM, columns, read, read_answers
from bsgap.training.workdir import run_folder, saved_updates


def test_what_training_leaves(tmp_path: Path) -> None:
    records = train(tiny(momentum=(0.0, 0.5)), tmp_path)
    assert len(records) == 2 * 2 * 2
    leaves = final_leaves(tmp_path)
    for name, record in records.items():
        updates = 2 * -(-300 // record.about['stages'][0]['batch_size'])
        assert record.status == 'done'
        file = tmp_path / 'runs' / name / 'metrics.csv'
        assert file.read_text().splitlines()[0].split(',') == [*columns(['train', 'test'], 'accuracy'), CHECKSUM]
        points = read(file)
        assert [point['update'] for point in record.rows] == [point['update'] for point in points]
        assert [point['epoch'] for point in points] == [0, 1, 2]
        assert [point['update'] for point in points] == [0, updates // 2, updates]
        assert [point['examples'] for point in points] == [0, 300, 600]
        assert points[0]['distance'] == points[0]['train_seconds'] == 0
        assert np.isnan(points[0]['grad_norm'])
        for point in points:
            assert point['gap'] == pytest.approx(point['train_accuracy'] - point['test_accuracy'], abs=1e-8)
            assert point['train_accuracy'] * 300 == pytest.approx(round(point['train_accuracy'] * 300), abs=1e-5)
        assert points[2]['distance'] > points[1]['distance'] > 0
        assert points[2]['grad_norm'] > 0
        assert leaves[name]['update'] == updates
        assert any('opt_state' in leaf for leaf in leaves[name]) == ('m0.5' in name)


def test_the_last_row_tells_of_the_last_checkpoint(tmp_path: Path) -> None:
    """Train and test accuracy of the gap are measured with the saved parameters, over the whole splits."""
    settings = tiny(batch_size=(32,))
    record = train(settings, tmp_path)['bs32-lr0.1-seed1']
    leaves = final_leaves(tmp_path)['bs32-lr0.1-seed1']
    study = config.resolve(settings)
    (dataset,) = data.load(study.data, [study.recipes[0].training_set]).values()
    for name, split in dataset.splits.items():
        x = ((split.examples_N / 255 - dataset.mean_C) / dataset.std_C).reshape(len(split.labels_N), -1)
        for i in range(2):
            x = x @ leaves[f'params.layers.{i}.kernel'] + leaves[f'params.layers.{i}.bias']
            x = np.maximum(x, 0) if i == 0 else x
        assert record.rows[-1][f'{name}_accuracy'] == pytest.approx((x.argmax(1) == split.labels_N).mean(), abs=1e-8)


def test_validation_is_measured_when_it_is_held_out(tmp_path: Path) -> None:
    """And where it alone is wanted, it alone."""
    recipes = {'all': {'evaluate_at': (5,)}, 'alone': {'evaluate_on': 'validation', 'evaluate_at': (5,)}}
    settings = tiny(validation=0.1, batch_size=(), epochs=1, seeds=1, recipes=recipes)
    of = {record.about['recipe']: record.rows for record in train(settings, tmp_path).values()}
    (alone,), last = of['alone'], of['all'][-1]
    assert list(last)[8:10] == ['validation_loss', 'validation_accuracy']
    assert 0 < last['validation_accuracy'] < 1
    assert {column for column in last if column not in alone} == {
        *('train_loss', 'train_accuracy', 'test_loss', 'test_accuracy', 'gap')
    }
    same = 'validation_accuracy', 'distance', 'grad_norm'
    assert {name: alone[name] for name in same} == {name: last[name] for name in same}


def test_what_a_run_answers_at_its_end_is_kept(tmp_path: Path) -> None:
    """As many right as its last row says; of every split but the training one."""
    records = train(tiny(validation=0.1, batch_size=(32,)), tmp_path)
    kept = {name: {s: read_answers(run_folder(tmp_path, name), s) for s in ('validation', 'test')} for name in records}
    for name, record in records.items():
        for split, n in (('validation', 6000), ('test', 10000)):
            assert kept[name][split].shape == (n,)
            assert kept[name][split].sum() == round(n * record.rows[-1][f'{split}_accuracy'])
        with pytest.raises(UserError, match='train'):
            read_answers(run_folder(tmp_path, name), 'train')
    one, other = kept.values()
    assert (one['test'] != other['test']).any()


def test_rows_come_after_so_many_updates_or_parts_of_an_epoch(tmp_path: Path) -> None:
    """Batches of 100 in epochs of 300."""
    recipes: dict[str, Any] = {
        'updates': {'evaluate_updates': 4},
        'halves': {'evaluate_epochs': 0.5},
        'ends': {'evaluate_epochs': 2.0},
        'epochs': {},
    }
    settings = tiny(batch_size=(), recipes={k: {'batch_size': 100, **v} for k, v in recipes.items()}, seeds=1)
    points = {record.about['recipe']: record.rows for record in train(settings, tmp_path).values()}
    assert {name: [row['update'] for row in found] for name, found in points.items()} == {
        'updates': [0, 4, 6],
        'halves': [0, 2, 3, 5, 6],
        'ends': [0, 6],
        'epochs': [0, 3, 6],
    }
    assert [row['examples'] for row in points['halves']] == [0, 200, 300, 500, 600]
    assert points['updates'][-1]['learning_rate_sum'] == pytest.approx(0.6)
    # The mean gradient norm is over the updates since the row before, whichever those are.
    sums = [
        sum(later['grad_norm'] * (later['update'] - row['update']) for row, later in itertools.pairwise(found))
        for found in points.values()
    ]
    assert sums == pytest.approx([sums[0]] * 4)


def test_the_noise_scale_is_averaged_over_the_updates_that_measured_it(tmp_path: Path) -> None:
    """From the halves of the first batch of each epoch; blank in the first row."""
    recipes = {'epochs': {'noise_scale': True}, 'end': {'noise_scale': True, 'evaluate_epochs': 2.0}}
    settings = tiny(batch_size=(), recipes={k: {'batch_size': 100, **v} for k, v in recipes.items()}, seeds=1)
    epochs, end = (train(settings, tmp_path)[f'{name}-seed0'].rows for name in recipes)
    assert not {'gradient_square', 'gradient_variance'} & epochs[0].keys()
    for name in ('gradient_square', 'gradient_variance'):
        assert end[-1][name] == pytest.approx((epochs[1][name] + epochs[2][name]) / 2, rel=1e-5)
    assert end[-1]['gradient_variance'] > 0


@pytest.mark.parametrize(
    ('error', 'segments'),
    [
        (Interrupted(signal.SIGTERM), 0),
        (Interrupted(signal.SIGTERM), 8),
        (StoppedElsewhere(), 30),  # the growing recipe is in its second stage
        (UserError('this process is not to go on'), 41),  # where it is alone
    ],
)
def test_where_training_shall_end_all_is_saved_and_gone_on_with(
    tmp_path: Path, uninterrupted: Path, error: BaseException, segments: int
) -> None:
    watcher = Noting()
    with pytest.raises(type(error)) as raised:
        train(two_cohorts(), tmp_path, watcher, stop(segments, error))
    assert raised.value is error
    made = sum(event.what == 'trained' for event in watcher.events)
    assert made == segments
    ends = {name: at[0] for event in watcher.events if event.what == 'trained' for name, at in event.runs.items()}
    assert {name: saved_updates(tmp_path, name)[-1] for name in ends} == ends
    train(two_cohorts(), tmp_path)
    assert_same(tmp_path, uninterrupted)


def test_what_is_done_is_left_as_it_is(tmp_path: Path) -> None:
    """More seeds and batch sizes train only what is new; once more trains nothing."""
    train(tiny(batch_size=(32,), seeds=1), tmp_path / 'grown')
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.glob('grown/runs/*/*') if p.is_file()}
    assert len(before) == 3  # run.json, metrics.csv, answers.json
    train(tiny(batch_size=(32, 100), seeds=2), tmp_path / 'grown')
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}
    train(tiny(batch_size=(32, 100), seeds=2), tmp_path / 'at once')
    assert_same(tmp_path / 'grown', tmp_path / 'at once')
    watcher = Noting()
    train(tiny(batch_size=(32, 100), seeds=2), tmp_path / 'grown', watcher)
    assert [(event.what, event.runs) for event in watcher.events] == [('began', {})]


def test_a_checkpoint_comes_when_its_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that goes on by 1000 seconds a segment: after every fourth, and at the end."""
    now = [time.monotonic()]
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(loop, 'time', clock)

    class Ticking(Noting):
        def trained(self, *told: Any) -> None:
            super().trained(*told)
            now[0] += 1000

    watcher = Ticking()
    train(tiny(batch_size=(100,), epochs=4, segment_seconds=1e-6, checkpoint_seconds=3500.0), tmp_path, watcher)
    trained, saved = (
        [event.runs['bs100-lr0.1-seed0'][0] for event in watcher.events if event.what == what]
        for what in ('trained', 'saved')
    )
    assert trained == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]  # the first is longer, before there is a measurement
    assert saved == [6, 10, 12]


def test_seconds_add_up_to_the_time_that_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cohort's time is shared among its runs: a clock that ticks once a look makes the sum exact."""
    ticks = iter(range(10**9))
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)), monotonic=time.monotonic)
    monkeypatch.setattr(programs, 'time', clock)
    records = train(tiny(batch_size=(100,), seeds=4, epochs=2), tmp_path).values()
    total = sum(record.rows[-1]['train_seconds'] + record.rows[-1]['eval_seconds'] for record in records)
    looks = next(ticks)
    assert total == pytest.approx(looks / 2)  # two looks, one tick apart, for each segment and each evaluation


def test_memory_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error of the runtime goes on as it is."""
    said = ['RESOURCE_EXHAUSTED: Out of memory']

    def full(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError(said[0])

    monkeypatch.setattr('bsgap.training.programs.Programs.segment', full)
    with pytest.raises(
        UserError,
        match=r'config.max_parallel_runs: unset does not do, .* 4 runs side by side need .* GiB; it must be at most 2',
    ):
        train(tiny(), tmp_path)
    with pytest.raises(UserError, match=r'config.max_parallel_runs: 3 does not do, .* it must be at most 1'):
        train(tiny(max_parallel_runs=3), tmp_path)
    with pytest.raises(
        UserError, match=r'config.model: MLP 16 does not do \(recipe bs32-lr0.1\), the memory of .* is full'
    ):
        train(tiny(max_parallel_runs=1), tmp_path)
    said[0] = 'INTERNAL: something else'
    with pytest.raises(jax.errors.JaxRuntimeError, match='something else'):
        train(tiny(), tmp_path)


def test_a_run_that_diverges_is_marked_and_the_others_go_on_untouched(tmp_path: Path) -> None:
    both = tiny(learning_rate=(0.1, 1e8))
    records = train(both, tmp_path / 'both')
    status = {name: record.status for name, record in records.items()}
    assert all(status[run] == ('diverged' if 'lr100000000' in run else 'done') for run in status)
    assert len([run for run in status if 'lr100000000' in run]) == 4
    train(tiny(learning_rate=(0.1,)), tmp_path / 'fine')
    found, fine = rows(tmp_path / 'both'), rows(tmp_path / 'fine')
    assert {run: found[run] for run in fine} == fine
    assert all(len(found[run]) == 2 for run in status if status[run] == 'diverged')
    before = {path: path.read_bytes() for path in tmp_path.glob('both/**/metrics.csv')}
    watcher = Noting()
    train(both, tmp_path / 'both', watcher)  # starting again changes nothing
    assert before == {path: path.read_bytes() for path in before}
    assert [event.runs for event in watcher.events] == [{}]
    assert read_json(tmp_path / 'both' / 'study.json')['config']['seeds'] == 2
