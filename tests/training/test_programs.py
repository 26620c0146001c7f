"""What is compiled, and what of it crosses the bus."""

import logging
import re
import time
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import final_leaves, tiny
from launching import Noting
from trainings import programs_of, runs_of, train

from bsgap import config, data
from bsgap.errors import UserError
from bsgap.training import programs, step
from bsgap.training.programs import DETERMINISTIC, Programs
from bsgap.training.runs import Run
from bsgap.training.step import Window
from bsgap.training.watcher import Watcher


def fresh(settings: Any, watcher: Watcher | None = None) -> Programs:
    """A study's programs, of which none is compiled yet."""
    study = config.resolve(settings)
    datasets = data.load(study.data, [recipe.training_set for recipe in study.recipes])
    return Programs(study, datasets, watcher or Watcher(), jax.local_devices()[0])


def compilations(caplog: pytest.LogCaptureFixture) -> dict[str, int]:
    """How often XLA compiled some functions."""
    said = 'Finished XLA compilation of jit\\((\\w+)\\)'
    compiled = [found[1] for record in caplog.records if (found := re.match(said, record.message))]
    return {what: compiled.count(what) for what in ('segment', 'evaluate', 'order')}


def test_numbers_are_traced_and_shapes_are_compiled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """16 runs that differ in numbers alone: one program a batch size, whatever the number of segments and epochs."""
    axes: dict[str, Any] = {'learning_rate': (0.1, 0.2), 'momentum': (0.5, 0.9), 'weight_decay': (0.0, 0.1)}
    settings, watcher = tiny(**axes, epochs=3, seeds=1), Noting()
    with jax.log_compiles(), caplog.at_level(logging.WARNING, 'jax'):
        train(settings, tmp_path, programs=fresh(settings, watcher))
    assert compilations(caplog) == {'segment': 2, 'evaluate': 1, 'order': 1}
    told = {
        what: [event.said[0] for event in watcher.events if event.what == what] for what in ('compiling', 'compiled')
    }
    assert told['compiling'] == told['compiled']
    assert sorted(told['compiled']) == [
        *('batch size 100, 8 runs', 'batch size 32, 8 runs', 'evaluation, 8 runs', 'order, 8 runs', 'start, 8 runs')
    ]


def test_schedules_and_optimizers_numbers_are_traced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same for clipping, smoothing, β and the rule of the learning rate: all of them are one cohort."""
    recipes: dict[str, Any] = {
        'plain': {},
        'clipped': {'clip': 0.1},
        'smooth': {'label_smoothing': 0.2},
        'betas': {'beta1': 0.5, 'beta2': 0.9},
        'scaled': {'beta_scaling': 'malladi', 'base_batch_size': 50, 'scaling': 'sqrt'},
        'cosine': {'schedule': 'cosine'},
        'warm_up': {'schedule': 'linear', 'warm_up': 1},
        'decay': {'schedule': 'decay_learning_rate', 'milestones': (1,), 'weight_decay': 0.1},
    }
    base = {'optimizer': 'adam', 'learning_rate': 0.01, 'clip': 1.0, 'seeds': 1}
    settings = tiny(batch_size=(), recipes={k: {'batch_size': 100, **v} for k, v in recipes.items()}, **base)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, 'jax'):
        train(settings, tmp_path, programs=fresh(settings))
    assert compilations(caplog) == {'segment': 1, 'evaluate': 1, 'order': 1}
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
    settings = tiny(batch_size=(100,), epochs=3)
    with jax.transfer_guard('disallow'):
        train(settings, tmp_path, programs=fresh(settings))
    assert sum(there[:4]) == (300 + 10000) * (784 + 4)  # images and labels of the two splits, once
    assert max(there[4:]) < 200
    assert max(back) > 784 * 16  # the state, once: at the end, to be saved
    assert sorted(back)[-2] < 2 * (300 + 10000) + 200  # of each run and example, whether its answer is right


def test_precision_is_the_one_that_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix product of the segment's program asks for it."""
    products: dict[str, set[str]] = {}
    segment = step.segment

    def traced(*arguments: Any, **task: Any) -> step.State:
        jaxpr = jax.make_jaxpr(segment, static_argnums=(0, 1, 2, 3, 4))(*arguments)
        products[precision] = set(re.findall(r' dot_general\[.*?precision=(\S+)', str(jaxpr).replace('\n', ' ')))
        return segment(*arguments, **task)

    monkeypatch.setattr(step, 'segment', traced)
    for precision in ('float32', 'bfloat16'):
        settings = tiny(precision=precision, batch_size=(100,), epochs=1)
        train(settings, tmp_path / precision, programs=fresh(settings))
    float32, bfloat16 = (products[precision] for precision in ('float32', 'bfloat16'))
    assert len(float32) == 1
    assert 'HIGHEST' in str(float32)
    assert 'HIGHEST' not in str(bfloat16)


def test_the_compiler_knows_how_to_be_deterministic() -> None:
    """It refuses an option that it doesn't know; what this one does, a GPU alone can show (benchmarks/gpu.py)."""
    lowered = jax.jit(jnp.cumsum).lower(jnp.ones(3))
    assert lowered.compile(DETERMINISTIC)(jnp.ones(3)).tolist() == [1, 2, 3]
    with pytest.raises(jax.errors.JaxRuntimeError, match='No such compile option'):
        lowered.compile({f'{option}s': value for option, value in DETERMINISTIC.items()})


