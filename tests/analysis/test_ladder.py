"""Tables of trials with known curves: what is read off them, and how often the intervals hold the truth."""

import functools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from bsgap.analysis import ladder, scaling

SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
S_MIN, B_CRIT, AT = 150.0, 200.0, 0.06  # the hyperbola at an error of 6 %
SLOPE = 0.45  # error ∝ updates^−0.45
N = 57_000
COLUMNS = [*('batch_size', *ladder.SETTING, 'updates', 'examples', 'seconds', 'seed', 'validation_error')]


def best_rate(size: float) -> float:
    return 0.8 / (1 + 100 / size)


def lowest(size: float, updates: float) -> float:
    return AT * (updates / (S_MIN * (1 + B_CRIT / size))) ** -SLOPE


def trials(seed: int | None, grid: float = 0.0, epochs: tuple[float, ...] = (0.25, 0.5, 1, 2, 4)) -> pd.DataFrame:
    """6 seeds at three learning rates, the middle one `grid` octaves above the best; noise of 1.5 to 5 % of the error.

    A factor of 2 beside the best ε the error is 16 % higher. Without a seed there is no noise but in the standard
    deviation.
    """
    rng, rows = np.random.default_rng(seed), []
    pattern = np.array([1, -1, 1, -1, 1, -1]) if seed is None else None
    for size, noise in zip(SIZES, np.geomspace(0.015, 0.05, len(SIZES)), strict=True):
        for share in epochs:
            updates = math.ceil(share * N / size)
            for octaves in (grid - 1, grid, grid + 1):
                mean = lowest(size, updates) * math.exp(0.15 * octaves**2)
                rest_S = rng.normal(size=6) if pattern is None else 1e-3 * pattern
                about = (
                    size,
                    best_rate(size) * 2**octaves,
                    0.9,
                    0.0,
                    math.nan,
                    updates,
                    round(share * N),
                    1e-3 * updates,
                )
                rows += [(*about, s, mean * (1 + noise * rest)) for s, rest in enumerate(rest_S)]
    return pd.DataFrame(rows, columns=COLUMNS).assign(validation_loss=lambda table: table['validation_error'])


@functools.cache
def exact() -> list[ladder.Curve]:
    return ladder.curves(ladder.cells(trials(None, grid=0.3), 6), draws=40)


def table(cells: list[tuple[int, float, int, list[float]]]) -> pd.DataFrame:
    """Trials from (batch size, ε, updates, errors of the seeds)."""
    return pd.DataFrame(
        [
            (size, rate, 0.9, 0.0, 0.999, updates, size * updates, 0.5 * updates, seed, error)
            for size, rate, updates, errors in cells
            for seed, error in enumerate(errors)
        ],
        columns=COLUMNS,
    ).assign(validation_loss=lambda made: made['validation_error'])


def curve(size: int, updates: list[int], errors: list[float]) -> ladder.Curve:
    """One without noise, and one draw that is its copy."""
    log_error_RxL = np.tile(np.minimum.accumulate(np.log(errors)), (2, 1))
    best = pd.DataFrame({'updates': updates, 'examples': size * np.array(updates), 'seconds': 0.5 * np.array(updates)})
    return ladder.Curve(size, best, [], np.zeros_like(log_error_RxL), log_error_RxL)


def test_cells() -> None:
    made = table([(8, 0.1, 100, [0.1, 0.2, 0.3]), (8, 0.2, 100, [0.1, math.nan, 0.3]), (4, 0.1, 200, [0.5, 0.7])])
    found = ladder.cells(made.sample(frac=1, random_state=0), 3)
    assert found['batch_size'].tolist() == [4, 8, 8]
    assert found['n'].tolist() == [2, 3, 3]
    assert found['diverged'].tolist() == [0, 0, 1]
    assert found['complete'].tolist() == [False, True, False]
    assert found['mean'].tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert found['sd'].tolist() == pytest.approx([math.sqrt(0.02), 0.1, math.sqrt(0.02)])
    assert found[['examples', 'seconds']].to_numpy().tolist() == [[800, 100], [800, 50], [800, 50]]


