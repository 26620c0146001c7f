"""Does the noise of small batches keep a network from overfitting?

Source: Deep Learning Book, chapter 37: the noise of small batches regularises. After equal epochs the batch sizes have
learned the training set to different degrees (experiments/mnist.py), which hides what noise does. Here they are
compared where their training loss is the same, on a fifth of MNIST, at one learning rate, so that the noise falls with
the batch size; once with clean labels, and once with a tenth of them wrong, which a network can learn by heart.

    python launch.py --config=experiments/equal_loss.py          # 60 runs of 1200 to 18000 updates
    python launch.py --config=experiments/equal_loss.py:quick    # 24 runs, batch sizes 16 and 1024
    python launch.py --config=experiments/equal_loss.py:smoke    # seconds; shows that it works

Expected, if noise regularises: at the same training loss the small batch has the lower test loss. Time on 2 CPU cores:
about an hour; quick: about half an hour. On one GPU (H200), quick with 14 seeds: a
minute and a half.
"""

import itertools
from collections.abc import Callable

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import until
from experiments import mnist

BOOK = 'Deep Learning Book, ch. 37'
SIZES = {'': (16, 64, 256, 1024, 4096), 'quick': (16, 1024), 'smoke': (16, 320)}
NOISE = {'clean': 0.0, 'wrong': 0.1}
TARGETS = {'clean': 0.02, 'wrong': 0.3}  # training loss
UPDATES, EXAMPLES = 1200, 24 * 12000  # at least so many of both, which all need to come there


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'equal-loss'
    study.subset = 12000
    study.learning_rate = 0.1
    study.sweep.batch_size = ()
    sizes, most = SIZES.get(variant, SIZES['']), EXAMPLES // (20 if variant == 'smoke' else 1)
    for (labels, noise), size in itertools.product(NOISE.items(), sizes):
        updates = max(UPDATES, most // size)
        at = (0, *sorted({round(updates / 1.2**k) for k in range(24)}))
        recipe = {'batch_size': size, 'label_noise': noise, 'updates': updates, 'evaluate_at': at}
        study.recipes[f'{labels}_{size}'] = recipe
    study.figures = ('equal_loss', 'learning_rate_sum')
    study.claims = 'experiments.equal_loss:claims'
    study.finding = (
        f'Where the training loss is {TARGETS["clean"]}, the test loss of the smallest batch is {{clean_loss}} times'
        ' that of the largest, and its test accuracy {clean_accuracy} above. With a tenth of the labels wrong, at a'
        f' training loss of {TARGETS["wrong"]}, its test loss is {{wrong_loss}} times that of the largest, and its test'
        ' accuracy {wrong_accuracy} above.'
    )
    return config.with_variant(
        study,
        variant,
        quick={},
        smoke={'subset': 640, 'hidden': (32,), 'seeds': 2},
    )


def claims(variant: str = '') -> list[Claim]:
    smallest, *_, largest = SIZES[variant]
    targets = {'clean': 0.5, 'wrong': 0.6} if variant == 'smoke' else TARGETS

    def there(runs: DataFrame, size: int, labels: str, column: str) -> Series:
        """A column where the training loss has fallen to the target."""
        return until(runs, f'{labels}_{size}', column, 'train_loss', targets[labels], falling=True)

    def times(labels: str) -> Callable[[DataFrame], Series]:
        """The smallest batch's test loss over the largest's."""
        return lambda runs: there(runs, smallest, labels, 'test_loss') / there(runs, largest, labels, 'test_loss')

    def above(labels: str) -> Callable[[DataFrame], Series]:
        """How far the smallest batch's test accuracy is above the largest's."""
        test = 'test_accuracy'
        return lambda runs: there(runs, smallest, labels, test) - there(runs, largest, labels, test)

    made = []
    for labels, words in (('clean', 'clean labels'), ('wrong', 'a tenth of the labels wrong')):
        made += [
            Claim(f'{labels}_loss',
                  f'at equal training loss, with {words}, batch {smallest} has a test loss at least 2 % lower',
                  times(labels),
                  at_most=0.98, unit='ratio', published='noise regularises (no figure)', source=BOOK, status='U'),
            Claim(f'{labels}_accuracy',
                  f'at equal training loss, with {words}, batch {smallest} is at least 0.1 points above {largest}',
                  above(labels),
                  at_least=0.001, unit='points', published='noise regularises (no figure)', source=BOOK, status='U'),
        ]  # fmt: skip
    return made
