"""The figures of a study, each a mean with its 95 % interval over seeds."""

import itertools
import math
import re
import textwrap
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
MARKERS = 'os^Dv*PX'
SWEPT = re.compile(r'bs\d+-lr')  # how the names of a sweep's recipes begin
SHARPNESS = ('sharpness_0.001', 'sharpness_0.0005', 'top_eigenvalue')
TEXTS = {
    'epoch': 'epochs',
    'update': 'updates',
    'train_seconds': 'training time (s)',
    'learning_rate_sum': 'learning rate × updates',
    'distance': 'distance ‖w − w₀‖ from the start',
    'gap': 'train − test accuracy (points)',
    'sharpness_0.001': 'sharpness, box 0.001 (%)',
    'sharpness_0.0005': 'sharpness, box 0.0005 (%)',
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
Figures = Mapping[str, tuple[str, Callable[[Any], Figure | None]]]  # by name: the caption, and what draws it


class Data(NamedTuple):
    """What there is to draw."""

    groups: list[Group]  # that have runs
    done: list[Group]  # of these, the finished ones with one batch size
    swept: list[Group]  # of these, a sweep's
    looks: dict[str, dict[str, Any]]  # colour and line style, by recipe
    keys: list[Line2D]  # what they mean
    lines: Sequence[Mapping[str, Any]]


def gather(groups: Sequence[Group], lines: Sequence[Mapping[str, Any]] = ()) -> Data:
    """Sorts out what there is to draw; the arguments are `draw`'s."""
    trained = sorted((group for group in groups if group.runs), key=_order)
    done = [group for group in trained if not group.unfinished and len(set(group.batch_sizes)) == 1]
    return Data(trained, done, [group for group in done if SWEPT.match(group.recipe)], *_looks(trained), lines)


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
    return write({name: FIGURES[name] for name in figures}, gather(groups, lines), folder, _note(groups, title))


def write(figures: Figures, of: Any, folder: Path, note: str) -> dict[str, Path]:
    """Draws figures, each a function `of` the data, with a note below their captions; returns the files, by caption."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    with mpl.rc_context(STYLE):
        for name, (caption, drawn) in figures.items():
            if figure := drawn(of):
                text = f'{caption}\n{textwrap.fill(note, 92)}'
                figure.suptitle(text, x=0.01, horizontalalignment='left', fontsize=10)
                files[caption] = folder / f'{name}.png'
                figure.savefig(files[caption], dpi=100)
    return files


def _note(groups: Sequence[Group], title: str) -> str:
    """The line under the caption."""
    n = sorted({len(group.runs) for group in groups if group.runs})
    diverged = sum(group.diverged for group in groups)
    seeds = f'; mean and 95 % interval over seeds (n = {", ".join(map(str, n))})' if max(n, default=1) > 1 else ''
    return title + seeds + (f'; without {diverged} diverged run' + 's' * (diverged > 1) if diverged else '')


def _over_training(data: Data, columns: Sequence[str], against: Sequence[str]) -> Figure | None:
    """Lines over training. Where those against learning rate × updates lie on one another, it was the updates."""
    groups = [group for group in data.groups if min(len(run.rows) for run in group.runs) > 1]
    if not groups:
        return None
    panels = list(itertools.product(columns, against))
    figure, all_axes = _panels(len(panels), 1 + (len(panels) > 3), sharey=len(columns) == 1)
    for axes, (column, x) in zip(all_axes, panels, strict=True):
        first = 0 if x == 'epoch' else 1  # a logarithmic axis has no place for the start
        for group in groups:
            curve = analysis.curve(group, column, x)
            means, halves = _scale(column) * np.array([curve.mean_P, curve.half_width_P])
            _line(axes, curve.x_P[first:], means[first:], halves[first:], **data.looks[group.recipe])
        if x == 'epoch':
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
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
    figure, (top, bottom) = _panels(2, 2, sharex=True)
    for i, group in enumerate(data.groups):
        about = group.runs[0].about
        look = {**data.looks[group.recipe], 'linewidth': 6 - 4.5 * i / len(data.groups), 'alpha': 0.8}
        spans = place(tuple(Stage(**stage) for stage in about['stages']), about['n'])
        epochs = [np.linspace(span.first_example, span.last_example, 100) / about['n'] for span in spans]
        rates = [learning_rate(s.rate, np.linspace(s.first_update, s.last_update - 1, 100)) for s in spans]
        shown = np.where(np.array(rates) > 1e-6 * np.max(rates), rates, np.nan)  # a logarithmic axis has no 0
        top.plot(np.ravel(epochs), np.repeat(group.batch_sizes, 100), **look)
        bottom.plot(np.ravel(epochs), np.ravel(shown), **look)
    _batch_sizes(top, 'y', {size for group in data.groups for size in group.batch_sizes})
    _logarithmic(bottom, 'y')
    bottom.set(xlabel='epochs', ylabel='learning rate')
    _legend(figure, data.keys)
    return figure


def _at_the_end(data: Data, columns: Sequence[str], fewest: int = 1) -> Figure | None:
    """Those of the columns that the finished runs have, against batch size; None if they are less than `fewest`."""
    columns = [column for column in columns if any(_values(group, column) for group in data.done)]
    if len(columns) < fewest:
        return None
    figure, all_axes = _panels(
        len(columns), 1 + (len(columns) > 3), sharey=columns == ['train_accuracy', 'test_accuracy']
    )
    for axes, column in zip(all_axes, columns, strict=True):
        _against_batch_size(axes, data, data.done, column)
        if column in SHARPNESS:
            _logarithmic(axes, 'y')
        if column == 'gap':
            axes.axhline(0, color='grey', linewidth=0.8)
    _legend(figure)
    return figure


def _learning_rate(data: Data) -> Figure | None:
    """Each batch size's best learning rate, beside the linear and the square-root rule; one that diverged is none."""
    if len({_rate(group) for group in data.swept}) < 2:
        return None
    figure, (left, right) = _panels(2)
    split = _chooser(data)
    for i, (rest, alike) in enumerate(_series(data.swept, 'learning_rate', 'batch_size').items()):
        look = {'linestyle': LINES[i % len(LINES)], 'marker': MARKERS[i % len(MARKERS)]}
        for members in _series(alike, 'learning_rate').values():
            (size, *_), rates = members[0].batch_sizes, [_rate(group) for group in members]
            label = f'batch size {size}' + f', {rest}' * bool(rest)
            _points(left, rates, members, 'test_accuracy', label=label, color=_colour(size), **look)
        stable = sorted(
            (group for group in alike if not group.diverged), key=lambda group: group.last(f'{split}_accuracy').mean
        )
        best = dict(sorted({group.batch_sizes[0]: _rate(group) for group in stable}.items()))
        right.plot(list(best), list(best.values()), color='black', label=f'best, {rest}' if rest else 'best', **look)
        if best and not i:
            for power, style, name in ((1, '--', 'linear rule'), (0.5, ':', 'square-root rule')):
                guide = [best[min(best)] * (size / min(best)) ** power for size in best]
                right.plot(list(best), guide, style, color='tab:red', label=name, zorder=1)
    _logarithmic(left, 'x')
    _logarithmic(right, 'y')
    _batch_sizes(right, 'x', {group.batch_sizes[0] for group in data.swept})
    left.set(xlabel='learning rate', ylabel=TEXTS['test_accuracy'])
    right.set_ylabel(f'best learning rate ({split} split)')
    _legend(figure)
    return figure


def _optimum(data: Data) -> Figure | None:
    """Smith & Le 2018 (1710.06451): the best batch size is proportional to learning rate × training examples."""
    series = {label: alike for label, alike in _series(data.swept, 'batch_size').items() if len(alike) > 1}
    if not series:
        return None
    figure, (left, right) = _panels(2)
    _against_batch_size(left, data, [group for alike in series.values() for group in alike], 'test_accuracy')
    split = _chooser(data)
    points = []
    for look, alike in zip(_shades(series, data), series.values(), strict=True):
        runs = sorted(
            (run.rows[-1][f'{split}_accuracy'], run.about['seed'], g.batch_sizes[0]) for g in alike for run in g.runs
        )
        best = {seed: math.log(size) for _, seed, size in runs}
        (mean,), (half,) = _intervals([best.values()])
        scale = _rate(alike[0]) * alike[0].runs[0].about['n']
        errors = [[math.exp(mean) - math.exp(mean - half)], [math.exp(mean + half) - math.exp(mean)]]
        right.errorbar(scale, math.exp(mean), errors, capsize=3, markersize=5, **look)
        points.append((scale, math.exp(mean)))
    scales, sizes = np.transpose(points)
    if len(set(scales)) > 1:
        ends = np.array([min(scales), max(scales)])
        right.plot(ends, np.exp(np.log(sizes / scales).mean()) * ends, '--', color='tab:red', label='slope 1', zorder=1)
    _logarithmic(right, 'x')
    _batch_sizes(right, 'y', {group.batch_sizes[0] for group in data.swept})
    right.set(
        xlabel='learning rate × training examples', ylabel=f'best batch size ({split} split)\ngeometric mean over seeds'
    )
    _legend(figure)
    return figure


def _lines(data: Data) -> Figure | None:
    """Keskar et al. 2017 (1609.04836), fig. 3."""
    pairs = list(dict.fromkeys((line['first'], line['second']) for line in data.lines))
    if not pairs:
        return None
    figure, all_axes = _panels(2 * len(pairs), 2, sharex=True, sharey='row')
    for axes, (quantity, pair) in zip(all_axes, itertools.product(('loss', 'accuracy'), pairs), strict=True):
        chosen = [line for line in data.lines if (line['first'], line['second']) == pair]
        for split, colour, style in (('train', 'tab:blue', '-'), ('test', 'tab:red', '--')):
            means, halves = _intervals(zip(*(line[f'{split}_{quantity}'] for line in chosen), strict=True))
            means, halves = _scale(quantity) * means, _scale(quantity) * halves
            _line(axes, chosen[0]['alpha'], means, halves, color=colour, linestyle=style, label=split)
        for alpha in (0, 1):
            axes.axvline(alpha, color='grey', linewidth=0.8)
        if quantity == 'loss':
            _logarithmic(axes, 'y')
            axes.set_title(f'α = 0: {pair[0]}\nα = 1: {pair[1]}', fontsize=9)
        else:
            axes.set_xlabel('α')
        if pair == pairs[0]:
            axes.set_ylabel('loss (cross-entropy, nats)' if quantity == 'loss' else 'accuracy (%)')
    _legend(figure)
    return figure


def _gradient_norm(data: Data) -> Figure | None:
    """Shen 2018's measurement, with the weights frozen and moving."""
    keys = [key.split('_') for group in data.groups for run in group.runs for key in run.measured]
    keys = [key for key in keys if key[:2] == ['gradient', 'norm'] and len(key) == 4 and key[3].startswith('bs')]
    if not keys:
        return None
    weights = sorted({key[2] for key in keys})
    sizes = sorted({int(key[3][2:]) for key in keys})
    figure, all_axes = _panels(2 * len(weights), len(weights), sharex=True, sharey='col')
    for axes, (weight, relative) in zip(all_axes, itertools.product(weights, (False, True)), strict=True):
        for group in data.groups:
            found = [run.measured for run in group.runs if f'gradient_norm_{weight}_bs{sizes[0]}' in run.measured]
            mean_SxR = np.array([[m[f'gradient_norm_{weight}_bs{size}'] for m in found] for size in sizes])
            sd_SxR = np.array([[m[f'gradient_norm_{weight}_sd_bs{size}'] for m in found] for size in sizes])
            values_SxR = sd_SxR / mean_SxR if relative else mean_SxR
            _line(axes, sizes, *_intervals(values_SxR), marker='o', markersize=4, **data.looks[group.recipe])
        _batch_sizes(axes, 'x', sizes)
        axes.set_title(f'{weight} weights', fontsize=10)
        axes.set_ylabel('spread (standard deviation / mean)' if relative else 'mean norm of the gradient')
    for axes in all_axes:
        axes.set_ylim(bottom=0)
    _legend(figure, data.keys)
    return figure


FIGURES: Figures = {
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
    'learning_rate': ('Test accuracy by learning rate, and the best learning rate by batch size', _learning_rate),
    'optimum': ('Test accuracy by batch size, and the best batch size', _optimum),
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
    all_sizes = sorted({group.batch_sizes[0] for group in groups})
    alone = [alike[0] for alike in series.values() if len(alike) == 1]
    for look, (label, alike) in zip(_shades(series, data), series.items(), strict=True):
        sizes = [float(group.batch_sizes[0]) for group in alike]
        if not label:
            _points(axes, sizes, alike, column, color='grey', zorder=1)
            for size, group in zip(sizes, alike, strict=True):
                _points(axes, [size], [group], column, color=_colour(int(size)), marker='o')
            continue
        if len(alike) == 1:  # points of one batch size stand side by side
            beside = [group.recipe for group in alone if group.batch_sizes == alike[0].batch_sizes]
            offset = (beside.index(alike[0].recipe) + 0.5) / len(beside) - 0.5
            sizes[0] *= max(2, all_sizes[-1] / all_sizes[0]) ** (0.12 * offset)
        _points(axes, sizes, alike, column, label=label, **look)
    _batch_sizes(axes, 'x', all_sizes)
    axes.set_ylabel(TEXTS[column])


def _points(axes: Axes, x: Sequence[float], groups: Sequence[Group], column: str, **look: Any) -> None:
    means, halves = _intervals(_values(group, column) for group in groups)
    axes.errorbar(x, _scale(column) * means, _scale(column) * halves, capsize=3, markersize=5, **look)


def _line(axes: Axes, x: Any, means: np.ndarray, halves: np.ndarray, **look: Any) -> None:
    axes.plot(x, means, **look)
    low = np.maximum(means - halves, means / 10)  # a logarithmic axis has no bottom
    axes.fill_between(x, low, means + halves, color=look['color'], alpha=0.2, linewidth=0)


def _intervals(samples: Iterable[Iterable[float]]) -> np.ndarray:
    """Means and half widths, the latter 0 where there is one value."""
    found = map(analysis.interval, samples)
    return np.array([(each.mean, np.nan_to_num(each.half_width)) for each in found]).T


def _values(group: Group, column: str) -> list[float]:
    """Of the runs that have it: a column of their last rows, or what was measured then."""
    ends = [{**run.rows[-1], **run.measured} for run in group.runs]
    return [end[column] for end in ends if column in end]


def _scale(column: str) -> int:
    return 100 if column.endswith(('accuracy', 'gap')) else 1


def _rate(group: Group) -> float:
    """Its learning rate; the largest, if that changes."""
    return max(stage['learning_rate'] for stage in group.runs[0].about['stages'])


def _chooser(data: Data) -> str:
    """The split whose accuracy selects."""
    return 'validation' if all(_values(group, 'validation_accuracy') for group in data.swept) else 'test'


def _order(group: Group) -> tuple[float, ...]:
    """Sweeps by the numbers in their fields, then named recipes as they come."""
    values = {**group.fields, 'subset': group.runs[0].about['n']}.values()
    return (0, *(v if isinstance(v, int | float) else 0 for v in values)) if SWEPT.match(group.recipe) else (1,)


def _words(group: Group, among: Sequence[Group], *without: str) -> str:
    """The fields in which a sweep's groups differ, but for those of `without`."""
    differ = [field for field in group.fields if len({str(other.fields[field]) for other in among}) > 1]
    texts = {field: f'{field} {group.fields[field]}'.replace('_', ' ') for field in differ if field not in without}
    if 'subset' in texts:
        texts['subset'] = f'{group.runs[0].about["n"]} examples'
    return ', '.join(texts.values())


def _series(groups: Sequence[Group], *without: str) -> dict[str, list[Group]]:
    """The groups that differ in nothing but `without`, by the rest in words.

    A named recipe stands for itself, with those that have the same name but for a batch size at its end.
    """
    swept = [group for group in groups if SWEPT.match(group.recipe)]
    series: dict[str, list[Group]] = {}
    for group in groups:
        name = group.recipe.removesuffix(f'-bs{group.batch_sizes[0]}')
        label = _words(group, swept, *without) if SWEPT.match(group.recipe) else name
        series.setdefault(label, []).append(group)
    return series


def _shades(series: Mapping[str, Sequence[Group]], data: Data) -> list[dict[str, Any]]:
    """How each series looks; label noise decides the marker and the line, the rest of a sweep the colour."""
    noises = sorted({group.fields['label_noise'] for group in data.groups})
    rests = list(_series(data.swept, 'batch_size', 'label_noise'))
    shades = []
    for first, *_ in series.values():
        look = data.looks[first.recipe]
        i = noises.index(first.fields['label_noise'])
        if SWEPT.match(first.recipe):
            rest = rests.index(_words(first, data.swept, 'batch_size', 'label_noise'))
            look = {'color': _viridis(len(rests))[rest], 'linestyle': LINES[i % len(LINES)]}
        shades.append({**look, 'marker': MARKERS[i % len(MARKERS)]})
    return shades


def _looks(groups: Sequence[Group]) -> tuple[dict[str, dict[str, Any]], list[Line2D]]:
    """Of a sweep, the colour is the batch size and the line the setting; if all have one size, the colour is that."""
    swept = [group for group in groups if SWEPT.match(group.recipe)]
    named = [group for group in groups if not SWEPT.match(group.recipe)]
    settings = list(_series(swept, 'batch_size'))
    colours = {f'batch size {size}': _colour(size) for size in sorted({group.batch_sizes[0] for group in swept})}
    lines = dict(zip(settings, itertools.cycle(LINES))) if len(settings) > 1 else {}
    if len(colours) == 1 < len(settings):
        colours, lines = dict(zip(settings, _viridis(len(settings)), strict=True)), {}
    looks: dict[str, dict[str, Any]] = {}
    for group in swept:
        size, setting = f'batch size {group.batch_sizes[0]}', _words(group, swept, 'batch_size')
        looks[group.recipe] = {'color': colours.get(size, colours.get(setting)), 'linestyle': lines.get(setting, '-')}
    meanings = [(label, {'color': colour, 'linestyle': '-'}) for label, colour in colours.items()]
    meanings += [(label, {'color': 'grey', 'linestyle': line}) for label, line in lines.items()]
    free = [colour for colour in NAMED if colour not in colours.values()]
    for i, alike in enumerate(_series(named).values()):
        for j, group in enumerate(alike, i // len(free)):
            looks[group.recipe] = {'color': free[i % len(free)], 'linestyle': LINES[j % len(LINES)]}
    meanings += [(group.recipe, looks[group.recipe]) for group in named]
    return looks, [Line2D([], [], label=label, **look) for label, look in meanings]


def _colour(size: int) -> Any:
    return COLOURS.get(size) or mpl.colormaps['viridis'](min(1, math.log2(size) / 16))


def _viridis(count: int) -> list[str]:
    return [mpl.colors.to_hex(colour) for colour in mpl.colormaps['viridis'](np.linspace(0, 0.9, count))]


def _panels(count: int, rows: int = 1, **share: Any) -> tuple[Figure, list[Axes]]:
    columns = count // rows
    figure = Figure(figsize=(max(6.5, 4 * columns), 3 * rows + 1.3), layout='constrained')
    return figure, list(figure.subplots(rows, columns, squeeze=False, **share).flat)


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
    axis = getattr(axes, f'{which}axis')
    if not math.isfinite(axis.get_minpos()):  # nothing is above 0
        return
    axes.set(**{f'{which}scale': 'log'})
    low, high = axis.get_view_interval()
    axis.set_major_locator(
        LogLocator(subs=(1,) if high / low > 300 else (1, 2, 5)) if high / low > 6 else MaxNLocator(6)
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.10g}'))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, keys: Sequence[Any] = ()) -> None:
    """Below the panels, or beside them if it is long; without `keys`, of all that has a label in the panels."""
    found = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {str(key.get_label()): key for key in keys} or {label: handle for handle, label in found}
    if not handles:
        return
    inches = 0.6 + 0.075 * max(map(len, handles))
    rows = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / inches)))
    where: Any = 'outside lower center'
    if rows > 3:
        rows, where = min(30, len(handles)), 'outside right upper'
    columns = math.ceil(len(handles) / rows)
    if rows > 3:
        figure.set_figwidth(figure.get_figwidth() + columns * inches)
    figure.legend(list(handles.values()), list(handles), loc=where, ncols=columns, frameon=False, fontsize=9)
