"""Which figures an answer gives, that what they show is what it says, and that all of it can be seen."""

import collections
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from bsgap.report import answer_figures

Json = dict[str, Any]
SIZES, N, B_CRIT = (8, 32, 128, 512), 10000, 60.0
UNITS = {'epochs': 2.0, 'updates': 100, 'seconds': 12.345}
NONE = {'low': None, 'high': None}
REST = {'momentum': 0.0, 'weight_decay': 0.0, 'beta2': 0.999}
NOT_FOUND: Json = {
    'task': 'classification',
    'winners': {},
    'targets': [],
    'numbers': {},
    'learning_rates': {'rows': [], 'law': None},
}
NOTHING = NOT_FOUND | {'curves': [], 'budgets': [], 'trials': [], 'noise_scale': [], 'rests_on': {'seeds': 3}}


def estimate(value: float, factor: float = 1.2) -> Json:
    return {'value': value, 'low': value / factor, 'high': value * factor}


def make(sizes: tuple[int, ...] = SIZES, units: tuple[str, ...] = ('epochs', 'updates')) -> Json:
    """An answer of 3 seeds in which the squared error after S updates is ∝ (1 + B_crit/B)/S; 2 best ε diverges."""
    every: dict[str, list[Any]] = collections.defaultdict(list)
    for size, verdict in zip(sizes, ('best', 'as good', 'undecided', *['worse'] * len(sizes)), strict=False):
        at, rate, points = {'batch_size': size}, 0.5 / (1 + 30 / size), []
        for updates in (max(2, 2 * N // size) * 2**i for i in range(-4, 1)):
            error = 2 * ((1 + B_CRIT / size) / updates) ** 0.5 / 3
            length = {'updates': updates, 'examples': updates * size, 'seconds': updates * (1e-4 + 1e-6 * size)}
            points.append({**length, 'error': estimate(error), 'noise_scale': estimate(50 + size**0.5)})
            for factor, found in ((0.5, estimate(1.5 * error)), (1, estimate(error)), (2, None)):
                every['trials'].append({**at, **length, 'learning_rate': factor * rate, 'validation_error': found})
        accuracy = estimate(0.99 - error, 1.002)
        setting = {**at, 'learning_rate': rate, **REST}
        every['rows'].append({**setting, 'verdict': verdict, 'test_score': accuracy, 'gap': estimate(error / 3)})
        every['curves'].append({**at, 'points': points})
        every['rates'].append({**at, 'updates': updates, **estimate(rate)})
    first, last = (every['rows'][i] | {'role': 'smaller', 'test_score': None} for i in (0, -1))
    for role, factor in (('recommended', 1), ('half the rate', 0.5), ('twice the rate', 2), ('growing', 1)):
        rate, score = factor * first['learning_rate'], estimate(0.95 + len(every['fresh']) / 1e3, 1.003)
        every['fresh'].append({**first, 'role': role, 'learning_rate': rate, 'test_score': score})
        del every['fresh'][-1]['gap']
    every['fresh'].append(last)
    reached = {'rows': every['rows'], 'fresh': every['fresh'], 'recommended': every['rows'][0], 'first_thought': None}
    for error in (0.106, 0.0906, 0.0773):
        points = [{'batch_size': b, 'updates': estimate((1 + B_CRIT / b) / error**2), 'censored': 0} for b in sizes]
        curve = {'s_min': estimate(error**-2), 'e_min': estimate(B_CRIT / error**2), 'b_crit': estimate(B_CRIT)}
        every['targets'].append({'error': error, 'points': points, 'curve': curve})
    every['targets'][0]['points'][0]['censored'], every['targets'][2]['points'][-1]['censored'] = -1, 1
    won = {'winner': sizes[-1], 'best': sizes[-1:]}
    lanes = [{'amount': 50 * 1.1**i, **won} for i in range(9)]
    law = {'better': 'saturating', 'maximum': estimate(0.5), 'b_0': estimate(30.0), 'exponent': estimate(0.5)}
    answer: Json = {'task': 'classification', **every, 'noise_scale': every['curves'], 'n': N, 'rests_on': {'seeds': 3}}
    answer['budgets'] = [{'unit': unit, 'amount': UNITS[unit], **reached} for unit in units]
    answer['winners'] = dict.fromkeys(('updates', 'examples', 'seconds'), lanes)
    answer['learning_rates'] = {'rows': every['rates'], 'law': {**law, 'advice': every['rates']}}
    return answer | {'numbers': {'b_crit': estimate(B_CRIT)}}


def one_seed() -> Json:
    text = re.sub(r'"(low|high)": [^,}]+', r'"\1": null', json.dumps(make(units=('seconds',))))
    return {**json.loads(text), 'rests_on': {'seeds': 1}}


def unbounded() -> Json:
    answer = make()
    _, above, below = (target['curve'] for target in answer['targets'])
    answer['targets'][0]['curve'] = None
    above |= {'b_crit': {**NONE, 'value': None, 'low': 300.0}, 's_min': {**NONE, 'value': None}}
    below['b_crit']['low'] = None
    answer['targets'][1]['points'][1]['updates'] |= NONE
    answer['numbers']['b_crit'] = {**estimate(6e6), 'high': None}
    return answer


ALL, ALONE = set(answer_figures.FIGURES), {'lengths', 'learning_rates', 'budgets', 'noise_scale'}
CASES: dict[str, tuple[Callable[[], Json], set[str]]] = {
    'one seed, one budget': (one_seed, ALL),
    'one batch size': (lambda: make((8,)) | NOT_FOUND, ALONE),
    'no bounds': (unbounded, ALL),
    'batch sizes from 1 to 60,000': (lambda: make((*(2**i for i in range(16)), 60000), tuple(UNITS)), ALL),
    'all diverged': (lambda: NOTHING | {'trials': make()['trials'][2::3]}, {'learning_rates'}),
    'nothing': (lambda: NOTHING, set()),
}


def panels(name: str, answer: Json) -> Any:
    return answer_figures.FIGURES[name][1](answer).axes


def lines(panel: Any) -> dict[str, Any]:
    """Points of the lines that have data, by label."""
    return {str(line.get_label()): xy(line) for line in panel.get_lines() if len(line.get_xdata())}


def xy(line: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def found_at(x: float, line: Any) -> float:
    """y of a line, whose points are those of a power law, at x."""
    at, y = np.log(np.transpose(line.get_xydata()))
    return float(np.exp(np.interp(np.log(x), at, y)))


def bars(panel: Any, label: str = '_') -> list[Any]:
    """Of error bars so named x, y and the ends of their intervals, by point."""
    found = [each for each in panel.containers if each.get_label().startswith(label)]
    pairs = [pair for each in found for pair in zip(xy(each[0]), each[2][0].get_segments(), strict=True)]
    return [pytest.approx((*point, *span[:, np.ptp(span, axis=0).argmax()])) for point, span in pairs]


@pytest.mark.parametrize('case', CASES)
def test_every_answer_is_drawn_whole(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No text lies over another or leaves the figure, and every point lies in its panel."""
    (make_answer, expected), found, written = CASES[case], dict[str, Figure](), list[Text]()
    monkeypatch.setattr(Text, 'draw', lambda text, _: written.append(text))
    monkeypatch.setattr(
        Figure, 'savefig', lambda figure, path, **_: found.update({getattr(path, 'stem', 'svg'): figure})
    )
    answer_figures.draw(make_answer(), tmp_path, 'mnist, MLP 256-256, sgd')
    found.pop('svg', None)  # is one of the others
    assert set(found) == expected
    for name, figure in found.items():
        written.clear()
        figure.draw_without_rendering()
        shown = (text for text in written if text.get_visible() and text.get_text() and text.get_gid() != 'title')
        boxes = [(text, text.get_window_extent()) for text in shown]
        assert len(boxes) > 6
        assert all(figure.bbox.contains(*corner) for _, box in boxes for corner in (box.p0, box.p1)), name
        for (text, box), (other, beside) in itertools.combinations(boxes, 2):
            is_apart = not box.padded(-1).overlaps(beside.padded(-1))
            assert is_apart or text.get_rotation() == other.get_rotation() == 60, (name, text, other)
        for line in itertools.chain.from_iterable(panel.get_lines() for panel in figure.axes):
            shown = line.get_transform().transform(np.asarray(line.get_xydata(), float))
            is_inside = all(line.axes.bbox.padded(1).contains(x, y) for x, y in shown)
            assert is_inside or line.get_marker() in ('None', '_'), (name, line.get_label())


def test_error_against_each_unit_of_length_and_the_noise_scale_beside_b_crit() -> None:
    answer = make(units=tuple(UNITS))
    every = panels('lengths', answer)
    for panel, unit, budget in zip(every, ('updates', 'examples', 'seconds'), (100, 2 * N, 12.345), strict=True):
        *shown, mark, ring = panel.get_lines()
        for line, curve, band in zip(shown, answer['curves'], panel.collections, strict=True):
            points, edge = curve['points'], set(np.round(band.get_paths()[0].vertices[:, 1], 6))
            assert xy(line) == [(point[unit], pytest.approx(100 * point['error']['value'])) for point in points]
            assert edge == {round(100 * end, 6) for point in points for end in [*point['error'].values()][1:]}
        named = {text.get_text(): text for text in panel.texts if text.get_gid() == 'end'}
        assert [*named] == [f'batch {size}' for size in SIZES]
        assert [text.get_color() for text in named.values()] == [line.get_color() for line in shown]
        assert len({line.get_color() for line in shown}) == len(SIZES)
        assert xy(mark) == [(budget, 0), (budget, 1)]
        assert xy(ring) == [(budget, pytest.approx(found_at(budget, shown[0])))]  # batch size 8 is recommended
    panel = panels('noise_scale', answer)[0]
    shown = lines(panel)
    assert {y for _, y in xy(panel.get_lines()[0])} == {50 + 8**0.5}
    assert shown['critical batch size 60'] == [(0, B_CRIT), (1, B_CRIT)]


def test_lanes_show_who_wins_and_who_may() -> None:
    answer = make()
    (rows := answer['winners']['updates'])[4].update({'winner': 32, 'best': [32, 512]})
    may, best, _ = panels('winners', answer)[0].get_lines()
    for line, key in ((may, 'best'), (best, 'winner')):
        assert xy(line) == [(row['amount'], size) for row in rows for size in np.ravel(row[key])]
    assert best.get_markersize() < may.get_markersize()
    assert next(iter(lines(panels('winners', one_seed())[0]))) == 'best'


def within(panel: Any) -> list[list[tuple[float, float]]]:
    return [xy(line) for line in panel.get_lines() if line.get_linewidth() == 8 and len(line.get_xdata())]


def test_the_updates_to_each_target_and_where_b_crit_is_on_their_curve() -> None:
    answer = make()
    (panel,) = panels('targets', answer)
    curves, hollow = ([xy(line) for line in panel.get_lines() if len(line.get_xdata()) == n] for n in (300, 1))
    for target, curve, part in zip(answer['targets'], curves, within(panel), strict=True):
        known = [point for point in target['points'] if not point['censored']]
        shown = bars(panel, f'{100 * target["error"]:.3g} % error: B_crit 60 (50 to 72)')
        assert shown == [(bar.expected[0], *point['updates'].values()) for bar, point in zip(shown, known, strict=True)]
        assert [bar.expected[0] for bar in shown] == pytest.approx([point['batch_size'] for point in known], rel=0.1)
        assert curve == [(x, pytest.approx((1 + B_CRIT / x) / target['error'] ** 2)) for x, _ in curve]
        assert part == [(x, y) for x, y in curve if 50 <= x <= 72]
    censored = answer['targets'][0]['points'][0], answer['targets'][2]['points'][-1]
    assert [y for ((_, y),) in hollow] == [point['updates']['value'] for point in censored]
    assert [each.get_marker() for each in panel.get_lines() if len(each.get_xdata()) == 1] == ['v', '^']


def test_what_has_no_bound_goes_on_beyond_the_axis_and_says_so() -> None:
    panel, bare = (panels('targets', of())[0] for of in (unbounded, one_seed))
    said = [container.get_label().partition(': ')[2] for container in panel.containers]
    assert said == ['B_crit not known', 'B_crit above 300', 'B_crit 60 (at most 72)']
    *_, low, high = bars(panel, '9.06 % error')[1].expected
    assert 0 < low < panel.get_ylim()[0] < panel.get_ylim()[1] < high
    assert panels('noise_scale', unbounded())[0].get_ylim()[1] < 2000
    span = [x for part in within(panel) for x, _ in (part[0], part[-1])]
    assert span == pytest.approx([300, 512 * 1.8, 8 / 1.8, 72], rel=0.03)
    shown = [bar.expected for bar in bars(bare, '9.06 % error: B_crit 60 (no interval)')]
    assert ([low == high for *_, low, high in shown], within(bare)) == ([True] * len(SIZES), [])


def test_the_learning_rates_tried_and_the_best() -> None:
    answer = make()
    rates = answer['learning_rates']
    rates['rows'][0]['updates'] //= 2  # the budget is shorter than this batch size's longest trial
    panel, _ = panels('learning_rates', answer)
    squares, lengths = panel.collections[0], {row['batch_size']: row['updates'] for row in rates['rows']}
    told = [row for row in answer['trials'] if row['updates'] == lengths[row['batch_size']]]
    errors = {(row['batch_size'], row['learning_rate']): row['validation_error'] for row in told}
    shown = dict(zip(map(tuple, squares.get_offsets()), squares.get_array(), strict=True))
    assert shown == pytest.approx({at: 100 * error['value'] for at, error in errors.items() if error})
    assert lines(panel)['a run diverged'] == [at for at, error in errors.items() if not error]
    assert bars(panel, 'best ε') == [(row['batch_size'], *(row[end] for end in estimate(1))) for row in rates['rows']]
    assert lines(panel)['fit: 0.5 / (1 + 30/B)'] == [(row['batch_size'], row['value']) for row in rates['rows']]
    middle = np.log([(row['batch_size'], row['value']) for row in rates['rows']]).mean(0)
    for name, power in (('linear rule', 1), ('square-root rule', 0.5)):
        size_P, rate_P = (np.log(lines(panel)[name]) - middle).T
        assert rate_P == pytest.approx(power * size_P)
    rates['law']['better'] = 'power'
    assert 'fit: ∝ B^0.5' in lines(panels('learning_rates', answer)[0])


def test_each_budget_has_its_verdicts_what_fresh_seeds_reach_and_the_gaps() -> None:
    answer = make()
    first = answer['budgets'][0]
    first['recommended'], first['first_thought'] = first['fresh'][1], first['recommended']  # by fresh seeds
    tests, gaps, others, _ = panels('budgets', answer)
    names = ['8, best', '32, as good', '128, undecided', '512, worse', '8, fresh seeds']
    names += [f'8, fresh seeds, {role}' for role in ('half the rate', 'twice the rate', 'growing batch')]
    for panel, *expected, chosen in ((tests, '2 epochs', *names, 6), (others, '100 updates', *names, 1)):
        expected[chosen] += ' (recommended)'
        assert [panel.get_title(), *(label.get_text() for label in panel.get_yticklabels())] == expected
    for y, (row, shown) in enumerate(zip([*first['rows'], *first['fresh'][:-1]], bars(tests), strict=True)):
        value, high, low = (100 * max(1 - end, 1e-4) for end in row['test_score'].values())
        assert shown == (value, y, low, high)
    for row in [*first['rows'], *first['fresh'][:-1]]:
        row['test_score'] = estimate(1.0, 1.0)  # as where every example is right: that says nothing of which is which
    for panel in panels('budgets', answer)[::2]:
        chosen = [i for i, label in enumerate(panel.get_yticklabels()) if 'recommended' in label.get_text()]
        assert chosen == [5 if panel.get_title() == '2 epochs' else 0]
    assert (tests.xaxis_inverted(), tests.xaxis.get_major_formatter()(2, None)) == (True, '98')
    shares = [np.multiply(100, [*row['gap'].values()]) for row in first['rows']]
    assert bars(gaps) == [(share[0], y, *share[1:]) for y, share in enumerate(shares)]