def test_a_program_has_no_collectives() -> None:
    study = config.resolve(tiny(batch_size=(100,), run_axis='vmap'))
    run, compiled = runs_of(study)[0], programs_of(study)
    for program in (compiled.segment_program(run, 100, 2), compiled.evaluation_program(run, 2, full=True)):
        operations = set(re.findall(r' ([a-z-]+)\(', program.as_text()))
        assert {'fusion', 'while'} <= operations
        assert not {op for op in operations if re.match('all-|reduce-scatter|collective|send|recv|partition', op)}


@pytest.mark.parametrize(
    ('axis', 'batch_size', 'sizes'),
    [
        ('map', 32, [7, 6]),  # at most 8 at once, and as equal as may be
        ('map', 2**16, [4, 4, 4, 1]),  # fewer where the batch is large
        ('map', 2**20, [1] * 13),
        ('vmap', 2**20, [13]),
    ],
)
def test_a_cohort_is_as_large_as_it_is_of_use(axis: str, batch_size: int, sizes: list[int]) -> None:
    made = programs_of(config.resolve(tiny(run_axis=axis)))
    group = [str(i) for i in range(13)]
    parts = made.cohorts(group, batch_size)
    assert [len(part) for part in parts] == sizes
    assert [item for part in parts for item in part] == group


def test_an_array_is_on_the_device_once() -> None:
    """However many training sets share it: the test split, and images whose labels alone differ."""
    recipes = {'few': {'subset': 100}, 'all': {}, 'noisy': {'label_noise': 0.3}}
    settings = tiny(batch_size=(), recipes=recipes)
    made, runs = fresh(settings), runs_of(config.resolve(settings))
    few, clean, noisy = (made.splits(runs[i]) for i in (2, 0, 4))
    assert few['test'].examples_N is clean['test'].examples_N
    assert noisy['train'].examples_N is clean['train'].examples_N
    assert made.data_bytes == (10000 + 100 + 300) * (784 + 4) + 300 * 4
    assert {name: len(split.labels_N) for name, split in few.items()} == {'train': 100, 'test': 10000}


def test_a_model_that_cannot_be_made_is_named() -> None:
    settings = tiny(batch_size=(), recipes={'mine': {'model': 'no.such:Net'}})
    (recipe,) = config.resolve(settings).recipes
    with pytest.raises(UserError, match=r'^config.model: no.such:Net: ModuleNotFoundError'):
        fresh(settings).model(recipe)


def test_an_update_and_an_evaluation_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of some calls; nothing but the clock is looked at in between."""
    monkeypatch.setattr(programs, 'TIMED_SECONDS', 1e-9)  # one update a call
    ticks = iter(range(10**6))
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)), monotonic=time.monotonic)
    monkeypatch.setattr(programs, 'time', clock)
    study = config.resolve(tiny(batch_size=(100,)))
    run, made = runs_of(study)[0], programs_of(study)
    assert made.seconds_per_update(run, runs=2) == 1.0
    assert made.seconds_per_evaluation(run, runs=2) == 1.0


@pytest.mark.parametrize(('batch_size', 'updates'), [(1, 256), (100, 3)])
def test_enough_updates_are_timed_that_nothing_else_counts(
    batch_size: int, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a slow first call nor one that is interrupted decides how many, and what each call costs besides is
    spread over them; an epoch, here of 300 examples, is all that there is."""
    asked: list[int] = []

    def segment(_: Programs, run: Run, size: int, window: Window, order: Any, inputs: Any, state: Any) -> Any:
        asked.append(int(window.updates))
        extra = 9.0 if len(asked) in (1, 4) else 0.01
        return state, extra + 0.001 * asked[-1]

    monkeypatch.setattr(programs, 'TIMED_SECONDS', 0.2)
    monkeypatch.setattr(Programs, 'segment', segment)
    study = config.resolve(tiny(batch_size=(batch_size,)))
    found = programs_of(study).seconds_per_update(runs_of(study)[0])
    assert asked[-programs.TIMED_CALLS :] == [updates] * programs.TIMED_CALLS
    assert found == pytest.approx(0.001 + 0.01 / updates)


def test_what_a_segment_is_told() -> None:
    """By hand: the second stage of a run on 300 examples, which ends within its epoch."""
    stages = (
        {'epochs': 1, 'batch_size': 50, 'learning_rate': 0.5},
        {'examples': 170, 'batch_size': 100, 'learning_rate': 0.2, 'rule': 'cosine', 'final_learning_rate': 0.1},
    )
    recipes = {'mine': {'stages': stages, 'momentum': 0.9, 'weight_decay': 0.25, 'label_smoothing': 0.5, 'clip': 2.0}}
    run = runs_of(config.resolve(tiny(batch_size=(), recipes=recipes)))[1]
    first, second = programs.inputs(run, 0), programs.inputs(run, 7)
    assert (first.seed, first.stop, first.fresh) == (1, 300, True)
    assert (second.seed, second.stop, second.fresh) == (1, 170, False)
    assert tuple(first.rate) == pytest.approx((0.5, 0.5, False, 0, 6))
    assert tuple(second.rate) == pytest.approx((0.2, 0.1, True, 6, 2))
    assert tuple(second.hyperparameters) == pytest.approx((0, 0.9, 0.9, 0.999, 0.25, 2.0))
    assert second.label_smoothing == 0.5
    assert {leaf.dtype.name for leaf in jax.tree.leaves(second)} == {'int32', 'float32', 'bool'}
