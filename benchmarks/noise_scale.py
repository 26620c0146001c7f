"""What measuring the noise scale during training costs, and what it is worth: python benchmarks/noise_scale.py

The time of an update of the MLP 784-1024-1024-10 with and without it, in turns within one process, compilation apart.
Then the main study's first epoch at batch size 64, measured in each update from the examples' own gradients, and in
every eighth from the two halves of a batch, on the same weights to rounding: the variance of tr Σ over windows of 8
updates, about their mean over 9 windows, and a picture of ‖G‖² and tr Σ (docs/noise_scale.png).
"""

import statistics
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from bsgap import config, data
from bsgap.training import step
from bsgap.training.programs import Programs, inputs
from bsgap.training.runs import Run, cross
from bsgap.training.watcher import Watcher

ROUNDS = 5
BATCH_SIZES = (2, 8, 64, 256, 1024)
WINDOW, SEEDS = 8, 3

Datasets = Mapping[config.TrainingSet, data.Dataset]


def settings() -> ConfigDict:
    study = config.default()
    study.epochs, study.seeds = 1, 1
    study.sweep.batch_size, study.sweep.noise_scale = BATCH_SIZES, (False, True)
    return study


def cost(study: config.Study, programs: Programs, runs: list[Run]) -> None:
    print('| batch size | ms an update | with the noise scale | ratio |\n|--:|--:|--:|--:|')
    for size in BATCH_SIZES:
        without, measuring = [run for run in runs if run.recipe.stages[0].batch_size == size]
        times = [[programs.seconds_per_update(run) for run in (without, measuring)] for _ in range(ROUNDS)]
        ratios = [noisy / plain for plain, noisy in times]
        columns = [f'{1e3 * statistics.median(column):.3g}' for column in zip(*times, strict=True)]
        ratio = f'{statistics.median(ratios):.2f} [{min(ratios):.2f} – {max(ratios):.2f}]'
        print(f'| {size} | {" | ".join(columns)} | {ratio} |')


def epoch(programs: Programs, run: Run, seed: int) -> np.ndarray:
    """‖G‖² and tr Σ, means over each WINDOW of updates: (2, windows) float64."""
    size = run.recipe.stages[0].batch_size
    state_R, order_RxN = programs.init(run, [seed]), programs.order(run, [seed], 0)
    found = []
    for first in range(0, run.n // size - WINDOW + 1, WINDOW):
        of_run = inputs(run, first)._replace(seed=np.int32(seed), fresh=np.bool_(True))
        window = step.Window(np.int32(first * size), np.int32(WINDOW))
        inputs_R = jax.tree.map(lambda leaf: np.asarray(leaf)[None], of_run)
        state_R, _ = programs.segment(run, size, window, order_RxN, inputs_R, state_R)
        sums = jax.device_get(state_R.sums)
        found.append([float(total[0]) / float(sums.measured[0]) for total in sums[1:3]])
    return np.transpose(found)


def worth(study: config.Study, datasets: Datasets, run: Run) -> None:
    series: dict[str, list[np.ndarray]] = {}
    for name, own in (('halves', False), ("each example's", True)):
        programs = Programs(study, datasets, Watcher(), jax.devices()[0])
        model = programs.model(run.recipe)._replace(per_example=own)
        programs._models = dict.fromkeys(programs._models, model)
        series[name] = [epoch(programs, run, seed) for seed in range(SEEDS)]

    def variance(found: np.ndarray) -> float:
        smooth = np.convolve(found[1], np.ones(9) / 9, 'valid')
        return float(np.mean((found[1][4:-4] - smooth) ** 2))

    ratios = [variance(a) / variance(b) for a, b in zip(*series.values(), strict=True)]
    print(f"variance of tr Σ over windows of {WINDOW} updates, halves over each example's, {SEEDS} seeds: {ratios}")
    figure = Figure(figsize=(8, 3), layout='constrained')
    for panel, row, label in zip(figure.subplots(1, 2), (0, 1), ('‖G‖²', 'tr Σ'), strict=True):
        for name, found in series.items():
            panel.plot(WINDOW * np.arange(found[0].shape[1]), found[0][row], label=name, linewidth=1)
        panel.set(xlabel='update', ylabel=label)
        panel.set_yscale('symlog', linthresh=1)  # estimates of ‖G‖² can be negative
    figure.axes[0].legend(frameon=False)
    figure.savefig(Path(__file__).parent.parent / 'docs' / 'noise_scale.png', dpi=90)


def main() -> None:
    study = config.resolve(settings())
    datasets = data.load(study.data, (recipe.training_set for recipe in study.recipes))
    runs = list(cross(study, {training_set: dataset.n for training_set, dataset in datasets.items()}))
    print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, {ROUNDS} rounds; median [range]')
    with step.numerics(study.precision):
        cost(study, Programs(study, datasets, Watcher(), jax.devices()[0]), runs)
        (run,) = [run for run in runs if run.recipe.noise_scale and run.recipe.stages[0].batch_size == 64]
        worth(study, datasets, run)


if __name__ == '__main__':
    main()
