"""The figures of a study, each a mean with its 95 % interval over seeds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bsgap import analysis
from bsgap.analysis import Group

# The origin's colours; other batch sizes are placed between blue and yellow by their logarithm.
COLOURS = {64: 'tab:orange', 256: 'tab:green', 1024: 'tab:purple'}
LINES = ('-', '--', ':', '-.')
STYLE: Any = {
    'axes.grid': True,
    'grid.alpha': 0.3,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'font.size': 10,
}


def draw(groups: Sequence[Group], folder: Path, title: str) -> dict[str, Path]:
    """Draws each figure for which there is data into `folder`; returns the files, by caption."""
    groups = [group for group in groups if group.runs]
    one_stage = [group for group in groups if group.setting and not group.unfinished]
    n = sorted({len(group.runs) for group in groups})
    note = (
        f'{title}; mean and 95 % interval over seeds (n = {", ".join(map(str, n))})' if max(n, default=1) > 1 else title
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    with mpl.rc_context(STYLE):
        for name, caption, drawn in (
            ('curves', 'Accuracy and loss over training', _curves(groups)),
            ('gap', 'Generalization gap against batch size', _gap(one_stage)),
            ('accuracy', 'Accuracy against batch size', _accuracy(one_stage)),
            ('rate_times_updates', 'Accuracy against learning rate × updates', _rate_times_updates(groups)),
        ):
            drawn.suptitle(f'{caption}\n{note}', fontsize=10)
            path = folder / f'{name}.png'
            drawn.savefig(path, dpi=130)
            files[caption] = path
    return files


def _curves(groups: Sequence[Group]) -> Figure:
    """The origin's figure: accuracy and loss of the training and the test split against epochs."""
    figure = Figure(figsize=(9, 7), layout='constrained')
    for row, quantity in zip(figure.subplots(2, 2, sharex=True), ('accuracy', 'loss'), strict=True):
        for axes, split in zip(row, ('train', 'test'), strict=True):
            for group in groups:
                _line(axes, group, groups, f'{split}_{quantity}', 'epoch')
            axes.set_ylabel(f'{split} {quantity} ' + ('(%)' if quantity == 'accuracy' else '(cross-entropy, nats)'))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if quantity == 'accuracy':
                _zoom(axes, groups, f'{split}_{quantity}')
            else:
                axes.set_yscale('log')
                _plain_numbers(axes.yaxis)
                axes.set_xlabel('epoch')
    _legend(figure, groups)
    return figure


def _gap(groups: Sequence[Group]) -> Figure:
    figure = Figure(figsize=(6, 4.2), layout='constrained')
    axes = figure.subplots()
    _against_batch_size(axes, groups, 'gap', 'o')
    axes.axhline(0, color='grey', linewidth=0.8)
    axes.set_ylabel('train − test accuracy (points)')
    return figure


def _accuracy(groups: Sequence[Group]) -> Figure:
    figure = Figure(figsize=(6, 4.2), layout='constrained')
    axes = figure.subplots()
    _against_batch_size(axes, groups, 'train_accuracy', 's')
    _against_batch_size(axes, groups, 'test_accuracy', 'o')
    axes.set_ylabel('accuracy (%)')
    return figure


def _rate_times_updates(groups: Sequence[Group]) -> Figure:
    """Where curves of different batch sizes lie on one another, the batch size acted through the number of updates."""
    figure = Figure(figsize=(9, 4.2), layout='constrained')
    for axes, split in zip(figure.subplots(1, 2), ('train', 'test'), strict=True):
        for group in groups:
            _line(axes, group, groups, f'{split}_accuracy', 'rate_times_updates', marker='.')
        axes.set_xscale('log')
        _plain_numbers(axes.xaxis)
        axes.set_xlabel('learning rate × updates')
        axes.set_ylabel(f'{split} accuracy (%)')
        _zoom(axes, groups, f'{split}_accuracy')
    _legend(figure, groups)
    return figure


def _line(axes: Axes, group: Group, groups: Sequence[Group], column: str, against: str, marker: str = '') -> None:
    curve = analysis.curve(group, column, against)
    scale = 1 if column.endswith('loss') else 100
    first = 0 if against == 'epoch' else 1  # a logarithmic axis has no place for the start
    columns = (curve.x_P, scale * curve.mean_P, scale * np.nan_to_num(curve.half_width_P))
    x_P, mean_P, half_P = (column_P[first:] for column_P in columns)
    colour, line = _colour(group), _line_style(group, groups)
    axes.plot(x_P, mean_P, color=colour, linestyle=line, marker=marker, label=_label(group, groups))
    axes.fill_between(x_P, mean_P - half_P, mean_P + half_P, color=colour, alpha=0.2, linewidth=0)


def _against_batch_size(axes: Axes, groups: Sequence[Group], column: str, marker: str) -> None:
    settings = list(dict.fromkeys(group.setting for group in groups))
    for setting in settings:
        members = sorted((group for group in groups if group.setting == setting), key=lambda g: g.batch_sizes)
        sizes = [group.batch_sizes[0] for group in members]
        values = [group.last(column) for group in members]
        colours = [_colour(group) for group in members]
        line = LINES[settings.index(setting) % len(LINES)]
        name = {'train_accuracy': 'train', 'test_accuracy': 'test'}.get(column, '')
        label = ', '.join(filter(None, (name, analysis.setting_text(members[0]) if len(settings) > 1 else '')))
        means = [100 * value.mean for value in values]
        halves = [0 if math.isnan(value.half_width) else 100 * value.half_width for value in values]
        axes.plot(sizes, means, line, color='grey', marker=marker, markersize=4, label=label, zorder=1)
        for size, mean, half, colour in zip(sizes, means, halves, colours, strict=True):
            axes.errorbar(size, mean, half, marker=marker, color=colour, capsize=4, zorder=2)
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f'{size:g}'))
    axes.set_xticks(sorted({group.batch_sizes[0] for group in groups}))
    axes.set_xticks([], minor=True)
    axes.set_xlabel('batch size')
    if any(handle.get_label() for handle in axes.get_lines() if not str(handle.get_label()).startswith('_')):
        axes.legend(frameon=False, fontsize=9)


def _zoom(axes: Axes, groups: Sequence[Group], column: str) -> None:
    """Leaves out the untrained model, so that the differences at the end can be seen."""
    lowest = [100 * run.rows[min(1, len(run.rows) - 1)][column] for group in groups for run in group.runs]
    if lowest:
        axes.set_ylim(max(0, min(lowest) - 2), 100.5)


def _plain_numbers(axis: Axis) -> None:
    """Writes the ticks of a logarithmic axis as 0.2 and 1, not as powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, groups: Sequence[Group]) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc='outside lower center',
        ncols=min(4 if len({g.setting for g in groups}) == 1 else 2, max(1, len(groups))),
        frameon=False,
    )


def _colour(group: Group) -> object:
    size = group.batch_sizes[0]
    return COLOURS.get(size) or mpl.colormaps['viridis'](min(1, math.log2(size) / 16))


def _line_style(group: Group, groups: Sequence[Group]) -> str:
    settings = list(dict.fromkeys(other.setting for other in groups))
    return LINES[settings.index(group.setting) % len(LINES)]


def _label(group: Group, groups: Sequence[Group]) -> str:
    if group.setting is None:
        return group.recipe
    name = f'batch size {group.batch_sizes[0]}'
    return name if len({other.setting for other in groups}) == 1 else f'{name}, {analysis.setting_text(group)}'
