"""The figures of an answer (`recommendation.json`): the evidence on which batch size to use."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from bsgap.analysis.trials import SETTING
from bsgap.config import task
from bsgap.report import axes, words
from bsgap.report.numbers import bounds, number

Json = Mapping[str, Any]
UNITS = {'updates': 'updates', 'examples': 'examples ({:,} an epoch)', 'seconds': 'seconds on this device'}
# What fresh seeds of a role have besides another batch size.
FRESH = {'half the rate': ', half the rate', 'twice the rate': ', twice the rate', 'growing': ', growing batch'}


def draw(answer: Json, folder: Path, title: str) -> dict[str, str]:
    """Draws those of `FIGURES` for which an answer has data; returns each as SVG, by caption."""
    seeds = answer['rests_on']['seeds']
    note = f'{title}; bands and bars: 95 % intervals, {seeds} seeds' if seeds > 1 else f'{title}; one seed'
    return axes.write(FIGURES, answer, folder, note)


def _lengths(answer: Json) -> Figure | None:
    """Error against length, ε tuned at each."""
    if not answer['curves']:
        return None
    figure, every = axes.panels(len(UNITS), height=3.6, sharey=True)
    scale = task(answer['task']).scale
    for panel, unit in zip(every, UNITS, strict=True):
        _by_size(panel, answer['curves'], unit, 'error', scale)
        _length(panel, unit, answer, scale)
    shown = [scale * point['error']['value'] for curve in answer['curves'] for point in curve['points']]
    every[0].set(ylim=axes.limits(shown, 1.4), ylabel=_error_text(answer))
    axes.logarithmic(every[0], 'y')
    return axes.legend(figure)


def _error_text(answer: Json) -> str:
    of = task(answer['task'])
    return f'validation {of.error}' + ' (%)' * of.is_share


def _by_size(panel: Axes, lines: Sequence[Json], x: str, y: str, scale: float = 1) -> None:
    """A line for each batch size."""
    for line, marker in zip(lines, itertools.cycle(axes.MARKERS), strict=False):
        at, estimates = zip(*((point[x], point[y]) for point in line['points']), strict=True)
        colour = axes.of_size(line['batch_size'])
        look, name = {'color': colour, 'marker': marker, 'markevery': 1}, f'batch size {line["batch_size"]}'
        if has_room := len(lines) <= axes.MOST_ENDS:
            axes.name_end(panel, at[-1], scale * estimates[-1]['value'], name, colour)
        axes.line(panel, at, estimates, scale, label=None if has_room else name, **look)


def _length(panel: Axes, unit: str, answer: Json, scale: float = 0) -> None:
    """The axis of a unit of length, with the budgets in it, and a ring about what is recommended for each, if errors
    are drawn, times `scale`; to be called when all is drawn."""
    for budget in answer['budgets']:
        own, factor = ('examples', answer['n']) if budget['unit'] == 'epochs' else (budget['unit'], 1)
        if own == unit:
            x, text = factor * budget['amount'], words.budget_text(budget).removesuffix(' on this device')
            panel.axvline(x, color='black', linestyle='--', linewidth=0.9, zorder=1)
            panel.text(x, 1.02, f'budget: {text}', transform=panel.get_xaxis_transform(), ha='center', fontsize=8)
            best = (budget['recommended'] or {}).get('batch_size')
            for line in answer['curves'] if scale else ():
                if line['batch_size'] == best:
                    at, error = np.log([(point[unit], point['error']['value']) for point in line['points']]).T
                    ring: Any = {'markersize': 13, 'markerfacecolor': 'none', 'markeredgewidth': 1.5, 'color': 'black'}
                    panel.plot(x, scale * np.exp(np.interp(np.log(x), at, error)), 'o', **ring)
    panel.set_xlabel(UNITS[unit].format(answer['n']))
    axes.logarithmic(panel, 'x')


def _winners(answer: Json) -> Figure | None:
    """A lane for each batch size, over the budgets of which all have trials: wide where it may be the best."""
    units = [unit for unit in UNITS if answer['winners'].get(unit)]
    if not units:
        return None
    figure, every = axes.panels(len(units), height=3.2, sharey=True)
    sizes = [curve['batch_size'] for curve in answer['curves']]
    lanes = [('best', 'best in at least 5 % of draws of seeds', '#9ecae1', 10)] * (answer['rests_on']['seeds'] > 1)
    for panel, unit in zip(every, units, strict=True):
        for key, label, colour, height in (*lanes, ('winner', 'best', 'black', 5)):
            places = [(row['amount'], size) for row in answer['winners'][unit] for size in np.ravel(row[key])]
            look: Any = {'marker': '|', 'markersize': height, 'markeredgewidth': 6.5, 'linestyle': ''}
            panel.plot(*zip(*places, strict=True), color=colour, label=label, **look)
        _length(panel, unit, answer)
        axes.batch_sizes(panel, 'y', sizes)
        panel.label_outer()
    every[0].set_ylim(axes.limits(sizes, 1.6))
    return axes.legend(figure)


def _targets(answer: Json) -> Figure | None:
    """S = S_min + E_min/B through the updates; what is censored is known to be more, or fewer."""
    if not (targets := answer['targets']):
        return None
    figure, (panel,) = axes.panels(1, height=4.6)
    of, sizes = task(answer['task']), [point['batch_size'] for point in targets[0]['points']]
    shown = [point['updates']['value'] for target in targets for point in target['points']]
    panel.set(ylim=axes.limits(shown, 2), ylabel='updates to the target')
    size_G = np.geomspace(*axes.limits(sizes, 1.8), 300)
    hollow: Any = {'markersize': 9, 'markerfacecolor': 'none'}
    wide: Any = {'linewidth': 8, 'alpha': 0.35, 'solid_capstyle': 'butt', 'zorder': 1}
    # An end that is not known, or 0, lies beyond the axis, unless there are no intervals.
    ends = {'low': 1e-6, 'high': 1e12} if answer['rests_on']['seeds'] > 1 else {}
    for i, (target, look) in enumerate(zip(targets, axes.ordered(len(targets)), strict=True)):
        colour, curve = look['color'], target['curve']
        beside = 1.06 ** (i - (len(targets) - 1) / 2)  # so that each interval is seen
        at = {side: [point for point in target['points'] if point['censored'] == side] for side in (-1, 0, 1)}
        for side, head, name in ((1, '^', 'more than the longest trial'), (-1, 'v', 'fewer than the shortest trial')):
            x = [beside * point['batch_size'] for point in at[side]]
            panel.plot(x, [point['updates']['value'] for point in at[side]], head, color=colour, **hollow)
            panel.plot([], [], head, color='grey', label=name if x else None, **hollow)
        updates = [ends | {end: value for end, value in point['updates'].items() if value} for point in at[0]]
        label = f'{of.scale * target["error"]:.3g}{" %" * of.is_share} {of.error}: '
        label += f'B_crit {bounds(curve["b_crit"], sizes)}' if curve else 'B_crit not known'
        axes.bars(panel, [beside * point['batch_size'] for point in at[0]], updates, linestyle='', label=label, **look)
        if curve:
            curve_G = (curve['s_min']['value'] or 0) + (curve['e_min']['value'] or 0) / size_G
            panel.plot(size_G, curve_G, color=colour, linewidth=1, zorder=1)
            _, low, high = axes.ends([curve['b_crit']])
            within_G = (size_G >= low) & (size_G <= high)
            panel.plot(size_G[within_G], curve_G[within_G], color=colour, **wide)
            panel.plot([], [], color='grey', label='interval of B_crit' if within_G.any() else None, **wide)
    axes.batch_sizes(panel, 'x', sizes)
    panel.set_xlim(size_G[0], size_G[-1])
    axes.logarithmic(panel, 'y')
    middle = targets[len(targets) // 2]['curve']
    if middle and (critical := middle['b_crit']['value']) and 12 * sizes[0] < critical < sizes[-1] / 12:
        regions = size_G[0], critical / 3, 3 * critical, size_G[-1]
        said = 'twice the batch, half the updates', 'larger batches pay less and less', 'larger batches waste data'
        for (low, high), text in zip(itertools.pairwise(regions), said, strict=True):
            place: Any = {'transform': panel.get_xaxis_transform(), 'ha': 'center', 'fontsize': 8, 'color': '#555555'}
            panel.text(math.sqrt(low * high), 1.02, text, **place)
            panel.axvline(high, color='#bbbbbb', linewidth=0.8, zorder=0)
    return axes.legend(figure)


def _learning_rates(answer: Json) -> Figure | None:
    """The trials at the length for which the best learning rates are told, else a batch size's longest."""
    cells, rates = pd.DataFrame(answer['trials']), answer['learning_rates']
    if cells.empty:
        return None
    lengths = cells.groupby('batch_size')['updates'].max().to_dict()
    lengths |= {row['batch_size']: row['updates'] for row in rates['rows']}
    cells = cells[cells['updates'] == cells['batch_size'].map(lengths)]
    scale = task(answer['task']).scale
    errors = [scale * max(error['value'], 1e-6) if error else None for error in cells['validation_error']]
    at = ['batch_size', 'learning_rate']
    tried = cells.assign(error=np.array(errors, float)).groupby(at, as_index=False)['error'].min()  # over momentum
    lost, cells = tried[tried['error'].isna()], tried.dropna()
    figure, (panel,) = axes.panels(1, height=4.8)
    if len(cells):
        low, high = cells['error'].min(), cells['error'].max()
        colours: Any = {'cmap': 'viridis_r', 'norm': LogNorm(low, max(high, 1.1 * low))}
        colours |= {'s': 110, 'c': 'error', 'marker': 's', 'label': 'trial'}
        squares = panel.scatter(*at, data=cells, **colours)
        axes.logarithmic(figure.colorbar(squares, label=_error_text(answer)).ax, 'y')
    panel.plot(*at, 'x', data=lost, color='tab:red', markersize=7, label='a run diverged' if len(lost) else None)
    if law := rates['law']:
        fit = f'∝ B^{law["exponent"]["value"]:.2g}'
        if law['better'] == 'saturating' and law['maximum']['value'] and law['b_0']['value']:
            fit = f'{number(law["maximum"]["value"])} / (1 + {number(law["b_0"]["value"])}/B)'
        x = [each['batch_size'] for each in law['advice']]
        axes.line(panel, x, law['advice'], color='black', label=f'fit: {fit}', zorder=3)
    if rows := rates['rows']:
        best: Any = {'fmt': 'o', 'color': 'black', 'zorder': 4, 'label': 'best ε'}
        axes.bars(panel, [row['batch_size'] for row in rows], rows, **best)
    if len(rows) > 1:
        axes.rules(panel, sorted(lengths), *np.exp(np.log([(row['batch_size'], row['value']) for row in rows]).mean(0)))
    panel.set(xlim=axes.limits(lengths, 1.6), ylim=axes.limits(tried['learning_rate'], 1.8), ylabel='learning rate ε')
    axes.batch_sizes(panel, 'x', lengths)
    axes.logarithmic(panel, 'y')
    return axes.legend(figure)


