"""How figures look: panels, axes, colours, legends, and estimates with their 95 % intervals.

An estimate has a `value` and the ends `low` and `high` of its interval: a mapping, or a row of a table. Both ends null:
there is no interval, as with one seed. One end null: the interval has no bound on that side.
"""

import io
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

WIDTH = 10  # inches, of every figure, so that their letters agree beneath one another
# By log2 of the batch size; the source's colours are kept: orange 64, teal 256, purple 1024.
SIZES = {0: '#5a0f14', 2: '#a3191f', 4: '#d9502b', 6: '#f39c12', 7: '#9aa82f', 8: '#169b8c', 9: '#3b7fc4'}
SIZES |= {10: '#6b3fa0', 12: '#b0398f', 14: '#d977a9', 16: '#3d3d3d'}
BY_SIZE = LinearSegmentedColormap.from_list('sizes', [(log / 16, colour) for log, colour in SIZES.items()], 1024)
# Okabe and Ito's, which the colour-blind tell apart.
NAMED = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8b6914', '#444444']
LINES: Any = ('-', '--', ':', '-.', (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = 'osDP^v*X'
STYLE: Any = {'axes.grid': True, 'grid.alpha': 0.3, 'axes.spines.top': False, 'axes.spines.right': False}
STYLE |= {'font.size': 9, 'axes.titlesize': 9, 'axes.edgecolor': '#666666', 'lines.linewidth': 1.6}
STYLE |= {'text.parse_math': False}  # a user's "$" is drawn as it is
STYLE |= {'svg.hashsalt': 'bsgap', 'svg.fonttype': 'none'}  # the same figure is the same file, its texts are texts
MOST_ENDS = 8  # lines that have room for their names at their ends
Look = dict[str, Any]  # what Matplotlib draws a line with
# By name: the caption, the function that draws it, and what that is called with besides the data.
Figures = Mapping[str, tuple[Any, ...]]


def write(figures: Figures, of: Any, folder: Path, note: str) -> dict[str, str]:
    """Draws figures of some data into `folder`, with a caption and a note above them; returns, by caption, each as SVG
    without these."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # that the font has not is a box, as elsewhere
        for name, (caption, function, *arguments) in figures.items():
            if figure := function(of, *arguments):
                _lay_out(figure)
                figure.savefig(text := io.StringIO(), format='svg', metadata=dict.fromkeys(['Date', 'Creator'], ''))
                svg = re.sub(r'(?s)<!--.*?-->\n?|<metadata>.*?</metadata>', '', text.getvalue())
                drawn[caption] = '<svg' + svg.partition('<svg')[2]  # without what only a file of its own needs
                look: Any = {'verticalalignment': 'bottom', 'gid': 'title'}  # above the rest
                title = figure.text(0.01, 1, f'{caption}\n{textwrap.fill(note, 130)}', **look)
                height = title.get_window_extent().y1 / figure.dpi
                figure.savefig(folder / f'{name}.png', dpi=100, bbox_inches=Bbox([[0, 0], [WIDTH, height + 0.1]]))
    return drawn


def of_size(batch_size: float) -> str:
    """The colour of a batch size, in every figure; beyond 65536 it is always the same."""
    return mpl.colors.to_hex(BY_SIZE(math.log2(max(1, batch_size)) / 16))


def sized(sizes: Iterable[int]) -> dict[str, str]:
    """The colours of batch sizes by their names, such as 'batch size 64'."""
    return {f'batch size {size}': of_size(size) for size in sizes}


def ordered(count: int) -> list[Look]:
    """How so many things that have an order look: from dark blue to yellow."""
    shades = map(mpl.colors.to_hex, mpl.colormaps['viridis'](np.linspace(0, 0.9, count)))
    return [{'color': shade, 'marker': marker} for shade, marker in zip(shades, itertools.cycle(MARKERS), strict=False)]


def looks(
    panel: Axes, pairs: Iterable[tuple[str, str]], colours: Mapping[str, str] | None = None, keys: bool = True
) -> dict[tuple[str, str], Look]:
    """How lines look of which two texts say what they are: the first by its colour, out of `colours` if given, the
    second by its style and marker. The `keys` of both are put into a panel, for the legend; an empty text has none."""
    pairs = list(pairs)
    firsts, seconds = (list(dict.fromkeys(texts)) for texts in zip(*pairs, strict=True))
    named = NAMED if len(firsts) <= len(NAMED) else [look['color'] for look in ordered(len(firsts))]
    colours = dict(zip(firsts, named, strict=False)) | dict(colours or {})
    styles = itertools.cycle({'linestyle': line, 'marker': marker} for line, marker in zip(LINES, MARKERS, strict=True))
    styled = dict(zip(seconds, styles, strict=False))
    for text in firsts if keys else ():
        panel.plot([], [], color=colours[text], label=text)
    for text, style in styled.items() if keys else ():
        panel.plot([], [], color='grey', label=text, **style)
    return {(first, second): {'color': colours[first], **styled[second]} for first, second in pairs}


def name_end(panel: Axes, x: float, y: float, text: str, colour: str) -> None:
    """Writes beside the end of a line what it is, in place of a legend."""
    if not math.isfinite(y):
        return
    look: Any = {'textcoords': 'offset points', 'color': colour, 'fontsize': 8, 'va': 'center', 'gid': 'end'}
    named = panel.annotate(text.replace('batch size', 'batch'), (x, y), (6, 0), annotation_clip=False, **look)
    named.set_path_effects([withStroke(linewidth=2.5, foreground='white')])


def _lay_out(figure: Figure) -> None:
    """Lays the figure out, and moves the names at the ends of lines up and down until none lies on another."""
    named: dict[Axes, list[Any]] = {
        panel: [text for text in panel.texts if text.get_gid() == 'end'] for panel in figure.axes
    }
    for panel, ends in named.items():
        low, high = sorted(panel.get_ylim())
        for end in ends:  # a name outside its panel would take all room
            end.xy = end.xy[0], min(max(end.xy[1], low), high)
    figure.draw_without_rendering()
    for panel, ends in named.items():
        boxes = [end.get_window_extent() for end in ends]
        middles = [(box.y0 + box.y1) / 2 for box in boxes]
        pairs = [
            (a, b)
            for a, b in itertools.combinations(range(len(ends)), 2)
            if boxes[a].x0 < boxes[b].x1 and boxes[b].x0 < boxes[a].x1
        ]
        bottom, top = panel.bbox.y0 + 6, panel.bbox.y1 - 6
        moved = list(middles)
        for _ in range(1000):
            before, moved = moved, [min(max(middle, bottom), top) for middle in moved]
            for a, b in pairs:
                low, high = (a, b) if (moved[a], middles[a], a) < (moved[b], middles[b], b) else (b, a)
                if (short := boxes[a].height - (moved[high] - moved[low])) > 0.1:
                    moved[low], moved[high] = moved[low] - short / 2, moved[high] + short / 2
            if moved == before:
                break
        for end, middle, to in zip(ends, middles, moved, strict=True):
            end.set_position((6, (to - middle) * 72 / figure.dpi))
    figure.set_layout_engine('none')  # all stays where it is


def panels(count: int, columns: int = 0, height: float = 2.8, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, in so many columns, three if there is room; a row's height is in inches."""
    columns = columns or min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.4), layout='constrained')
    every = list(figure.subplots(rows, columns, squeeze=False, **share).flat)
    for panel in every[count:]:
        panel.set_axis_off()
    return figure, every[:count]


