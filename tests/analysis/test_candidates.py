"""How far runs that are made by hand are from a target, and what follows from it."""

import math

import pytest
from answers import answer, plain, power_law, record, searched

from bsgap.analysis.candidates import Candidate, common_target


def test_to_target_the_curve_and_the_exponent_have_their_closed_forms() -> None:
    found = answer(*power_law())
    assert [entry['learning_rate'] for entry in found['to_target']] == [0.1, 0.2, 0.4]
    first = found['to_target'][0]['runs'][1]
    assert (first['seed'], first['updates'], first['made']) == (1, pytest.approx(63), 1600)
    assert found['curve']['s_min']['value'] == pytest.approx(9, rel=1e-3)
    assert found['curve']['b_crit']['value'] == pytest.approx(48, rel=1e-3)
    assert found['learning_rate_exponent']['value'] == pytest.approx(0.5)
    # The seeds agree, but half a step of 2 at either end is open, over a range of 16.
    assert found['learning_rate_exponent']['low'] == pytest.approx(0.25)
    assert found['learning_rate_exponent']['high'] == pytest.approx(0.75)


def test_the_exponent_uses_the_effective_learning_rate() -> None:
    found = answer(
        searched(8, 0.1, (0.95, 0.9), target_at=180),
        searched(32, 0.1, (0.95, 0.9), target_at=60, momentum=0.9),
    )
    assert found['learning_rate_exponent']['value'] == pytest.approx(math.log(10) / math.log(4))


def test_a_target_of_0_is_found() -> None:
    """The lowest errors of the best recipes are 0.05 ± 0.001, 0.06 and 0.07 by batch size."""
    found = answer(*plain(0.95, 0.94, 0.93), target=0.0)
    assert found['target'] == {'error': pytest.approx(0.071), 'found': True}
    assert all(run['updates'] for entry in found['to_target'] for run in entry['runs'])


@pytest.mark.parametrize(
    ('lowest', 'expected'),
    [
        ({8: [[0.04, 0.07], [0.05, 0.0596]], 64: [[0.031, 0.0312], [0.02, 0.2]]}, 0.06),
        ({8: [[0.03]], 64: [[0.0312, 0.031], [0.02, 0.2]]}, 0.032),  # up, or its best run would miss it
        ({8: [[0.0]]}, 0.0),
        ({8: [[0.05]]}, 0.051),  # 1 − 0.95 is a little above 0.05
        ({8: [[0.999]]}, 1.0),
        ({}, None),
    ],
)
def test_the_common_target(lowest: dict[int, list[list[float]]], expected: float | None) -> None:
    """By batch size the errors of each candidate's seeds, which it has before its end."""
    tried = []
    for size, of_size in lowest.items():
        for errors in of_size:
            rows = [[at(1, 1.0), at(2, error), at(3, 1.0)] for error in errors]
            tried.append(Candidate(size, 0.1, 0.0, [record('a', 0, each, (size, 0.1, 3)) for each in rows]))
    assert common_target(tried) == expected


def at(update: int, error: float) -> dict[str, float]:
    return {'update': update, 'validation_accuracy': 1 - error}


def test_runs_that_do_not_reach_the_target_are_censored_where_they_end() -> None:
    never = searched(8, 0.1, (0.85, 0.85), target_at=1e6) + searched(8, 1.0, (0.80, 0.8), target_at=1e6)
    one = searched(32, 0.1, (0.85, 0.85), target_at=1e6)
    one[1] = searched(32, 0.1, (0.95, 0.95), target_at=60)[1]
    found = answer(never, one, searched(128, 0.1, (0.95, 0.95), target_at=40))
    made = [[(run['updates'], run['made']) for run in entry['runs']] for entry in found['to_target']]
    assert found['to_target'][0]['learning_rate'] == 0.1  # the lower error at the end
    assert made[0] == [(None, 1600)] * 3
    assert made[1] == [(None, 400), (pytest.approx(60), 400), (None, 400)]


def test_a_recipe_with_which_every_seed_reached_the_target_comes_first() -> None:
    fast = searched(32, 1.0, (0.95, 0.95), target_at=20)
    fast[0] = searched(32, 1.0, (0.85, 0.85), target_at=1e6)[0]
    assert answer(fast, searched(32, 0.1, (0.95, 0.95), target_at=60))['to_target'][0]['learning_rate'] == 0.1


def test_nothing_reached_the_target() -> None:
    found = answer(*plain(), target=0.0001)
    assert found['curve'] is None
    assert found['learning_rate_exponent'] is None
