"""The figures of a study, drawn from the table of runs: means with their 95 % intervals over seeds."""

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bsgap.analysis import quantities
from bsgap.analysis.statistics import intervals, plural
from bsgap.config import Task
from bsgap.report import axes
from bsgap.report.figure_data import SCORES, TEXTS, Data, Lines, gather, text

MANY_TIMES = 8  # as long as another: both are seen on a logarithmic axis alone
SHARPNESS = ['sharpness_0.001', 'sharpness_0.0005', 'top_eigenvalue']


def draw(
    runs: pd.DataFrame, folder: Path, title: str, figures: Iterable[str], task: Task, lines: Lines = ()
) -> dict[str, str]:
    """Draws those of `figures` (names, out of `config.fields.FIGURES`) for which there is data; returns their SVG,
    by caption.

    `lines` are, for each pair of solutions and each seed, a mapping with `first`, `second` (recipes), `seed`, and, of
    equal length, `alpha`, `train_loss`, `test_loss`, and the task's scores, such as `train_accuracy` (a fraction).
    """
    data, known = gather(runs, task, lines), {}
    for name in (name for name in figures if name in FIGURES):  # an earlier version had others
        caption, *how = FIGURES[name]
        known[name] = caption.format(task.text, task.text[0].upper() + task.text[1:]), *how
    return axes.write(known, data, folder, note(data, title)) if data else {}


def note(data: Data, title: str) -> str:
    """The line under the caption."""
    n = sorted(set(data.ends.groupby('recipe').size()))
    seeds = f'; mean and 95 % interval over seeds (n = {", ".join(map(str, n))})' if max(n) > 1 else ''
    lost = f'; without {plural(data.diverged, "diverged run")}' if data.diverged else ''
    failed = f'; {plural(data.near_chance, "run")} near chance' if data.near_chance else ''
    return title + seeds + lost + failed


def _looks(panel: Axes, rows: pd.DataFrame, ends: bool = False) -> tuple[dict[str, axes.Look], dict[str, str]]:
    """By recipe, how its line looks, and the name to be written at its end; where that has no room, or with `ends` off,
    the keys are put into a panel in its place. The colour is the batch size and the line style the setting, or the
    reverse if there are more settings; where settings alone tell recipes apart, the colour is theirs."""
    recipes = rows.drop_duplicates('recipe')
    sizes, settings = [f'batch size {size}' for size in recipes['size']], list(recipes['setting'])
    colours = axes.sized(recipes['size'])
    if len(set(settings)) == len(settings) and '' not in settings:
        if len(set(sizes)) == len(sizes) and recipes['done'].all():  # then they differ in their batch sizes
            settings = [f'{setting}, {size}' for setting, size in zip(settings, sizes, strict=True)]
            colours = dict(zip(settings, map(axes.of_size, recipes['size']), strict=True))
        sizes = [''] * len(settings)
    pairs = list(zip(*sorted((sizes, settings), key=lambda texts: -len(set(texts))), strict=True))
    kinds = [list(dict.fromkeys(texts)) for texts in zip(*pairs, strict=True)]
    told = [len(kind) > 1 or len(pairs) == 1 for kind in kinds]
    names = [', '.join(text for text, tell in zip(pair, told, strict=True) if tell and text) for pair in pairs]
    ends &= len(names) <= axes.MOST_ENDS and max(map(len, names)) <= 30 and min(map(len, kinds)) == 1
    looks = axes.looks(panel, pairs, {text: colours[text] for text in kinds[0] if text in colours}, keys=not ends)
    named = dict(zip(recipes['recipe'], names, strict=True))
    return {recipe: looks[pair] for recipe, pair in zip(recipes['recipe'], pairs, strict=True)}, named if ends else {}