def batch_sizes(panel: Axes, which: str, sizes: Iterable[int]) -> None:
    """A logarithmic axis with a tick for each batch size that has room."""
    panel.set(**{f'{which}label': 'batch size', f'{which}scale': 'log'})
    place, ticks = panel.get_subplotspec(), list[int]()
    room = 18 / place.get_gridspec().ncols if place and which == 'x' else 18
    for size in (ascending := sorted(sizes)):
        if not ticks or math.log(size / ticks[-1]) > math.log(ascending[-1] / ascending[0]) / room:
            ticks.append(size)
    axis = getattr(panel, f'{which}axis')
    axis.set_ticks([], minor=True)
    axis.set_ticks(ticks, map(str, ticks))


def logarithmic(panel: Axes, which: str) -> None:
    """A logarithmic axis (or both, `xy`) that says 0.2 and 1, not powers of ten; to be called when all is drawn."""
    for letter in which:
        axis = getattr(panel, f'{letter}axis')
        if math.isfinite(axis.get_minpos()):  # something is above 0
            panel.set(**{f'{letter}scale': 'log'})
            low, high = axis.get_view_interval()
            ticks = LogLocator(subs=(1,) if high / low > 300 else (1, 2, 5)) if high / low > 6 else MaxNLocator(4)
            axis.set_major_locator(ticks)
            axis.set_major_formatter(lambda tick, _: _short(tick))
            axis.set_minor_formatter(NullFormatter())


