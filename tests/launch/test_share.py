"""Which device trains which runs: every run once, evenly, and in cohorts where they are faster."""

from collections.abc import Iterable

import pytest
from helpers import tiny

from bsgap import config
from bsgap.launch.share import deal_out
from bsgap.training.runs import Run, cost, cross


def runs(**changes: object) -> list[Run]:
    study = config.resolve(tiny(**changes))
    return list(cross(study, {recipe.training_set: 300 for recipe in study.recipes}))


def names(shares: Iterable[Iterable[Run]]) -> list[list[str]]:
    return [[run.name for run in share] for share in shares]


@pytest.mark.parametrize('side_by_side', [True, False])
@pytest.mark.parametrize('devices', [1, 2, 4, 7])
def test_shares_are_whole_and_even(devices: int, side_by_side: bool) -> None:
    planned = runs(batch_size=(1, 4, 30, 300), seeds=5)
    dealt = deal_out(planned, devices, side_by_side)
    assert len(dealt) == devices
    assert sorted(run.name for share in dealt for run in share) == sorted(run.name for run in planned)

    def load(share: Iterable[Run]) -> float:
        sizes: dict[int, list[Run]] = {}
        for run in share:
            sizes.setdefault(run.span(0).stage.batch_size, []).append(run)
        return sum(cost(alike[0], runs=len(alike), side_by_side=side_by_side) for alike in sizes.values())

    longest = max(map(cost, planned))
    if not side_by_side:  # Graham's bound
        assert max(map(load, dealt)) <= load(planned) / devices + longest
    assert max(map(load, dealt)) <= load(planned)


def test_cohorts_stay_whole_where_parting_them_gains_nothing() -> None:
    """Two equal cohorts of small batches on two accelerators: one each. On CPUs a third run is dealt out."""
    shares = deal_out(runs(batch_size=(2, 3), seeds=2, epochs=0, updates=10), 2, side_by_side=True)
    assert [{run.recipe.name for run in share} for share in shares] == [{'bs3-lr0.1'}, {'bs2-lr0.1'}]
    planned = runs(batch_size=(2,), seeds=3)
    assert sorted(map(len, deal_out(planned, 2, side_by_side=False))) == [1, 2]
    assert sorted(map(len, deal_out(planned, 4, side_by_side=False))) == [0, 1, 1, 1]


def test_a_share_keeps_the_order_of_the_study() -> None:
    planned = runs(batch_size=(1, 4, 30), seeds=3)
    order = names([planned])[0]
    for share in names(deal_out(planned, 2, side_by_side=False)):
        assert share == sorted(share, key=order.index)
    assert names(deal_out(planned, 1, side_by_side=True)) == [order]


def test_nothing_to_deal_out() -> None:
    assert deal_out([], 3, side_by_side=True) == [[], [], []]