def _over_training(data: Data, columns: Sequence[str], against: Sequence[str]) -> Figure | None:
    """Lines over training. Where those against learning rate × updates lie on one another, it was the updates."""
    rows = data.rows[(data.rows['row'] <= data.rows['last']) & (data.rows['last'] > 0)]
    if rows.empty or set(columns) - set(rows):
        return None
    shown = list(itertools.product(columns, against))
    figure, every = axes.panels(len(shown), sharey=len(columns) == 1)
    looks, named = _looks(every[0], rows, ends=True)
    last = rows.groupby('recipe')['epoch'].max()
    linear = ['epoch'] if last.max() <= MANY_TIMES * last.min() else []
    for panel, (column, x) in zip(every, shown, strict=True):
        points = rows[rows['row'] >= (x not in linear)].groupby(['recipe', 'row'])  # a logarithmic axis has no start
        found = intervals(points[column]).assign(x=points[x].mean())
        for recipe, line in found.groupby('recipe'):
            axes.line(panel, line['x'], line, **looks[recipe])
            x_end, y_end = line[['x', 'value']].iloc[-1]
            if recipe in named and (column in (*SCORES, 'gap') or y_end > 0):
                axes.name_end(panel, x_end, y_end, named[recipe], looks[recipe]['color'])
        if x not in linear:
            axes.logarithmic(panel, 'x')
        if column in SCORES:  # leave out the untrained model, so that the differences at the end can be seen
            first, top = found.xs(1, level='row')[['value', 'low']].min().min(), data.task.scale
            panel.set_ylim(max(0, first - 0.02 * top), 1.005 * top)
        elif column == 'gap':
            panel.axhline(0, color='grey', linewidth=0.8)
        else:
            axes.logarithmic(panel, 'y')
        panel.set(xlabel=TEXTS[x], ylabel=text(column, data.task))
        if x == 'train_loss':  # training goes from left to right
            panel.invert_xaxis()
    return axes.legend(figure)


def _schedule(data: Data) -> Figure:
    """What each recipe has from an evaluation on; later lines are thinner, so that those below can be seen."""
    figure, (top, bottom) = axes.panels(2, 1, height=2.3, sharex=True)
    rows, (looks, _) = data.rows.drop_duplicates(['recipe', 'row']), _looks(top, data.rows)
    for i, (recipe, look) in enumerate(looks.items()):
        line = rows[rows['recipe'] == recipe]
        look = look | {'drawstyle': 'steps-post', 'linewidth': 6 - 4.5 * i / len(looks), 'alpha': 0.8, 'marker': ''}
        top.plot(line['epoch'], line['batch_size'], **look)
        bottom.plot(line['epoch'], line['learning_rate'].where(lambda rate: rate > 1e-6 * rate.max()), **look)
    axes.batch_sizes(top, 'y', set(rows['batch_size']))
    axes.logarithmic(bottom, 'y')
    bottom.set(xlabel='epochs, at each evaluation', ylabel='learning rate')
    return axes.legend(figure)


def _at_the_end(data: Data, columns: Sequence[str], fewest: int = 1) -> Figure | None:
    """Those of the columns that the finished runs have, against batch size; None if they are less than `fewest`."""
    ends = data.ends[data.ends['done']]
    columns = list(ends.reindex(columns=columns).dropna(axis=1, how='all'))
    if len(columns) < fewest:
        return None
    figure, every = axes.panels(len(columns), height=3.2)
    parts = {setting: setting.partition(', ')[::2] for setting in ends['setting'].unique()}
    looks, sizes = axes.looks(every[0], parts.values()), sorted(set(ends['size']))
    room = min((large / small for small, large in itertools.pairwise(sizes)), default=2) ** 0.2
    for panel, column in zip(every, columns, strict=True):
        found = intervals(ends.groupby(['setting', 'size'], sort=False)[column])
        found = _with_room(panel, found, data.task) if column in SCORES else found
        for i, (setting, line) in enumerate(found.groupby('setting', sort=False)):  # a little beside one another
            places = line.index.get_level_values('size') * room ** ((i + 0.5) / len(parts) - 0.5)
            axes.bars(panel, places, line, **looks[parts[setting]])
        axes.batch_sizes(panel, 'x', sizes)
        panel.set_ylabel(text(column, data.task))
        if column in SHARPNESS:
            axes.logarithmic(panel, 'y')
        if column == 'gap':
            panel.axhline(0, color='grey', linewidth=0.8)
        if column in SCORES:
            _keep_in_range(panel, data.task)
    return axes.legend(figure)


def _learning_rate(data: Data) -> Figure | None:
    """Each batch size's best learning rate, beside the linear and the square-root rule; one that diverged is none."""
    ends, chooser = _crossed(data)
    if ends['rate'].nunique() < 2:
        return None
    figure, (left, right) = axes.panels(2)
    colours = axes.sized(ends['size'])
    looks = axes.looks(left, zip('batch size ' + ends['size'].astype(str), ends['rest'], strict=True), colours)
    tested = _with_room(left, intervals(ends.groupby(['size', 'rest', 'rate'])['test_score']), data.task)
    for (size, rest), line in tested.groupby(['size', 'rest']):
        axes.bars(left, line.index.get_level_values('rate'), line, **looks[f'batch size {size}', rest])
    _keep_in_range(left, data.task)
    stable = ends[~ends['diverged']].groupby(['rest', 'size', 'rate'], sort=False)[f'{chooser}_score'].mean()
    best = stable.sort_values(kind='stable').groupby(['rest', 'size']).tail(1).sort_index().reset_index()
    for i, (rest, line) in enumerate(best.groupby('rest')):
        look = looks[f'batch size {line["size"].iloc[0]}', rest] | {'color': 'black'}
        right.plot(line['size'], line['rate'], label=f'best, {rest}'.removesuffix(', '), **look)
        if not i:
            axes.rules(right, line['size'], *line[['size', 'rate']].iloc[0])
    axes.logarithmic(left, 'x')
    axes.logarithmic(right, 'y')
    axes.batch_sizes(right, 'x', set(ends['size']))
    left.set(xlabel='learning rate', ylabel=text('test_score', data.task))
    right.set_ylabel(f'best learning rate ({chooser} split)')
    return axes.legend(figure)


