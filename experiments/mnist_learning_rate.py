"""Does a larger batch still end lower when the learning rate is chosen for it?

Source: Shen 2018, and the Deep Learning Book, chapter 38: ten times the learning rate recovers batch 1024; Shallue et
al. 2019 (1811.03600): tuned, and not at equal epochs, the large batch does no harm, and the best ε follows neither the
linear nor the √ rule. The origin's set-up (experiments/mnist.py) at 1, 2, 4, … 128 times its ε; for each batch size the
best one is chosen on validation data, by each seed alone, and reported on test data. The batch sizes are compared after
as many epochs, after as many updates, and where learning rate × updates is the same.

    python launch.py --config=experiments/mnist_learning_rate.py          # 150 runs of 30 epochs
    python launch.py --config=experiments/mnist_learning_rate.py:quick    # 120 runs of 15 epochs, a tenth of MNIST
    python launch.py --config=experiments/mnist_learning_rate.py:smoke    # seconds; shows that it works

Expected: at tuned ε the batch sizes end within 0.3 points, and the exponent of the best ε is below 1 (`:quick`: 1024
ends 1.3 points below 64; 0.34). Time on 2 CPU cores (105 GFLOP/s): about 7 hours; quick: 35 to 90 minutes. On one GPU
(estimated): some 10 minutes.
"""

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import exponent, spread, value
from experiments import mnist

SHEN = 'Shen 2018; Deep Learning Book, ch. 38'
SHALLUE = 'Shallue et al. 2019 (1811.03600)'


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-learning-rate'
    study.validation = 1 / 12
    study.sweep.batch_size = (64, 256, 1024)
    study.sweep.learning_rate = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
    study.evaluate_epochs = 2.0
    study.figures = ('learning_rate', 'learning_rate_sum', 'accuracy')
    study.claims = 'experiments.mnist_learning_rate:claims'
    study.finding = (
        'At the learning rates that validation data chose, batch size 1024 ended {no_harm} from batch size 64'
        ' (negative: below). With ten times the learning rate of batch size 64, 0.1 against 0.01, 1024 ended {recovers}'
        ' from 64. The best learning rate grows with the batch size to the power {linear.value}: linear rule'
        ' {linear.verdict}, square-root rule {square_root.verdict}. Where learning rate × updates is the same, the'
        ' batch sizes 64, 256 and 1024 are {collapse} of test accuracy apart, and their distances from the start'
        ' {collapse_distance}.'
    )
    if not variant:
        study.recipes = {'tenfold': {'batch_size': 1024, 'learning_rate': 0.1}}
    if variant != 'smoke':
        study.finding += (
            ' Of what batch size 1024 loses at the learning rate of 64, the best one brings back {brings_back_1024}'
            ' after as many epochs, and 256 {brings_back_256}; after as many updates as 1024 makes in all, 64 stands'
            ' {equal_updates} below it.'
        )
    return config.with_variant(
        study,
        variant,
        quick={
            'subset': 6000,
            'validation': 0.05,
            'sweep.batch_size': (16, 64, 256, 1024),
            'sweep.learning_rate': (0.01, 0.03, 0.1, 0.3, 1.0),
            'evaluate_epochs': 1.0,
            'epochs': 15.0,
        },
        smoke={
            'subset': 2000,
            'validation': 0.01,
            'sweep.batch_size': (64, 256, 1024),
            'sweep.learning_rate': (0.01, 0.1),
            'evaluate_epochs': 1.0,
            'hidden': (32,),
            'epochs': 2.0,
            'seeds': 2,
        },
    )


