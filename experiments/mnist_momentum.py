"""Is momentum a larger learning rate, and does it help a large batch more?

Sources: Smith et al. 2018 (1711.00489), §2: the noise scale is about εN/(B(1 − m)), so recipes with equal ε/(B(1 − m))
have equal curves; Shallue et al. 2019 (1811.03600), §4.4: momentum stretches the range of perfect scaling, at small
batches it makes no difference. The origin's MLP; updates until a validation accuracy, each at its best ε.

    python launch.py --config=experiments/mnist_momentum.py          # 80 runs of 10 epochs
    python launch.py --config=experiments/mnist_momentum.py:quick    # 48 runs of 10 epochs, a tenth of MNIST
    python launch.py --config=experiments/mnist_momentum.py:smoke    # seconds; shows that it works

Expected: equal curves; at the largest batch at least twice as many updates without momentum. Time on 2 CPU cores: about
an hour and a half; quick: about 8 minutes. On one GPU (estimated): about 5 minutes.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.claims import claim
from experiments import mnist

SMITH = 'Smith et al. 2018 (1711.00489), §2'
SHALLUE = 'Shallue et al. 2019 (1811.03600), §4.4'
RATES = (0.1, 0.3, 1.0, 3.0)  # ε/(1 − m); the recipes' names have it as x1, x3, x10, x30


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-momentum'
    study.validation = 1 / 12
    study.sweep.batch_size = ()
    study.epochs, study.seeds = 10, 5
    study.evaluate_epochs = 0.5
    sizes = {'quick': (32, 1024), 'smoke': (20, 100)}.get(variant, (64, 4096))
    study.recipes = {
        f'{label}-bs{size}-x{rate / RATES[0]:g}': {'batch_size': size, 'learning_rate': (1 - m) * rate, 'momentum': m}
        for size in sizes
        for label, m in (('plain', 0.0), ('momentum', 0.9))
        for rate in RATES
    }
    small, large = sizes
    target = {'quick': 0.9, 'smoke': 0.2}.get(variant, 0.97)
    until = f'update until validation_accuracy {target}'
    study.figures = ('curves', 'updates', 'distance')
    study.claims = {
        'equal_small': claim(
            f'at equal ε/(1 − m) = 0.1, batch {small} ends within 0.3 points with and without momentum',
            *('test_accuracy', f'momentum-bs{small}-x1', 'within', (-0.003, 0.003)),
            *('equal', SMITH, 'S'),
            minus=f'plain-bs{small}-x1',
        ),
        'equal_large': claim(
            f'at equal ε/(1 − m) = 0.1, batch {large} ends within 0.3 points with and without momentum',
            *('test_accuracy', f'momentum-bs{large}-x1', 'within', (-0.003, 0.003)),
            *('equal', SMITH, 'S'),
            minus=f'plain-bs{large}-x1',
        ),
        'stretches': claim(
            f'at batch {large} the best ε without momentum needs at least twice the updates of the best with it',
            *(until, f'plain-bs{large}-*', 'at least', 2.0),
            *('perfect scaling further with momentum', SHALLUE, 'S'),
            over=f'momentum-bs{large}-*',
        ),
        'not_small': claim(
            f'at batch {small} the two need the same number of updates, give or take a third',
            *(until, f'plain-bs{small}-*', 'within', (0.75, 1.33)),
            *('equal', SHALLUE, 'S'),
            over=f'momentum-bs{small}-*',
        ),
    }
    study.finding = (
        f'At equal ε/(1 − m) momentum changed the final test accuracy by {{equal_small}} at batch size {small} and'
        f' {{equal_large}} at {large}. Until a validation accuracy of {target:.0%}, plain SGD at its best learning'
        f' rate took {{not_small}} times the updates of SGD with momentum at batch size {small} and {{stretches}}'
        f' times at {large}.'
    )
    return config.with_variant(
        study,
        variant,
        quick={'subset': 6000, 'validation': 0.05, 'seeds': 3},
        smoke={'subset': 300, 'validation': 0.01, 'hidden': (16,), 'epochs': 2.0, 'seeds': 2},
    )