def _crossed(data: Data) -> tuple[pd.DataFrame, str]:
    """Of the sweep's finished runs the last rows, with what they are besides batch size and learning rate (`rest`), and
    the split that chooses among them."""
    ends = data.ends[data.ends['done'] & data.ends['swept']]
    rest = ends['setting'].str.replace(r'^learning rate [^,]*(, )?', '', regex=True)
    return ends.assign(rest=rest), 'validation' if 'validation_score' in ends else 'test'


def _best_batch_size(data: Data) -> Figure | None:
    """Smith & Le 2018 (1710.06451), fig. 5 and 6."""
    ends, chooser = _crossed(data)
    rates, kinds = sorted(ends['rate'].unique()), list(dict.fromkeys(ends['rest']))
    if len(rates) < 2 or ends['size'].nunique() < 3 or not data.task.is_share:
        return None
    figure, (*every, right) = axes.panels(len(kinds) + 1)
    colours = dict(zip(rates, axes.ordered(len(rates)), strict=True))
    looks, sizes = axes.looks(right, [('', f'best, {kind}'.removesuffix(', ')) for kind in kinds]), set(ends['size'])
    for panel, kind, look in zip(every, kinds, looks.values(), strict=True):
        of_kind = ends[ends['rest'] == kind]
        tested = _with_room(panel, intervals(of_kind.groupby(['rate', 'size'])['test_score']), data.task)
        for rate, line in tested.groupby('rate'):
            label = f'learning rate {rate:g}' if panel is every[0] else None
            axes.bars(panel, line.index.get_level_values('size'), line, **colours[rate], label=label)
        axes.batch_sizes(panel, 'x', sizes)
        panel.set(title=kind, ylabel=text('test_score', data.task))
        _keep_in_range(panel, data.task)
        tried = of_kind.groupby(['rate', 'n', 'seed'])
        best = tried.apply(quantities.lowest, 'size', f'{chooser}_{data.task.score}')
        found = np.exp(intervals(np.log(best).groupby(['rate', 'n'])))
        places = [rate * n for rate, n in found.index]
        axes.bars(right, places, found, **look | {'color': 'black'})
        if panel is every[0]:
            axes.rules(right, np.multiply.outer(rates, ends['n'].unique()).ravel(), places[0], found['value'].iloc[0])
    axes.logarithmic(right, 'x')
    axes.batch_sizes(right, 'y', sizes)
    right.set(xlabel='learning rate × training examples', ylabel=f'best batch size ({chooser} split)')
    right.set_ylim(min(sizes) / 1.5, max(sizes) * 1.5)
    return axes.legend(figure)


