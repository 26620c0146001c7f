"""The figures of an answer (`recommendation.json`): the evidence on which batch size to use."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from bsgap.report import axes, words

# McCandlish et al. 2018 (1812.06162), for MNIST.
PUBLISHED = {'at the start': {'B_crit': 20, 'B_simple': 50}, 'on average': {'B_crit': 200, 'B_simple': 900}}


def draw(answer: Mapping[str, Any], folder: Path, title: str) -> dict[str, Path]:
    """Draws those of `FIGURES` for which an answer has data; returns the files, by caption."""
    seeds = answer['rests_on']['seeds']
    note = f'{title}; 95 % intervals, {seeds} seeds' if seeds > 1 else title
    figures = {name: (caption.format(target=_target(answer)), drawn) for name, (caption, drawn) in FIGURES.items()}
    return axes.write(figures, answer, folder, note)


def _target(answer: Mapping[str, Any]) -> str:
    error = answer['target']['error']
    return 'the target' if error is None else f'{100 * error:.3g} %'


def _updates_to_target(answer: Mapping[str, Any]) -> Figure | None:
    """S = S_min (1 + B_crit/B) and E = B S, which are (S/S_min − 1)(E/E_min − 1) = 1 (McCandlish et al. 2018, 2.3)."""
    entries = answer['to_target']
    if not entries:
        return None
    figure, (left, right) = axes.panels(2, size=(10, 5.2))
    sizes, shown = [entry['batch_size'] for entry in entries], []
    for entry, shade in zip(entries, axes.shades(len(entries)), strict=True):
        size, made_R = entry['batch_size'], [run['updates'] or run['made'] for run in entry['runs']]
        for run, made in zip(entry['runs'], made_R, strict=True):
            left.plot([size], [made], **_look(run, shade))
            right.plot([made], [size * made], **_look(run, shade))
            shown.append((made, size * made))
        middle = np.exp(np.mean(np.log(made_R)))
        right.annotate(str(size), (middle, size * middle), (7, 7), textcoords='offset points', fontsize=8, color='0.3')
    updates_P, examples_P = np.transpose(shown)
    left.set(xlim=axes.limits(sizes, 1.6), ylim=axes.limits(updates_P, 2))
    right.set(xlim=axes.limits(updates_P, 2), ylim=axes.limits(examples_P, 2))
    if answer['curve']:
        _hyperbola(left, right, answer['curve'], sizes)
    looks = {run['updates'] is not None: _look(run, 'grey') for entry in entries for run in entry['runs']}
    for reached, label in ((True, 'one run'), (False, 'not reached in the updates made')):
        if reached in looks:
            left.plot([], [], label=label, **looks[reached])
    left.set_ylabel(f'updates S to {_target(answer)} validation error')
    right.set(xlabel='updates S', ylabel='examples E')
    right.set_title('numbers: batch size', fontsize=8, color='0.3', loc='right')
    axes.batch_sizes(left, 'x', sizes)
    axes.logarithmic(left, 'y')
    axes.logarithmic(right, 'xy')
    return axes.legend(figure)


def _look(run: Mapping[str, Any], shade: str) -> dict[str, Any]:
    """An upward open triangle for a run that would have needed more."""
    look = {'color': shade, 'marker': 'o', 'markersize': 5, 'linestyle': 'none'}
    return look if run['updates'] is not None else {**look, 'marker': '^', 'markersize': 8, 'markerfacecolor': 'none'}


def _hyperbola(left: Axes, right: Axes, curve: Mapping[str, Any], sizes: Sequence[int]) -> None:
    """The fit with its asymptotes and regimes, inside the limits that the axes have.

    Its band goes from both parameters' low ends to both high ends: too wide rather than too narrow, for the answer
    does not tell how the two errors depend on one another. Scaling is perfect where the examples are at most 10 % above
    E_min, and the curve is flat where the updates are at most 10 % above S_min.
    """
    (s_min, *s_ends), (e_min, *e_ends) = axes.ends([curve['s_min'], curve['e_min']]).T
    size_P = np.geomspace(min(sizes) / 1.6, 1.6 * max(sizes), 200)
    S_P = s_min + e_min / size_P
    left.plot(size_P, S_P, color='black', label='fit, (S/S_min − 1)(E/E_min − 1) = 1', zorder=1)
    right.plot(S_P, size_P * S_P, color='black', zorder=1)
    if np.isfinite([s_ends, e_ends]).all():
        low_P, high_P = (s + e / size_P for s, e in zip(s_ends, e_ends, strict=True))
        left.fill_between(size_P, low_P, high_P, color='black', alpha=0.12, linewidth=0)
    orange: Any = {'color': 'tab:orange', 'linestyle': '--', 'zorder': 1}
    left.plot(size_P, e_min / size_P, label=f'E_min: {axes.text(curve["e_min"])} examples', **orange)
    right.axhline(e_min, **orange)
    for line in (left.axhline, right.axvline):
        label = f'S_min: {axes.text(curve["s_min"])} updates'
        line(s_min, color='tab:blue', linestyle=':', label=label, zorder=1)
    axes.across(left, 'x', curve['b_crit'], f'B_crit: {axes.text(curve["b_crit"])}')

    critical = curve['b_crit']['value']
    first, last = left.get_xlim()
    bounds = np.clip([first, critical / 10, 10 * critical, last], first, last)
    above: Any = {'transform': left.get_xaxis_transform(), 'horizontalalignment': 'center', 'fontsize': 8}
    for name, start, end in zip(('perfect\nscaling', 'diminishing\nreturns', 'flat'), bounds, bounds[1:], strict=False):
        if math.log(end / start) > 0.15 * math.log(last / first):
            left.text(math.sqrt(start * end), 1.01, name, **above)
    for bound in bounds[1:-1]:
        if first < bound < last:
            left.axvline(bound, color='0.4', linestyle=(0, (1, 3)), linewidth=1)


def _accuracy_surface(answer: Mapping[str, Any]) -> Figure | None:
    """What was tried, a panel for each momentum."""
    cells = pd.DataFrame(answer['surface'])
    if cells.empty or cells['validation_accuracy'].isna().all():
        return None
    # A logarithmic scale has no place for an error of 0.
    cells['error'] = (100 - 100 * cells['validation_accuracy'].astype(float)).clip(lower=0.01)
    momenta, (low, high) = cells.groupby('momentum'), cells['error'].agg(['min', 'max'])
    figure, every = axes.panels(len(momenta), size=(max(8.5, 5 * len(momenta)), 5.8), sharex=True, sharey=True)
    look: Any = {'cmap': 'viridis_r', 'norm': LogNorm(low, max(high, 1.1 * low))}
    at = 'batch_size', 'learning_rate'
    for panel, (momentum, here) in zip(every, momenta, strict=True):
        of = dict(iter(here.groupby('status')))
        for status, area, name in (('done', 90, 'to the end'), ('stopped', 25, 'stopped early')):
            if status in of:
                panel.scatter(*at, area, 'error', data=of[status], marker='s', label=name, **look)
        if 'diverged' in of:
            panel.plot(*at, 'x', data=of['diverged'], color='tab:red', markersize=5, label='diverged')
        if 'done' in of:
            lowest = of['done'].sort_values('error').drop_duplicates('batch_size').sort_values('batch_size')
            ring: Any = {'color': 'black', 'markerfacecolor': 'none', 'markersize': 13}
            panel.plot(*at, 'o', data=lowest, label='lowest error', **ring)
        _fewest_updates(panel, answer, momentum)
        if len(momenta) > 1:
            panel.set_title(f'momentum {momentum:g}', fontsize=10, loc='left')
        panel.set(xlim=axes.limits(cells['batch_size'], 1.6), ylim=axes.limits(cells['learning_rate'], 1.8))
        axes.batch_sizes(panel, 'x', set(cells['batch_size']))
        axes.logarithmic(panel, 'y')
    every[0].set_ylabel('learning rate ε')
    scale = figure.colorbar(mpl.cm.ScalarMappable(**look), ax=every, label='validation error (%)')
    axes.logarithmic(scale.ax, 'y')
    scale.minorticks_off()
    return axes.legend(figure)


def _fewest_updates(panel: Axes, answer: Mapping[str, Any], momentum: float) -> None:
    """The learning rates that need the fewest updates to the target, beside the rules through their middle."""
    reached = [entry for entry in answer['to_target'] if any(run['updates'] is not None for run in entry['runs'])]
    here = [(entry['batch_size'], entry['learning_rate']) for entry in reached if entry['momentum'] == momentum]
    if not here:
        return
    if exponent := answer['learning_rate_exponent']:
        panel.set_title(f'black line: ε ∝ B^p, p: {axes.text(exponent)}', fontsize=8, color='0.3', loc='right')
    sizes, rates = zip(*here, strict=True)
    panel.plot(sizes, rates, '.-', color='black', label='fewest updates to the target')
    axes.rules(panel, sizes, *np.exp(np.mean(np.log(here), axis=0)))


def _noise_scale(answer: Mapping[str, Any]) -> Figure | None:
    """Over training, beside the critical batch size and, for MNIST, the published values."""
    lines, curve = answer['noise_scale'], answer['curve']
    if not lines:
        return None
    figure, (panel,) = axes.panels(1, size=(8.5, 5.2))
    shown = [point['noise_scale']['value'] for line in lines for point in line['points']]
    for line, shade in zip(lines, axes.shades(len(lines)), strict=True):
        label = f'batch size {line["batch_size"]}, ε {line["learning_rate"]:.3g}'
        examples = [point['examples'] for point in line['points']]
        value_P, low_P, high_P = axes.ends([point['noise_scale'] for point in line['points']])
        panel.plot(examples, value_P, '.-', color=shade, label=label)
        panel.fill_between(examples, low_P, high_P, color=shade, alpha=0.15, linewidth=0)
    if curve:
        axes.across(panel, 'y', curve['b_crit'], f'B_crit: {axes.text(curve["b_crit"])}')
        # One that the data don't bound may be anywhere.
        shown.append(np.clip(curve['b_crit']['value'], min(shown) / 30, 30 * max(shown)))
    if answer['dataset'] == 'mnist':
        beside: Any = {'xycoords': panel.get_yaxis_transform(), 'textcoords': 'offset points', 'fontsize': 7}
        source = 'published for MNIST, McCandlish et al. 2018'
        for when, published in PUBLISHED.items():
            for name, value in published.items():
                panel.axhline(value, color='grey', linestyle='--', linewidth=0.8, label=source, zorder=1)
                panel.annotate(f'{name} {value} {when}', (1, value), (3, 0), va='center', color='0.4', **beside)
                shown.append(value)
    panel.set(xlabel='examples', ylabel='noise scale tr Σ/‖G‖² (examples)', ylim=axes.limits(shown, 2))
    axes.logarithmic(panel, 'xy')
    return axes.legend(figure)


def _budgets(answer: Mapping[str, Any]) -> Figure | None:
    budgets = [budget for budget in answer['budgets'] if budget['rows']]
    if not budgets:
        return None
    figure, every = axes.panels(len(budgets), sharey=True)
    figure.set_figheight(5)
    sizes = sorted({row['batch_size'] for budget in budgets for row in budget['rows']})
    shown: list[float] = []
    for panel, budget in zip(every, budgets, strict=True):
        tests = {row['batch_size']: row['test_accuracy'] for row in budget['rows']}
        _shade(panel, sorted(tests), budget['tied'])
        look: Any = {'fmt': '.-', 'color': 'tab:blue', 'label': 'tuned at each batch size'}
        axes.bars(panel, list(tests), list(tests.values()), 100, **look)
        for key, marker, markersize, colour, name in (
            ('winner', 'o', 13, 'black', 'best on validation'),
            ('recommended', 's', 18, 'tab:red', 'recommended'),
        ):
            look = {'markersize': markersize, 'color': colour, 'markerfacecolor': 'none', 'linestyle': 'none'}
            panel.plot([budget[key]], [100 * tests[budget[key]]['value']], marker=marker, label=name, **look)
        fresh = [row for row in answer['confirmation'] if row['unit'] == budget['unit'] and row['seeds']]
        if fresh:
            beside, again = [1.15 * row['batch_size'] for row in fresh], [row['test_accuracy'] for row in fresh]
            look = {'fmt': 'D', 'color': 'tab:orange', 'label': words.plural(fresh[0]['seeds'], 'fresh seed')}
            axes.bars(panel, beside, again, 100, zorder=3, **look)
        shown += [100 * row['test_accuracy']['value'] for row in (*budget['rows'], *fresh)]
        panel.set_title(words.budget_text(budget).removesuffix(' on this device'), fontsize=10)
        panel.set_xlim(axes.limits(sizes, 1.6))
        axes.batch_sizes(panel, 'x', sizes)
    _by_error(every[0], shown)
    return axes.legend(figure)


def _shade(panel: Axes, sizes: Sequence[int], tied: Sequence[int]) -> None:
    """Grey behind the tied batch sizes, each as wide as its place on the grid; one alone is no tie."""
    edges = np.sqrt(np.multiply([sizes[0] / 2, *sizes], [*sizes, 2 * sizes[-1]], dtype=float))
    for size, left, right in zip(sizes, edges, edges[1:], strict=False):
        if size in tied and len(tied) > 1:
            panel.axvspan(left, right, color='0.9', linewidth=0, zorder=0, label='95 % intervals overlap')


def _by_error(panel: Axes, shown: Sequence[float]) -> None:
    """Accuracies (%) with their errors on a logarithmic scale, so that 98 and 98.5 can be told beside 50."""
    low, high = axes.limits([max(100 - value, 0.02) for value in shown], 1.4)
    high = min(high, 100)
    panel.set_yscale('function', functions=(lambda y: -np.log(np.maximum(100 - y, 1e-3)), lambda t: 100 - np.exp(-t)))
    panel.set(ylim=(100 - high, 100 - low), ylabel='test accuracy (%), error on a log scale')
    places = LogLocator(subs=(1, 2, 5)) if high / low > 6 else MaxNLocator(6)
    ticks = [100 - tick for tick in places.tick_values(low, high) if low <= tick <= high]
    panel.set_yticks(ticks, [f'{tick:.6g}' for tick in ticks])
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_minor_formatter(NullFormatter())


def _gaps(answer: Mapping[str, Any]) -> Figure | None:
    if not answer['gaps']:
        return None
    figure, (panel,) = axes.panels(1, size=(7.5, 4.8))
    for line, colour, marker in zip(answer['gaps'], axes.NAMED, axes.MARKERS, strict=False):
        sizes, gaps = zip(*((point['batch_size'], point['gap']) for point in line['points']), strict=True)
        axes.bars(panel, sizes, gaps, 100, label=line['label'], color=colour, fmt=f'{marker}-')
    panel.axhline(0, color='grey', linewidth=0.8)
    every = {point['batch_size'] for line in answer['gaps'] for point in line['points']}
    panel.set_xlim(axes.limits(every, 1.6))
    axes.batch_sizes(panel, 'x', every)
    panel.set_ylabel('train − test accuracy (points)')
    return axes.legend(figure)


FIGURES: axes.Figures = {
    'updates_to_target': ('Updates to {target} validation error against batch size', _updates_to_target),
    'accuracy_surface': ('Validation error by batch size and learning rate', _accuracy_surface),
    'noise_scale': ('Noise scale over training, and the critical batch size', _noise_scale),
    'budgets': ('Test accuracy against batch size when epochs, updates or time are limited', _budgets),
    'gaps': ('Generalization gap against batch size: at equal epochs, at equal updates, tuned', _gaps),
}