def _short(tick: float) -> str:
    """Such as 0.2, 500, 2k, 5M: neighbouring ticks have little room."""
    factor, letter = (1, '') if tick < 1e3 else (1e3, 'k') if tick < 1e6 else (1e6, 'M')
    return f'{tick / factor:.10g}{letter}'


def limits(values: Iterable[float], factor: float) -> tuple[float, float]:
    """From the lowest to the highest value above 0, and a factor more on either side."""
    above = [value for value in values if value > 0] or [1.0]
    return min(above) / factor, max(above) * factor


def legend(figure: Figure) -> Figure:
    """Below the panels: all that has a label, once."""
    pairs = [pair for panel in figure.axes for pair in zip(*panel.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in pairs}
    if handles:
        columns = max(1, int(figure.get_figwidth() / (0.6 + 0.075 * max(map(len, handles)))))
        rows = math.ceil(len(handles) / columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * rows)
        look: Any = {'loc': 'outside lower center', 'ncols': math.ceil(len(handles) / rows), 'frameon': False}
        figure.legend(list(handles.values()), list(handles), **look)
    return figure


def ends(estimates: Any) -> np.ndarray:
    """Values and interval ends of P estimates, (3, P) float64: NaN where there is no interval; an end without a bound
    lies a million times away, beyond any axis."""
    value_P, low_P, high_P = pd.DataFrame(estimates, columns=['value', 'low', 'high'], dtype=float).to_numpy().T
    below_P, above_P = np.isnan(low_P) & ~np.isnan(high_P), np.isnan(high_P) & ~np.isnan(low_P)
    return np.array([value_P, np.where(below_P, high_P / 1e6, low_P), np.where(above_P, low_P * 1e6, high_P)])


def bars(panel: Axes, x: Any, estimates: Any, scale: float = 1, is_flat: bool = False, **look: Any) -> None:
    """Points with their intervals, without where there is none; `is_flat`: from left to right, with `x` upwards."""
    value_P, low_P, high_P = scale * ends(estimates)
    spread_2xP = np.maximum(np.nan_to_num([value_P - low_P, high_P - value_P]), 0)
    at = {'x': value_P, 'y': x, 'xerr': spread_2xP} if is_flat else {'x': x, 'y': value_P, 'yerr': spread_2xP}
    panel.errorbar(**at, capsize=3, **{'markersize': 5, **look})


def line(panel: Axes, x: Any, estimates: Any, scale: float = 1, **look: Any) -> None:
    """A line with its intervals as a band; unless `markevery` says more, a marker is at its end alone."""
    value_P, low_P, high_P = scale * ends(estimates)
    panel.plot(x, value_P, **{'markevery': [-1], 'markersize': 4, **look})
    low_P = np.where(value_P > 0, np.maximum(low_P, value_P / 10), low_P)  # a logarithmic axis has no bottom
    panel.fill_between(x, low_P, high_P, color=look['color'], alpha=0.15, linewidth=0)


def rules(panel: Axes, sizes: Sequence[float], size: float, rate: float) -> None:
    """The learning rates that the rules give from one batch size and its learning rate."""
    for power, style, name in ((1, '--', 'linear rule'), (0.5, ':', 'square-root rule')):
        guide = [rate * (each / size) ** power for each in sizes]
        panel.plot(sizes, guide, style, color='tab:red', label=name, zorder=1)