def _with_room(panel: Axes, found: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Intervals of a score, without those of settings that learned less than half of what the best of their batch size
    did: these must not squeeze the others, and their lines leave the panel."""
    failed = found['value'] < found.groupby('size')['value'].transform('max') / 2
    if task.is_share and failed.any():
        learned = found[~failed]
        low, high = learned[['low', 'value']].min().min(), learned[['high', 'value']].max().max()
        panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        found.loc[failed, ['low', 'high']] = np.nan
    return found


def _keep_in_range(panel: Axes, task: Task) -> None:
    """Shows no share below 0 or above 1, where an interval may end."""
    low, high = panel.get_ylim()
    if task.is_share:
        panel.set_ylim(max(low, -0.02 * task.scale), min(high, 1.02 * task.scale))


def _lines(data: Data) -> Figure | None:
    """Keskar et al. 2017 (1609.04836), fig. 3."""
    if not data.lines:
        return None
    pairs = pd.concat(map(pd.DataFrame, data.lines)).groupby(['first', 'second'], sort=False)
    figure, every = axes.panels(2 * len(pairs), len(pairs), sharex=True, sharey='row')
    score, scale = data.task.score, data.task.scale
    for panel, (quantity, (pair, points)) in zip(every, itertools.product(('loss', score), pairs), strict=True):
        for split, colour, style in (('train', 'tab:blue', '-'), ('test', 'tab:red', '--')):
            found = intervals(points.groupby('alpha')[f'{split}_{quantity}']) * (scale if quantity == score else 1)
            axes.line(panel, found.index, found, color=colour, linestyle=style, label=split)
        for alpha in (0, 1):
            panel.axvline(alpha, color='grey', linewidth=0.8)
        if quantity == 'loss':
            axes.logarithmic(panel, 'y')
            panel.set(title='α = 0: {}\nα = 1: {}'.format(*pair), ylabel=text('loss', data.task))
        else:
            panel.set(xlabel='α', ylabel=text('score', data.task))
    return axes.legend(figure)


def _gradient_norm(data: Data) -> Figure | None:
    """Shen 2018's measurement, and the norms of single gradients."""
    measured = re.findall(r'gradient_norm_([a-z]+)_bs(\d+)', ' '.join(data.ends.dropna(axis=1, how='all')))
    if not measured:
        return None
    sizes = sorted({int(size) for _, size in measured})
    kinds = sorted({kind for kind, _ in measured}, reverse=True)  # the source's first
    figure, every = axes.panels(2 * len(kinds), 2, sharex=True)
    looks, _ = _looks(every[0], data.ends)
    for panel, (kind, relative) in zip(every, itertools.product(kinds, (False, True)), strict=True):
        columns = [[f'gradient_norm_{kind}_{part}bs{size}' for size in sizes] for part in ('', 'sd_')]
        mean, spread = (data.ends[names].set_axis(sizes, axis=1) for names in columns)
        found = (spread / mean if relative else mean).assign(recipe=data.ends['recipe']).melt('recipe', var_name='size')
        for recipe, line in intervals(found.groupby(['recipe', 'size'])['value']).groupby('recipe'):
            axes.line(panel, sizes, line, markevery=1, **looks[recipe])
        axes.batch_sizes(panel, 'x', sizes)
        title = {'each': 'each gradient, weights frozen', 'mean': 'mean gradient of a trial, weights moving'}.get(kind)
        panel.set(title=title, ylabel='spread (standard deviation / mean)' if relative else 'mean norm of the gradient')
    for panel in every:
        panel.set_ylim(bottom=0)
    return axes.legend(figure) if len(looks) > 1 else figure


# Each caption says what to look for, and has the task's score, in the middle of a sentence and at its beginning.
FIGURES: axes.Figures = {
    'curves': (
        'How far each gets in the same epochs, and the gap between training and test data that it leaves',
        *(_over_training, [*SCORES, 'gap', 'train_loss', 'test_loss'], ['epoch']),
    ),
    'accuracy': (
        '{1} at the end, and the gap between training and test data, by batch size',
        _at_the_end,
        [*SCORES, 'gap'],
    ),
    'learning_rate_sum': (
        'Where lines lie on one another, {0} depends on learning rate × updates, whatever the batch size',
        *(_over_training, SCORES, ['learning_rate_sum']),
    ),
    'schedule': ('What each recipe does: its batch size and learning rate over training', _schedule),
    'updates': (
        'The same training counted in epochs, in updates and in seconds: what is ahead depends on what is counted',
        *(_over_training, ['test_score'], ['epoch', 'update', 'train_seconds']),
    ),
    'learning_rate': (
        'Left, how well each learning rate does; right, whether the best one grows with the batch size as a rule says',
        _learning_rate,
    ),
    'distance': ('How far the weights move: a straight line is a power law', _over_training, ['distance'], ['update']),
    'best_batch_size': (
        'Whether there is a best batch size, and whether it grows with the learning rate and the training examples',
        _best_batch_size,
    ),
    'above_the_lowest': (
        'How the training loss comes down to its minimum, and whether it stays there',
        *(_over_training, ['above_the_lowest'], ['update', 'examples']),
    ),
    'equal_loss': (
        'Where the training loss is the same, the lower line, or the higher {0}, generalizes better',
        *(_over_training, ['test_loss', 'test_score'], ['train_loss']),
    ),
    'lines': ('Loss and {0} on the way from one solution (α = 0) to another (α = 1)', _lines),
    'sharpness': (
        'Whether large batches end in sharper places, and do worse',
        _at_the_end,
        ['test_score', *SHARPNESS],
        2,
    ),
    'gradient_norm': (
        'The norm of the mean gradient over the same examples, and of the gradients of single batches, by batch size',
        _gradient_norm,
    ),
}
