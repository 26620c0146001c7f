"""Does a large batch end where a small one does, if it is given as many updates?

Source: Deep Learning Book, chapter 37: train until more training gives nothing more; and the origin's set-up
(experiments/mnist.py), in which batch size 1024 makes a sixteenth of the updates of 64 in an epoch. Here it has 480
epochs, which are as many updates as batch size 64 makes in 30, at the same learning rate.

    python launch.py --config=experiments/mnist_equal_updates.py          # 12 runs of 30 and 480 epochs
    python launch.py --config=experiments/mnist_equal_updates.py:quick    # 12 runs, a tenth of MNIST
    python launch.py --config=experiments/mnist_equal_updates.py:smoke    # seconds; shows that it works

Expected: the two end within 0.3 points of test accuracy, since their curves lie on one another where learning rate ×
updates is the same. Time on 2 CPU cores (105 GFLOP/s): about 4 hours and a half; quick: about 45 minutes. On one GPU
(estimated): some minutes.
"""

from collections.abc import Callable

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
from experiments import mnist

SOURCE = 'a re-run of Shen 2018; Deep Learning Book, ch. 37'


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-equal-updates'
    study.sweep.batch_size = ()
    study.base_batch_size = 64
    study.recipes = {
        'small': {'batch_size': 64},
        'large': {'batch_size': 1024, 'adapt_regime': True, 'evaluate_epochs': 16.0},
    }
    study.figures = ('updates', 'learning_rate_sum')
    study.claims = 'experiments.mnist_equal_updates:claims'
    study.finding = (
        'With as many updates, at the same learning rate, batch size 1024 ended {same_test} of test accuracy from batch'
        ' size 64 (negative: below), its generalization gap was {same_gap} larger, and it was {same_distance} times as'
        ' far from its initial weights. The second half of its epochs brought {plateau}.'
    )
    return config.with_variant(
        study,
        variant,
        quick={'subset': 6000},
        smoke={'subset': 1024, 'hidden': (32,), 'epochs': 2.0, 'seeds': 2},
    )


def claims(variant: str = '') -> list[Claim]:
    def above(column: str) -> Callable[[DataFrame], Series]:
        """How far above the small batch the large one ends."""
        return lambda runs: value(runs, 'large', column) - value(runs, 'small', column)

    def second_half(runs: DataFrame) -> Series:
        half = runs.loc[runs['recipe'] == 'large', 'epoch'].max() / 2
        return value(runs, 'large', 'test_accuracy') - value(runs, 'large', 'test_accuracy', at=half)

    return [
        Claim('same_test', 'with as many updates batch 1024 ends within 0.3 points of batch 64',
              above('test_accuracy'),
              within=(-0.003, 0.003), unit='points', published='95.0 and 95.0 % at η·t = 18', source=SOURCE,
              status='V'),
        Claim('same_gap',
              'with as many updates the generalization gap of batch 1024 is within 0.3 points of that of batch 64',
              above('gap'),
              within=(-0.003, 0.003), unit='points', published='(our own bound)', source=SOURCE, status='V'),
        Claim('same_distance', 'with as many updates batch 1024 is as far from its initial weights, give or take 8 %',
              lambda runs: value(runs, 'large', 'distance') / value(runs, 'small', 'distance'),
              within=(0.92, 1.08), published='(our own bound)', source=SOURCE, status='V'),
        Claim('plateau', 'the second half of its epochs brings batch 1024 at most 0.3 points of test accuracy',
              second_half,
              at_most=0.003, unit='points', published='(our own bound)', source=SOURCE, status='V', bound_first=False),
    ]  # fmt: skip