def _budgets(answer: Json) -> Figure | None:
    """A row for what each batch size and each setting of fresh seeds reach within a budget."""
    if not (budgets := [budget for budget in answer['budgets'] if budget['rows']]):
        return None
    of = task(answer['task'])
    shown = [[*budget['rows'], *(row for row in budget['fresh'] if row['test_score'])] for budget in budgets]
    height = 0.75 + 0.22 * max(map(len, shown))
    figure, every = axes.panels(2 * len(budgets), 2, height=height, sharex='col', sharey='row')
    for budget, rows, left, right in zip(budgets, shown, every[::2], every[1::2], strict=True):
        for y, row in enumerate(rows):
            look = {'fmt': 'D' if 'role' in row else 'o', 'color': axes.of_size(row['batch_size'])}
            axes.bars(left, [y], [_error(row['test_score'])], of.scale, is_flat=True, **look)
            if 'gap' in row:
                axes.bars(right, [y], [row['gap']], of.scale, is_flat=True, **look)
        left.set_yticks(range(len(rows)), [_contender(row, budget) for row in rows])
        left.set_title(words.budget_text(budget), fontsize=10)
        left.set(ylim=(len(rows) - 0.5, -0.5), ylabel='batch size')
        right.axvline(0, color='grey', linewidth=0.8)
    axes.logarithmic(left, 'x')
    left.xaxis.set_major_formatter(lambda error, _: f'{of.scale - error:.6g}')
    left.invert_xaxis()
    left.set_xlabel(f'test {of.text}{" (%)" * of.is_share}, {of.error} on a log scale')
    right.set_xlabel(f'generalization gap: train − test {of.text}{" (points)" * of.is_share}')
    return figure