def claims(variant: str = '') -> list[Claim]:
    # At ε 0.01 batch 1024 ends before 64 is first evaluated; rates in proportion to the batch size meet at the end.
    rates = {'quick': (0.01, 0.03, 0.1), 'smoke': (0.01, 0.01, 0.01)}.get(variant, (0.01, 0.04, 0.16))
    same = tuple(f'bs{size}-lr{rate}' for size, rate in zip((64, 256, 1024), rates, strict=True))

    def tuned(runs: DataFrame, recipe: str, at: float | str = 'end') -> Series:
        return value(runs, recipe, 'test_accuracy', at, by='validation_accuracy')

    def power(runs: DataFrame) -> Series:
        """Of the best ε against the batch size."""
        return exponent(runs, 'bs*', 'recipe.learning_rate', 'recipe.batch_size', by='validation_accuracy')

    def brought_back(runs: DataFrame, size: int) -> Series:
        """The share of what a batch size loses at batch 64's ε that its best ε brings back."""
        lost = value(runs, f'bs{size}-lr0.01', 'test_accuracy')
        return (tuned(runs, f'bs{size}-*') - lost) / (value(runs, 'bs64-lr0.01', 'test_accuracy') - lost)

    tenfold = 'bs1024-lr0.1' if variant else 'tenfold'
    as_many = 1 if variant == 'quick' else 2  # epochs of batch 64, about as many updates as batch 1024 makes in all
    made = [
        Claim('recovers', 'batch 1024 at ε 0.1 ends within 0.3 points of batch 64 at 0.01',
              lambda runs: value(runs, tenfold, 'test_accuracy') - value(runs, 'bs64-lr0.01', 'test_accuracy'),
              within=(-0.003, 0.003), unit='points', published='97.8 against 97.9 %', source=SHEN, status='V'),
        Claim('no_harm', 'at the best ε of each, after equal epochs, batch 1024 ends at most 0.3 points below batch 64',
              lambda runs: tuned(runs, 'bs1024-*') - tuned(runs, 'bs64-*'),
              at_least=-0.003, unit='points', published='no harm when tuned (but not at equal epochs)', source=SHALLUE,
              status='S'),
        Claim('linear', 'the best ε grows in proportion to the batch size (exponent 1)', power,
              within=(0.85, 1.15), published='1', source='the linear rule; Goyal et al. 2017', status='S'),
        Claim('square_root', 'the best ε grows with the square root of the batch size (exponent ½)', power,
              within=(0.35, 0.65), published='½', source='the √ rule; Hoffer et al. 2017', status='S'),
        Claim('collapse',
              f'where ε × updates is the same, {", ".join(same)} are at most 0.3 points of test accuracy apart',
              lambda runs: spread(runs, same, 'test_accuracy'),
              at_most=0.003, unit='points', published='95.0 and 95.0 %', source='a re-run of Shen 2018', status='V',
              bound_first=False),
        Claim('collapse_distance',
              f'where ε × updates is the same, the distances of {", ".join(same)} from the start are at most 8 % apart',
              lambda runs: spread(runs, same, 'distance', relative=True),
              at_most=0.08, unit='%', published='(our own bound)', source='a re-run of Shen 2018', status='S',
              bound_first=False),
    ]  # fmt: skip
    if variant != 'smoke':
        made += [
            Claim('brings_back_1024',
                  'after as many epochs the best ε brings back at least nine tenths of what batch 1024 loses at 0.01',
                  lambda runs: brought_back(runs, 1024),
                  at_least=0.9, published='97.8 of 95.2 to 97.9 %', source=SHEN, status='V'),
            Claim('brings_back_256',
                  'after as many epochs the best ε brings back at least nine tenths of what batch 256 loses at 0.01',
                  lambda runs: brought_back(runs, 256),
                  at_least=0.9, published='(no figure)', source=SHEN, status='V'),
            Claim('equal_updates',
                  'after about as many updates, each at its best ε, batch 1024 is above batch 64',
                  lambda runs: tuned(runs, 'bs1024-*') - tuned(runs, 'bs64-*', as_many),
                  at_least=0.0, unit='points', published='an update budget favours large batches', source=SHALLUE,
                  status='S'),
        ]  # fmt: skip
    return made
