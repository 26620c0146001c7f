"""The figures of an answer (`recommendation.json`): the evidence on which batch size to use."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from bsgap.report import axes, words
from bsgap.report.answer_captions import Json, captions, short

# McCandlish et al. 2018 (1812.06162), for MNIST.
PUBLISHED = {'at the start': {'B_crit': 20, 'B_simple': 50}, 'on average': {'B_crit': 200, 'B_simple': 900}}
UNITS = {'updates': 'updates', 'examples': 'examples ({:,} an epoch)', 'seconds': 'seconds on this device'}
VERDICTS: Json = {
    'best': {'label': 'best on validation data', 'marker': '*', 'markersize': 12, 'color': 'tab:blue'},
    'as good': {'marker': 'o', 'color': 'tab:blue'},
    'undecided': {'marker': 'o', 'color': 'tab:blue', 'markerfacecolor': 'white'},
    'worse': {'marker': 'X', 'color': '0.55'},
}
# By role: what it is called, its marker, and how many steps beside the batch size.
FRESH: Json = {
    **dict.fromkeys(('recommended', 'smaller', 'larger'), ('fresh seeds', 'D', 1)),
    'half the rate': ('fresh seeds, half the ε', 'v', -2),
    'twice the rate': ('fresh seeds, twice the ε', '^', -1),
    'growing': ('fresh seeds, growing batch', 'P', 2),
}


def draw(answer: Json, folder: Path, title: str) -> dict[str, Path]:
    """Draws those of `FIGURES` for which an answer has data; returns the files, by caption."""
    seeds, of = answer['rests_on']['seeds'], captions(answer)
    note = f'{title}; bands and bars: 95 % intervals, {seeds} seeds' if seeds > 1 else f'{title}; one seed'
    return axes.write({name: (of[name], function) for name, function in FIGURES.items()}, answer, folder, note)


def _lengths(answer: Json) -> Figure | None:
    """Error against length, ε tuned at each, with the budgets and the targets."""
    if not answer['curves']:
        return None
    figure, every = axes.panels(len(UNITS), size=(12.5, 4.8), sharey=True)
    errors = [target['error'] for target in answer['targets']]
    for panel, (unit, label) in zip(every, UNITS.items(), strict=True):
        _by_size(panel, answer['curves'], unit, 'error', 100)
        for error in errors:
            panel.axhline(100 * error, color='0.6', linewidth=0.7, zorder=0, label='targets of the critical batch size')
        _mark_budgets(panel, unit, answer)
        panel.set_xlabel(label.format(answer['n']))
    shown = [point['error']['value'] for curve in answer['curves'] for point in curve['points']]
    every[0].set(ylim=axes.limits([100 * error for error in (*shown, *errors)], 1.4), ylabel='validation error (%)')
    for panel in every:
        axes.logarithmic(panel, 'xy')
    return axes.legend(figure)


def _by_size(panel: Axes, lines: Sequence[Json], x: str, y: str, scale: float = 1) -> None:
    """A line for each batch size, coloured by the logarithm of it, with the interval as a band."""
    sizes = [line['batch_size'] for line in lines]
    place_P = np.log(np.divide(sizes, sizes[0])) / max(math.log(sizes[-1] / sizes[0]), 1)
    shades = map(mpl.colors.to_hex, mpl.colormaps['viridis'](0.88 * place_P))
    for line, shade, marker in zip(lines, shades, itertools.cycle(axes.MARKERS), strict=False):
        x_L = np.array([point[x] for point in line['points']], float)
        value_L, low_L, high_L = scale * axes.ends([point[y] for point in line['points']])
        panel.plot(x_L, value_L, color=shade, marker=marker, markersize=4, label=f'batch size {line["batch_size"]}')
        low_L = np.maximum(low_L, value_L / 10)  # a logarithmic axis has no bottom
        panel.fill_between(x_L, low_L, high_L, color=shade, alpha=0.13, linewidth=0)


def _mark_budgets(panel: Axes, unit: str, answer: Json) -> list[tuple[float, Json]]:
    """A line across for each budget in this unit, named above the panel; returns where they are."""
    places = []
    for budget in answer['budgets']:
        own, factor = ('examples', answer['n']) if budget['unit'] == 'epochs' else (budget['unit'], 1)
        if own == unit:
            x = factor * budget['amount']
            panel.axvline(x, color='black', linestyle='--', linewidth=0.9, zorder=1)
            above: Any = {'transform': panel.get_xaxis_transform(), 'ha': 'center', 'fontsize': 9}
            panel.text(x, 1.02, f'budget: {short(budget)}', **above)
            places.append((x, budget))
    return places


def _winners(answer: Json) -> Figure | None:
    """For any budget: a lane for each batch size, coloured where it may be the best, hatched where it has no trials."""
    units = [unit for unit in UNITS if answer['winners'].get(unit)]
    if not units:
        return None
    figure, every = axes.panels(len(units), size=(max(6.5, 4.2 * len(units)), 4.4), sharey=True)
    sizes = sorted({size for unit in units for row in answer['winners'][unit] for size in row['among']})
    edge_P = np.sqrt(np.multiply([sizes[0] ** 2 / sizes[1], *sizes], [*sizes, sizes[-1] ** 2 / sizes[-2]]))
    several = answer['rests_on']['seeds'] > 1
    blue = '#9ecae1' if several else 'white'
    hatched: Any = {'hatch': '////', 'facecolor': 'white', 'edgecolor': '0.75'}
    for panel, unit in zip(every, units, strict=True):
        rows = answer['winners'][unit]
        log_x_G = np.log([row['amount'] for row in rows])
        step = np.diff(log_x_G).min() if len(rows) > 1 else 0.1
        column_G = np.rint((log_x_G - log_x_G[0]) / step).astype(int)  # budgets that no two share have no row
        edge_C = np.exp(log_x_G[0] + step * (np.arange(column_G[-1] + 2) - 0.5))
        is_best_PxC = np.full((len(sizes), column_G[-1] + 1), np.nan)  # NaN where there are no trials
        winner_C = np.full(column_G[-1] + 1, np.nan)
        for row, column in zip(rows, column_G, strict=True):
            winner_C[column] = row['winner']
            for size in row['among']:
                is_best_PxC[sizes.index(size), column] = size in row['best']
        panel.pcolormesh(edge_C, edge_P, is_best_PxC, cmap=ListedColormap(['white', blue]), vmin=0, vmax=1, zorder=0)
        panel.plot(np.repeat(edge_C, 2)[1:-1], np.repeat(winner_C, 2), color='black', linewidth=2.2, label='best')
        panel.patch.set(**hatched)
        panel.grid(False)
        for x, budget in _mark_budgets(panel, unit, answer):
            if budget['recommended']:
                _ring(panel, x, budget['recommended']['batch_size'])
        panel.set(xlabel=UNITS[unit].format(answer['n']), ylim=(edge_P[0], edge_P[-1]))
        axes.logarithmic(panel, 'x')
        axes.batch_sizes(panel, 'y', sizes)
        panel.label_outer()
    if several:
        every[0].fill_between([], [], facecolor=blue, label='best in at least 5 % of draws of seeds')
    every[0].fill_between([], [], label='no trials of this length to compare', **hatched)
    return axes.legend(figure)


def _ring(panel: Axes, x: float, y: float, **place: Any) -> None:
    look: Any = {'marker': 'o', 'markersize': 18, 'markeredgewidth': 1.5, 'color': 'tab:red', 'linestyle': 'none'}
    panel.plot([x], [y], markerfacecolor='none', label='recommended', clip_on=False, **look, **place)


def _targets(answer: Json) -> Figure | None:
    """B_crit against the target, beside the updates from which it follows: S = S_min + E_min/B."""
    targets, several = answer['targets'], answer['rests_on']['seeds'] > 1
    if not targets:
        return None
    looks = list(zip(axes.shades(len(targets)), itertools.cycle('osDPX*'), strict=False))  # triangles have a meaning
    of = zip(targets, looks, strict=True)
    fitted = [(target, look) for target, look in of if target['curve'] and axes.known(target['curve']['b_crit'])]
    figure, (*left, right) = axes.panels(1 + bool(fitted), size=(6.5 + 5 * bool(fitted), 5))
    sizes = sorted({point['batch_size'] for target in targets for point in target['points']})
    shown = [point['updates']['value'] for target in targets for point in target['points']]
    right.set(xlim=axes.limits(sizes, 1.8), yscale='log', ylim=axes.limits(shown, 2), ylabel='updates to the target')
    for place, (target, (shade, marker)) in enumerate(zip(targets, looks, strict=True)):
        beside = 1.06 ** (place - (len(targets) - 1) / 2)  # of four intervals each is seen
        for side, head, name in ((1, '^', 'more than the longest trial'), (-1, 'v', 'fewer than the shortest trial')):
            hollow: Any = {'marker': head, 'markersize': 8, 'markerfacecolor': 'none', 'linestyle': 'none'}
            if rest := [point for point in target['points'] if point['censored'] == side]:
                x = [beside * point['batch_size'] for point in rest]
                right.plot(x, [point['updates']['value'] for point in rest], color=shade, **hollow)
                right.plot([], [], color='grey', label=name, **hollow)
        known = [point for point in target['points'] if not point['censored']]
        look: Any = {'color': shade, 'marker': marker, 'label': f'{100 * target["error"]:.3g} % error'}
        x = [beside * point['batch_size'] for point in known]
        axes.arrows(right, x, [point['updates'] for point in known], several, **look)
        if target['curve']:
            size_G = np.geomspace(*axes.limits(sizes, 1.8), 200)
            s_min, e_min = (target['curve'][name]['value'] or 0 for name in ('s_min', 'e_min'))
            right.plot(size_G, s_min + e_min / size_G, color=shade, linewidth=1, zorder=1)
    axes.batch_sizes(right, 'x', sizes)
    axes.logarithmic(right, 'y')
    for panel in left:
        errors = [100 * target['error'] for target, _ in fitted]
        b_crit = [target['curve']['b_crit'] for target, _ in fitted]
        values = [axes.known(estimate) or 0 for estimate in b_crit]
        ends = [estimate[end] or 0 for estimate in b_crit for end in ('low', 'high')]
        near = [end for end in ends if min(values) / 10 < end < 10 * max(values)]
        published = _published(panel, 'B_crit', answer)
        panel.set(xscale='log', yscale='log', xlim=axes.limits(errors, 1.25)[::-1])
        panel.set_ylim(axes.limits([*values, *near, *published], 1.5))
        for error, estimate, (_, (shade, marker)) in zip(errors, b_crit, fitted, strict=True):
            axes.arrows(panel, [error], [estimate], several, color=shade, marker=marker)
        panel.set(xlabel='target error (%), harder to the right', ylabel='critical batch size B_crit')
        axes.logarithmic(panel, 'xy')
    return axes.legend(figure)


def _published(panel: Axes, name: str, answer: Json) -> list[float]:
    """Lines across for MNIST, named beside the panel; returns where they are."""
    if answer['dataset'] != 'mnist':
        return []
    for when, values in PUBLISHED.items():
        panel.axhline(values[name], color='grey', linestyle=':', label='MNIST, McCandlish et al. 2018', zorder=1)
        beside: Any = {'xycoords': panel.get_yaxis_transform(), 'textcoords': 'offset points', 'va': 'center'}
        panel.annotate(when, (1, values[name]), (3, 0), fontsize=8, color='0.35', **beside)
    return [values[name] for values in PUBLISHED.values()]


def _learning_rates(answer: Json) -> Figure | None:
    """The trials at the length for which the best learning rates are told, else a batch size's longest."""
    cells, rates = pd.DataFrame(answer['trials']), answer['learning_rates']
    if cells.empty:
        return None
    lengths = cells.groupby('batch_size')['updates'].max().to_dict()
    lengths |= {row['batch_size']: row['updates'] for row in rates['rows']}
    cells = cells[cells['updates'] == cells['batch_size'].map(lengths)]
    errors = [error['value'] if error else math.nan for error in cells['validation_error']]
    cells = cells.assign(error=np.clip(np.multiply(100, errors), 1e-4, None))  # an error of 0 has no logarithm
    at = ['batch_size', 'learning_rate']
    cells = cells.groupby(at, as_index=False)['error'].min()  # over momentum, and what else is searched
    figure, (panel,) = axes.panels(1, size=(8.5, 5.6))
    sizes, shown = sorted(set(cells['batch_size'])), list(cells['learning_rate'])  # the best lie between them
    low, high = cells['error'].agg(['min', 'max'])
    if low > 0:
        colours: Any = {'cmap': 'viridis_r', 'norm': LogNorm(low, max(high, 1.1 * low))}
        square: Any = {'s': 110, 'c': 'error', 'marker': 's', 'label': 'trial', **colours}
        panel.scatter(*at, data=cells.dropna(), **square)
        scale = figure.colorbar(mpl.cm.ScalarMappable(**colours), ax=panel, label='validation error (%)')
        axes.logarithmic(scale.ax, 'y')
        scale.minorticks_off()
    if (lost := cells[cells['error'].isna()]).size:
        panel.plot(*at, 'x', data=lost, color='tab:red', markersize=7, label='a run diverged')
    if law := rates['law']:
        x, (value, *band) = [each['batch_size'] for each in law['advice']], axes.ends(law['advice'])
        name = 'ε ∝ B^p' if law['better'] == 'power' else 'ε_max/(1 + B₀/B)'
        panel.plot(x, value, color='black', linewidth=1.8, label=f'fit, {name}', zorder=3)
        panel.fill_between(x, *band, color='black', alpha=0.1, linewidth=0)
        shown += list(value)
    for edge, fill, label in ((False, 'black', 'best ε'), (True, 'white', 'best ε, at the end of what was tried')):
        if rows := [row for row in rates['rows'] if row['edge'] == edge]:
            look: Any = {'fmt': 'o', 'color': 'black', 'markerfacecolor': fill, 'zorder': 4, 'label': label}
            axes.bars(panel, [row['batch_size'] for row in rows], rows, **look)
    if len(rates['rows']) > 1:
        middle = np.exp(np.log([(row['batch_size'], row['value']) for row in rates['rows']]).mean(0))
        axes.rules(panel, sizes, *middle)
    panel.set(xlim=axes.limits(sizes, 1.6), ylim=axes.limits(shown, 1.8), ylabel='learning rate ε')
    axes.batch_sizes(panel, 'x', sizes)
    axes.logarithmic(panel, 'y')
    return axes.legend(figure)


