"""Which figures an answer gives, and that what they show is what it says."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from bsgap.report import answer_figures
from bsgap.report.axes import text as text_of

SIZES = [2, 8, 32, 128, 512, 2048, 8192]
SEEDS = 3
N = 55000
S_MIN, E_MIN = 310.0, 60000.0
B_CRIT = E_MIN / S_MIN
COSTS = {size: 5e-4 + 3e-6 * size for size in SIZES}
REACHED = SIZES[:-1]
RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]


def estimate(value: float, factor: float | None = None, half: float = 0.0) -> dict[str, float | None]:
    if factor is not None:
        return {'value': value, 'low': value / factor, 'high': value * factor}
    return {'value': value, 'low': value - half or None, 'high': value + half}


def best_rate(size: int) -> float:
    return min(RATES, key=lambda rate: abs(math.log(rate / (0.02 * size**0.5))))


def full() -> dict[str, Any]:
    """What a search over `SIZES` on MNIST may find; no run of the largest batch size reaches the target."""
    random = np.random.default_rng(0)

    def run(size: int, seed: int) -> dict[str, Any]:
        updates = float((S_MIN + E_MIN / size) * random.lognormal(0, 0.08))
        if size not in REACHED:
            return {'seed': seed, 'updates': None, 'made': 280}
        return {'seed': seed, 'updates': updates, 'made': math.ceil(2 * updates)}

    setting = {size: {'batch_size': size, 'learning_rate': best_rate(size), 'momentum': 0.0} for size in SIZES}

    def budget(unit: str, amount: float, updates: dict[int, float], **chosen: Any) -> dict[str, Any]:
        errors = {size: 0.017 + 0.4 / (1 + updates[size] / 90) + 0.0001 * size**0.5 for size in SIZES}
        rows = [
            {
                **setting[size],
                'updates': int(updates[size]),
                'seeds': SEEDS,
                'train_accuracy': estimate(1 - error / 3, half=error / 30),
                'validation_accuracy': estimate(1 - error, half=error / 15),
                'test_accuracy': estimate(1 - error, half=error / 15),
                'gap': estimate(error * 2 / 3, half=error / 30),
            }
            for size, error in errors.items()
        ]
        return {'unit': unit, 'amount': amount, 'rows': rows, **chosen}

    surface = []
    for size in SIZES:
        for rate in RATES:
            off = abs(math.log(rate / best_rate(size)))
            status = 'diverged' if rate > 8 * best_rate(size) else 'stopped' if off > 1.6 else 'done'
            accuracy = None if status == 'diverged' else 1 - min(0.88, 0.02 * math.exp(off))
            cell = {'batch_size': size, 'learning_rate': rate, 'momentum': 0.0, 'updates': 3 * N // size}
            surface.append({**cell, 'validation_accuracy': accuracy, 'status': status})
    training = [
        {
            'batch_size': size,
            'learning_rate': best_rate(size),
            'points': [
                {
                    'update': int(update),
                    'examples': int(update) * size,
                    'noise_scale': estimate(
                        20 * (1 + int(update) * size / 3000) ** 0.6 * random.lognormal(0, 0.1), 1.5
                    ),
                }
                for update in np.unique(np.geomspace(1, 3 * N / size, 14).astype(int))
            ],
        }
        for size in SIZES[1:]
    ]
    fresh = [
        {'unit': 'epochs', **setting[size], 'test_accuracy': estimate(0.976, half=0.002), 'seeds': 5, 'diverged': 0}
        for size in (2, 8, 32)
    ]
    unknown = {'value': None, 'low': None, 'high': None}
    fresh.append({**fresh[0], 'unit': 'seconds', 'test_accuracy': unknown, 'seeds': 0, 'diverged': 5})
    return {
        'dataset': 'mnist',
        'model': 'MLP 1024-1024',
        'optimizer': 'sgd',
        'n': N,
        'device': 'cpu',
        'target': {'error': 0.05, 'found': True},
        'to_target': [{**setting[size], 'runs': [run(size, seed) for seed in range(SEEDS)]} for size in SIZES],
        'curve': {'s_min': estimate(S_MIN, 1.15), 'e_min': estimate(E_MIN, 1.1), 'b_crit': estimate(B_CRIT, 1.3)},
        'learning_rate_exponent': estimate(0.48, half=0.06),
        'noise_scale': training,
        'budgets': [
            budget('epochs', 3.0, {s: 3 * N / s for s in SIZES}, winner=8, tied=[2, 8, 32], recommended=2),
            budget(
                'updates', 400, {s: 400.0 * s**0.3 for s in SIZES}, winner=2048, tied=[2048, 8192], recommended=8192
            ),
            budget('seconds', 12.345, {s: 12.3 / c for s, c in COSTS.items()}, winner=32, tied=[32], recommended=32),
        ],
        'surface': surface,
        'gaps': [
            {'label': label, 'points': [{'batch_size': s, 'gap': estimate(g(s), half=0.001)} for s in SIZES]}
            for label, g in (
                ('after 3 epochs, learning rate 0.01 for all', lambda s: 0.02 - 0.0025 * math.log2(s)),
                ('after 400 updates, learning rate 0.01 for all', lambda s: 0.001 + 0.0005 * math.log2(s)),
                ('after 3 epochs, tuned learning rate', lambda s: 0.02 - 0.0006 * math.log2(s)),
            )
        ],
        'confirmation': fresh,
        'rests_on': {'runs': 120, 'stopped': 60, 'diverged': 8, 'seeds': SEEDS, 'examples': 1.2e7, 'seconds': 900.0},
        'limits': [],
        'text': '',
    }


def axes(name: str, answer: dict[str, Any]) -> list[Axes]:
    figure = answer_figures.FIGURES[name][1](answer)
    assert figure is not None
    return figure.axes


def drawn(answer: dict[str, Any]) -> set[str]:
    return {name for name, (_, figure) in answer_figures.FIGURES.items() if figure(answer)}


def labels(figure: Any) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def points(panel: Axes, marker: str) -> list[tuple[float, float]]:
    """Those with this marker; the legend's own are empty."""
    found = [line.get_xydata() for line in panel.get_lines() if line.get_marker() == marker]
    return [(float(x), float(y)) for xy in found for x, y in np.asarray(xy)]