def _error(score: Json) -> Json:
    ends = {'value': score['value'], 'low': score['high'], 'high': score['low']}
    return {end: None if value is None else max(1 - value, 1e-4) for end, value in ends.items()}


def _contender(row: Json, budget: Json) -> str:
    """What a row is; fresh seeds may have changed what is recommended."""
    chosen, is_fresh = budget['recommended'], 'role' in row
    is_it = is_fresh == bool(budget['first_thought']) and all(row[field] == chosen[field] for field in SETTING)
    what = 'fresh seeds' + FRESH.get(row['role'], '') if is_fresh else row['verdict']
    return f'{row["batch_size"]}, {what}' + ' (recommended)' * is_it


def _noise_scale(answer: Json) -> Figure | None:
    """Means over trials of each length, beside B_crit at the target in the middle."""
    if not (lines := answer['noise_scale']):
        return None
    figure, (panel,) = axes.panels(1, height=4.4)
    _by_size(panel, lines, 'examples', 'noise_scale')
    shown = [point['noise_scale']['value'] for line in lines for point in line['points']]
    if value := answer['numbers'].get('b_crit', {}).get('value'):
        panel.axhline(value, color='tab:red', linestyle='--', label=f'critical batch size {number(value)}')
        shown.append(np.clip(value, min(shown) / 10, 10 * max(shown)))  # one that has no bound may be anywhere
    panel.set(xlabel='examples of a trial', ylabel='noise scale tr Σ/‖G‖² (examples)', ylim=axes.limits(shown, 1.5))
    axes.logarithmic(panel, 'xy')
    return axes.legend(figure)


FIGURES: axes.Figures = {
    'lengths': (
        'At each budget (dashed) the ring is what is recommended: no other is shown to have a lower error',
        _lengths,
    ),
    'winners': ('Which batch size is best for a budget (dark), and which may be (pale)', _winners),
    'targets': (
        'Below the critical batch size B_crit twice the batch halves the updates; beyond it, it saves few',
        _targets,
    ),
    'learning_rates': (
        'The best learning rate ε (black) by batch size, beside the linear and the square-root rule (red)',
        _learning_rates,
    ),
    'budgets': (
        'What each batch size reaches within each budget, and its gap; verdicts are of validation data',
        _budgets,
    ),
    'noise_scale': (
        'The gradient noise scale grows with training; by theory it is about the critical batch size',
        _noise_scale,
    ),
}
