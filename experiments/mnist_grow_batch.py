"""Growing the batch in place of decaying the learning rate.

Source: Smith, Kindermans, Ying, Le 2018, "Don't decay the learning rate, increase the batch size" (1711.00489), §5.1
and §5.2, figures 1, 2 and 5: WRN-16-4 on CIFAR-10. Here the origin's MLP on MNIST, momentum 0.9, and the paper's factor
of 5 at three milestones (at 30, 60 and 80 % of training; the paper's are unverified). `decay` divides ε, `grow`
multiplies B up to a tenth of the training set and then divides ε, which by the schedule alone takes 0.37 of the
updates; `hybrid` does the first and then the second, `grow_larger` starts with five times the ε and the B, which takes
0.07 of them. `beyond` grows past a tenth of the training set, to all of it; `beyond_decay` is its counterpart with ε
divided. In `constant`, the control, and in `large`, at a tenth of the training set, neither ε nor batch changes (Deep
Learning Book, ch. 37: start small, for the fast start, and grow the batch, for the sure end). The training is short and
its batches small, so that a schedule matters: where all come to 100 % of the training data, all would be equal.

    python launch.py --config=experiments/mnist_grow_batch.py          # 48 runs of 5 epochs
    python launch.py --config=experiments/mnist_grow_batch.py:quick    # 24 runs of 5 epochs, a fifth of MNIST
    python launch.py --config=experiments/mnist_grow_batch.py:smoke    # seconds; shows that it works

Expected: the first four end equal, with fewer updates the more the batch grows; `beyond` does not (it did), and the two
constant ones end lower. Time on 2 CPU cores: 20 minutes to 2 hours; quick: about 3 minutes. On one GPU (estimated): a
minute.
"""

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import until, value
from experiments import mnist

SMITH = 'Smith et al. 2018 (1711.00489)'
BOOK = 'Deep Learning Book, ch. 37'
LARGE_UPDATES = 50  # of `large`, a tenth of the training set, in 5 epochs


def _half_epochs(n: int, batch_size: int) -> tuple[int, ...]:
    return 0, LARGE_UPDATES, *(round(half * n / (2 * batch_size)) for half in range(1, 11))


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-grow-batch'
    study.sweep.batch_size = ()
    study.batch_size, study.learning_rate, study.momentum = 32, 0.02, 0.9
    study.epochs, study.milestones, study.factor, study.cap = 5, (1.5, 3.0, 4.0), 5, 6000
    study.evaluate_epochs = 0.5
    study.recipes = {
        'decay': {'schedule': 'decay_learning_rate'},
        'hybrid': {'schedule': 'hybrid'},
        'grow': {'schedule': 'grow_batch'},
        'grow_larger': {'schedule': 'grow_batch', 'batch_size': 160, 'learning_rate': 0.1},
        'beyond': {'schedule': 'grow_batch', 'batch_size': 1200, 'learning_rate': 0.1, 'cap': 60000},
        'beyond_decay': {'schedule': 'decay_learning_rate', 'batch_size': 1200, 'learning_rate': 0.1},
        # The others' half epochs, and the updates that `large` makes in all: until 1.5 epochs `grow` is the same.
        'constant': {'milestones': (), 'evaluate_at': _half_epochs(60000, 32)},
        'large': {'milestones': (), 'batch_size': 6000},
    }
    study.figures = ('curves', 'updates', 'schedule', 'distance')
    study.claims = 'experiments.mnist_grow_batch:claims'
    study.finding = (
        'Growing the batch ended {grow_equals} of test accuracy from decaying the learning rate (negative: below), the'
        ' hybrid {hybrid_equals}, and growing from five times the learning rate and batch {larger_equals}. Grown past a'
        ' tenth of the training set to all of it, the batch ended {beyond_fails} from its counterpart. With no schedule'
        ' the small batch ended {decay_matters} below the decaying learning rate. After one epoch the growing batch'
        ' stood {fast_start} above one that is large from the start; at the end it stood {sure_end} above one that'
        ' stays small, {end_above_large} above the large one, and {end_by_updates} above the small one after as many'
        ' updates. But after as many updates as the large one makes in all, that one stood {start_by_updates} above the'
        ' small one.'
    )
    tenth = {
        name: {
            'subset': n,
            'cap': n // 10,
            'recipes.beyond.batch_size': n // 50,
            'recipes.beyond.cap': n,
            'recipes.beyond_decay.batch_size': n // 50,
            'recipes.large.batch_size': n // 10,
            'recipes.constant.evaluate_at': _half_epochs(n, 8 if name == 'smoke' else 32),
        }
        for name, n in (('quick', 12000), ('smoke', 600))
    }
    return config.with_variant(
        study,
        variant,
        quick={**tenth['quick'], 'seeds': 3},
        smoke={
            **tenth['smoke'],
            'batch_size': 8,
            'recipes.grow_larger.batch_size': 40,
            'hidden': (32,),
            'seeds': 2,
        },
    )


