"""The loop on real data: what it writes, what it compiles, what it moves, and how runs share a cohort."""

import csv
import itertools
import logging
import re
import time
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import assert_same, final_leaves, read_json, rows, tiny

from bsgap import config, metrics, model, programs, step, train

METRICS = (
    'epoch,update,examples,batch_size,learning_rate,learning_rate_sum,train_loss,train_accuracy,test_loss,test_accuracy,'
    'gap,distance,grad_norm,gradient_square,gradient_variance,train_seconds,eval_seconds,checksum'
)
RESULTS = (
    'run,recipe,batch_size,learning_rate,momentum,seed,epochs,updates,examples,'
    'train_loss,train_accuracy,validation_accuracy,test_loss,test_accuracy,gap,status,seconds'
)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_what_a_study_leaves(tmp_path: Path) -> None:
    train.train(tiny(batch_size=(32, 300), momentum=(0.0, 0.5)), tmp_path)
    assert (tmp_path / 'results.csv').read_text().splitlines()[0] == RESULTS
    results = {row['run']: row for row in read_csv(tmp_path / 'results.csv')}
    assert len(results) == 2 * 2 * 2
    for name, row in results.items():
        updates = 2 * -(-300 // int(row['batch_size']))
        assert (row['status'], row['epochs'], row['updates'], row['examples']) == ('done', '2', str(updates), '600')
        file = tmp_path / 'runs' / name / 'metrics.csv'
        assert file.read_text().splitlines()[0] == METRICS
        points = metrics.read(file)
        assert [point['epoch'] for point in points] == [0, 1, 2]
        assert [point['update'] for point in points] == [0, updates // 2, updates]
        assert points[0]['distance'] == 0
        assert points[0]['train_seconds'] == 0
        assert np.isnan(points[0]['grad_norm'])
        for point in points:
            assert point['gap'] == pytest.approx(point['train_accuracy'] - point['test_accuracy'], abs=1e-8)
            assert point['train_accuracy'] * 300 == pytest.approx(round(point['train_accuracy'] * 300), abs=1e-5)
        assert points[2]['distance'] > points[1]['distance'] > 0
        assert points[2]['grad_norm'] > 0
        assert float(row['seconds']) == pytest.approx(points[2]['train_seconds'] + points[2]['eval_seconds'])
        assert row['test_accuracy'] == f'{points[2]["test_accuracy"]:.9g}'
        leaves = final_leaves(tmp_path)[name]
        assert leaves['update'] == updates
        assert any('opt_state' in leaf for leaf in leaves) == (float(row['momentum']) > 0)
    study = read_json(tmp_path / 'study.json')
    assert study['config']['recipes']['bs32-lr0.1']['fields']['hidden'] == [16]
    assert study['versions']['jax'] == jax.__version__
    assert study['devices']


def test_the_last_row_tells_of_the_last_checkpoint(tmp_path: Path) -> None:
    """Train and test accuracy of the gap are measured with the saved parameters, over the whole splits."""
    settings = tiny(batch_size=(32,), seeds=1)
    (record,) = train.train(settings, tmp_path)
    ((_, leaves),) = final_leaves(tmp_path).items()
    study = config.resolve(settings)
    (dataset,) = train.data.load(study.data, [study.recipes[0].variant]).values()
    for name, split in dataset.splits.items():
        x = ((split.images_NxHxWxC / 255 - dataset.mean_C) / dataset.std_C).reshape(len(split.labels_N), -1)
        for i in range(2):
            x = x @ leaves[f'params.layers.{i}.kernel'] + leaves[f'params.layers.{i}.bias']
            x = np.maximum(x, 0) if i == 0 else x
        assert record.rows[-1][f'{name}_accuracy'] == pytest.approx((x.argmax(1) == split.labels_N).mean(), abs=1e-8)


def test_validation_is_measured_when_it_is_held_out(tmp_path: Path) -> None:
    records = train.train(tiny(validation=0.1, batch_size=(300,), epochs=1, seeds=1), tmp_path)
    assert list(records[0].rows[0])[8:10] == ['validation_loss', 'validation_accuracy']
    assert 0 < records[0].rows[-1]['validation_accuracy'] < 1


def test_numbers_are_traced_and_shapes_are_compiled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """16 runs that differ in numbers alone: one program a batch size, whatever the number of segments and epochs."""
    settings = tiny(
        batch_size=(32, 100), learning_rate=(0.1, 0.2), momentum=(0.5, 0.9), weight_decay=(0.0, 0.1), epochs=3
    )
    with jax.log_compiles(), caplog.at_level(logging.WARNING, 'jax'):
        train.train(settings, tmp_path)
    compiled = [m[1] for r in caplog.records if (m := re.match(r'Finished XLA compilation of jit\((\w+)\)', r.message))]
    assert compiled.count('segment') == 2
    assert compiled.count('evaluate') == 1
    assert compiled.count('order') == 1


def test_schedules_and_optimizers_numbers_are_traced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same for clipping, smoothing, β and the rule of the learning rate: all of them are one cohort."""
    recipes: dict[str, Any] = {
        'plain': {},
        'clipped': {'clip': 0.1},
        'smooth': {'label_smoothing': 0.2},
        'betas': {'beta1': 0.5, 'beta2': 0.9},
        'scaled': {'beta_scaling': 'malladi', 'base_batch_size': 50, 'scaling': 'sqrt'},
        'cosine': {'schedule': 'cosine'},
        'warm_up': {'schedule': 'warm_up', 'warm_up': 1},
        'decay': {'schedule': 'decay_learning_rate', 'milestones': (1,), 'weight_decay': 0.1},
    }
    base = {'optimizer': 'adam', 'learning_rate': 0.01, 'clip': 1.0, 'seeds': 1}
    with jax.log_compiles(), caplog.at_level(logging.WARNING, 'jax'):
        train.train(
            tiny(batch_size=(), recipes={k: {'batch_size': 100, **v} for k, v in recipes.items()}, **base), tmp_path
        )
    compiled = [m[1] for r in caplog.records if (m := re.match(r'Finished XLA compilation of jit\((\w+)\)', r.message))]
    assert [compiled.count(what) for what in ('segment', 'evaluate', 'order')] == [1, 1, 1]
    ends = {name: leaves['params.layers.0.kernel'].tobytes() for name, leaves in final_leaves(tmp_path).items()}
    assert len(set(ends.values())) == len(recipes)


def test_nothing_crosses_the_bus_but_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop makes no implicit transfer, and what it puts on the device on purpose after the start is small."""
    there: list[int] = []
    back: list[int] = []
    put, get = jax.device_put, jax.device_get

    def counted_put(tree: Any, *arguments: Any, **options: Any) -> Any:
        there.append(sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if isinstance(leaf, (np.ndarray, np.generic))))
        return put(tree, *arguments, **options)

    def counted_get(tree: Any) -> Any:
        back.append(sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        return get(tree)

    monkeypatch.setattr(jax, 'device_put', counted_put)
    monkeypatch.setattr(jax, 'device_get', counted_get)
    with jax.transfer_guard('disallow'):
        train.train(tiny(batch_size=(10,), epochs=3), tmp_path)
    assert sum(there[:4]) == (300 + 10000) * (784 + 4)  # images and labels of the two splits, once
    assert max(there[4:]) < 200
    assert max(back) > 784 * 16  # the state, once: at the end, to be saved
    assert sorted(back)[-2] < 200


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_how_a_cohort_is_advanced_changes_rounding_only(tmp_path: Path, how: str) -> None:
    train.train(tiny(across_runs=how), tmp_path / how)
    train.train(tiny(across_runs='map', seeds=1), tmp_path / 'alone')
    together = final_leaves(tmp_path / how)
    for run, leaves in final_leaves(tmp_path / 'alone').items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(leaf, together[run][name], rtol=1e-4, atol=1e-6, err_msg=f'{run} {name}')


def test_a_run_that_diverges_is_marked_and_the_others_go_on_untouched(tmp_path: Path) -> None:
    train.train(tiny(learning_rate=(0.1, 1e8)), tmp_path / 'both')
    train.train(tiny(learning_rate=(0.1,)), tmp_path / 'fine')
    status = {row['run']: row['status'] for row in read_csv(tmp_path / 'both' / 'results.csv')}
    assert all(status[run] == ('diverged' if 'lr100000000' in run else 'done') for run in status)
    assert len([run for run in status if 'lr100000000' in run]) == 4
    both = rows(tmp_path / 'both')
    fine = rows(tmp_path / 'fine')
    assert {run: both[run] for run in fine} == fine
    assert all(len(both[run]) == 2 for run in status if status[run] == 'diverged')
    before = {path: path.read_bytes() for path in tmp_path.glob('both/**/metrics.csv')}
    train.train(tiny(learning_rate=(0.1, 1e8)), tmp_path / 'both')  # starting again changes nothing
    assert before == {path: path.read_bytes() for path in before}


def test_precision_is_the_one_that_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix product of the segment's program asks for it."""
    products: dict[str, set[str]] = {}
    segment = step.segment

    def traced(*arguments: Any) -> step.State:
        jaxpr = jax.make_jaxpr(segment, static_argnums=(0, 1, 2, 3, 4))(*arguments)
        products[precision] = set(re.findall(r' dot_general\[.*?precision=(\S+)', str(jaxpr).replace('\n', ' ')))
        return segment(*arguments)

    monkeypatch.setattr(step, 'segment', traced)
    for precision in ('float32', 'bfloat16'):
        train.train(tiny(precision=precision, batch_size=(300,), epochs=1), tmp_path / precision)
        assert read_json(tmp_path / precision / 'study.json')['config']['precision'] == precision
    float32, bfloat16 = (products[precision] for precision in ('float32', 'bfloat16'))
    assert len(float32) == 1
    assert 'HIGHEST' in str(float32)
    assert 'HIGHEST' not in str(bfloat16)


def test_full_batch_is_accumulated_with_the_same_result(tmp_path: Path) -> None:
    train.train(tiny(batch_size=(300,)), tmp_path / 'whole')
    train.train(tiny(batch_size=(300,), max_physical_batch=64), tmp_path / 'parts')
    whole, parts = final_leaves(tmp_path / 'whole'), final_leaves(tmp_path / 'parts')
    for run, leaves in whole.items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(leaf, parts[run][name], rtol=1e-4, atol=1e-6)


def stages(*table: tuple[str, int, int]) -> dict[str, Any]:
    return {'stages': tuple({unit: length, 'batch_size': size, 'learning_rate': 0.1} for unit, length, size in table)}


def test_runs_are_regrouped_at_stage_boundaries(tmp_path: Path) -> None:
    """Recipes that meet at one batch size and part again, against each of them in a study of its own."""
    recipes = {
        'grow': stages(('epochs', 1, 50), ('updates', 5, 100)),
        'mid': stages(('updates', 3, 100), ('examples', 170, 50), ('epochs', 1, 100)),
        'flat': stages(('epochs', 2, 100)),
    }
    train.train(tiny(batch_size=(), recipes=recipes), tmp_path / 'all')
    together, leaves_together = rows(tmp_path / 'all'), final_leaves(tmp_path / 'all')
    assert [row['batch_size'] for row in together['grow-seed0']] == ['50', '100', '100', '100']
    assert together['grow-seed0'][-1]['update'] == str(6 + 5)
    assert together['grow-seed0'][-1]['examples'] == '800'
    for name, recipe in recipes.items():
        train.train(tiny(batch_size=(), recipes={name: recipe}), tmp_path / name)
        alone = rows(tmp_path / name)
        assert {run: together[run] for run in alone} == alone
        for run, leaves in final_leaves(tmp_path / name).items():
            for leaf, value in leaves.items():
                np.testing.assert_array_equal(value, leaves_together[run][leaf])


def test_variants_of_the_data_train_as_each_alone(tmp_path: Path) -> None:
    variants = {'few': {'subset': 100}, 'all': {}, 'noisy': {'label_noise': 0.3}}
    train.train(tiny(batch_size=(), recipes=variants, seeds=1), tmp_path / 'together')
    together, leaves_together = rows(tmp_path / 'together'), final_leaves(tmp_path / 'together')
    assert [together[f'{name}-seed0'][-1]['examples'] for name in variants] == ['200', '600', '600']
    for name in variants:
        train.train(tiny(batch_size=(), recipes={name: variants[name]}, seeds=1), tmp_path / name)
        alone = rows(tmp_path / name)
        assert {run: together[run] for run in alone} == alone
        for run, leaves in final_leaves(tmp_path / name).items():
            for leaf, value in leaves.items():
                np.testing.assert_array_equal(value, leaves_together[run][leaf])


def test_rows_come_after_so_many_updates_or_parts_of_an_epoch(tmp_path: Path) -> None:
    """Batches of 100 in epochs of 300."""
    recipes: dict[str, Any] = {
        'updates': {'evaluate_updates': 4},
        'halves': {'evaluate_epochs': 0.5},
        'ends': {'evaluate_epochs': 2.0},
    }
    train.train(
        tiny(batch_size=(), recipes={k: {'batch_size': 100, **v} for k, v in recipes.items()}, seeds=1), tmp_path
    )
    points = {name: metrics.read(tmp_path / 'runs' / f'{name}-seed0' / 'metrics.csv') for name in recipes}
    assert {name: [row['update'] for row in found] for name, found in points.items()} == {
        'updates': [0, 4, 6],
        'halves': [0, 2, 3, 5, 6],
        'ends': [0, 6],
    }
    assert [row['examples'] for row in points['halves']] == [0, 200, 300, 500, 600]
    assert points['updates'][-1]['learning_rate_sum'] == pytest.approx(0.6)
    # The mean gradient norm is over the updates since the row before, whichever those are.
    sums = [
        sum(later['grad_norm'] * (later['update'] - row['update']) for row, later in itertools.pairwise(found))
        for found in points.values()
    ]
    assert sums[0] == pytest.approx(sums[1]) == pytest.approx(sums[2])


def test_label_smoothing_in_closed_form() -> None:
    """A model whose logits are its three weights: ∂loss/∂w = softmax(w) − ((1 − α) · shares of the labels + α/3)."""
    start_K, labels_N = np.asarray([0.3, -0.2, 0.5], np.float32), np.asarray([0, 0, 2, 0], np.int32)
    smoothing, rate = 0.3, 0.2

    def predict(w_K: Any, _: Any, images_BxHxWxC: Any) -> Any:
        return jax.numpy.tile(w_K, (len(images_BxHxWxC), 1))

    of_run = model.Model(
        lambda _: (start_K, {}), lambda w_K, state, images, *_: (predict(w_K, state, images), {}), predict
    )
    settings = tiny(
        batch_size=(), recipes={'smooth': {'label_smoothing': smoothing, 'batch_size': 4, 'learning_rate': rate}}
    )
    recipe = config.resolve(settings).recipes[0]
    run = train.study_lib.Run(recipe, seed=0, n=4)
    split = train.data.Split(np.zeros((4, 1, 1, 1), np.uint8), labels_N)
    state = step.init(of_run, recipe.kind, jax.numpy.int32(0))
    stretch = step.Stretch(np.int32(0), np.int32(1))
    state = step.segment(
        of_run,
        recipe.kind,
        4,
        (1, 4),
        False,
        jax.device_put(split),
        stretch,
        jax.numpy.arange(4),
        programs.leg(run, 0),
        state,
    )
    probability_K = np.exp(start_K) / np.exp(start_K).sum()
    target_K = (1 - smoothing) * np.bincount(labels_N) / 4 + smoothing / 3
    np.testing.assert_allclose(state.params, start_K - rate * (probability_K - target_K), rtol=1e-6)


def test_accumulated_ghost_batch_norm_equals_the_whole_batch(tmp_path: Path) -> None:
    """To rounding, running statistics included: 60 + 36 examples in groups of 20; an epoch ends with a batch of 12."""
    fields = {'batch_size': (96,), 'batch_norm': True, 'ghost_batch': 20, 'seeds': 1}
    train.train(tiny(**fields), tmp_path / 'whole')
    train.train(tiny(**fields, max_physical_batch=60), tmp_path / 'parts')
    whole, parts = final_leaves(tmp_path / 'whole'), final_leaves(tmp_path / 'parts')
    assert any(name.startswith('model_state') for name in whole['bs96-lr0.1-seed0'])
    for run, leaves in whole.items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(leaf, parts[run][name], rtol=1e-3, atol=1e-5, err_msg=f'{run} {name}')


def test_more_seeds_and_batch_sizes_train_only_what_is_new(tmp_path: Path) -> None:
    train.train(tiny(batch_size=(32,), seeds=1), tmp_path / 'grown')
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.glob('grown/runs/*/*') if p.is_file()}
    assert len(before) == 2
    train.train(tiny(batch_size=(32, 100), seeds=2), tmp_path / 'grown')
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}
    train.train(tiny(batch_size=(32, 100), seeds=2), tmp_path / 'at once')
    assert_same(tmp_path / 'grown', tmp_path / 'at once')
    (earlier,) = read_json(tmp_path / 'grown' / 'study.json')['earlier_launches']
    assert earlier['versions']['jax'] == jax.__version__


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
        ('precision', 'bfloat16', 'config.precision: bfloat16 contradicts float32'),
        (
            'recipes',
            {'grow': stages(('epochs', 1, 50))},
            r'config.recipes.grow: its stages, or the number of examples, contradict',
        ),
    ],
)
def test_a_setting_that_contradicts_the_workdir_is_named_and_changes_nothing(
    tmp_path: Path, field: str, value: Any, says: str
) -> None:
    train.train(tiny(batch_size=(300,), recipes={'grow': stages(('epochs', 2, 50))}), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    with pytest.raises(config.UserError, match=says):
        train.train(
            tiny(**{'batch_size': (100, 300), 'recipes': {'grow': stages(('epochs', 2, 50))}, field: value}), tmp_path
        )
    assert before == {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}


def test_a_workdir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(config.UserError, match=r'--workdir: .*file/x cannot be used: Not a directory'):
        train.train(tiny(), tmp_path / 'file' / 'x')


def test_seconds_add_up_to_the_time_that_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cohort's time is shared among its runs: a clock that ticks once a look makes the sum exact."""
    ticks = iter(range(10**9))
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)), monotonic=time.monotonic)
    monkeypatch.setattr(train, 'time', clock)
    records = train.train(tiny(batch_size=(100,), seeds=4, epochs=2), tmp_path)
    total = sum(record.rows[-1]['train_seconds'] + record.rows[-1]['eval_seconds'] for record in records)
    looks = next(ticks)
    assert total == pytest.approx(looks / 2)  # two looks, one tick apart, for each segment and each evaluation
