"""Does a small batch bounce around the minimum, and does the whole training set as a batch go there for sure?

Source: Deep Learning Book, chapter 37: with the whole training set as a batch convergence to the minimum of a convex
problem is guaranteed, but slow; a small batch is fast at first, and then bounces around the minimum. Here softmax
regression on MNIST, which is convex, at one constant learning rate; the lowest training loss is found by L-BFGS from
the weights with which each run ended.

    python launch.py --config=experiments/convex.py          # 18 runs
    python launch.py --config=experiments/convex.py:quick    # 9 runs, a tenth of MNIST
    python launch.py --config=experiments/convex.py:smoke    # seconds; shows that it works

Expected: after as many epochs the small batches are far nearer to the minimum; from one evaluation to the next their
loss rises nearly as often as it falls, that of the whole set never. Time on 2 CPU cores: 3 to 20 minutes; quick: about
3 minutes. On one GPU (estimated): a few minutes.
"""

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import rises, value
from experiments import mnist

BOOK = 'Deep Learning Book, ch. 37'
EPOCHS = 10


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'convex'
    study.hidden = ()
    study.sweep.batch_size = ()
    study.epochs = EPOCHS
    study.recipes = {
        'one': {'batch_size': 1},
        'small': {'batch_size': 64},
        'whole': {'batch_size': 60000, 'epochs': 200.0, 'evaluate_epochs': 2.0},
    }
    study.evaluate_epochs = 0.25
    study.measurements = ('lowest_loss',)
    study.figures = ('above_the_lowest',)
    study.claims = 'experiments.convex:claims'
    study.finding = (
        f'After {EPOCHS} epochs the training loss of the whole set as a batch was {{slow}} times as far above the'
        ' lowest as that of batch size 64. From one evaluation to the next the loss of the whole set rose in {sure} of'
        ' all cases, that of batch size 1 in {bounces}. At its end batch size 1 was {far} times as far above the lowest'
        ' as 64, and {overtaken} times as far as the whole set after 200 epochs.'
    )
    return config.with_variant(
        study,
        variant,
        quick={'subset': 6000, 'recipes.whole.batch_size': 6000, 'seeds': 3},
        smoke={'subset': 256, 'recipes.whole.batch_size': 256, 'recipes.whole.epochs': 20.0, 'seeds': 2},
    )


def claims(variant: str = '') -> list[Claim]:
    def above(runs: DataFrame, recipe: str, at: float | str = 'end') -> Series:
        """How far the training loss is above the lowest."""
        return value(runs, recipe, 'train_loss', at) - value(runs, recipe, 'lowest_loss')

    return [
        Claim('slow',
              f'after {EPOCHS} epochs the whole set as a batch is at least 3 times as far above the lowest loss as 64',
              lambda runs: above(runs, 'whole', EPOCHS) / above(runs, 'small'),
              at_least=3.0, unit='ratio', published='slow (no figure)', source=BOOK, status='U'),
        Claim('sure', 'the loss of the whole set as a batch never rises',
              lambda runs: rises(runs, 'whole', 'train_loss'),
              at_most=0.0, unit='%', published='guaranteed (no figure)', source=BOOK, status='U'),
        Claim('bounces', 'the loss of batch size 1 rises between at least a quarter of the evaluations',
              lambda runs: rises(runs, 'one', 'train_loss'),
              at_least=0.25, unit='%', published='it bounces (no figure)', source=BOOK, status='U'),
        Claim('far', 'at its end batch size 1 is at least twice as far above the lowest loss as 64',
              lambda runs: above(runs, 'one') / above(runs, 'small'),
              at_least=2.0, unit='ratio', published='it bounces (no figure)', source=BOOK, status='U'),
        Claim('overtaken', 'at its end batch size 1 is further above the lowest loss than the whole set as a batch',
              lambda runs: above(runs, 'one') / above(runs, 'whole'),
              at_least=1.0, unit='ratio', published='no guarantee (no figure)', source=BOOK, status='U'),
    ]  # fmt: skip
