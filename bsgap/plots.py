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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bsgap import analysis
from bsgap.analysis import Group
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
    figure, all_axes = _panels(len(panels), rows=1 + (len(panels) > 3))
    for axes, (column, x) in zip(all_axes, panels, strict=True):
        first = 0 if x == 'epoch' and column != 'distance' else 1  # a logarithmic axis has no place for the start
        for group in groups:
            curve = analysis.curve(group, column, x)
            means_halves = _scale(column) * np.stack([curve.mean_P, curve.half_width_P])
            _line(axes, curve.x_P[first:], *means_halves[:, first:], **data.looks[group.recipe])
        if x == 'epoch':
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            _logarithmic(axes, 'x')
        if not column.endswith('accuracy'):
            _logarithmic(axes, 'y')
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
    _batch_sizes(top, 'y', {size for group in data.groups for size in group.batch_sizes})
    if all(np.min(line.get_ydata()) > 0 for line in bottom.get_lines()):
        _logarithmic(bottom, 'y')
    top.sharex(bottom)
    top.tick_params(labelbottom=False)
    bottom.set(xlabel='epochs', ylabel='learning rate')
    _legend(figure, data.keys)
    return figure


def _at_the_end(data: Data, columns: Sequence[str], fewest: int = 1) -> Figure | None:
    """Those of the columns that the finished runs have, against batch size; None if they are less than `fewest`."""
    columns = [column for column in columns if any(_values(group, column) for group in data.done)]
    if len(columns) < fewest:
        return None
    figure, all_axes = _panels(len(columns), rows=1 + (len(columns) > 3))
    for axes, column in zip(all_axes, columns, strict=True):
        _against_batch_size(axes, data, data.done, column)
        if column in SHARPNESS:
            _logarithmic(axes, 'y')
    if 'gap' in columns:
        all_axes[0].axhline(0, color='grey', linewidth=0.8)
    if columns == ['train_accuracy', 'test_accuracy']:
        all_axes[1].sharey(all_axes[0])
        all_axes[0].autoscale(axis='y')
    _legend(figure)
    return figure


def _learning_rate(data: Data) -> Figure | None:
    """Each batch size's best learning rate, beside the linear and the square-root rule; recipes that diverged are none."""
    swept = [group for group in data.done if SWEPT.match(group.recipe)]
    if len({_rate(group) for group in swept}) < 2:
        return None
    figure, (left, right) = _panels(2)
    column = _chooser(swept)
    for i, (rest, alike) in enumerate(_series(swept, 'learning_rate', 'batch_size').items()):
        look = {'linestyle': LINES[i % len(LINES)], 'marker': MARKERS[i % len(MARKERS)]}
        for size, members in itertools.groupby(sorted(alike, key=lambda g: g.batch_sizes), lambda g: g.batch_sizes[0]):
            by_rate = sorted(members, key=_rate)
            label = f'batch size {size}' + f', {rest}' * bool(rest)
            _points(
                left, [_rate(g) for g in by_rate], by_rate, 'test_accuracy', label=label, color=_colour(size), **look
            )
        stable = sorted((group for group in alike if not group.diverged), key=lambda group: group.last(column).mean)
        best = sorted({group.batch_sizes[0]: _rate(group) for group in stable}.items())
        right.plot(*np.transpose(best), color='black', **look)
        if i == 0:
            sizes = np.array([size for size, _ in best])
            for power, line, name in ((1, '--', 'linear rule'), (0.5, ':', 'square-root rule')):
                guide = best[0][1] * (sizes / sizes[0]) ** power
                right.plot(sizes, guide, line, color='tab:red', label=name, zorder=1)
    _logarithmic(left, 'x')
    _logarithmic(right, 'y')
    _batch_sizes(right, 'x', {group.batch_sizes[0] for group in swept})
    counts = ', '.join(f'{runs} at batch size {size}' for size, runs in sorted(data.diverged.items()))
    left.set_xlabel('learning rate' + f'\n{textwrap.fill(f"(diverged runs: {counts})", 60)}' * bool(counts))
    left.set_ylabel(TEXTS['test_accuracy'])
    right.set_ylabel(f'learning rate of the best {column.replace("_", " ")}')
    _legend(figure)
    return figure


