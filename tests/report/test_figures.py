"""Which figures are drawn for which data, and what their lines say."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bsgap import config
from bsgap.analysis import table
from bsgap.config import schedule
from bsgap.config.fields import FIGURES
from bsgap.config.schedule import Stage
from bsgap.report import axes, figure_data, figures
from bsgap.training.rows import Record

N = 1000
FIELDS = {'schedule': 'constant', 'momentum': 0.0, 'subset': None, 'label_noise': 0.0, 'hidden': [8]}


def record(
    recipe: str,
    seed: int,
    *stages: Stage,
    accuracy: float = 0.9,
    measured: dict[str, float] | None = None,
    **end: float,
) -> Record:
    """A finished run with this accuracy; `end` are other columns of its last row."""
    spans = schedule.place(stages, N)
    rows = []
    for update in schedule.evaluations(spans, N):
        done = update / spans[-1].last_update
        rows.append(
            {
                'epoch': schedule.example_at(spans, update, N) / N,
                'update': update,
                'examples': schedule.example_at(spans, update, N),
                'batch_size': schedule.span_at(spans, update).stage.batch_size,
                'learning_rate': schedule.learning_rate_at(spans, update),
                'learning_rate_sum': schedule.learning_rate_sum(spans, update),
                'train_seconds': 0.1 * update,
                'eval_seconds': 0.0,
                'distance': 3.0 * done,
                'gap': 0.01,
                **{f'{split}_loss': 2.3 - 2 * done for split in ('train', 'test')},
                **{f'{split}_accuracy': accuracy * done for split in ('train', 'test')},
            }
        )
    rows[-1].update(end)
    if 'validation_accuracy' in end:
        rows[-1]['validation_loss'] = 1.0
    fields = {**FIELDS, 'batch_size': stages[0].batch_size, 'learning_rate': stages[0].learning_rate}
    described = {'name': f'{recipe}-seed{seed}', 'recipe': recipe, 'seed': seed, 'n': N, 'fields': fields}
    described |= {'updates': rows[-1]['update'], 'stages': [dataclasses.asdict(stage) for stage in stages]}
    return Record(described, rows, measured or {})


def swept(size: int, rate: float, seed: int, **changes: Any) -> Record:
    return record(f'bs{size}-lr{rate:g}', seed, Stage(size, rate, 4, 'epochs'), **changes)


TASK = config.task('classification')


def gather(records: list[Record], lines: Any = ()) -> figure_data.Data:
    data = figure_data.gather(table.table(records), TASK, lines)
    assert data
    return data


def panels(name: str, records: list[Record], lines: Any = ()) -> list[Axes]:
    _, function, *arguments = figures.FIGURES[name]
    figure = function(gather(records, lines), *arguments)
    assert figure is not None
    return figure.axes


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for legend in axes.figure.legends for text in legend.get_texts()]


def names(axes: Axes) -> list[str]:
    """What is written at the ends of lines."""
    return [text.get_text() for text in axes.texts if text.get_gid() == 'end']


def lines_of(axes: Axes) -> list[Line2D]:
    """Those with points; the others are keys of the legend."""
    return [one for one in axes.get_lines() if len(one.get_xdata())]


def points(axes: Axes) -> list[list[tuple[float, float]]]:
    """Of each line with error bars."""
    return [[(float(x), float(y)) for x, y in container[0].get_xydata()] for container in axes.containers]


def places(axes: Axes) -> list[list[Any]]:
    """The batch sizes of each line with error bars; lines stand a little beside one another."""
    return [[pytest.approx(x, rel=0.1) for x, _ in line] for line in points(axes)]


def drawn(records: list[Record], lines: Any = ()) -> set[str]:
    data = gather(records, lines)
    return {name for name, (_, function, *arguments) in figures.FIGURES.items() if function(data, *arguments)}


def line(**changes: Any) -> dict[str, Any]:
    values = {
        f'{split}_{quantity}': [0.9, 0.5, 0.7] for split in ('train', 'test') for quantity in ('loss', 'accuracy')
    }
    return {'first': 'bs10-lr0.1', 'second': 'bs100-lr0.1', 'seed': 0, 'alpha': [-1, 0, 1], **values, **changes}


def test_a_line_that_ends_outside_its_panel_leaves_the_others_their_room() -> None:
    records = [swept(10, rate, 0) for rate in (0.1, 1.0)]
    for row in (row for each in records for row in each.rows[1:]):
        row['train_accuracy'] = row['test_accuracy'] = 0.98
    records[1].rows[-1]['train_accuracy'] = 0.1
    every = panels('curves', records)
    axes._lay_out(every[0].figure)
    left, right = every[:2]
    assert all(not text.get_window_extent().overlaps(right.bbox) for text in left.texts)
    assert left.texts
    assert right.bbox.x0 - left.bbox.x1 > max(text.get_window_extent().width for text in left.texts)


def test_every_figure_has_a_name_in_the_configuration() -> None:
    assert tuple(figures.FIGURES) == FIGURES


def test_figures_without_data_are_left_out() -> None:
    always = {'curves', 'learning_rate_sum', 'schedule', 'updates', 'distance', 'equal_loss'}
    grow = [record('grow', s, Stage(10, 0.1, 2, 'epochs'), Stage(50, 0.1, 2, 'epochs')) for s in range(2)]
    for records in ([], [swept(10, 0.1, 0, train_loss=math.nan), swept(10, 0.1, 1)._replace(rows=[])]):
        assert figure_data.gather(table.table(records), TASK) is None
    assert drawn([swept(10, 0.1, 0)._replace(rows=swept(10, 0.1, 0).rows[:1])]) == {'schedule'}
    assert drawn(grow) == always
    assert drawn([swept(10, 0.1, 0)]) == always | {'accuracy'}
    assert drawn([swept(10, r, 0) for r in (0.1, 1)]) == always | {'accuracy', 'learning_rate'}
    assert drawn([swept(b, 0.1, 0) for b in (10, 20)]) == always | {'accuracy'}
    whole = record('bswhole-lr0.1', 0, Stage(N, 0.1, 4, 'epochs'))
    assert legend(panels('accuracy', [swept(10, 0.1, 0), whole])[0]) == legend(
        panels('accuracy', [swept(10, 0.1, 0), swept(N, 0.1, 0)])[0]
    )
    measured = {
        'sharpness_0.001': 2.0,
        'lowest_loss': 0.1,
        **{f'gradient_norm_each{part}_bs8': 0.5 for part in ('', '_sd')},
    }
    full = drawn([swept(b, r, 0, measured=measured) for b in (10, 20, 40) for r in (0.1, 1)], [line()])
    assert full == set(FIGURES)


def test_the_loss_above_its_minimum_and_at_equal_training_loss() -> None:
    """The lowest of all runs counts; training goes from left to right, so that the training loss falls."""
    records = [swept(10, 0.1, s, measured={'lowest_loss': 0.1 + 0.05 * s}) for s in range(2)]
    updates, examples = panels('above_the_lowest', records)
    (line,) = lines_of(updates)
    assert line.get_xydata().tolist() == [pytest.approx([100 * n, 2.2 - 0.5 * n]) for n in (1, 2, 3, 4)]
    assert list(lines_of(examples)[0].get_xdata()) == [1000, 2000, 3000, 4000]
    loss, score = panels('equal_loss', records)
    assert lines_of(loss)[0].get_xydata().tolist() == [pytest.approx([2.3 - 0.5 * n] * 2) for n in (1, 2, 3, 4)]
    assert loss.get_xlim()[0] > loss.get_xlim()[1]
    assert score.get_xlim()[0] > score.get_xlim()[1]


def test_the_best_batch_size_is_the_lowest_point_of_its_parabola_by_validation() -> None:
    """Of errors that are the same on both sides, the middle; 4 times the learning rate, 4 times the batch size."""
    errors = {0.1: {2: 0.4, 8: 0.2, 32: 0.4, 128: 0.5}, 0.4: {2: 0.5, 8: 0.4, 32: 0.2, 128: 0.4}}
    records = [
        swept(size, rate, seed, validation_accuracy=1 - error, test_accuracy=0.5)
        for rate, of_rate in errors.items()
        for size, error in of_rate.items()
        for seed in range(2)
    ]
    each, best = panels('best_batch_size', records)
    assert places(each) == [[2, 8, 32, 128]] * 2
    assert points(best) == [[pytest.approx((0.1 * N, 8)), pytest.approx((0.4 * N, 32))]]
    linear = next(one for one in best.get_lines() if one.get_label() == 'linear rule')
    assert linear.get_xydata().tolist() == [pytest.approx([0.1 * N, 8]), pytest.approx([0.4 * N, 32])]
    assert legend(each)[:3] == ['learning rate 0.1', 'learning rate 0.4', 'best']


@pytest.mark.parametrize(('epochs', 'scale'), [(32, 'linear'), (33, 'log')])
def test_epochs_are_logarithmic_where_one_recipe_is_many_times_as_long(epochs: int, scale: str) -> None:
    records = [record(name, 0, Stage(10, 0.1, n, 'epochs')) for name, n in (('short', 4), ('long', epochs))]
    panel = panels('curves', records)[0]
    assert panel.get_xscale() == scale
    assert {one.get_xdata()[0] for one in lines_of(panel)} == {0.0 if scale == 'linear' else 1.0}


def test_a_panel_of_shares_ends_at_0_and_100_percent() -> None:
    records = [swept(10, 0.1, s, test_accuracy=0.1 + 0.8 * s) for s in range(2)]
    _, test, _ = panels('accuracy', records)
    assert test.get_ylim() == (-2, 102)


def test_files_are_returned_by_caption(tmp_path: Path) -> None:
    """A learning rate of 0 has no place on a logarithmic axis, and warnings are errors."""
    records = [swept(b, 0.0, 0) for b in (10, 20)]
    files = figures.draw(table.table(records), tmp_path / 'new', 'study', ('schedule', 'lines', 'accuracy'), TASK)
    assert list(files) == [
        figures.FIGURES['schedule'][0],
        'Accuracy at the end, and the gap between training and test data, by batch size',
    ]
    assert all(re.match('(?s)<svg .*</svg>', text) for text in files.values())
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['accuracy.png', 'schedule.png']
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in (tmp_path / 'new').iterdir())
    assert figures.draw(table.table([]), tmp_path, 'study', ('schedule', 'accuracy'), TASK) == {}


def test_a_point_is_a_mean_over_seeds_with_its_interval() -> None:
    """0.8 and 0.9: 0.85 ± 12.706 × 0.05, Student's t for n = 2; the run that diverged is not in it."""
    records = [swept(10, 0.1, s, accuracy=(0.8, 0.9)[s]) for s in range(2)]
    _, test, _ = panels('accuracy', [*records, swept(10, 0.1, 2, accuracy=0.1, train_loss=math.nan)])
    ((container,),) = (test.containers,)
    line, _, (bars,) = container
    assert line.get_xydata().tolist() == [pytest.approx([10, 85])]
    assert bars.get_segments()[0][:, 1] == pytest.approx([85 - 63.531, 85 + 63.531], abs=0.001)