def _budgets(answer: Json) -> Figure | None:
    """Test accuracy with the verdicts, which are told on validation data, and what fresh seeds reach beside it."""
    budgets = [budget for budget in answer['budgets'] if budget['rows']]
    if not budgets:
        return None
    figure, every = axes.panels(len(budgets), size=(max(6.5, 4.6 * len(budgets)), 4.8), sharey=True)
    sizes, shown = _sizes(budgets), list[float]()
    step = np.clip(60 / len(sizes), 7, 14)  # in points of type, so that neighbours stay apart
    for panel, budget in zip(every, budgets, strict=True):
        tests = {row['batch_size']: row['test_accuracy'] for row in budget['rows']}
        panel.plot(list(tests), [100 * test['value'] for test in tests.values()], color='tab:blue', alpha=0.3)
        for verdict, look in VERDICTS.items():
            if alike := [row['batch_size'] for row in budget['rows'] if row['verdict'] == verdict]:
                label = verdict + (verdict == 'as good') * f', within {100 * answer["margin"]:.2g} points'
                look = {'linestyle': 'none', 'markersize': 7, 'label': label, **look}
                axes.bars(panel, alike, [tests[size] for size in alike], 100, **look)
        chosen, place = budget['recommended'], panel.transData
        for row in (row for row in budget['fresh'] if row['test_accuracy']):
            label, marker, beside = FRESH[row['role']]
            look = {'markersize': 6, 'zorder': 3, 'label': label}
            look |= {'transform': offset_copy(panel.transData, figure, beside * step, units='points')}
            axes.bars(panel, [row['batch_size']], [row['test_accuracy']], 100, fmt=marker, color='tab:orange', **look)
            if row['test_accuracy'] == chosen['test_accuracy']:  # fresh seeds changed what is recommended
                place = look['transform']
            shown.append(100 * row['test_accuracy']['value'])
        _ring(panel, chosen['batch_size'], 100 * chosen['test_accuracy']['value'], transform=place)
        shown += [100 * test['value'] for test in tests.values()]
        panel.set_title(words.budget_text(budget), fontsize=10)
        panel.set_xlim(axes.limits(sizes, max(1.8, (sizes[-1] / sizes[0]) ** 0.17)))
        axes.batch_sizes(panel, 'x', sizes)
    axes.by_error(every[0], shown)
    return axes.legend(figure)


