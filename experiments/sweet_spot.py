"""Is the best batch size somewhere between 1 and the whole training set, and where does batch size 1 fail?

Source: Deep Learning Book, chapter 37: there is a sweet spot between batch size 1 and the whole training set, where it
lies depends on the data and the model, and batch size 1 does badly, above all on harder data. The source has one
learning rate (so has experiments/mnist_batch_sizes.py). Here each batch size has six of its own, a factor of two apart,
of which validation data chooses, for each seed alone; they fall to zero over two epochs, over ten of a tenth of the
data. The origin's network. With wrong labels and on Fashion-MNIST the learning rates are half as large; with wrong
labels batch sizes 1 and 4 have two more below, as some seeds had chosen the lowest.

    python launch.py --config=experiments/sweet_spot.py                 # 288 runs of 2 epochs
    python launch.py --config=experiments/sweet_spot.py:quick           # 144 runs of 10 epochs, a tenth of MNIST
    python launch.py --config=experiments/sweet_spot.py:wrong_labels    # 168 likewise, a tenth of the labels wrong
    python launch.py --config=experiments/sweet_spot.py:fashion         # likewise, Fashion-MNIST from Debian's package
    python launch.py --config=experiments/sweet_spot.py:smoke           # seconds; shows that it works

Expected: accuracy rises from batch size 1 to a few (it did not: 1 was at least as good) and falls from some tens on,
and the largest learning rate that trains grows with the batch size. Time on 2 CPU cores: about an hour; the others:
about 20 minutes each.
"""

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
from experiments import mnist

BOOK = 'Deep Learning Book, ch. 37'
# The lowest learning rate of each batch size; on MNIST searches found 0.05 best at 4, 0.2 at 16, and 0.4 from 64 on.
LOWEST = {1: 1 / 320, 2: 1 / 320, 4: 1 / 160, 16: 1 / 40, 64: 1 / 20, 256: 1 / 10, 1024: 1 / 10, 4096: 1 / 10}
SIZES = {'': tuple(LOWEST), 'smoke': (1, 2, 64)} | dict.fromkeys(('quick', 'wrong_labels', 'fashion'), (1, 4, 64, 1024))


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'sweet-spot'
    study.validation = 1 / 12
    study.schedule, study.epochs, study.evaluate_epochs = 'linear', 2, 2
    study.sweep.batch_size = ()
    harder = variant in ('wrong_labels', 'fashion')
    for size in SIZES.get(variant, ()):
        below = 2 if variant == 'wrong_labels' and size < 64 else 0
        for step in range(-below, 2 if variant == 'smoke' else 6):
            # Named like the recipes of a sweep, and drawn like them.
            study.recipes[f'bs{size}-lr{step}'] = {
                'batch_size': size,
                'learning_rate': LOWEST[size] * 2 ** (step - harder),
            }
    study.figures = ('learning_rate', 'accuracy')
    study.claims = 'experiments.sweet_spot:claims'
    study.finding = (
        'At the learning rates that validation data chose, the best of the other batch sizes ended {above_one} of test'
        ' accuracy above batch size 1, {above_two} above the second smallest and {above_largest} above the largest. The'
        ' largest learning rate that trains was {rate_grows} times as large at batch size 64 as at 1.'
    )
    tenth = {'subset': 6000, 'validation': 0.05, 'epochs': 10.0, 'evaluate_epochs': 10.0}
    return config.with_variant(
        study,
        variant,
        quick=tenth,
        wrong_labels={**tenth, 'label_noise': 0.1},
        fashion={**tenth, 'dataset': 'idx:/usr/share/datasets/fashion-mnist', 'mean': (), 'std': ()},
        smoke={'subset': 640, 'validation': 0.01, 'hidden': (16,), 'seeds': 2},
    )


def claims(variant: str = '') -> list[Claim]:
    _, second, *_, largest = SIZES[variant]

    def above(runs: DataFrame, size: int) -> Series:
        """How far above a batch size the best of the others ends, each at its best ε."""
        this, by = f'bs{size}-*', 'validation_accuracy'
        best = value(runs, 'bs*', 'test_accuracy', by=by, without=this)
        return best - value(runs, this, 'test_accuracy', by=by)

    def largest_rate(runs: DataFrame, size: int) -> Series:
        """The largest ε at which a batch size learns more than half of the training labels."""
        ends = runs[runs['recipe'].str.startswith(f'bs{size}-')].groupby('run').tail(1)
        learned = ends[(ends['status'] == 'done') & (ends['train_accuracy'] > 0.5)]
        return learned.groupby('seed')['recipe.learning_rate'].max().reindex(sorted(runs['seed'].unique()))

    return [
        Claim('above_one', 'at its best ε batch size 1 ends at least 0.1 points below the best of the others',
              lambda runs: above(runs, 1),
              at_least=0.001, unit='points', published='batch 1 does badly (no figure)', source=BOOK, status='U'),
        Claim('far_above_one', 'at its best ε batch size 1 ends at least 1 point below the best of the others',
              lambda runs: above(runs, 1),
              at_least=0.01, unit='points', published='batch 1 does badly (no figure)', source=BOOK, status='U'),
        Claim('above_two', f'at its best ε batch size {second} ends at most 0.2 points below the best of the others',
              lambda runs: above(runs, second),
              at_most=0.002, unit='points', published='batch 2 is the best (no other figure)', source=BOOK,
              status='U'),
        Claim('above_largest',
              f'at its best ε batch size {largest} ends at least 0.1 points below the best of the others',
              lambda runs: above(runs, largest),
              at_least=0.001, unit='points', published='the best lies in between (no figure)', source=BOOK,
              status='U'),
        Claim('rate_grows', 'the largest ε that trains is at least 4 times as large at batch size 64 as at 1',
              lambda runs: largest_rate(runs, 64) / largest_rate(runs, 1),
              at_least=4.0, unit='ratio', published='ε/B decides (no figure)',
              source='Jastrzębski et al. 2017', status='S'),
    ]  # fmt: skip