def test_a_curve_holds_the_rows_that_all_runs_have() -> None:
    """And of those only the ones for which all splits were evaluated."""
    full, short = swept(10, 0.1, 0, accuracy=0.4), swept(10, 0.1, 1, accuracy=0.8)
    validated = {name: value for name, value in full.rows[1].items() if not name.startswith('test')}
    rows = [
        full.rows[0],
        {**validated, 'epoch': 0.5, 'validation_accuracy': 0.5, 'validation_loss': 1.0},
        *full.rows[1:],
    ]
    _, test, *_ = panels('curves', [full._replace(rows=rows), short._replace(rows=short.rows[:3])])
    (mean,) = lines_of(test)
    assert list(mean.get_xdata()) == [0, 1, 2]
    assert list(mean.get_ydata()) == pytest.approx([0, 15, 30])


def test_a_band_holds_its_line_below_zero_too() -> None:
    """The gap may be negative; −0.01 and −0.03: −2 points ± 12.706."""
    records = [swept(10, 0.1, s) for s in range(2)]
    for each, gap in zip(records, (-0.01, -0.03), strict=True):
        for row in each.rows:
            row['gap'] = gap
    _, _, gap_panel, *_ = panels('curves', records)
    ends = gap_panel.collections[0].get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == pytest.approx((-2 - 12.706, -2 + 12.706), abs=0.01)