def named(panel: Axes, label: str) -> Any:
    """The one line whose label begins so."""
    (line,) = [line for line in panel.get_lines() if str(line.get_label()).startswith(label)]
    return line


def bars(panel: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2) of what has this label, and the ends (P, 2) of their intervals."""
    (container,) = [c for c in panel.containers if str(c.get_label()).startswith(label)]
    segments = container[2][0].get_segments()
    return np.asarray(container[0].get_xydata()), np.array([segment[:, 1] for segment in segments])


def without(answer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**answer, **changes}


def nothing() -> dict[str, Any]:
    return without(
        full(),
        target={'error': None, 'found': True},
        to_target=[],
        curve=None,
        learning_rate_exponent=None,
        noise_scale=[],
        budgets=[],
        surface=[],
        gaps=[],
        confirmation=[],
    )


def censored(answer: dict[str, Any]) -> dict[str, Any]:
    """As if no run had reached the target."""
    answer = copy.deepcopy(answer)
    for entry in answer['to_target']:
        for run in entry['runs']:
            run.update(updates=None)
    return without(answer, curve=None, learning_rate_exponent=None)


def of_one_size(answer: dict[str, Any]) -> dict[str, Any]:
    """Batch size 32 alone."""
    answer = copy.deepcopy(answer)
    for entries in (answer['to_target'], answer['surface'], answer['noise_scale']):
        entries[:] = [entry for entry in entries if entry['batch_size'] == 32]
    for lines, key in ((answer['budgets'], 'rows'), (answer['gaps'], 'points')):
        for line in lines:
            line[key] = [row for row in line[key] if row['batch_size'] == 32]
    for budget in answer['budgets']:
        budget.update(winner=32, tied=[32], recommended=32)
    return without(answer, curve=None, learning_rate_exponent=None)


def of_one_seed(answer: Any) -> Any:
    """One run a batch size, and no intervals."""
    if isinstance(answer, list):
        return [of_one_seed(part) for part in answer]
    if not isinstance(answer, dict):
        return answer
    if answer.keys() == {'value', 'low', 'high'}:
        return {**answer, 'low': None, 'high': None}
    alone = {key: of_one_seed(part) for key, part in answer.items()}
    if 'seeds' in alone:
        return {**alone, 'seeds': min(1, alone['seeds'])}
    return {**alone, 'runs': alone['runs'][:1]} if isinstance(alone.get('runs'), list) else alone


def test_the_answer_here_is_plain_json() -> None:
    json.dumps(full(), allow_nan=False)


def test_every_figure_is_a_file_by_caption(tmp_path: Path) -> None:
    files = answer_figures.draw(full(), tmp_path / 'new', 'study')
    assert [path.stem for path in files.values()] == list(answer_figures.FIGURES)
    assert next(iter(files)) == 'Updates to 5 % validation error against batch size'
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in files.values())
    assert answer_figures.draw(nothing(), tmp_path, 'study') == {}


def test_figures_without_data_are_left_out() -> None:
    assert drawn(full()) == set(answer_figures.FIGURES)
    for parts, figures in (
        (('to_target',), {'updates_to_target'}),
        (('surface',), {'accuracy_surface'}),
        (('noise_scale',), {'noise_scale'}),
        (('budgets',), {'budgets'}),
        (('gaps',), {'gaps'}),
    ):
        only = without(nothing(), **{part: full()[part] for part in parts})
        assert drawn(only) == figures
    empty = without(nothing(), budgets=[{**full()['budgets'][0], 'rows': []}])
    assert drawn(empty) == set()


ZERO = {'value': 0.001, 'low': 0.0, 'high': 90.0}
UNBOUNDED = {'value': 3e7, 'low': 1500.0, 'high': None}


PERFECT = {'s_min': ZERO, 'e_min': estimate(E_MIN, 1.1), 'b_crit': UNBOUNDED}
FLAT = {'s_min': estimate(S_MIN, 1.1), 'e_min': ZERO, 'b_crit': ZERO}


@pytest.mark.parametrize(
    'changed',
    [
        without(full(), curve=PERFECT, budgets=full()['budgets'][:1]),
        without(full(), curve=FLAT, confirmation=[]),
        censored(full()),
        of_one_seed(full()),
        of_one_size(of_one_seed(full())),
    ],
    ids=['perfect, one budget', 'flat, fast', 'censored', 'one seed', 'one size and seed'],
)
def test_what_is_not_known_is_no_error(changed: dict[str, Any], tmp_path: Path) -> None:
    """Warnings are errors."""
    files = answer_figures.draw(changed, tmp_path, 'study')
    assert {path.stem for path in files.values()} == set(answer_figures.FIGURES)


def test_each_run_is_a_point_and_a_censored_one_a_triangle_at_what_it_made() -> None:
    answer = full()
    left, right = axes('updates_to_target', answer)
    runs = [(entry['batch_size'], run) for entry in answer['to_target'] for run in entry['runs']]
    reached = [(size, run['updates']) for size, run in runs if run['updates'] is not None]
    assert points(left, 'o') == reached
    assert points(right, 'o') == [(updates, size * updates) for size, updates in reached]
    assert points(left, '^') == [(8192, 280)] * SEEDS
    assert points(right, '^') == [(280, 8192 * 280)] * SEEDS
    assert {panel.get_xscale() + panel.get_yscale() for panel in (left, right)} == {'loglog'}
    assert {'one run', 'not reached in the updates made'} <= set(labels(left.figure))


def test_the_fit_is_the_hyperbola_and_its_regimes_are_a_factor_of_ten_from_b_crit() -> None:
    left, right = axes('updates_to_target', full())
    size_P, S_P = np.asarray(named(left, 'fit').get_xydata()).T
    assert (S_P / S_MIN - 1) * (size_P * S_P / E_MIN - 1) == pytest.approx(np.ones(len(S_P)))
    x, y = named(left, 'E_min').get_xdata(), named(left, 'E_min').get_ydata()
    assert np.multiply(x, y) == pytest.approx(np.full(len(x), E_MIN))
    assert list(named(left, 'S_min').get_ydata()) == list(named(right, 'S_min').get_xdata()) == [S_MIN] * 2
    assert list(named(left, 'B_crit').get_xdata()) == [B_CRIT] * 2
    marks = {round(float(np.asarray(line.get_xdata())[0]), 6) for line in left.get_lines() if line.get_color() == '0.4'}
    assert marks == {round(B_CRIT / 10, 6), round(10 * B_CRIT, 6)}
    texts = {text.get_text().replace('\n', ' '): float(text.get_position()[0]) for text in left.texts}
    assert texts.keys() == {'perfect scaling', 'diminishing returns', 'flat'}
    assert texts['perfect scaling'] < B_CRIT / 10 < texts['diminishing returns'] < 10 * B_CRIT < texts['flat']
    band = next(patch for patch in left.patches if patch.get_alpha() == 0.15)
    assert band.get_extents().transformed(left.transData.inverted()).intervalx == pytest.approx(
        [B_CRIT / 1.3, B_CRIT * 1.3]
    )


def test_regimes_beyond_the_batch_sizes_are_not_named() -> None:
    left, _ = axes('updates_to_target', without(full(), curve=PERFECT))
    assert [text.get_text() for text in left.texts] == ['perfect\nscaling']
    assert 'B_crit: above 1,500 (best fit 30,000,000)' in labels(left.figure)
    assert 'S_min: below 90 (best fit 0.001) updates' in labels(left.figure)
    assert left.get_ylim()[0] > 100


@pytest.mark.parametrize(
    ('ends', 'text'),
    [
        ((194.3, 148.0, 1251.0), '190 (150 to 1,300)'),
        ((194.3, None, None), '190'),
        ((194.3, 0.0, None), '190 (not bounded)'),
        ((194.3, 0.0, 251.0), 'below 250 (best fit 190)'),
        ((194.3, 148.0, None), 'above 150 (best fit 190)'),
        ((0.483, 0.42, 0.54), '0.48 (0.42 to 0.54)'),
        ((-0.1, -0.21, 0.02), '-0.1 (-0.21 to 0.02)'),
    ],
)
def test_an_estimate_in_words(ends: tuple[float | None, ...], text: str) -> None:
    assert text_of(dict(zip(('value', 'low', 'high'), ends, strict=True))) == text


def test_the_surface_shows_what_was_tried_and_how_it_ended() -> None:
    """A run that was stopped is never the best, however low its error was then."""
    answer = full()
    next(cell for cell in answer['surface'] if cell['status'] == 'stopped')['validation_accuracy'] = 0.999
    panel, _ = axes('accuracy_surface', answer)
    done, stopped = panel.collections
    for shown, status in ((done, 'done'), (stopped, 'stopped')):
        cells = [cell for cell in answer['surface'] if cell['status'] == status]
        assert np.asarray(shown.get_offsets()) == pytest.approx(
            np.array([(c['batch_size'], c['learning_rate']) for c in cells])
        )
        assert list(np.asarray(shown.get_array())) == pytest.approx(
            [100 - 100 * cell['validation_accuracy'] for cell in cells]
        )
    crosses = [(c['batch_size'], c['learning_rate']) for c in answer['surface'] if c['status'] == 'diverged']
    assert points(panel, 'x') == crosses
    assert dict(points(panel, 'o')) == {size: best_rate(size) for size in SIZES}
    assert (panel.get_xscale(), panel.get_yscale()) == ('log', 'log')


def test_best_learning_rates_are_of_batch_sizes_that_reached_the_target() -> None:
    panel, _ = axes('accuracy_surface', full())
    best = named(panel, 'fewest updates')
    assert list(best.get_xdata()) == REACHED
    assert list(best.get_ydata()) == [best_rate(size) for size in REACHED]
    for name, power in (('linear', 1), ('square-root', 0.5)):
        guide = named(panel, name).get_ydata()
        assert np.diff(np.log(guide)) == pytest.approx(power * np.diff(np.log(REACHED)))
        assert np.mean(np.log(guide)) == pytest.approx(np.mean(np.log(best.get_ydata())))
    assert panel.get_title('right').endswith('p: 0.48 (0.42 to 0.54)')


def test_each_momentum_has_a_panel() -> None:
    answer = full()
    answer['surface'] += [{**cell, 'momentum': 0.9} for cell in answer['surface'] if cell['batch_size'] < 100]
    plain, heavy, _ = axes('accuracy_surface', answer)
    assert (plain.get_title('left'), heavy.get_title('left')) == ('momentum 0', 'momentum 0.9')
    assert {x for x, _ in points(heavy, 'o')} == {2, 8, 32}


def test_the_noise_scale_stands_beside_b_crit_and_for_mnist_the_published_values() -> None:
    answer = full()
    (panel,) = axes('noise_scale', answer)
    for entry in answer['noise_scale']:
        line = named(panel, f'batch size {entry["batch_size"]},')
        assert list(line.get_xdata()) == [point['examples'] for point in entry['points']]
        assert list(line.get_ydata()) == [point['noise_scale']['value'] for point in entry['points']]
    assert list(named(panel, 'B_crit').get_ydata()) == [B_CRIT] * 2
    dashed = sorted(
        float(np.asarray(line.get_ydata())[0]) for line in panel.get_lines() if line.get_linestyle() == '--'
    )
    assert dashed == [20, 50, 200, 900]
    (panel,) = axes('noise_scale', without(answer, dataset='idx:other'))
    assert not panel.texts
    assert not [line for line in panel.get_lines() if line.get_linestyle() == '--']


def test_an_interval_without_a_bound_reaches_the_edge_and_does_not_move_it() -> None:
    answer = full()
    (before,) = axes('noise_scale', answer)
    points = answer['noise_scale'][0]['points']
    points[0]['noise_scale'].update(high=None)
    points[1]['noise_scale'].update(low=None)
    (after,) = axes('noise_scale', answer)
    assert after.get_ylim() == before.get_ylim()
    band = after.collections[0].get_paths()[0].vertices
    high, low = (band[band[:, 0] == point['examples'], 1] for point in points[:2])
    assert high.max() > after.get_ylim()[1]
    assert low.min() < after.get_ylim()[0]
    (unbounded,) = axes('noise_scale', without(full(), curve=PERFECT))
    assert unbounded.get_ylim()[1] < 100 * before.get_ylim()[1]


def test_each_budget_has_a_panel_with_its_winner_and_what_ties() -> None:
    answer = full()
    panels = axes('budgets', answer)
    assert [panel.get_title() for panel in panels] == ['3 epochs', '400 updates', '12.3 s']
    for panel, budget in zip(panels, answer['budgets'], strict=True):
        tests = {row['batch_size']: row['test_accuracy'] for row in budget['rows']}
        xy, ends = bars(panel, 'tuned')
        assert xy == pytest.approx(np.array([(size, 100 * test['value']) for size, test in tests.items()]))
        assert ends == pytest.approx(np.array([(100 * test['low'], 100 * test['high']) for test in tests.values()]))
        for marker, key in (('o', 'winner'), ('s', 'recommended')):
            assert points(panel, marker) == [(budget[key], 100 * tests[budget[key]]['value'])]
        grey = [
            p.get_extents().transformed(panel.transData.inverted()).intervalx
            for p in panel.patches
            if not p.get_alpha()
        ]
        tied = {size for size in SIZES if any(low < size < high for low, high in grey)}
        assert tied == (set(budget['tied']) if len(budget['tied']) > 1 else set())
    xy, _ = bars(panels[0], '5 fresh seeds')
    assert xy == pytest.approx(np.array([(1.15 * size, 97.6) for size in (2, 8, 32)]))
    assert [len(panel.containers) for panel in panels] == [2, 1, 1]
    assert labels(panels[0].figure).count('95 % intervals overlap') == 1


def test_accuracies_are_spaced_by_their_errors_logarithm() -> None:
    (panel,) = axes('budgets', without(full(), budgets=full()['budgets'][:1], confirmation=[]))
    heights = [panel.transData.transform((8, accuracy))[1] for accuracy in (90, 95, 97.5)]
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0]) != 0
    assert heights == sorted(heights)
    shown = {tick for tick in panel.get_yticks() if panel.get_ylim()[0] <= tick <= panel.get_ylim()[1]}
    assert {90, 95, 98} <= shown
    perfect = copy.deepcopy(full()['budgets'][:1])
    for row in perfect[0]['rows']:
        row['test_accuracy'] = estimate(1.0, half=0.01)
    (panel,) = axes('budgets', without(full(), budgets=perfect, confirmation=[]))
    low, high = panel.get_ylim()
    assert 99 < low < high < 100


def test_each_kind_of_gap_is_a_line_in_points() -> None:
    answer = full()
    (panel,) = axes('gaps', answer)
    for line in answer['gaps']:
        xy, ends = bars(panel, line['label'])
        assert xy == pytest.approx(
            np.array([(point['batch_size'], 100 * point['gap']['value']) for point in line['points']])
        )
        assert ends[:, 1] - xy[:, 1] == pytest.approx([0.1] * len(SIZES))
    assert labels(panel.figure) == [line['label'] for line in answer['gaps']]
    assert panel.get_xscale() == 'log'