def test_the_best_cell_is_complete_and_has_students_interval() -> None:
    made = table([(8, 0.1, 100, [0.1, 0.2, 0.3]), (8, 0.2, 100, [0.1, 0.1]), (8, 0.4, 100, [0.4, 0.5, 0.7])])
    (found,) = ladder.curves(ladder.cells(made, 3))
    assert found.best['learning_rate'].tolist() == [0.1]
    half_width = scipy.stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert found.error[0] == pytest.approx((0.2, max(0, 0.2 - half_width), 0.2 + half_width))


def test_draws_are_a_function_of_the_seed_and_one_run_has_none() -> None:
    made = ladder.cells(trials(0), 6)
    one, same, other = (ladder.curves(made, 5, seed)[3].log_error_RxL for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one[0] == other[0]).all()
    assert (one[1:] != other[1:]).all()
    assert one.shape == (6, 5)
    single = ladder.curves(ladder.cells(trials(0).query('seed == 0'), 1))
    assert single[0].log_error_RxL.shape == (1, 5)
    assert np.isnan([single[0].error[0].low, ladder.to_target(single, AT).updates[3].low]).all()
    assert len(ladder.winners(single[:2], 'updates')['best'].iloc[0]) == 1


def test_between_three_learning_rates_the_parabola_tells() -> None:
    for found in exact():
        np.testing.assert_allclose(np.exp(found.log_rate_RxL[0]), best_rate(found.batch_size), rtol=1e-6)
        truth_L = [lowest(found.batch_size, updates) for updates in found.best['updates']]
        np.testing.assert_allclose(np.exp(found.log_error_RxL[0]), truth_L, rtol=1e-6)
        assert not found.best['edge'].any()


@pytest.mark.parametrize(
    ('errors', 'rate', 'edge'),
    [
        ({0.1: 0.2, 0.2: 0.1}, 0.2, True),
        ({0.1: 0.2, 0.2: 0.1, 0.4: math.nan}, 0.2, False),  # bounded by what diverged
        ({0.1: 0.4, 0.2: 0.2, 0.4: 0.1}, 0.4, True),
        ({0.05: math.nan, 0.1: 0.1, 0.2: 0.12, 0.4: 0.11}, 0.1, False),
        ({0.1: 0.2, 0.2: 0.1, 0.4: 0.2}, 0.2, False),
        ({0.1: 0.2, 0.2: 0.1, 0.4: 0.1}, 0.2 * math.sqrt(2), False),
        ({0.025: 9, 0.05: 3, 0.1: 0.2, 0.2: 0.1, 0.4: 0.2, 0.8: 0.5}, 0.2, False),  # what is far takes no part
        ({0.1: 0.1, 0.2: 0.12, 0.4: 0.11}, 0.1, True),  # no lowest point
    ],
)
def test_best_learning_rate(errors: dict[float, float], rate: float, edge: bool) -> None:
    made = table([(8, rate, 100, [error] * 3) for rate, error in errors.items()])
    (found,) = ladder.curves(ladder.cells(made, 3), draws=3)
    rows, law = ladder.learning_rates([found])
    assert rows.loc[0, 'value'] == pytest.approx(rate)
    assert rows.loc[0, 'edge'] == edge
    assert law is None


def test_learning_rates_are_compared_at_the_best_ones_other_fields() -> None:
    made = table([(8, rate, 100, [0.1 + abs(math.log(rate))] * 3) for rate in (0.5, 1, 2)])
    others = table([(8, rate, 100, [0.5] * 3) for rate in (0.7, 1.5, 8)]).assign(momentum=0.0)
    (found,) = ladder.curves(ladder.cells(pd.concat([made, others]), 3), draws=2)
    assert np.exp(found.log_rate_RxL[0, 0]) == pytest.approx(1)
    assert found.best['momentum'].tolist() == [0.9]


def test_a_longer_trial_that_is_worse_counts_as_the_shorter_one() -> None:
    made = table([(8, 0.1, updates, [error] * 3) for updates, error in ((1, 0.4), (2, 0.2), (4, 0.3), (8, 0.1))])
    (found,) = ladder.curves(ladder.cells(made, 3), draws=2)
    np.testing.assert_allclose(np.exp(found.log_error_RxL), [[0.4, 0.2, 0.2, 0.1]] * 3)
    assert [error.value for error in found.error] == pytest.approx([0.4, 0.2, 0.3, 0.1])


