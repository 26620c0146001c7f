"""Runs: which there are, where each is evaluated, and what they cost."""

from typing import Any

import pytest
from helpers import tiny

from bsgap import config
from bsgap.errors import UserError
from bsgap.training.runs import Run, boundaries, cost, cross


def runs(n: int = 300, **changes: Any) -> tuple[Run, ...]:
    study = config.resolve(tiny(**changes))
    return cross(study, {recipe.training_set: n for recipe in study.recipes})


def stages(*table: tuple[str, int, int]) -> dict[str, Any]:
    return {'stages': tuple({unit: length, 'batch_size': size, 'learning_rate': 0.1} for unit, length, size in table)}


def test_a_batch_larger_than_the_data_is_named() -> None:
    with pytest.raises(UserError, match=r'batch_size: 301 is not allowed .* from 1 to 300'):
        runs(batch_size=(1, 301))
    with pytest.raises(UserError, match=r'batch_size: 500 is not allowed \(recipe grow, stage 2\)'):
        runs(recipes={'grow': {'schedule': 'grow_batch', 'batch_size': 100, 'milestones': (1,)}})


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'epochs': 0.001}, r'epochs: 0.001 is not allowed \(recipe bs32-lr0.1, stage 1\); .* an update, with 300'),
        (
            {'recipes': {'two': stages(('epochs', 1, 9), ('epochs', 1e-3, 9))}},
            r'epochs: 0.001 .* \(recipe two, stage 2\)',
        ),
        ({'epochs': 1e9}, r'epochs: 1e\+09 is not allowed .* at most 2147483647 updates'),
        ({'epochs': 0, 'updates': 2**31}, r'updates: 2.14748e\+09 is not allowed .* at most 2147483647 updates'),
        ({'evaluate_epochs': 1e-3}, r'evaluate_epochs: 0.001 is not allowed .* at least an example'),
    ],
)
def test_a_run_of_no_updates_or_of_more_than_can_be_counted_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=rf'^config.{says}'):
        runs(batch_size=(32,), **changes)


def test_many_examples_are_no_problem() -> None:
    (run, *_) = runs(n=2**20, batch_size=(2**20,), epochs=2**13, evaluate_epochs=2.0**12)
    assert (run.updates, run.examples, run.evaluations) == (2**13, 2**33, (0, 2**12, 2**13))


def test_the_sweep_crosses_its_axes_with_the_seeds() -> None:
    axes: dict[str, Any] = {
        'batch_size': (1, 300),
        'learning_rate': (0.1, 1.0),
        'momentum': (0.0, 0.9),
        'weight_decay': (0.0,),
    }
    crossed = runs(**axes, seeds=3)
    assert len({run.name for run in crossed}) == len(crossed) == 2 * 2 * 2 * 3
    assert crossed[0].name == 'bs1-lr0.1-seed0'
    assert crossed[-1].name == 'bs300-lr1-m0.9-seed2'


def test_each_training_set_has_its_own_size() -> None:
    study = config.resolve(tiny(batch_size=(), recipes={'few': {'subset': 100}, 'all': {}}, seeds=1))
    sizes = {config.TrainingSet(300, 0.0): 300, config.TrainingSet(100, 0.0): 100}
    assert {run.name: (run.n, run.examples) for run in cross(study, sizes)} == {
        'few-seed0': (100, 200),
        'all-seed0': (300, 600),
    }


def test_where_a_run_is_evaluated() -> None:
    """By hand: batches of 100 in two epochs of 300; at the end always."""

    def of_run(**changes: Any) -> list[int]:
        (run,) = runs(batch_size=(100,), seeds=1, validation=0.1, **changes)
        return list(run.evaluations)

    assert of_run() == [0, 3, 6]
    assert of_run(evaluate_updates=4) == [0, 4, 6]
    assert of_run(evaluate_epochs=0.5) == [0, 2, 3, 5, 6]
    assert of_run(evaluate_at=(0, 2, 99)) == [0, 2, 6]
    assert of_run(evaluate_at=(99,)) == [6]


def test_what_a_cohort_has_in_common() -> None:
    """Seeds and numbers that are traced may differ; what is compiled, and where the runs stand, may not."""
    base: dict[str, Any] = {'batch_size': 100, 'learning_rate': 0.1}
    alike = ({'learning_rate': 0.3}, {'weight_decay': 0.1}, {'label_smoothing': 0.1}, {'epochs': 4.0}, {})
    others = (
        {'batch_size': 50},
        {'momentum': 0.9},
        {'optimizer': 'adam'},
        {'clip': 1.0},
        {'hidden': (8,)},
        {'noise_scale': True},
    )
    recipes = {f'r{i}': {**base, **change} for i, change in enumerate((*alike, *others))}
    first, *rest = [run.cohort(0) for run in runs(batch_size=(), seeds=1, recipes=recipes)]
    order = sorted(range(len(recipes)), key=lambda i: f'r{i}')
    same = dict(zip(order, [first, *rest], strict=True))
    assert len({same[i] for i in range(len(alike))}) == 1
    assert len(set(same.values())) == 1 + len(others)
    one, other = runs(batch_size=(100,))
    assert one.cohort(2) == other.cohort(2) != one.cohort(3)
    assert one.cohort(2)[-2:] == (100, 200)


def test_runs_are_grouped_anew_where_one_changes_its_stage_or_ends() -> None:
    grow, flat = runs(
        batch_size=(),
        seeds=1,
        recipes={'a': stages(('epochs', 1, 50), ('updates', 5, 100)), 'b': stages(('epochs', 2, 100))},
    )
    assert boundaries([grow, flat]) == (300, 600, 800)
    assert boundaries([]) == ()


def test_cost_is_counted_in_examples() -> None:
    """On a CPU an update passes over a run's weights, in the time of 8 examples; elsewhere it has a latency."""
    (run,) = runs(batch_size=(), seeds=1, recipes={'a': stages(('epochs', 1, 50), ('updates', 5, 100))})
    assert cost(run) == 6 * (8 + 50) + 5 * (8 + 100)
    assert cost(run, runs=3) == 3 * cost(run)
    assert cost(run, first_update=5, last_update=8) == (8 + 50) + 2 * (8 + 100)
    assert cost(run, last_update=2) == 2 * (8 + 50)
    assert cost(run, runs=3, side_by_side=True) == 6 * (200 + 3 * (32 + 50)) + 5 * (200 + 3 * (32 + 100))
