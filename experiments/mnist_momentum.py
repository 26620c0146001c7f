"""Is momentum a larger learning rate, and does it help a large batch more?

Sources: Smith et al. 2018 (1711.00489), §4: the noise scale is about εN/(B(1 − m)), so recipes with equal ε/(B(1 − m))
have equal curves; Shallue et al. 2019 (1811.03600), §4.4: momentum stretches the range of perfect scaling, at small
batches it makes no difference. The origin's MLP; updates until a validation accuracy, each at its best ε. The large
batch has 30 epochs since a first run of 10, in which plain SGD did not reach that accuracy; the claims of equal curves
are of epoch 10 still.

    python launch.py --config=experiments/mnist_momentum.py          # 96 runs of 10 and 30 epochs
    python launch.py --config=experiments/mnist_momentum.py:quick    # 96 runs of 10 and 30 epochs, a tenth of MNIST
    python launch.py --config=experiments/mnist_momentum.py:smoke    # seconds; shows that it works

Expected: equal curves; at the largest batch at least twice as many updates without momentum (`:quick`: 1.65 times as
many). Time on 2 CPU cores: about two hours and a half; quick: about 25 minutes. On one GPU (H200), quick with 13 seeds:
a minute.
"""

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import until, value
from experiments import mnist

SMITH = 'Smith et al. 2018 (1711.00489), §4'
SHALLUE = 'Shallue et al. 2019 (1811.03600), §4.4'
RATES = (0.1, 0.3, 1.0, 3.0)  # ε/(1 − m); the recipes' names have it as x1, x3, x10, x30
SIZES = {'': (64, 4096), 'quick': (32, 1024), 'smoke': (20, 100)}
TARGETS = {'': 0.97, 'quick': 0.9, 'smoke': 0.2}  # validation accuracy


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-momentum'
    study.validation = 1 / 12
    study.sweep.batch_size = ()
    study.epochs = 10
    study.evaluate_epochs = 0.5
    sizes, target = SIZES.get(variant, SIZES['']), TARGETS.get(variant, TARGETS[''])
    study.recipes = {
        f'{label}-bs{size}-x{rate / RATES[0]:g}': {'batch_size': size, 'learning_rate': (1 - m) * rate, 'momentum': m}
        for size in sizes
        for label, m in (('plain', 0.0), ('momentum', 0.9))
        for rate in RATES
    }
    small, large = sizes
    for name in study.recipes if variant != 'smoke' else ():
        if f'-bs{large}-' in name:
            study.recipes[name].update({'epochs': 30.0, 'evaluate_epochs': 1.0})
    study.figures = ('curves', 'updates', 'distance')
    study.claims = 'experiments.mnist_momentum:claims'
    study.finding = (
        f'At equal ε/(1 − m) momentum changed test accuracy after 10 epochs by {{equal_small}} at batch size {small}'
        f' and {{equal_large}} at {large}. Until a validation accuracy of {100 * target:.0f} %, plain SGD at its best'
        f' learning rate took {{not_small}} times the updates of SGD with momentum at batch size {small} and'
        f' {{stretches}} times at {large}.'
    )
    return config.with_variant(
        study,
        variant,
        quick={'subset': 6000, 'validation': 0.05},
        smoke={'subset': 300, 'validation': 0.01, 'hidden': (16,), 'epochs': 2.0, 'seeds': 2},
    )


def claims(variant: str = '') -> list[Claim]:
    (small, large), target = SIZES[variant], TARGETS[variant]
    at = 2 if variant == 'smoke' else 10

    def gain(runs: DataFrame, size: int) -> Series:
        """What momentum adds at equal ε/(1 − m)."""
        with_it, without = (value(runs, f'{label}-bs{size}-x1', 'test_accuracy', at) for label in ('momentum', 'plain'))
        return with_it - without

    def updates(runs: DataFrame, size: int) -> Series:
        """How many times as many updates it takes without momentum."""
        with_it, without = (
            until(runs, f'{label}-bs{size}-*', 'update', 'validation_accuracy', target)
            for label in ('momentum', 'plain')
        )
        return without / with_it

    return [
        Claim('equal_small',
              f'at equal ε/(1 − m) = 0.1, batch {small} ends within 0.3 points with and without momentum',
              lambda runs: gain(runs, small),
              within=(-0.003, 0.003), unit='points', published='equal', source=SMITH, status='S'),
        Claim('equal_large',
              f'at equal ε/(1 − m) = 0.1, batch {large} ends within 0.3 points with and without momentum',
              lambda runs: gain(runs, large),
              within=(-0.003, 0.003), unit='points', published='equal', source=SMITH, status='S'),
        Claim('stretches',
              f'at batch {large} the best ε without momentum needs at least twice the updates of the best with it',
              lambda runs: updates(runs, large),
              at_least=2.0, unit='ratio', published='perfect scaling further with momentum', source=SHALLUE,
              status='S'),
        Claim('not_small', f'at batch {small} the two need the same number of updates, give or take a third',
              lambda runs: updates(runs, small),
              within=(0.75, 1.33), unit='ratio', published='equal', source=SHALLUE, status='S'),
    ]  # fmt: skip