def test_winners_by_hand() -> None:
    """Lines cross at 200 updates; the third is known from 100 to 200 only, and is the best there."""
    lines = [
        curve(8, [50, 100, 400], [0.8, 0.4, 0.1]),
        curve(32, [50, 800], [0.4, 0.1]),
        curve(64, [100, 200], [0.1, 0.09]),
    ]
    both = ladder.winners(lines[:2], 'updates', amounts=61)
    assert both['amount'].iloc[[0, -1]].tolist() == pytest.approx([50, 400])
    assert both['winner'].iloc[0] == 32
    assert both['winner'].iloc[-1] == 8
    assert both['amount'][both['winner'] == 8].min() == pytest.approx(200, rel=0.04)
    assert both.loc[both['winner'] == 32, 'error'].tolist() == pytest.approx(
        [0.4 * (amount / 50) ** -0.5 for amount in both['amount'][both['winner'] == 32]]
    )
    three = ladder.winners(lines, 'updates', amounts=61)
    assert three['amount'].iloc[[0, -1]].tolist() == pytest.approx([100, 200])  # beyond, another would win by default
    assert (three['winner'] == 64).all()
    assert ladder.winners(lines, 'examples').empty  # 8 has 3200 at most, 64 has 6400 at least
    seconds = ladder.winners(lines, 'seconds', amounts=61)
    np.testing.assert_allclose(seconds['amount'], 0.5 * three['amount'])
    assert seconds['winner'].tolist() == three['winner'].tolist()


def test_winners_where_nothing_is_shared() -> None:
    assert ladder.winners([], 'updates').empty
    assert ladder.winners([curve(8, [1, 2], [0.2, 0.1])], 'updates').empty
    assert ladder.winners([curve(8, [1, 2], [0.2, 0.1]), curve(16, [4, 8], [0.2, 0.1])], 'updates').empty
    same = ladder.winners([curve(8, [4], [0.2]), curve(16, [4], [0.1])], 'updates')
    assert same[['amount', 'winner', 'best']].values.tolist() == [[pytest.approx(4), 16, (16,)]]


def test_the_best_may_be_any_that_wins_some_draws() -> None:
    level = [curve(size, [1, 10], [0.2, 0.1]) for size in (8, 16, 32)]
    for i, each in enumerate(level):
        noise_R = np.random.default_rng(i).normal(size=1000)
        noise_R[0] = 0
        level[i] = each._replace(
            log_error_RxL=each.log_error_RxL[:1] + 0.01 * noise_R[:, None] + (0.1 if i == 2 else 0)
        )
    found = ladder.winners(level, 'updates', amounts=5)
    assert (found['best'] == (8, 16)).all()
    assert (found['low'] < found['error']).all()
    assert (found['error'] < found['high']).all()


def test_times_that_are_not_known_leave_open_who_wins_in_seconds() -> None:
    """Two lines whose error halves with twice the time, the first 1 % lower: by its slower time it is 1 % higher."""
    lines = [curve(8, [100, 400], [0.396, 0.099]), curve(32, [100, 400], [0.4, 0.1])]
    lines = [each._replace(log_error_RxL=np.repeat(each.log_error_RxL, 5, 0)) for each in lines]
    found = [ladder.winners(lines, 'seconds', off, 5) for off in (None, {8: [0.0, math.log(1.02)], 32: [0.0, 0.0]})]
    assert [set(each['winner']) for each in found] == [{8}, {8}]
    assert [each['best'][2] for each in found] == [(8,), (8, 32)]
    assert found[1]['high'][2] == pytest.approx(1.02 * found[1]['error'][2])
    assert ladder.slack(lines[0], 400, [0.0, -0.02, 0.01]) == pytest.approx(0.099 * math.expm1(0.02))


def test_of_learning_rates_that_are_level_the_one_with_the_lower_loss_is_the_best() -> None:
    made = table([(8, rate, 10, [error] * 3) for rate, error in ((0.1, 0.2), (0.2, 0.2), (0.4, 0.3))])
    losses = {0.1: 0.6, 0.2: 0.5, 0.4: 0.4}
    made['validation_loss'] = made['learning_rate'].map(losses)
    (found,) = ladder.curves(ladder.cells(made, 3))
    assert found.best[['learning_rate', 'loss']].values.tolist() == [[0.2, 0.5]]