def claims(variant: str = '') -> list[Claim]:
    def above(runs: DataFrame, recipe: str, other: str) -> Series:
        return value(runs, recipe, 'test_accuracy') - value(runs, other, 'test_accuracy')

    def at_update(runs: DataFrame, recipe: str, update: int) -> Series:
        return until(runs, recipe, 'test_accuracy', 'update', update)

    def last_update(runs: DataFrame, recipe: str) -> int:
        return runs.loc[runs['recipe'] == recipe, 'update'].max()

    return [
        Claim('grow_equals', 'growing the batch ends within 0.2 points of decaying ε',
              lambda runs: above(runs, 'grow', 'decay'),
              within=(-0.002, 0.002), unit='points', published='94.4 against 94.3 % (CIFAR-10)',
              source=f'{SMITH}, §5.1', status='S'),
        Claim('hybrid_equals', 'the hybrid ends within 0.2 points of decaying ε',
              lambda runs: above(runs, 'hybrid', 'decay'),
              within=(-0.002, 0.002), unit='points', published='equal curves', source=f'{SMITH}, fig. 1 and 2',
              status='S'),
        Claim('larger_equals', 'growing from five times the ε and batch ends within 0.2 points of decaying ε',
              lambda runs: above(runs, 'grow_larger', 'decay'),
              within=(-0.002, 0.002), unit='points', published='94.5 against 94.3 % (CIFAR-10)',
              source=f'{SMITH}, §5.2', status='S'),
        Claim('beyond_fails',
              'beyond a tenth of the training set growing the batch ends more than 0.2 points below decaying ε',
              lambda runs: above(runs, 'beyond', 'beyond_decay'),
              at_most=-0.002, unit='points', published='stop growing near N/10 (no figure)', source=f'{SMITH}, §3',
              status='S'),
        Claim('fast_start',
              'after one epoch growing from a small batch is at least 0.1 points above one that is large throughout',
              lambda runs: value(runs, 'grow', 'test_accuracy', at=1) - value(runs, 'large', 'test_accuracy', at=1),
              at_least=0.001, unit='points', published='a fast start (no figure)', source=BOOK, status='U'),
        Claim('sure_end',
              'at the end growing from a small batch is at least 0.1 points above one that is small throughout',
              lambda runs: above(runs, 'grow', 'constant'),
              at_least=0.001, unit='points', published='a sure end (no figure)', source=BOOK, status='U'),
        Claim('sure_train',
              'at the end growing from a small batch has a lower training loss than a batch that is small throughout',
              lambda runs: value(runs, 'grow', 'train_loss') / value(runs, 'constant', 'train_loss'),
              at_most=1.0, unit='ratio', published='a sure end (no figure)', source=BOOK, status='U'),
        Claim('end_above_large',
              'at the end growing from a small batch is at least 0.1 points above one that is large throughout',
              lambda runs: above(runs, 'grow', 'large'),
              at_least=0.001, unit='points', published='a fast start (no figure)', source=BOOK, status='U'),
        Claim('end_by_updates',
              'after as many updates as it makes in all, growing from a small batch is at least 0.1 points above one'
              ' that is small throughout',
              lambda runs: value(runs, 'grow', 'test_accuracy')
              - at_update(runs, 'constant', last_update(runs, 'grow')),
              at_least=0.001, unit='points', published='a sure end (no figure)', source=BOOK, status='U'),
        Claim('start_by_updates',
              'after as many updates as it makes in all, a batch that is large throughout is above one that starts'
              ' small',
              lambda runs: value(runs, 'large', 'test_accuracy') - at_update(runs, 'constant', LARGE_UPDATES),
              at_least=0.0, unit='points', published='an update budget favours large batches',
              source='Shallue et al. 2019 (1811.03600)', status='S'),
        Claim('decay_matters',
              'control: with no schedule at all the small batch ends more than 0.2 points below decaying ε',
              lambda runs: above(runs, 'decay', 'constant'),
              at_least=0.002, unit='points', published='(not published)', source='control', status='S'),
    ]  # fmt: skip
