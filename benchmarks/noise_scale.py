"""What measuring the noise scale during training costs: python benchmarks/noise_scale.py

The time of an update of the MLP 784-1024-1024-10 with and without it, in turns within one process, compilation apart.
"""

import statistics

import jax
from ml_collections import ConfigDict

from bsgap import config, data
from bsgap.training.programs import Programs
from bsgap.training.runs import cross
from bsgap.training.watcher import Watcher

ROUNDS = 5
BATCH_SIZES = (2, 8, 64, 256, 1024)


def settings() -> ConfigDict:
    study = config.default()
    study.epochs, study.seeds = 1, 1
    study.sweep.batch_size, study.sweep.noise_scale = BATCH_SIZES, (False, True)
    return study


def main() -> None:
    study = config.resolve(settings())
    datasets = data.load(study.data, (recipe.training_set for recipe in study.recipes))
    runs = cross(study, {training_set: dataset.n for training_set, dataset in datasets.items()})
    print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, {ROUNDS} rounds; median [range]')
    print('| batch size | ms an update | with the noise scale | ratio |\n|--:|--:|--:|--:|')
    with jax.default_matmul_precision(study.precision):
        programs = Programs(study, datasets, Watcher(), jax.devices()[0])
        for size in BATCH_SIZES:
            without, measuring = [run for run in runs if run.recipe.stages[0].batch_size == size]
            times = [[programs.seconds_per_update(run) for run in (without, measuring)] for _ in range(ROUNDS)]
            ratios = [noisy / plain for plain, noisy in times]
            columns = [f'{1e3 * statistics.median(column):.3g}' for column in zip(*times, strict=True)]
            ratio = f'{statistics.median(ratios):.2f} [{min(ratios):.2f} – {max(ratios):.2f}]'
            print(f'| {size} | {" | ".join(columns)} | {ratio} |')


if __name__ == '__main__':
    main()
