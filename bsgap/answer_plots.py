"""The figures of an answer (`recommendation.json`): the evidence on which batch size to use.

An estimate is a mapping with `value` and the ends `low` and `high` of its 95 % interval. Both ends null: there is no
interval, as with one seed. One end null: the interval has no bound on that side.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from bsgap import plots, recommend

# McCandlish et al. 2018 (1812.06162), for MNIST.
PUBLISHED = {
    'B_crit 20 at the start': 20,
    'B_simple 50 at the start': 50,
    'B_crit 200 on average': 200,
    'B_simple 900 on average': 900,
}
RED, BLUE, ORANGE = 'tab:red', 'tab:blue', 'tab:orange'


def draw(answer: Mapping[str, Any], folder: Path, title: str) -> dict[str, Path]:
    """Draws the figures for which there is data into `folder`; returns the files, by caption.

    Args:
      answer: the contents of recommendation.json; accuracies, errors and gaps in it are fractions.
      folder: where NAME.png goes for each of `FIGURES`; made if need be.
      title: names the study, above each figure.
    """
    seeds = sorted({row['seeds'] for budget in answer['budgets'] for row in budget['rows']})
    seeds = seeds or sorted({len(entry['runs']) for entry in answer['to_target']})
    note = title
    if max(seeds, default=1) > 1:
        note += f'; 95 % intervals, {" or ".join(map(str, seeds))} seeds'
    figures = {name: (caption.format(target=_target(answer)), drawn) for name, (caption, drawn) in FIGURES.items()}
    return plots.write(figures, answer, folder, note)


def _updates_to_target(answer: Mapping[str, Any]) -> Figure | None:
    """S = S_min (1 + B_crit/B) and E = B S, which are (S/S_min − 1)(E/E_min − 1) = 1 (McCandlish et al. 2018, 2.3)."""
    entries = answer['to_target']
    if not entries:
        return None
    figure, (left, right) = plots._panels(2)
    figure.set_size_inches(10, 5.2)
    sizes = [entry['batch_size'] for entry in entries]
    shown: list[tuple[float, float]] = []
    for entry, colour in zip(entries, plots._viridis(len(entries)), strict=True):
        size = entry['batch_size']
        made_R = [run['made'] if run['updates'] is None else run['updates'] for run in entry['runs']]
        for run, made in zip(entry['runs'], made_R, strict=True):
            look = _run_look(run['updates'] is not None, colour)
            left.plot([size], [made], **look)
            right.plot([made], [size * made], **look)
            shown.append((made, size * made))
        if made_R:
            middle = np.exp(np.mean(np.log(made_R)))
            right.annotate(
                str(size), (middle, size * middle), (7, 7), textcoords='offset points', fontsize=8, color='0.3'
            )
    updates_P, examples_P = np.array(shown).T if shown else np.empty((2, 0))
    left.set(xlim=_limits(sizes, 1.6), ylim=_limits(updates_P, 2))
    right.set(xlim=_limits(updates_P, 2), ylim=_limits(examples_P, 2))
    if curve := answer['curve']:
        _hyperbola(left, right, curve, sizes)
    _keys(left, entries)
    left.set_ylabel(f'updates S to {_target(answer)} validation error')
    right.set(xlabel='updates S', ylabel='examples E')
    right.set_title('numbers: batch size', fontsize=8, color='0.3', loc='right')
    plots._batch_sizes(left, 'x', sizes)
    plots._logarithmic(left, 'y')
    for which in 'xy':
        plots._logarithmic(right, which)
    plots._legend(figure)
    return figure


def _hyperbola(left: Axes, right: Axes, curve: Mapping[str, Any], sizes: Sequence[int]) -> None:
    """The fit with its asymptotes and regimes, inside the limits that the axes have.

    Its band goes from both parameters' low ends to both high ends: too wide rather than too narrow, for the answer
    does not tell how the two errors depend on one another. Scaling is perfect where the examples are at most 10 % above
    E_min, and the curve is flat where the updates are at most 10 % above S_min.
    """
    (s_min, *s_ends), (e_min, *e_ends) = _ends([curve['s_min'], curve['e_min']]).T
    size_P = np.geomspace(min(sizes) / 1.6, 1.6 * max(sizes), 200)
    S_P = s_min + e_min / size_P
    left.plot(size_P, S_P, color='black', label='fit, (S/S_min − 1)(E/E_min − 1) = 1', zorder=1)
    right.plot(S_P, size_P * S_P, color='black', zorder=1)
    if np.isfinite([s_ends, e_ends]).all():
        low_P, high_P = (s + e / size_P for s, e in zip(s_ends, e_ends, strict=True))
        left.fill_between(size_P, low_P, high_P, color='black', alpha=0.12, linewidth=0)
    left.plot(size_P, e_min / size_P, '--', color=ORANGE, label=f'E_min: {_words(curve["e_min"])} examples', zorder=1)
    right.axhline(e_min, linestyle='--', color=ORANGE, zorder=1)
    for line in (left.axhline, right.axvline):
        line(s_min, linestyle=':', color=BLUE, label=f'S_min: {_words(curve["s_min"])} updates', zorder=1)
    _band((left.axvline, left.axvspan), curve['b_crit'], f'B_crit: {_words(curve["b_crit"])}')

    critical = curve['b_crit']['value']
    first, last = left.get_xlim()
    bounds = np.clip([first, critical / 10, 10 * critical, last], first, last)
    for name, start, end in zip(('perfect\nscaling', 'diminishing\nreturns', 'flat'), bounds, bounds[1:], strict=False):
        if math.log(end / start) > 0.15 * math.log(last / first):
            left.text(
                math.sqrt(start * end),
                1.01,
                name,
                transform=left.get_xaxis_transform(),
                horizontalalignment='center',
                fontsize=8,
            )
    for bound in bounds[1:-1]:
        if first < bound < last:
            left.axvline(bound, color='0.4', linestyle=(0, (1, 3)), linewidth=1)


def _time_to_target(answer: Mapping[str, Any]) -> Figure | None:
    """A run that did not reach the target stands at the time that its updates would have taken."""
    entries = answer['to_target']
    if all(run['seconds'] is None for entry in entries for run in entry['runs']):
        return None
    figure, (left, right) = plots._panels(2)
    sizes, costs = [entry['batch_size'] for entry in entries], answer['seconds_per_update']
    for entry, colour in zip(entries, plots._viridis(len(entries)), strict=True):
        size = entry['batch_size']
        for run in entry['runs']:
            reached = run['updates'] is not None
            seconds = run['seconds'] if reached else run['made'] * costs.get(str(size), math.nan)
            for axes, value in ((left, seconds), (right, run['examples'] if reached else run['made'] * size)):
                if value is not None:
                    axes.plot([size], [value], **_run_look(reached, colour))
    if curve := answer['curve']:
        measured_P = np.array([size for size in sizes if str(size) in costs], float)
        cost_P = np.array([costs[str(size)] for size in sizes if str(size) in costs])
        S_P = curve['s_min']['value'] + curve['e_min']['value'] / measured_P
        left.plot(measured_P, S_P * cost_P, color='black', label='fitted updates × measured time an update', zorder=1)
        size_P = np.geomspace(min(sizes), max(sizes), 200)
        examples_P = curve['e_min']['value'] + curve['s_min']['value'] * size_P
        right.plot(size_P, examples_P, '--', color='black', label='fitted examples', zorder=1)
        for axes in (left, right):
            axes.set_xlim(_limits(sizes, 1.6))
            label = f'B_crit: {_words(curve["b_crit"])}' if axes is left else None
            _band((axes.axvline, axes.axvspan), curve['b_crit'], label)
    _keys(left, entries)
    for axes in (left, right):
        plots._batch_sizes(axes, 'x', sizes)
        plots._logarithmic(axes, 'y')
    left.set_ylabel(f'time on this device, {answer["device"]} (s)')
    right.set_ylabel('examples')
    plots._legend(figure)
    return figure


def _accuracy_surface(answer: Mapping[str, Any]) -> Figure | None:
    """What was tried, a panel for each momentum."""
    cells = answer['surface']
    found = [cell for cell in cells if cell['validation_accuracy'] is not None]
    if not found:
        return None
    momenta = sorted({cell['momentum'] for cell in cells})
    figure, all_axes = plots._panels(len(momenta), sharex=True, sharey=True)
    figure.set_size_inches(max(8.5, 5 * len(momenta)), 5.8)
    # A logarithmic scale has no place for an error of 0.
    errors = [max(100 - 100 * cell['validation_accuracy'], 0.01) for cell in found]
    norm = LogNorm(min(errors), max(max(errors), 1.1 * min(errors)))
    sizes, rates = {cell['batch_size'] for cell in cells}, [cell['learning_rate'] for cell in cells]
    for axes, momentum in zip(all_axes, momenta, strict=True):
        here = [(c, e) for c, e in zip(found, errors, strict=True) if c['momentum'] == momentum]
        for status, size in (('done', 90), ('stopped', 25)):
            some = [(c['batch_size'], c['learning_rate'], e) for c, e in here if c['status'] == status]
            if some:
                x, y, error = np.array(some).T
                name = 'to the end' if status == 'done' else 'stopped early'
                axes.scatter(x, y, size, error, marker='s', cmap='viridis_r', norm=norm, label=name)
        diverged = [c for c in cells if c['momentum'] == momentum and c['status'] == 'diverged']
        if diverged:
            x, y = np.array([(c['batch_size'], c['learning_rate']) for c in diverged]).T
            axes.plot(x, y, 'x', color=RED, markersize=5, label='diverged')
        lowest = {
            c['batch_size']: c['learning_rate'] for c, _ in sorted(here, key=lambda p: -p[1]) if c['status'] == 'done'
        }
        axes.plot(
            list(lowest),
            list(lowest.values()),
            'o',
            color='black',
            markerfacecolor='none',
            markersize=13,
            label='lowest error',
        )
        _best(axes, answer, momentum)
        if len(momenta) > 1:
            axes.set_title(f'momentum {momentum:g}', fontsize=10, loc='left')
        axes.set(xlim=_limits(sizes, 1.6), ylim=_limits(rates, 1.8))
        plots._batch_sizes(axes, 'x', sizes)
        plots._logarithmic(axes, 'y')
    all_axes[0].set_ylabel('learning rate ε')
    scale = figure.colorbar(mpl.cm.ScalarMappable(norm, 'viridis_r'), ax=all_axes, label='validation error (%)')
    plots._logarithmic(scale.ax, 'y')
    scale.minorticks_off()
    plots._legend(figure)
    return figure


def _best(axes: Axes, answer: Mapping[str, Any], momentum: float) -> None:
    """The learning rates that need the fewest updates to the target, beside the rules through their middle."""
    best = {
        entry['batch_size']: entry['learning_rate']
        for entry in answer['to_target']
        if entry['momentum'] == momentum and any(run['updates'] is not None for run in entry['runs'])
    }
    if not best:
        return
    if exponent := answer['learning_rate_exponent']:
        axes.set_title(f'black line: ε ∝ B^p, p: {_words(exponent)}', fontsize=8, color='0.3', loc='right')
    axes.plot(list(best), list(best.values()), '.-', color='black', label='fewest updates to the target')
    middle, rate = (np.exp(np.mean(np.log(list(values)))) for values in (best, best.values()))
    for power, style, name in ((1, '--', 'linear rule'), (0.5, ':', 'square-root rule')):
        guide = [rate * (size / middle) ** power for size in best]
        axes.plot(list(best), guide, style, color=RED, label=name, zorder=1)


def _noise_scale(answer: Mapping[str, Any]) -> Figure | None:
    noise = answer['noise_scale']
    series = [entry for entry in noise['training'] if entry['points']]
    if not (series or noise['exact'] or noise['branched']):
        return None
    figure, (axes,) = plots._panels(1)
    figure.set_size_inches(8.5, 5.2)
    estimates = [point['noise_scale'] for entry in series for point in entry['points']]
    for entry, colour in zip(series, plots._viridis(len(series)), strict=True):
        x = [point['examples'] for point in entry['points']]
        value_P, low_P, high_P = _ends([point['noise_scale'] for point in entry['points']])
        label = f'batch size {entry["batch_size"]}, ε {entry["learning_rate"]:.3g}'
        axes.plot(x, value_P, '.-', color=colour, label=label)
        axes.fill_between(x, low_P, high_P, color=colour, alpha=0.15, linewidth=0)
    for points, column, name, marker in (
        (noise['exact'], 'noise_scale', 'per-example gradients', 'D'),
        (noise['branched'], 'critical_batch', 'critical batch by branches', 's'),
    ):
        if points:
            found = [point[column] for point in points]
            estimates += found
            trunks = ', '.join(map(str, sorted({point['batch_size'] for point in points})))
            look: dict[str, Any] = {
                'color': 'black',
                'markerfacecolor': 'white' if marker == 's' else 'black',
                'zorder': 3,
            }
            x = [point['examples'] for point in points]
            _bars(axes, x, found, fmt=marker, label=f'{name} (batch size {trunks})', **look)
    values = [estimate['value'] for estimate in estimates]
    curve = answer['curve']
    if curve:
        _band((axes.axhline, axes.axhspan), curve['b_crit'], f'B_crit: {_words(curve["b_crit"])}')
        # One that the data don't bound may be anywhere.
        values.append(np.clip(curve['b_crit']['value'], min(values) / 30, 30 * max(values)))
    if answer['dataset'] == 'mnist':
        for i, (name, value) in enumerate(PUBLISHED.items()):
            source = None if i else 'published for MNIST, McCandlish et al. 2018'
            axes.axhline(value, color='grey', linestyle='--', linewidth=0.8, label=source, zorder=1)
            axes.annotate(
                name,
                (1, value),
                (3, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords='offset points',
                verticalalignment='center',
                fontsize=7,
                color='0.4',
            )
        values += PUBLISHED.values()
    axes.set(xlabel='examples', ylabel='noise scale tr Σ/‖G‖² (examples)', ylim=_limits(values, 2))
    for which in 'xy':
        plots._logarithmic(axes, which)
    plots._legend(figure)
    return figure


def _budgets(answer: Mapping[str, Any]) -> Figure | None:
    budgets = [budget for budget in answer['budgets'] if budget['rows']]
    if not budgets:
        return None
    figure, all_axes = plots._panels(len(budgets), sharey=True)
    figure.set_figheight(5)
    sizes = sorted({row['batch_size'] for budget in budgets for row in budget['rows']})
    shown: list[float] = []
    for axes, budget in zip(all_axes, budgets, strict=True):
        rows = {row['batch_size']: row['test_accuracy'] for row in budget['rows']}
        _shade(axes, sorted(rows), budget['tied'])
        _bars(axes, list(rows), list(rows.values()), 100, fmt='.-', color=BLUE, label='tuned at each batch size')
        for key, marker, size, colour, name in (
            ('winner', 'o', 13, 'black', 'best on validation'),
            ('recommended', 's', 18, RED, 'recommended'),
        ):
            if budget[key] in rows:
                height = 100 * rows[budget[key]]['value']
                look: dict[str, Any] = {'markerfacecolor': 'none', 'color': colour, 'linestyle': 'none'}
                axes.plot([budget[key]], [height], marker=marker, markersize=size, label=name, **look)
        shown += [100 * row['value'] for row in rows.values()]
        shown += _fresh(axes, answer, budget['unit'])
        axes.set_title(recommend.budget_text(budget).removesuffix(' on this device'), fontsize=10)
        axes.set_xlim(_limits(sizes, 1.6))
        plots._batch_sizes(axes, 'x', sizes)
    _by_error(all_axes[0], shown)
    plots._legend(figure)
    return figure


def _fresh(axes: Axes, answer: Mapping[str, Any], unit: str) -> list[float]:
    """The growing batch and the fresh seeds of the confirmation; returns the accuracies (%) that it drew."""
    shown = []
    for row in (answer['grow'] or {}).get('budgets', []):
        if row['unit'] == unit:
            accuracy = {end: row['test_accuracy'][end] for end in ('value', 'low', 'high')}
            _band((axes.axhline, axes.axhspan), accuracy, 'growing batch', 100, color='tab:green', linestyle='--')
            shown.append(100 * accuracy['value'])
    rows = [row for row in (answer['confirmation'] or {}).get('rows', []) if row['unit'] == unit]
    if rows:
        x, accuracies = [1.15 * row['batch_size'] for row in rows], [row['test_accuracy'] for row in rows]
        seeds = ', '.join(map(str, sorted({row['seeds'] for row in rows})))
        label = f'confirmation with fresh seeds (n = {seeds})'
        _bars(axes, x, accuracies, 100, fmt='D', color=ORANGE, label=label, zorder=3)
        shown += [100 * accuracy['value'] for accuracy in accuracies]
    return shown


def _shade(axes: Axes, sizes: Sequence[int], tied: Sequence[int]) -> None:
    """Grey behind the tied batch sizes, each as wide as its place on the grid; one alone is no tie."""
    if len(tied) < 2:
        return
    edges = np.sqrt(np.multiply([sizes[0] / 2, *sizes], [*sizes, 2 * sizes[-1]], dtype=float))
    label = '95 % intervals overlap'
    for size, left, right in zip(sizes, edges, edges[1:], strict=False):
        if size in tied:
            axes.axvspan(left, right, color='0.9', linewidth=0, zorder=0, label=label)


def _by_error(axes: Axes, shown: Sequence[float]) -> None:
    """Accuracies (%) with their errors on a logarithmic scale, so that 98 and 98.5 can be told beside 50."""
    errors = [max(100 - value, 0.02) for value in shown]
    low, high = _limits(errors, 1.4)
    high = min(high, 100)
    axes.set_yscale('function', functions=(lambda y: -np.log(np.maximum(100 - y, 1e-3)), lambda t: 100 - np.exp(-t)))
    axes.set(ylim=(100 - high, 100 - low), ylabel='test accuracy (%), error on a log scale')
    places = LogLocator(subs=(1, 2, 5)) if high / low > 6 else MaxNLocator(6)
    ticks = [100 - tick for tick in places.tick_values(low, high) if low <= tick <= high]
    axes.set_yticks(ticks, [f'{tick:.6g}' for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _gaps(answer: Mapping[str, Any]) -> Figure | None:
    lines = [line for line in answer['gaps'] if line['points']]
    if not lines:
        return None
    figure, (axes,) = plots._panels(1)
    figure.set_size_inches(7.5, 4.8)
    for i, line in enumerate(lines):
        x, gaps = [point['batch_size'] for point in line['points']], [point['gap'] for point in line['points']]
        look = {'color': plots.NAMED[i % len(plots.NAMED)], 'linestyle': plots.LINES[i % len(plots.LINES)]}
        _bars(axes, x, gaps, 100, marker=plots.MARKERS[i % len(plots.MARKERS)], label=line['label'], **look)
    axes.axhline(0, color='grey', linewidth=0.8)
    sizes = {point['batch_size'] for line in lines for point in line['points']}
    axes.set_xlim(_limits(sizes, 1.6))
    plots._batch_sizes(axes, 'x', sizes)
    axes.set_ylabel(plots.TEXTS['gap'])
    plots._legend(figure)
    return figure


FIGURES: plots.Figures = {
    'updates_to_target': ('Updates to {target} validation error against batch size', _updates_to_target),
    'time_to_target': ('Time and examples to {target} validation error against batch size', _time_to_target),
    'accuracy_surface': ('Validation error by batch size and learning rate', _accuracy_surface),
    'noise_scale': ('Noise scale over training, and the critical batch size', _noise_scale),
    'budgets': ('Test accuracy against batch size when epochs, updates or time are limited', _budgets),
    'gaps': ('Generalization gap against batch size: at equal epochs, at equal updates, tuned', _gaps),
}


def _target(answer: Mapping[str, Any]) -> str:
    error = answer['target']['error']
    return 'the target' if error is None else f'{100 * error:.3g} %'


def _run_look(reached: bool, colour: str) -> dict[str, Any]:
    """An upward open triangle for a run that would have needed more."""
    if reached:
        return {'color': colour, 'marker': 'o', 'markersize': 5, 'linestyle': 'none'}
    return {**_run_look(True, colour), 'marker': '^', 'markersize': 8, 'markerfacecolor': 'none'}


def _keys(axes: Axes, entries: Sequence[Mapping[str, Any]]) -> None:
    """What the points mean, for the legend."""
    reached = {run['updates'] is not None for entry in entries for run in entry['runs']}
    for state, name in ((True, 'one run'), (False, 'not reached in the updates made')):
        if state in reached:
            axes.plot([], [], **_run_look(state, 'grey'), label=name)


def _ends(estimates: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Values and interval ends of P estimates, (3, P) float64.

    NaN for the ends where there is no interval; an end without a bound lies a million times away, beyond any axis.
    """
    value_P, low_P, high_P = np.array([[e['value'], e['low'], e['high']] for e in estimates], float).T
    return np.array(
        [
            value_P,
            np.where(np.isnan(low_P) & ~np.isnan(high_P), value_P / 1e6, low_P),
            np.where(np.isnan(high_P) & ~np.isnan(low_P), value_P * 1e6, high_P),
        ]
    )


