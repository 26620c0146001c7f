"""Is a large batch's place still the sharper one where its training loss is that of a small batch?

Source: Keskar et al. 2017 (1609.04836), as in experiments/mnist_sharpness.py, on a tenth of MNIST: there the large
batch ends at a far lower training loss than the small one, whose last steps of a constant ε are noisy, and a lower loss
flattens what is around it. Here the large batch has several lengths, and is read where its training loss is that of the
small one: linear in the logarithms between two lengths, for each seed alone. The small batch has a constant ε, as in
the source, and one that falls to zero, with which it comes to the bottom too.

    python launch.py --config=experiments/sharpness_equal_loss.py          # 48 runs of 2 to 90 epochs
    python launch.py --config=experiments/sharpness_equal_loss.py:smoke    # seconds; shows that it works

Expected, if large batches find sharp minima: ten times as sharp at equal loss too. The lengths were chosen after one
run of either batch size, and of three seeds with a falling ε, in which no sharpness was measured. Time on 2 CPU cores:
about 45 minutes, half of it for the sharpness. On one GPU: not measured.
"""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
from experiments import mnist_sharpness
from experiments.mnist_sharpness import KESKAR

LENGTHS = {'': (2, 3, 4, 6, 45, 90), 'smoke': (1, 30)}  # of the large batch, in epochs


def get_config(variant: str = '') -> ConfigDict:
    study = mnist_sharpness.get_config('quick')
    study.name = 'sharpness-equal-loss'
    study.recipes = {
        'small': {'batch_size': 64},
        'small_falling': {'batch_size': 64, 'schedule': 'linear'},
        **{f'large_{epochs}': {'batch_size': 600, 'epochs': float(epochs)} for epochs in LENGTHS.get(variant, ())},
    }
    study.measurements, study.lines, study.figures = ('sharpness',), (), ('sharpness', 'equal_loss')
    study.claims = 'experiments.sharpness_equal_loss:claims'
    study.finding = (
        'Where its training loss is that of the small batch, the large one is {sharper} times as sharp in a box of'
        ' 1e-3, and the test accuracy of the small one differs by {generalizes} from it (negative: below). With a'
        ' learning rate that falls to zero the small batch ends at a far lower loss; where the large one has that loss'
        ' it is {sharper_falling} times as sharp, and the small one differs by {generalizes_falling} from it.'
    )
    smaller = {'recipes.small.batch_size': 10, 'recipes.small_falling.batch_size': 10}
    smaller |= {f'recipes.large_{epochs}.batch_size': 100 for epochs in LENGTHS['smoke']}
    return config.with_variant(
        study, variant, smoke={'subset': 300, 'hidden': (16, 16), 'epochs': 2.0, 'seeds': 2, **smaller}
    )


def claims(variant: str = '') -> list[Claim]:
    def large(runs: DataFrame, small: str, column: str) -> Series:
        """A column of the large batch where its training loss is that of `small`; NaN where no two lengths hold it."""
        names = [f'large_{epochs}' for epochs in reversed(LENGTHS[variant])]  # the lowest loss first
        loss, y = (np.log(DataFrame({of: value(runs, of, read) for of in names})) for read in ('train_loss', column))
        target = np.log(value(runs, small, 'train_loss'))
        read = [np.interp(target[seed], loss.loc[seed], y.loc[seed], np.nan, np.nan) for seed in target.index]
        return np.exp(Series(read, target.index))

    def times(small: str) -> Callable[[DataFrame], Series]:
        """How many times as sharp the large batch is."""
        box = 'sharpness_0.001'
        return lambda runs: large(runs, small, box) / value(runs, small, box)

    def above(small: str) -> Callable[[DataFrame], Series]:
        """How far the small batch is above the large one."""
        test = 'test_accuracy'
        return lambda runs: value(runs, small, test) - large(runs, small, test)

    made = []
    for small, name, words in (('small', '', 'constant'), ('small_falling', '_falling', 'falling')):
        at_loss = f'at the training loss that the small batch ends at with a {words} ε'
        made += [
            Claim(f'sharper{name}', f'{at_loss} the large one is at least ten times as sharp (box 1e-3)', times(small),
                  at_least=10.0, unit='ratio', published='205 / 1.23 = 167, the loss not equal',
                  source=f'{KESKAR}, table 3', status='V'),
            Claim(f'generalizes{name}', f'{at_loss} it is above the large one', above(small),
                  at_least=0.0, unit='points', published='98.03 − 97.81 points, the loss not equal',
                  source=f'{KESKAR}, table 2', status='V'),
        ]  # fmt: skip
    return made