def _optimum(data: Data) -> Figure | None:
    """Smith & Le 2018 (1710.06451): the best batch size is proportional to learning rate × training examples."""
    swept = [group for group in data.done if SWEPT.match(group.recipe)]
    series = {label: alike for label, alike in _series(swept, 'batch_size').items() if len(alike) > 1}
    if not series:
        return None
    figure, (left, right) = _panels(2)
    _against_batch_size(left, data, [group for alike in series.values() for group in alike], 'test_accuracy')
    column = _chooser(swept)
    points = []
    for look, alike in zip(_shades(series, data), series.values(), strict=True):
        runs = sorted((run.rows[-1][column], run.about['seed'], g.batch_sizes[0]) for g in alike for run in g.runs)
        best = analysis.interval(math.log(size) for size in {seed: size for _, seed, size in runs}.values())
        scale, size = _rate(alike[0]) * alike[0].runs[0].about['n'], math.exp(best.mean)
        ratio = math.exp(np.nan_to_num(best.half_width))
        right.errorbar(scale, size, [[size - size / ratio], [size * ratio - size]], capsize=3, **look)
        points.append((scale, size))
    scales, sizes = np.transpose(points)
    ends = np.array([scales.min(), scales.max()])
    middle = np.exp(np.log(sizes / scales).mean())
    right.plot(ends, middle * ends, '--', color='tab:red', label='slope 1', zorder=1)
    _logarithmic(right, 'x')
    _batch_sizes(right, 'y', {group.batch_sizes[0] for group in swept})
    right.set_xlabel('learning rate × training examples')
    right.set_ylabel(f'batch size of the best {column.replace("_", " ")}\n(geometric mean over seeds)')
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
            _logarithmic(axes, 'y')
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
        _batch_sizes(axes, 'x', sizes)
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
        lambda data: _over_training(data, ('train_accuracy', 'test_accuracy', 'train_loss', 'test_loss'), ('epoch',)),
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
    series = _series([group for group in groups if _values(group, column)], 'batch_size')
    for look, (label, alike) in zip(_shades(series, data), series.items(), strict=True):
        sizes = [group.batch_sizes[0] for group in alike]
        if label:
            _points(axes, sizes, alike, column, label=label, **look)
            continue
        _points(axes, sizes, alike, column, color='grey', zorder=1)
        for size, group in zip(sizes, alike, strict=True):
            _points(axes, [size], [group], column, color=_colour(size), marker='o')
    _batch_sizes(axes, 'x', {group.batch_sizes[0] for group in groups})
    axes.set_ylabel(TEXTS[column])


def _points(axes: Axes, x: Sequence[float], groups: Sequence[Group], column: str, **look: Any) -> None:
    values = [analysis.interval(_values(group, column)) for group in groups]
    means, halves = _scale(column) * np.array([(value.mean, value.half_width) for value in values]).T
    axes.errorbar(x, means, np.nan_to_num(halves), capsize=3, markersize=5, **look)


def _line(axes: Axes, x: Any, means: Any, halves: Any, **look: Any) -> None:
    axes.plot(x, means, **look)
    halves = np.nan_to_num(halves)
    axes.fill_between(x, means - halves, means + halves, color=look['color'], alpha=0.2, linewidth=0)


def _values(group: Group, column: str) -> list[float]:
    """Of the runs that have it: a column of their last rows, or what was measured then."""
    ends = [{**run.rows[-1], **run.measured} for run in group.runs]
    return [end[column] for end in ends if column in end]


def _scale(column: str) -> int:
    return 100 if column.endswith(('accuracy', 'gap')) else 1


def _rate(group: Group) -> float:
    """Its learning rate; the largest, if that changes."""
    return max(stage['learning_rate'] for stage in group.runs[0].about['stages'])


def _chooser(groups: Sequence[Group]) -> str:
    """The column that selects: of the validation split, if there is one."""
    validated = all(_values(group, 'validation_accuracy') for group in groups)
    return 'validation_accuracy' if validated else 'test_accuracy'


def _order(group: Group) -> tuple[float, ...]:
    """Sweeps by the numbers in their fields, then named recipes as they come."""
    numbers = (value if isinstance(value, int | float) else 0 for value in group.fields.values())
    return (0, *numbers) if SWEPT.match(group.recipe) else (1,)


def _words(group: Group, among: Sequence[Group], *without: str) -> str:
    """The fields in which a sweep's groups differ, but for those of `without`."""
    differ = [field for field in group.fields if len({str(other.fields[field]) for other in among}) > 1]
    texts = {field: f'{field} {group.fields[field]}'.replace('_', ' ') for field in differ if field not in without}
    if 'subset' in texts:
        texts['subset'] = f'{group.runs[0].about["n"]} examples'
    return ', '.join(texts.values())