def test_one_recipe_is_named_too() -> None:
    assert names(panels('curves', [swept(10, 0.1, 0)])[0]) == ['batch 10']


def test_a_line_that_ends_where_a_logarithmic_axis_has_no_place(tmp_path: Path) -> None:
    """Warnings are errors."""
    records = [swept(10, 0.1, 0, train_loss=0.0), swept(20, 0.1, 0)]
    figures.draw(table.table(records), tmp_path, 'study', ('curves',), TASK)


def test_unfinished_recipes_have_curves_but_no_end() -> None:
    begun = swept(20, 0.1, 0)
    records = [swept(10, 0.1, 0), begun._replace(rows=begun.rows[:3])]
    assert names(panels('curves', records)[0]) == ['batch 10', 'batch 20']
    _, test, _ = panels('accuracy', records)
    assert points(test) == [[(10, pytest.approx(90))]]


def test_the_legend_says_what_varies() -> None:
    (axes, *_) = panels('curves', [swept(b, 0.1, 0) for b in (20, 100, 10)])
    assert {*names(axes)} == {'batch 10', 'batch 20', 'batch 100'}
    assert not legend(axes)
    (axes, *_) = panels('curves', [swept(b, r, 0) for b in (10, 100) for r in (1, 0.1)])
    assert legend(axes) == ['batch size 10', 'batch size 100', 'learning rate 0.1', 'learning rate 1']
    assert len({(str(one.get_color()), one.get_linestyle()) for one in lines_of(axes)}) == 4
    fields = {'subset': 500, 'label_noise': 0.2, 'hidden': [16, 16]}
    other = swept(10, 0.1, 0)
    other = other._replace(
        about={**other.about, 'recipe': 'bs10-lr0.1-n500', 'n': 500, 'name': 'bs10-lr0.1-n500-seed0'}
    )
    other.about['fields'] = {**other.about['fields'], **fields}
    (_, axes, _) = panels('accuracy', [swept(10, 0.1, 0), swept(20, 0.1, 0), other])
    rest = ['label noise 0.2, hidden [16, 16]', 'label noise 0, hidden [8]']
    assert legend(axes) == ['training examples 500', 'training examples 1000', *rest]
    (axes, *_) = panels('curves', [record(name, 0, Stage(10, 0.1, 4, 'epochs')) for name in ('grow', 'decay')])
    assert {*names(axes)} == {'grow', 'decay'}
    assert len({one.get_color() for one in lines_of(axes)}) == 2