def _bars(
    axes: Axes, x: Sequence[float], estimates: Sequence[Mapping[str, Any]], scale: float = 1, **look: Any
) -> None:
    """Points with their intervals, without where there is none."""
    value_P, low_P, high_P = scale * _ends(estimates)
    below_P, above_P = np.maximum(np.nan_to_num([value_P - low_P, high_P - value_P]), 0)
    axes.errorbar(x, value_P, (below_P, above_P), capsize=3, **{'markersize': 5, **look})


def _band(
    draws: tuple[Callable[..., Any], Callable[..., Any]],
    estimate: Mapping[str, Any],
    label: str | None,
    scale: float = 1,
    color: str = 'tab:purple',
    linestyle: str = '-',
) -> None:
    """An estimate as a line across the axes with its interval behind it, by `draws` = (axvline, axvspan) or so."""
    line, span = draws
    ((value,), (low,), (high,)) = scale * _ends([estimate])
    line(value, color=color, linestyle=linestyle, linewidth=1.2, label=label, zorder=1)
    if math.isfinite(low):
        span(low, high, color=color, alpha=0.15, linewidth=0, zorder=0)


def _limits(values: Iterable[float], factor: float) -> tuple[float, float]:
    """From the lowest to the highest value above 0, and a factor more on either side."""
    above = [value for value in values if value > 0] or [1.0]
    return min(above) / factor, max(above) * factor


def _words(estimate: Mapping[str, Any]) -> str:
    """Such as `190 (150 to 250)`; a low end of 0 is no bound, and with one bound that is what is known."""
    value, low, high = (end and f'{float(f"{end:.2g}"):,.10g}' for end in map(estimate.get, ('value', 'low', 'high')))
    if low and high:
        return f'{value} ({low} to {high})'
    if low or high:
        return f'{f"above {low}" if low else f"below {high}"} (best fit {value})'
    return f'{value} (not bounded)' if estimate['low'] == 0 else str(value)