def _series(groups: Sequence[Group], *without: str) -> dict[str, list[Group]]:
    """The groups that differ in nothing but `without`, by the rest in words; each named recipe for itself."""
    swept = [group for group in groups if SWEPT.match(group.recipe)]
    series: dict[str, list[Group]] = {}
    for group in groups:
        label = _words(group, swept, *without) if SWEPT.match(group.recipe) else group.recipe
        series.setdefault(label, []).append(group)
    return series


def _shades(series: Mapping[str, Sequence[Group]], data: Data) -> list[dict[str, Any]]:
    """A colour for each series, and a marker for its label noise."""
    noises = sorted({group.fields['label_noise'] for alike in series.values() for group in alike})
    colours = iter(mpl.colormaps['viridis'](np.linspace(0, 0.9, len(series))))
    return [
        {
            'color': data.looks[label]['color'] if label in data.looks else next(colours),
            'marker': MARKERS[noises.index(alike[0].fields['label_noise']) % len(MARKERS)],
        }
        for label, alike in series.items()
    ]


def _looks(groups: Sequence[Group]) -> tuple[dict[str, dict[str, Any]], list[Line2D]]:
    """Of a sweep, the colour is the batch size and the line the setting; if all have one size, the colour is that."""
    swept = [group for group in groups if SWEPT.match(group.recipe)]
    sizes = {group.batch_sizes[0]: _colour(group.batch_sizes[0]) for group in swept}
    settings = list(_series(swept, 'batch_size'))
    one_size = len(sizes) == 1 < len(settings)
    shades = dict(zip(settings, mpl.colormaps['viridis'](np.linspace(0, 0.9, len(settings))), strict=True))
    free = [colour for colour in NAMED if colour not in sizes.values()]
    looks, keys = {}, []
    for i, (setting, alike) in enumerate(_series(swept, 'batch_size').items()):
        line = '-' if one_size else LINES[i % len(LINES)]
        for group in alike:
            colour = shades[setting] if one_size else sizes[group.batch_sizes[0]]
            looks[group.recipe] = {'color': colour, 'linestyle': line}
        if len(settings) > 1:
            keys.append(Line2D([], [], color=shades[setting] if one_size else 'grey', linestyle=line, label=setting))
    if not one_size:
        keys[:0] = [Line2D([], [], color=sizes[size], label=f'batch size {size}') for size in sorted(sizes)]
    for i, group in enumerate(group for group in groups if not SWEPT.match(group.recipe)):
        looks[group.recipe] = {'color': free[i % len(free)], 'linestyle': LINES[i // len(free) % len(LINES)]}
        keys.append(Line2D([], [], label=group.recipe, **looks[group.recipe]))
    return looks, keys


def _colour(size: int) -> Any:
    return COLOURS.get(size) or mpl.colormaps['viridis'](min(1, math.log2(size) / 16))


def _panels(count: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    columns = count // rows
    figure = Figure(figsize=(max(6.5, 4.2 * columns), 3.4 * rows + 0.8), layout='constrained')
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _batch_sizes(axes: Axes, which: str, sizes: Iterable[int]) -> None:
    """A logarithmic axis with a tick for each batch size that has room."""
    axes.set(**{f'{which}label': 'batch size', f'{which}scale': 'log'})
    ticks: list[int] = []
    for size in sorted(sizes):
        if not ticks or math.log(size / ticks[-1]) > math.log(max(sizes) / min(sizes)) / 20:
            ticks.append(size)
    axis = getattr(axes, f'{which}axis')
    axis.set_ticks([], minor=True)
    axis.set_ticks(ticks, map(str, ticks), rotation=60 * (which == 'x' and len(ticks) > 6))


def _logarithmic(axes: Axes, which: str) -> None:
    """A logarithmic axis that says 0.2 and 1, not powers of ten; to be called when all is drawn."""
    axes.set(**{f'{which}scale': 'log'})
    axis = getattr(axes, f'{which}axis')
    low, high = axis.get_view_interval()
    axis.set_major_locator(
        LogLocator(subs=(1,) if high / low > 300 else (1, 2, 5)) if high / low > 6 else MaxNLocator(6)
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.10g}'))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, keys: Sequence[Line2D] = ()) -> None:
    """Below the panels, or beside them if it is long; without `keys` it holds what has labels in the panels."""
    labelled = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    entries = dict([(str(key.get_label()), key) for key in keys] or [(label, handle) for handle, label in labelled])
    if not entries:
        return
    beside = len(entries) > 8
    if beside:
        figure.set_figwidth(figure.get_figwidth() + 2)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc='outside right upper' if beside else 'outside lower center',
        ncols=1 + len(entries) // 25 if beside else 4,
        frameon=False,
        fontsize=9,
    )
