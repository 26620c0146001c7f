"""Which figures an answer gives, that what they show is what it says, and that all of it can be seen."""

import collections
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bsgap.report import answer_figures, axes

Json = dict[str, Any]
SIZES = (8, 32, 128, 512)
N, B_CRIT = 10000, 60.0
UNITS = {'epochs': 2.0, 'updates': 100, 'seconds': 12.345}
ROLES = {'recommended': 1, 'larger': 4, 'half the rate': 1, 'twice the rate': 1, 'growing': 1}
NONE = {'low': None, 'high': None}
NOT_FOUND: Json = {'winners': {}, 'targets': [], 'numbers': {}, 'learning_rates': {'rows': [], 'law': None}}


def estimate(value: float, factor: float = 1.2) -> Json:
    return {'value': value, 'low': value / factor, 'high': value * factor}


def make(sizes: tuple[int, ...] = SIZES, units: tuple[str, ...] = ('epochs', 'updates')) -> Json:
    """An answer of 3 seeds in which the squared error after S updates is ∝ (1 + B_crit/B)/S; 4 best ε diverges."""
    every: dict[str, list[Any]] = collections.defaultdict(list)
    verdicts = itertools.chain(('best', 'as good', 'undecided'), itertools.repeat('worse'))
    for size, verdict in zip(sizes, verdicts, strict=False):
        at, rate, points = {'batch_size': size}, 0.5 / (1 + 30 / size), []
        for updates in (max(2, 2 * N // size) * 2**i for i in range(-4, 1)):
            error = 2 * ((1 + B_CRIT / size) / updates) ** 0.5 / 3
            length = {'updates': updates, 'examples': updates * size, 'seconds': updates * (1e-4 + 1e-6 * size)}
            points.append({**length, 'error': estimate(error), 'noise_scale': estimate(50 + size**0.5)})
            for factor in (0.5, 1, 2, 4):
                found = estimate(error * (1 + math.log(factor) ** 2)) if factor < 4 else None
                every['trials'].append({**at, **length, 'learning_rate': factor * rate, 'validation_error': found})
        accuracy, gap = estimate(0.99 - error, 1.002), estimate(0.03 - 0.001 * size**0.5)
        every['rows'].append({**at, 'learning_rate': rate, 'verdict': verdict, 'test_accuracy': accuracy, 'gap': gap})
        every['curves'].append({**at, 'points': points})
        every['rates'].append({**at, 'updates': updates, **estimate(rate), 'edge': size == sizes[-1]})
    for unit in units:
        fresh = [
            {'role': role, 'batch_size': factor * sizes[0], 'test_accuracy': estimate(0.95 + 0.001 * i, 1.003)}
            for i, (role, factor) in enumerate(ROLES.items())
            if factor * sizes[0] in sizes
        ]
        fresh.append({'role': 'smaller', 'batch_size': sizes[-1], 'test_accuracy': None})
        rows = [{**row, 'gap': estimate(row['gap']['value'] / len(unit))} for row in every['rows']]
        budget = {'unit': unit, 'amount': UNITS[unit], 'rows': rows, 'recommended': rows[0], 'fresh': fresh}
        every['budgets'].append(budget)
    for error in (0.106, 0.0906, 0.0773):
        needed = [(size, estimate((1 + B_CRIT / size) / error**2)) for size in sizes]
        points = [{'batch_size': size, 'updates': updates, 'censored': 0} for size, updates in needed]
        curve = {'s_min': estimate(error**-2), 'e_min': estimate(B_CRIT / error**2), 'b_crit': estimate(B_CRIT)}
        every['targets'].append({'error': error, 'points': points, 'curve': curve})
    every['targets'][0]['points'][0]['censored'], every['targets'][2]['points'][-1]['censored'] = -1, 1
    won = [{'winner': sizes[-1], 'best': [sizes[-1]], 'among': list(sizes[i < 3 :])} for i in range(9)]
    starts = {'updates': 50.0, 'examples': 2e3, 'seconds': 2.0}
    law = {'better': 'saturating', 'maximum': estimate(0.5), 'b_0': estimate(30.0), 'exponent': estimate(0.5)}
    found = {
        'winners': {unit: [{'amount': x * 1.1**i, **row} for i, row in enumerate(won)] for unit, x in starts.items()},
        'targets': every['targets'],
        'learning_rates': {'rows': every['rates'], 'law': {**law, 'advice': every['rates']}},
        'numbers': {'b_crit': estimate(B_CRIT), 'noise_growth': estimate(1.3)},
    }
    answer = {name: every[name] for name in ('budgets', 'trials', 'curves')} | {'noise_scale': every['curves']}
    answer |= {'dataset': 'mnist', 'n': N, 'margin': 0.001, 'rests_on': {'seeds': 3}}
    return answer | (found if len(sizes) > 1 else NOT_FOUND)


def one_seed() -> Json:
    def bare(of: Any) -> Any:
        if isinstance(of, dict):
            return {key: None if key in NONE else bare(value) for key, value in of.items()}
        return [bare(each) for each in of] if isinstance(of, list) else of

    return {**bare(make(units=('seconds',))), 'rests_on': {'seeds': 1}}


def unbounded() -> Json:
    answer = make()
    curves = [target['curve'] for target in answer['targets']]
    curves[0]['b_crit'] |= NONE
    curves[1] |= {'b_crit': {'value': None, 'low': 300.0, 'high': None}, 's_min': {'value': None, **NONE}}
    curves[2]['b_crit']['low'] = None
    answer['numbers']['b_crit'] = {**estimate(6e6), 'high': None}
    answer['targets'][1]['points'][1]['updates'] |= {'low': 0.0}
    return answer


def diverged() -> Json:
    answer = {**make(), **NOT_FOUND, 'curves': [], 'noise_scale': []}
    answer['trials'] = [{**row, 'validation_error': None} for row in answer['trials']]
    nothing: Json = {'rows': [], 'recommended': None, 'fresh': []}
    return {**answer, 'budgets': [{**budget, **nothing} for budget in answer['budgets']]}


ALL, ALONE = set(answer_figures.FIGURES), {'lengths', 'learning_rates', 'budgets', 'gaps', 'noise_scale'}
CASES: dict[str, tuple[Callable[[], Json], set[str]]] = {
    'usual': (make, ALL),
    'one seed, one budget': (one_seed, ALL),
    'one batch size': (lambda: make((8,)), ALONE),
    'two batch sizes': (lambda: make((8, 32)), ALL),
    'batch sizes from 1 to 60,000': (lambda: make((1, *(2 * 4**i for i in range(7)), 60000), tuple(UNITS)), ALL),
    'seventeen batch sizes': (lambda: make(tuple(2**i for i in range(17))), ALL),
    'no bounds': (unbounded, ALL),
    'all diverged': (diverged, {'learning_rates'}),
    'nothing': (lambda: {**diverged(), 'trials': [], 'budgets': []}, set()),
}


def drawn(answer: Json, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures as they are saved."""
    found: dict[str, Figure] = {}
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path, **_: found.update({path.stem: figure}))
    answer_figures.draw(answer, folder, 'mnist, MLP 256-256, sgd')
    for figure in found.values():
        figure.draw_without_rendering()
    return found


def panels(name: str, answer: Json) -> list[Axes]:
    figure = answer_figures.FIGURES[name](answer)
    assert figure
    return figure.axes


def named(panel: Axes, label: str) -> Any:
    """The one line whose label begins so, and that has data."""
    (line,) = [line for line in panel.get_lines() if str(line.get_label()).startswith(label) and len(line.get_xdata())]
    return line


def xy(line: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def bars(panel: Axes, label: str) -> list[tuple[float, ...]]:
    """Of the one container so named x, value and the ends of its intervals, by point."""
    (found,) = [container for container in panel.containers if container.get_label() == label]
    ends = [segment[:, 1] for segment in found[2][0].get_segments()]
    return [(*point, float(low), float(high)) for point, (low, high) in zip(xy(found[0]), ends, strict=True)]


def interval(x: float, of: Json, scale: float = 100) -> Any:
    return pytest.approx((x, *(scale * of[end] for end in ('value', 'low', 'high'))))


def markers(panel: Axes, marker: str) -> list[tuple[float, float]]:
    """Points that are drawn as such, besides the legend's own, which are empty."""
    return [point for line in panel.get_lines() if line.get_marker() == marker for point in xy(line)]


def across(panel: Axes, style: str) -> set[float]:
    """Where lines of this style go from one side to the other."""
    of_style = [line for line in panel.get_lines() if line.get_linestyle() == style]
    return {float(line.get_ydata()[0]) for line in of_style if list(line.get_xdata()) == [0, 1]}


def texts(figure: Figure) -> list[Any]:
    """All that is written."""
    found = [figure._suptitle, *(text for legend in figure.legends for text in legend.get_texts())]
    for panel in figure.axes:
        found += [*panel.texts, panel.title, panel.xaxis.label, panel.yaxis.label]
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [text for text in found if text.get_visible() and text.get_text()]


@pytest.mark.parametrize('case', CASES)
def test_every_answer_is_drawn_whole(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No text lies over another or leaves the figure, and every point lies in its panel."""
    answer, expected = CASES[case]
    found = drawn(answer(), tmp_path, monkeypatch)
    assert set(found) == expected
    for name, figure in found.items():
        boxes = [(text, text.get_window_extent()) for text in texts(figure)]
        for text, box in boxes:
            assert box.x0 >= 0 <= box.y0, (name, text)
            assert (box.p1 <= figure.bbox.p1).all(), (name, text)
        for (text, box), (other, beside) in itertools.combinations(boxes, 2):
            is_apart = not box.padded(-1).overlaps(beside.padded(-1))
            assert is_apart or text.get_rotation() == other.get_rotation() == 60, (name, text, other)
        for panel in figure.axes:
            for line in panel.get_lines():
                if line.get_marker() in axes.MARKERS + '*x':
                    shown = line.get_transform().transform(np.asarray(line.get_xydata(), float))
                    inside = panel.bbox.padded(1)
                    assert all(inside.contains(x, y) for x, y in shown if not math.isnan(y)), (name, line.get_label())


def test_files_by_captions_that_tell_what_is_found(tmp_path: Path) -> None:
    answer = make()
    answer['winners']['updates'][-1]['winner'] = 32
    answer['winners']['examples'][0]['winner'] = 128  # among fewer
    files = answer_figures.draw(answer, tmp_path / 'new', 'study')
    assert [path.stem for path in files.values()] == list(answer_figures.FIGURES)
    assert all(path.is_file() for path in files.values())
    told = dict(zip(answer_figures.FIGURES, files, strict=True))
    assert told['lengths'].endswith(': 8 after 2 epochs, 8 after 100 updates')
    assert told['winners'].endswith('where all have trials: 512 → 32 by updates, 512 by examples, 512 by seconds')
    assert told['targets'].endswith(': 60 (50 to 72) at 9.06 % error')
    assert told['learning_rates'].endswith(' grows and levels off: 0.5 / (1 + 30/B)')
    assert told['budgets'].endswith('recommended: batch size 8 for 2 epochs, 8 for 100 updates')
    assert told['gaps'].endswith('after 2 epochs: 0.45 points at batch size 8 and 0.12 points at batch size 512')
    answer['learning_rates']['law']['better'] = 'power'
    answer['targets'][1]['curve']['b_crit'] = {'value': None, **NONE}
    told = answer_figures.captions(answer)
    assert told['learning_rates'].endswith(' goes as B to the power of 0.5 (0.42 to 0.6)')
    assert told['targets'].endswith('save few updates')


def test_error_against_each_unit_of_length() -> None:
    answer = make(units=tuple(UNITS))
    every = panels('lengths', answer)
    for panel, unit, budget in zip(every, ('updates', 'examples', 'seconds'), (100, 2 * N, 12.345), strict=True):
        for curve, band in zip(answer['curves'], panel.collections, strict=True):
            points, edge = curve['points'], set(np.round(band.get_paths()[0].vertices[:, 1], 6))
            line = named(panel, f'batch size {curve["batch_size"]}')
            assert xy(line) == [(point[unit], pytest.approx(100 * point['error']['value'])) for point in points]
            assert edge == {round(100 * point['error'][end], 6) for point in points for end in ('low', 'high')}
        assert [xy(line)[0][0] for line in panel.get_lines() if list(line.get_ydata()) == [0, 1]] == [budget]
        assert across(panel, '-') == {100 * target['error'] for target in answer['targets']}
    assert len({named(every[0], f'batch size {size}').get_color() for size in SIZES}) == len(SIZES)


def test_lanes_show_who_wins_who_may_and_who_has_no_trials() -> None:
    answer = make()
    answer['winners']['updates'][4] |= {'winner': 32, 'best': [32, 512]}
    del answer['winners']['updates'][6]
    panel, by_examples, by_seconds = panels('winners', answer)
    lanes = np.ma.filled(panel.collections[0].get_array().reshape(len(SIZES), 9), -1)
    assert lanes.T.tolist() == [
        *3 * [[-1, 0, 0, 1]],
        [0, 0, 0, 1],
        [0, 1, 0, 1],
        [0, 0, 0, 1],
        4 * [-1],
        *2 * [[0, 0, 0, 1]],
    ]
    winner = {round(math.log(x / 50, 1.1) + 0.25): y for x, y in xy(named(panel, 'best'))[::2]}
    assert [winner[column] for column in (3, 4, 5)] == [512, 32, 512]
    assert math.isnan(winner[6])
    assert [markers(each, 'o') for each in (panel, by_examples, by_seconds)] == [[(100, 8)], [(2 * N, 8)], []]
    assert not [each for each in panels('winners', one_seed())[0].collections if '5 %' in str(each.get_label())]


def test_b_crit_against_the_target_beside_the_updates_it_follows_from() -> None:
    answer = make()
    left, right = panels('targets', answer)
    curves = [line for line in right.get_lines() if len(line.get_xdata()) == 200]
    for target, critical, curve in zip(answer['targets'], left.containers, curves, strict=True):
        assert xy(critical[0]) == [(100 * target['error'], B_CRIT)]
        assert critical[2][0].get_segments()[0][:, 1] == pytest.approx([B_CRIT / 1.2, B_CRIT * 1.2])
        shown, beside = bars(right, f'{100 * target["error"]:.3g} % error'), iter(target['points'])
        for x, *rest in shown:
            point = next(point for point in beside if not point['censored'])
            assert x == pytest.approx(point['batch_size'], rel=0.1)
            assert (x, *rest) == interval(x, point['updates'], 1)
        assert xy(curve) == [(x, pytest.approx((1 + B_CRIT / x) / target['error'] ** 2)) for x in curve.get_xdata()]
    assert [y for _, y in markers(right, 'v')] == [answer['targets'][0]['points'][0]['updates']['value']]
    assert answer['targets'][2]['points'][-1]['updates']['value'] in [y for _, y in markers(right, '^')]
    assert across(left, ':') == {20, 200}
    assert not across(panels('targets', {**answer, 'dataset': 'idx:other'})[0], ':')
    answer['targets'] = [{**target, 'curve': None} for target in answer['targets']]
    assert len(panels('targets', answer)) == 1


def test_an_interval_without_a_bound_ends_in_an_arrow() -> None:
    left, right = panels('targets', unbounded())
    errors = [100 * target['error'] for target in make()['targets']]
    for marker, y, expected in (('v', 0, [errors[0], errors[2]]), ('^', 1, errors[:2])):
        assert [x for x, at in markers(left, marker) if at == y] == expected
    assert left.get_ylim()[1] < 1000
    assert [at for _, at in markers(right, 'v') if at == 0] == [0]
    bare = panels('targets', one_seed())[0]
    assert not [at for marker in 'v^' for _, at in markers(bare, marker) if at in (0, 1)]


def test_the_learning_rates_tried_and_the_best() -> None:
    answer = make()
    panel, _ = panels('learning_rates', answer)
    longest = [row for row in answer['trials'] if row['updates'] == max(2, 2 * N // row['batch_size'])]
    cells = {(row['batch_size'], row['learning_rate']): row['validation_error'] for row in longest}
    squares = panel.collections[0]
    shown = zip(map(tuple, squares.get_offsets()), squares.get_array(), strict=True)
    assert dict(shown) == pytest.approx({at: 100 * error['value'] for at, error in cells.items() if error})
    assert set(markers(panel, 'x')) == {at for at, error in cells.items() if not error}
    rates = answer['learning_rates']['rows']
    for label, rows in (('best ε', rates[:-1]), ('best ε, at the end of what was tried', rates[-1:])):
        assert bars(panel, label) == [interval(row['batch_size'], row, 1) for row in rows]
    assert xy(named(panel, 'fit')) == [(row['batch_size'], row['value']) for row in rates]
    for name, power in (('linear', 1), ('square-root', 0.5)):
        guide = np.log(named(panel, name).get_ydata())
        assert np.diff(guide) == pytest.approx(power * np.diff(np.log(SIZES)))
        assert guide.mean() == pytest.approx(np.mean(np.log([row['value'] for row in rates])))


def test_each_budget_has_its_verdicts_and_what_fresh_seeds_reach() -> None:
    answer = make()
    first = answer['budgets'][0]
    first['recommended'] = {
        **first['recommended'],
        'test_accuracy': first['fresh'][2]['test_accuracy'],
    }  # half the rate
    every = panels('budgets', answer)
    assert [panel.get_title() for panel in every] == ['2 epochs', '100 updates']
    labels = {'best': 'best on validation data', 'as good': 'as good, within 0.1 points'}
    for panel, budget in zip(every, answer['budgets'], strict=True):
        for row in budget['rows']:
            shown = bars(panel, labels.get(row['verdict'], row['verdict']))
            assert shown == [interval(row['batch_size'], row['test_accuracy'])]
        fresh = {c[0].get_marker(): c[0] for c in panel.containers if c.get_label().startswith('fresh')}
        for row in budget['fresh'][1:-1]:
            place = row['batch_size'], 100 * row['test_accuracy']['value']
            assert xy(fresh[answer_figures.FRESH[row['role']][1]]) == [place]
        ring = named(panel, 'recommended')
        x, beside = (each.get_transform().transform((8, 95))[0] for each in (ring, fresh['v']))
        assert (x == beside) == (budget is first)
        assert xy(ring) == [(8, 100 * budget['recommended']['test_accuracy']['value'])]
    heights = [panel.transData.transform((8, accuracy))[1] for accuracy in (90, 95, 97.5)]
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0]) != 0


def test_gaps_of_each_budget_in_points() -> None:
    answer = make()
    (panel,) = panels('gaps', answer)
    for budget, label in zip(answer['budgets'], ('2 epochs', '100 updates'), strict=True):
        assert bars(panel, label) == [interval(row['batch_size'], row['gap']) for row in budget['rows']]


def test_the_noise_scale_stands_beside_b_crit_and_for_mnist_the_published_values() -> None:
    answer = make()
    (panel,) = panels('noise_scale', answer)
    for entry in answer['noise_scale']:
        shown = [(point['examples'], point['noise_scale']['value']) for point in entry['points']]
        assert xy(named(panel, f'batch size {entry["batch_size"]}')) == shown
    assert across(panel, '-') == {B_CRIT}
    assert across(panel, ':') == {50, 900}
    assert panels('noise_scale', unbounded())[0].get_ylim()[1] < 1e5


def test_an_estimate_in_words() -> None:
    for *ends, text in (
        (194.3, 148.0, 1251.0, '190 (150 to 1,300)'),
        (194.3, None, None, '190'),
        (194.3, 0.0, None, '190 (not bounded)'),
        (194.3, 0.0, 251.0, 'below 250 (best fit 190)'),
        (194.3, 148.0, None, 'above 150 (best fit 190)'),
        (-0.1, -0.21, 0.02, '-0.1 (-0.21 to 0.02)'),
    ):
        assert axes.text(dict(zip(('value', 'low', 'high'), ends, strict=True))) == text