def test_beside_a_learning_rate_that_diverged_the_grid_leaves_half_a_step_open() -> None:
    """Errors fall up to 0.4, and at 0.8 a run diverges: the best is 0.4, and may be 0.28 to 0.57."""
    rng = np.random.default_rng(0)
    rows = [
        {
            'batch_size': 8, 'updates': 100, 'learning_rate': rate, 'momentum': 0.0, 'weight_decay': 0.0, 'beta2': 0.9,
            'seed': seed, 'examples': 800, 'seconds': 1.0,
            'validation_error': error * (1 + 0.001 * rng.normal()) if rate < 0.8 or seed else math.nan,
        }
        for rate, error in ((0.1, 0.3), (0.2, 0.2), (0.4, 0.1), (0.8, 0.2))
        for seed in range(6)
    ]  # fmt: skip
    (line,) = ladder.curves(ladder.cells(pd.DataFrame(rows).assign(validation_loss=1.0), 6))
    found, _ = ladder.learning_rates([line])
    assert found[['value', 'edge']].values.tolist() == [[pytest.approx(0.4), False]]
    assert 0.28 < found['low'][0] < 0.3
    assert 0.54 < found['high'][0] < 0.57


@pytest.mark.parametrize(
    ('target', 'updates', 'side'),
    [
        (0.4, 100, 0),
        (0.2, 200, 0),
        (0.1, 400, 0),
        (0.4 / math.sqrt(2), 100 * math.sqrt(2), 0),
        (0.05, 800, 0),
        (0.04, 800, 1),
        (0.5, 100, -1),
    ],
)
def test_updates_to_a_target(target: float, updates: float, side: int) -> None:
    found = ladder.to_target([curve(8, [100, 400, 800], [0.4, 0.1, 0.05])], target)
    np.testing.assert_allclose(np.exp(found.log_updates_RxP), updates)
    assert (found.censored_RxP == side).all()
    low, high = (0 if side < 0 else updates), (math.inf if side > 0 else updates)
    assert found.updates[0] == pytest.approx((updates, low, high))


def test_each_draw_may_have_its_own_target() -> None:
    found = ladder.to_target([curve(8, [100, 400], [0.4, 0.1])], np.array([0.4, 0.1]))
    np.testing.assert_allclose(np.exp(found.log_updates_RxP[:, 0]), [100, 400])
    level = ladder.to_target([curve(8, [100, 200, 400], [0.2, 0.2, 0.2])], 0.2)
    assert level.updates[0].value == pytest.approx(100)


def test_targets_lie_where_three_batch_sizes_cross() -> None:
    lines = [curve(2**i, [1, 10], [high, low]) for i, (high, low) in enumerate([(0.3, 0.01), (0.8, 0.02), (0.9, 0.1)])]
    np.testing.assert_allclose(ladder.targets(lines, 1), np.full((2, 1), math.sqrt(0.03)))
    four = ladder.targets([*lines, curve(64, [1, 10], [0.95, 0.9])], 3)
    np.testing.assert_allclose(four[0], 0.8 * (0.1 / 0.8) ** np.array([0.25, 0.5, 0.75]))
    assert ladder.targets(lines[:2]).shape == (2, 0)
    assert ladder.targets([*lines[:2], curve(64, [1, 10], [0.95, 0.9])]).shape == (2, 0)