def test_named_recipes_of_many_batch_sizes_are_one_line() -> None:
    records = [record(f'{rule}-bs{b}', 0, Stage(b, 0.1, 4, 'epochs')) for b in (10, 40) for rule in ('fixed', 'linear')]
    _, test, _ = panels('accuracy', records)
    assert legend(test) == ['fixed', 'linear']
    assert places(test) == [[10, 40], [10, 40]]
    assert len({x for line in points(test) for x, _ in line}) == 4  # so that their intervals can be seen
    (axes, *_) = panels('curves', records)
    assert legend(axes) == ['batch size 10', 'batch size 40', 'fixed', 'linear']
    assert len({(one.get_color(), one.get_linestyle()) for one in lines_of(axes)}) == 4


def test_a_schedule_is_drawn_in_steps() -> None:
    top, bottom = panels('schedule', [record('grow', 0, Stage(10, 0.4, 3, 'epochs'), Stage(50, 0.2, 1, 'epochs'))])
    for panel, values in ((top, (10, 50)), (bottom, (0.4, 0.2))):
        (step,) = lines_of(panel)
        assert step.get_drawstyle() == 'steps-post'
        epochs, heights = np.asarray(step.get_xdata()), np.asarray(step.get_ydata())
        assert (heights[epochs < 3] == values[0]).all()
        assert (heights[epochs >= 3] == values[1]).all()
        assert (epochs[0], epochs[-1]) == (0, 4)