def _sizes(budgets: Iterable[Json]) -> list[int]:
    return sorted({row['batch_size'] for budget in budgets for row in budget['rows']})


def _gaps(answer: Json) -> Figure | None:
    budgets = [budget for budget in answer['budgets'] if budget['rows']]
    if not budgets:
        return None
    figure, (panel,) = axes.panels(1, size=(8, 4.8))
    for budget, colour, marker, line in zip(budgets, axes.NAMED, axes.MARKERS, axes.LINES, strict=False):
        sizes, gaps = zip(*((row['batch_size'], row['gap']) for row in budget['rows']), strict=True)
        look: Any = {'color': colour, 'marker': marker, 'linestyle': line, 'label': words.budget_text(budget)}
        axes.bars(panel, sizes, gaps, 100, **look)
    panel.axhline(0, color='grey', linewidth=0.8)
    panel.set(xlim=axes.limits(_sizes(budgets), 1.6), ylabel='train − test accuracy (points)')
    axes.batch_sizes(panel, 'x', _sizes(budgets))
    return axes.legend(figure)


def _noise_scale(answer: Json) -> Figure | None:
    """Means over trials of each length, beside B_crit at the target in the middle."""
    if not answer['noise_scale']:
        return None
    figure, (panel,) = axes.panels(1, size=(8.5, 5))
    _by_size(panel, answer['noise_scale'], 'examples', 'noise_scale')
    shown = [point['noise_scale']['value'] for line in answer['noise_scale'] for point in line['points']]
    shown += _published(panel, 'B_simple', answer)
    critical = answer['numbers'].get('b_crit')
    if critical and critical['value']:
        axes.across(panel, 'y', critical, f'B_crit: {axes.text(critical)}')
        # One that the data don't bound may be anywhere.
        shown.append(np.clip(critical['value'], min(shown) / 30, 30 * max(shown)))
    panel.set(xlabel='examples of a trial', ylabel='noise scale tr Σ/‖G‖² (examples)', ylim=axes.limits(shown, 1.5))
    axes.logarithmic(panel, 'xy')
    return axes.legend(figure)


_IN_ORDER = (_lengths, _winners, _targets, _learning_rates, _budgets, _gaps, _noise_scale)
FIGURES = {function.__name__[1:]: function for function in _IN_ORDER}
