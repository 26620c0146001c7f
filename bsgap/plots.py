"""The figures of a study, each a mean with its 95 % interval over seeds."""

import itertools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bsgap import analysis
from bsgap.analysis import Group, Interval
from bsgap.metrics import Record
from bsgap.schedule import Stage, learning_rate, place

# The origin's colours; other batch sizes are placed between blue and yellow by their logarithm.
COLOURS = {64: 'tab:orange', 256: 'tab:green', 1024: 'tab:purple'}
NAMED = [f'tab:{colour}' for colour in ('blue', 'orange', 'green', 'red', 'purple', 'brown', 'pink', 'olive', 'cyan')]
LINES: Any = ('-', '--', ':', '-.', (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = 'os^Dv*'
SWEPT = re.compile(r'bs(\d+)-lr')  # how the names of a sweep's recipes begin
SHARPNESS = ('sharpness_0.001', 'sharpness_0.0005', 'top_eigenvalue')
NORM = '{}_grad_norm{}_bs{}'
TEXTS = {
    'epoch': 'epochs',
    'update': 'updates',
    'train_seconds': 'training time (s)',
    'learning_rate_sum': 'learning rate × updates',
    'distance': 'distance from the initial weights, ‖w − w₀‖',
    'gap': 'train − test accuracy (points)',
    'sharpness_0.001': 'sharpness in a box of 0.001 (%)',
    'sharpness_0.0005': 'sharpness in a box of 0.0005 (%)',
    'top_eigenvalue': 'largest eigenvalue of the Hessian',
    **{f'{split}_accuracy': f'{split} accuracy (%)' for split in ('train', 'test')},
    **{f'{split}_loss': f'{split} loss (cross-entropy, nats)' for split in ('train', 'test')},
}
STYLE: Any = {
    'axes.grid': True,
    'grid.alpha': 0.3,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'font.size': 10,
}


class Data(NamedTuple):
    """What there is to draw."""

    groups: list[Group]  # that have runs
    done: list[Group]  # of these, the finished ones with one batch size
    looks: dict[str, dict[str, Any]]  # colour and line style, by recipe
    keys: list[Line2D]  # what they mean
    diverged: Counter[int]  # runs, by batch size
    lines: Sequence[Mapping[str, Any]]


def draw(
    groups: Sequence[Group],
    folder: Path,
    title: str,
    figures: Iterable[str] = ('curves', 'gap', 'accuracy', 'learning_rate_sum'),
    lines: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Path]:
    """Draws those of `figures` for which there is data into `folder`; returns the files, by caption.

    Args:
      groups: the runs by recipe.
      folder: where NAME.png goes for each figure; made if need be.
      title: names the study, above each figure.
      figures: names, out of `config.FIGURES`.
      lines: for each pair of solutions and each seed a mapping with `first` and `second` (recipes), `seed`, and, of
        equal length, `alpha`, `train_loss`, `test_loss` (nats), `train_accuracy` and `test_accuracy` (fractions).
    """
    trained = sorted((group for group in groups if group.runs), key=_order)
    diverged: Counter[int] = Counter()
    for group in groups:
        if swept := SWEPT.match(group.recipe):
            diverged[int(swept[1])] += group.diverged
    done = [group for group in trained if not group.unfinished and len(set(group.batch_sizes)) == 1]
    data = Data(trained, done, *_looks(trained), +diverged, lines)
    n = sorted({len(group.runs) for group in trained})
    note = title + f'; mean and 95 % interval over seeds (n = {", ".join(map(str, n))})' * (max(n, default=1) > 1)
    if left_out := sum(group.diverged for group in groups):
        note += f'; without {left_out} diverged run' + 's' * (left_out > 1)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    with mpl.rc_context(STYLE):
        for name in figures:
            caption, drawn = FIGURES[name]
            if figure := drawn(data):
                text = textwrap.fill(note, int(13 * figure.get_figwidth()))
                figure.suptitle(f'{caption}\n{text}', fontsize=10)
                files[caption] = folder / f'{name}.png'
                figure.savefig(files[caption], dpi=110)
    return files


def _over_training(data: Data, columns: Sequence[str], against: Sequence[str]) -> Figure | None:
    """Lines over training. Where those against learning rate × updates lie on one another, it was the updates."""
    groups = [group for group in data.groups if min(len(run.rows) for run in group.runs) > 1]
    if not groups:
        return None
    panels = list(itertools.product(columns, against))
    figure, all_axes = _panels(len(panels))
    for axes, (column, x) in zip(all_axes, panels, strict=True):
        first = 0 if x == 'epoch' and column != 'distance' else 1  # a logarithmic axis has no place for the start
        for group in groups:
            curve = analysis.curve(group, column, x)
            means_halves = _scale(column) * np.stack([curve.mean_P, curve.half_width_P])
            _line(axes, curve.x_P[first:], *means_halves[:, first:], **data.looks[group.recipe])
        if x == 'epoch':
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            _logarithmic(axes.xaxis)
        if not column.endswith('accuracy'):
            _logarithmic(axes.yaxis)
        else:  # leave out the untrained model, so that the differences at the end can be seen
            lowest = min(100 * run.rows[1][column] for group in groups for run in group.runs)
            axes.set_ylim(max(0, lowest - 2), 100.5)
        axes.set(xlabel=TEXTS[x], ylabel=TEXTS[column])
    _legend(figure, data.keys)
    return figure


def _schedule(data: Data) -> Figure | None:
    """Batch size and learning rate of each recipe; later lines are thinner, so that those below can be seen."""
    if not data.groups:
        return None
    figure, (top, bottom) = _panels(2, rows=2)
    widths = np.linspace(6, 1.2, len(data.groups)) if len(data.groups) > 1 else [2]
    for group, width in zip(data.groups, widths, strict=True):
        about = group.runs[0].about
        epochs, sizes, rates = [], [], []
        for span in place(tuple(Stage(**stage) for stage in about['stages']), about['n']):
            epochs.append(np.linspace(span.first_example, span.last_example, 100) / about['n'])
            sizes.append(np.full(100, span.stage.batch_size))
            rates.append(learning_rate(span.rate, np.linspace(span.first_update, span.last_update - 1, 100)))
        for axes, values in ((top, sizes), (bottom, rates)):
            look = {**data.looks[group.recipe], 'linewidth': width, 'alpha': 0.8}
            axes.plot(np.concatenate(epochs), np.concatenate(values), **look)
    _batch_sizes(top.yaxis, {size for group in data.groups for size in group.batch_sizes})
    if all(np.min(line.get_ydata()) > 0 for line in bottom.get_lines()):
        _logarithmic(bottom.yaxis)
    top.sharex(bottom)
    top.tick_params(labelbottom=False)
    bottom.set(xlabel='epochs', ylabel='learning rate')
    _legend(figure, data.keys)
    return figure


def _at_the_end(data: Data, columns: Sequence[str], fewest: int = 1) -> Figure | None:
    """Those of the columns that the finished runs have, against batch size; None if they are less than `fewest`."""
    columns = [c for c in columns if any(_has(run, c) for group in data.done for run in group.runs)]
    if len(columns) < fewest:
        return None
    figure, all_axes = _panels(len(columns))
    for axes, column in zip(all_axes, columns, strict=True):
        _against_batch_size(axes, data, data.done, column)
        if column in SHARPNESS:
            _logarithmic(axes.yaxis)
    if 'gap' in columns:
        all_axes[0].axhline(0, color='grey', linewidth=0.8)
    if columns == ['train_accuracy', 'test_accuracy']:
        all_axes[1].sharey(all_axes[0])
        all_axes[0].autoscale(axis='y')
    _legend(figure)
    return figure


def _learning_rate(data: Data) -> Figure | None:
    """The learning rate that is best for each batch size, beside what the linear and the square-root rule would say."""
    swept = [group for group in data.done if SWEPT.match(group.recipe)]
    rest = list(_series(swept, 'learning_rate', 'batch_size'))
    if len({_rate(group) for group in swept}) < 2:
        return None
    figure, (left, right) = _panels(2)
    for label, members in _series(swept, 'learning_rate').items():
        i = rest.index(_words(members[0], swept, 'learning_rate', 'batch_size'))
        look = {'color': _colour(members[0]), 'linestyle': LINES[i % len(LINES)], 'marker': MARKERS[i % len(MARKERS)]}
        _points(left, [_rate(group) for group in members], members, 'test_accuracy', label=label, **look)
    _logarithmic(left.xaxis)
    counts = ', '.join(f'{runs} at batch size {size}' for size, runs in sorted(data.diverged.items()))
    note = textwrap.fill(f'diverged runs, not shown: {counts}', 60) if counts else ''
    left.set(xlabel=f'learning rate\n{note}'.strip(), ylabel=TEXTS['test_accuracy'])

    column = _chooser(swept)
    for i, (label, members) in enumerate(_series(swept, 'learning_rate', 'batch_size').items()):
        best: dict[int, Group] = {}
        for group in sorted((g for g in members if not g.diverged), key=lambda g: g.last(column).mean):
            best[group.batch_sizes[0]] = group
        sizes = sorted(best)
        rates = [_rate(best[size]) for size in sizes]
        look = {'color': 'black', 'linestyle': LINES[i % len(LINES)], 'marker': MARKERS[i % len(MARKERS)]}
        right.plot(sizes, rates, label=label, **look)
        if i == 0 and sizes:
            for power, line, name in ((1, '--', 'linear rule'), (0.5, ':', 'square-root rule')):
                guide = [rates[0] * (size / sizes[0]) ** power for size in sizes]
                right.plot(sizes, guide, line, color='tab:red', label=name, zorder=1)
    _batch_sizes(right.xaxis, {group.batch_sizes[0] for group in swept})
    _logarithmic(right.yaxis)
    right.set_ylabel(f'learning rate with the best {column.replace("_", " ")}')
    _legend(figure)
    return figure


def _optimum(data: Data) -> Figure | None:
    """Smith & Le 2018 (1710.06451), eq. 15: the best batch size is proportional to learning rate × examples."""
    swept = [group for group in data.done if SWEPT.match(group.recipe)]
    series = {label: members for label, members in _series(swept, 'batch_size').items() if len(members) > 1}
    if not series:
        return None
    figure, (left, right) = _panels(2)
    _against_batch_size(left, data, [group for members in series.values() for group in members], 'test_accuracy')
    column = _chooser(swept)
    scales, sizes = [], []
    for members, (colour, marker) in zip(series.values(), _shades(series, swept), strict=True):
        best: dict[int, int] = {}
        for run, size in sorted(
            ((run, group.batch_sizes[0]) for group in members for run in group.runs),
            key=lambda pair: _value(pair[0], column),
        ):
            best[run.about['seed']] = size
        mean = analysis.interval(map(math.log, best.values()))
        low, high = (math.exp(mean.mean + sign * np.nan_to_num(mean.half_width)) for sign in (-1, 1))
        scales.append(_rate(members[0]) * members[0].runs[0].about['n'])
        sizes.append(math.exp(mean.mean))
        right.errorbar(
            scales[-1], sizes[-1], [[sizes[-1] - low], [high - sizes[-1]]], color=colour, marker=marker, capsize=4
        )
    ends = np.array([min(scales), max(scales)])
    middle = math.exp(np.mean(np.log(sizes)) - np.mean(np.log(scales)))
    right.plot(ends, middle * ends, '--', color='grey', label='slope 1', zorder=1)
    _logarithmic(right.xaxis)
    _batch_sizes(right.yaxis, {group.batch_sizes[0] for group in swept})
    right.set_xlabel('learning rate × training examples')
    right.set_ylabel(f'batch size with the best {column.replace("_", " ")}\n(geometric mean over seeds)')
    _legend(figure)
    return figure


def _lines(data: Data) -> Figure | None:
    """Keskar et al. 2017 (1609.04836), fig. 3."""
    pairs = list(dict.fromkeys((line['first'], line['second']) for line in data.lines))
    if not pairs:
        return None
    figure, all_axes = _panels(2 * len(pairs), rows=2)
    for axes, (quantity, (first, second)) in zip(all_axes, itertools.product(('loss', 'accuracy'), pairs), strict=True):
        chosen = [line for line in data.lines if (line['first'], line['second']) == (first, second)]
        for split, style in (('train', '-'), ('test', '--')):
            column = f'{split}_{quantity}'
            values = [analysis.interval(points) for points in zip(*(line[column] for line in chosen), strict=True)]
            means_halves = _scale(column) * np.array([(value.mean, value.half_width) for value in values]).T
            colour = 'tab:blue' if quantity == 'loss' else 'tab:red'
            _line(axes, chosen[0]['alpha'], *means_halves, color=colour, linestyle=style)
        for alpha in (0, 1):
            axes.axvline(alpha, color='grey', linewidth=0.8)
        if quantity == 'loss':
            _logarithmic(axes.yaxis)
            axes.set_title(f'α = 0: {first}\nα = 1: {second}', fontsize=9)
        else:
            axes.set_xlabel('α')
        if (first, second) == pairs[0]:
            axes.set_ylabel('loss (cross-entropy, nats)' if quantity == 'loss' else 'accuracy (%)')
    _legend(figure, [Line2D([], [], color='black', linestyle=s, label=t) for s, t in (('-', 'train'), ('--', 'test'))])
    return figure


def _gradient_norm(data: Data) -> Figure | None:
    """Shen 2018's measurement, with the weights frozen and moving."""
    found = re.compile(NORM.format('(frozen|moving)', '', r'(\d+)'))
    keys = {m.groups() for g in data.groups for run in g.runs for key in run.measured if (m := found.fullmatch(key))}
    if not keys:
        return None
    weights = sorted({weight for weight, _ in keys})
    sizes = sorted({int(size) for _, size in keys})
    figure, all_axes = _panels(2 * len(weights), rows=len(weights))
    for i, (axes, (weight, relative)) in enumerate(
        zip(all_axes, itertools.product(weights, (False, True)), strict=True)
    ):
        for group in data.groups:
            values = []
            for size in sizes:
                mean, spread = (NORM.format(weight, part, size) for part in ('', '_sd'))
                having = [run.measured for run in group.runs if mean in run.measured]
                values.append(analysis.interval(m[spread] / m[mean] if relative else m[mean] for m in having))
            means_halves = np.array([(value.mean, value.half_width) for value in values]).T
            _line(axes, sizes, *means_halves, marker='o', markersize=4, **data.looks[group.recipe])
        _batch_sizes(axes.xaxis, sizes)
        axes.set_ylim(bottom=0)
        axes.set_title(f'{weight} weights', fontsize=10)
        axes.set_ylabel('standard deviation / mean of the norm' if relative else 'mean norm of the gradient')
        if i > 1:
            axes.sharey(all_axes[i - 2])
    _legend(figure, data.keys)
    return figure


FIGURES: dict[str, tuple[str, Callable[[Data], Figure | None]]] = {
    'curves': (
        'Accuracy and loss over training',
        lambda data: _over_training(
            data, ('train_accuracy', 'test_accuracy', 'train_loss', 'test_loss'), ('epoch',)
        ),
    ),
    'gap': ('Generalization gap against batch size', lambda data: _at_the_end(data, ['gap'])),
    'accuracy': ('Accuracy against batch size', lambda data: _at_the_end(data, ['train_accuracy', 'test_accuracy'])),
    'learning_rate_sum': (
        'Accuracy and distance against learning rate × updates',
        lambda data: _over_training(data, ('train_accuracy', 'test_accuracy', 'distance'), ('learning_rate_sum',)),
    ),
    'schedule': ('Batch size and learning rate over training', _schedule),
    'updates': (
        'Test accuracy against epochs, updates and time',
        lambda data: _over_training(data, ('test_accuracy',), ('epoch', 'update', 'train_seconds')),
    ),
    'learning_rate': ('Learning rate and batch size', _learning_rate),
    'optimum': ('The best batch size', _optimum),
    'distance': (
        'Distance from the initial weights over training',
        lambda data: _over_training(data, ('distance',), ('update',)),
    ),
    'lines': ('Loss and accuracy on the line through two solutions', _lines),
    'sharpness': (
        'Sharpness against batch size',
        lambda data: _at_the_end(data, ['test_accuracy', *SHARPNESS], fewest=2),
    ),
    'gradient_norm': ('Norm of mini-batch gradients against their batch size', _gradient_norm),
}


def _against_batch_size(axes: Axes, data: Data, groups: Sequence[Group], column: str) -> None:
    """A line a setting; where there is but one, its points have the batch sizes' colours."""
    series = _series(groups, 'batch_size')
    for (label, members), (colour, marker) in zip(series.items(), _shades(series, groups), strict=True):
        members = [group for group in members if any(_has(run, column) for run in group.runs)]
        sizes = [group.batch_sizes[0] for group in members]
        if SWEPT.match(members[0].recipe) and len(series) == 1:
            _points(axes, sizes, members, column, color='grey', zorder=1)
            for size, group in zip(sizes, members, strict=True):
                _points(axes, [size], [group], column, color=_colour(group), marker=marker)
        else:
            _points(axes, sizes, members, column, color=colour, marker=marker, label=label)
    _batch_sizes(axes.xaxis, {group.batch_sizes[0] for group in groups})
    axes.set_ylabel(TEXTS[column])


def _points(axes: Axes, x: Sequence[float], groups: Sequence[Group], column: str, **look: Any) -> None:
    """A column of the finished runs: means, joined, and their intervals."""
    values = [analysis.interval(_value(run, column) for run in group.runs if _has(run, column)) for group in groups]
    means, halves = (_scale(column) * np.array([(value.mean, value.half_width) for value in values])).T
    axes.errorbar(x, means, np.nan_to_num(halves), capsize=3, markersize=5, **look)


def _line(axes: Axes, x: Any, means: Any, halves: Any, **look: Any) -> None:
    axes.plot(x, means, **look)
    halves = np.nan_to_num(halves)
    axes.fill_between(x, means - halves, means + halves, color=look['color'], alpha=0.2, linewidth=0)


def _value(run: Record, column: str) -> float:
    """A column of the last row, or what was measured then."""
    return run.measured[column] if column in run.measured else run.rows[-1][column]