def test_the_learning_rate_is_chosen_on_validation_among_recipes_that_never_diverged() -> None:
    """Test accuracy would choose 0.01 everywhere; 1 diverged for one seed at batch size 40."""
    best = {10: 0.1, 40: 0.4}
    records = [
        swept(b, r, s, accuracy=0.9 - r / 10, validation_accuracy=0.9 - abs(math.log(r / best[b])))
        for b in best
        for r in (0.01, 0.1, 0.4)
        for s in range(2)
    ]
    records += [swept(40, 1, 0, validation_accuracy=1.0), swept(40, 1, 1, train_loss=math.nan)]
    left, right = panels('learning_rate', records)
    chosen, linear, root = lines_of(right)
    assert list(chosen.get_ydata()) == [0.1, 0.4]
    assert list(linear.get_ydata()) == pytest.approx([0.1, 0.4])
    assert list(root.get_ydata()) == pytest.approx([0.1, 0.2])
    assert right.get_ylabel() == 'best learning rate (validation split)'
    assert [[x for x, _ in line] for line in points(left)] == [[0.01, 0.1, 0.4], [0.01, 0.1, 0.4, 1]]


@pytest.mark.parametrize('seeds', [1, 2])
def test_a_learning_rate_with_which_nothing_was_learned_leaves_room_for_the_others(seeds: int) -> None:
    rates = {0.01: 0.75, 0.1: 0.875, 1.0: 0.125}
    records = [swept(10, rate, seed, accuracy=of) for rate, of in rates.items() for seed in range(seeds)]
    left, _ = panels('learning_rate', records)
    assert left.get_ylim() == pytest.approx((75 - 0.05 * 12.5, 87.5 + 0.05 * 12.5))
    assert [y for _, y in points(left)[0]] == [75, 87.5, 12.5]
    left, _ = panels('learning_rate', records[:-seeds])
    assert 70 < left.get_ylim()[0] < 75
    _, test, _ = panels('accuracy', records)
    assert test.get_ylim()[0] > 70
    alone = [swept(640, rate, seed, accuracy=0.25) for rate in rates for seed in range(seeds)]
    for figure, panel in (('learning_rate', 0), ('accuracy', 1)):  # a batch size that learns less stays
        assert panels(figure, [*records, *alone])[panel].get_ylim()[0] < 25


def test_the_line_between_solutions_is_a_mean_over_seeds() -> None:
    lines = [line(), line(seed=1, test_accuracy=[0.7, 0.3, 0.5]), line(second='other')]
    axes = panels('lines', [swept(10, 0.1, 0)], lines)
    assert [a.get_title().split('\n')[1] for a in axes[:2]] == ['α = 1: bs100-lr0.1', 'α = 1: other']
    assert list(axes[2].get_lines()[1].get_ydata()) == pytest.approx([80, 40, 60])


def test_the_spread_of_gradient_norms_is_relative() -> None:
    measured = {'gradient_norm_each_bs1': 0.5, 'gradient_norm_each_sd_bs1': 0.2, 'gradient_norm_each_bs16': 0.4}
    measured['gradient_norm_each_sd_bs16'] = 0.1
    mean, spread = panels('gradient_norm', [swept(10, 0.1, 0, measured=measured)])
    assert list(lines_of(mean)[0].get_xdata()) == [1, 16]
    assert list(lines_of(mean)[0].get_ydata()) == [0.5, 0.4]
    assert list(lines_of(spread)[0].get_ydata()) == pytest.approx([0.4, 0.25])


def test_the_title_counts_seeds_and_diverged_runs() -> None:
    records = [swept(10, 0.1, 0), swept(10, 0.1, 1), swept(20, 0.1, 0), swept(20, 0.1, 1, train_loss=math.nan)]
    expected = 'study; mean and 95 % interval over seeds (n = 1, 2); without 1 diverged run'
    assert figures.note(gather(records), 'study') == expected