def test_exact_curves_give_the_hyperbola_and_the_law_back() -> None:
    targets_RxT = ladder.targets(exact())
    assert targets_RxT.shape == (41, 4)
    for target_R in (*targets_RxT.T, 0.05):
        reached = ladder.to_target(exact(), target_R)
        found = scaling.hyperbola(reached.batch_size_P, reached.log_updates_RxP, reached.censored_RxP)
        assert found
        s_min = S_MIN * (np.max(target_R[0] if np.ndim(target_R) else target_R) / AT) ** (-1 / SLOPE)
        values = [estimate.value for estimate in found]
        assert values == pytest.approx([s_min, s_min * B_CRIT, B_CRIT], rel=2e-3)
    rates, law = ladder.learning_rates(exact())
    assert law
    assert law.better == 'saturating'
    assert (law.maximum.value, law.b_0.value) == pytest.approx((0.8, 100), rel=2e-3)
    assert law.left_out['saturating'] < 1e-3 < law.left_out['power']
    assert law.between == (16, 2048)
    advice = law.learning_rate(200)
    assert advice
    assert advice.value == pytest.approx(best_rate(200), rel=2e-3)
    assert law.learning_rate(8) is law.learning_rate(4096) is None
    assert rates['updates'].tolist() == [math.ceil(4 * N / size) for size in SIZES]
    halves, _ = ladder.learning_rates(exact(), {16: math.ceil(N / 16), 32: 77, 64: math.ceil(N / 64)})
    assert halves[['batch_size', 'updates']].to_numpy().tolist() == [[16, 3563], [64, 891]]


def test_a_power_law_is_found_where_there_is_one() -> None:
    log_rate_RxP = 0.5 * np.log(SIZES) - 4 + np.zeros((1, 1))
    found = ladder.laws(np.array(SIZES), log_rate_RxP)
    assert found.better == 'power'
    assert found.exponent.value == pytest.approx(0.5)
    advice = found.learning_rate(100)
    assert advice
    assert advice.value == pytest.approx(10 * math.exp(-4))
    linear = ladder.laws(np.array(SIZES), 2 * log_rate_RxP)
    assert (linear.maximum.value, linear.b_0.value) == (math.inf, math.inf)


def test_batch_sizes_at_an_edge_advise_nothing() -> None:
    made = trials(None)
    of = ladder.curves(ladder.cells(made[(made['batch_size'] < 1024) | (made['seed'] < 3)], 3), draws=2)
    of[0].best['edge'] = True
    rates, law = ladder.learning_rates(of)
    assert rates['edge'].tolist() == [True] + [False] * 7
    assert law
    assert law.between == (32, 2048)
    assert ladder.learning_rates(of[:3])[1] is None


@pytest.mark.smoke
def test_intervals_cover_the_truth_as_often_as_they_should() -> None:
    """200 tables, the grid of ε elsewhere in each; at 7 % of error the largest batch has mostly not reached it, at 5 %
    two have not; at 9 % the smallest two already had."""
    covered: dict[str, list[bool]] = {}
    rng = np.random.default_rng(0)
    for seed in range(200):
        of = ladder.curves(ladder.cells(trials(seed, rng.uniform(-0.5, 0.5)), 6), 200, seed)
        target = (0.05, 0.07, 0.09)[seed % 3]
        reached = ladder.to_target(of, target)
        found = scaling.hyperbola(reached.batch_size_P, reached.log_updates_RxP, reached.censored_RxP)
        rates, law = ladder.learning_rates(of)
        assert found
        assert law
        s_min = S_MIN * (target / AT) ** (-1 / SLOPE)
        known = [
            ('S_min', found.s_min, s_min),
            ('E_min', found.e_min, s_min * B_CRIT),
            ('B_crit', found.b_crit, B_CRIT),
        ]
        known += [('maximum', law.maximum, 0.8), ('B_0', law.b_0, 100)]
        for i, size in enumerate(SIZES):
            known.append(('updates', reached.updates[i], s_min * (1 + B_CRIT / size)))
            known.append(('rate', ladder.Estimate(*rates.loc[i, ['value', 'low', 'high']]), best_rate(size)))
            advice = law.learning_rate(size)
            assert advice
            known.append(('advice', advice, best_rate(size)))
        for name, estimate, truth in known:
            assert not estimate.low > estimate.value
            assert not estimate.value > estimate.high
            covered.setdefault(name, []).append(estimate.low <= truth <= estimate.high)
    shares = {name: float(np.mean(each)) for name, each in covered.items()}
    assert min(shares.values()) >= 0.9, shares
    # Of many cells at once they hold it oftener (see `curves`).
    assert max(shares[name] for name in ('S_min', 'E_min', 'B_crit', 'updates', 'rate')) <= 0.98, shares
