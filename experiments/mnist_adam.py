"""How should Adam's ε and β change with the batch size?

Sources: Malladi et al. 2022 (2205.10287): with k times the batch, ε × √k and β → 1 − k(1 − β); Marek et al. 2025
(2507.07101): keep the half-life of the second moment in examples, β₂ → β₂^k; and the linear rule that SGD has, ε × k.
The origin's MLP; ε 0.001 at batch 256 (in :quick 128) is the base of all rules.

    python launch.py --config=experiments/mnist_adam.py          # 75 runs of 10 epochs
    python launch.py --config=experiments/mnist_adam.py:quick    # 45 runs of 10 epochs, a tenth of MNIST
    python launch.py --config=experiments/mnist_adam.py:smoke    # seconds; shows that it works

Expected: the linear rule overshoots at the large batch; √ and Malladi's rule keep the accuracy of the base. Time on 2
CPU cores: about 2 hours; quick: about 7 minutes. On one GPU (estimated): about 5 minutes.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.claims import claim
from experiments import mnist

MALLADI = 'Malladi et al. 2022 (2205.10287)'
MAREK = 'Marek et al. 2025 (2507.07101)'
RULES = {
    'fixed': {},
    'linear': {'scaling': 'linear'},
    'sqrt': {'scaling': 'sqrt'},
    'malladi': {'scaling': 'sqrt', 'beta_scaling': 'malladi'},
    'halflife': {'beta_scaling': 'half_life'},
}


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-adam'
    study.sweep.batch_size = ()
    study.optimizer, study.learning_rate, study.epochs, study.seeds = 'adam', 1e-3, 10, 5
    sizes = {'quick': (32, 128, 1024), 'smoke': (8, 32, 128)}.get(variant, (32, 256, 2048))
    small, study.base_batch_size, large = sizes
    study.recipes = {
        f'{rule}-bs{size}': {'batch_size': size, **fields} for rule, fields in RULES.items() for size in sizes
    }
    study.figures = ('accuracy', 'curves', 'gap')
    base = f'fixed-bs{study.base_batch_size}'
    study.claims = {
        'linear_overshoots': claim(
            f'at batch {large} the linear rule ends at least 0.1 points below the √ rule',
            *('test_accuracy', f'sqrt-bs{large}', 'at least', 0.001),
            *('√, not linear (no figure for MNIST)', MALLADI, 'S'),
            minus=f'linear-bs{large}',
        ),
        'sqrt_keeps': claim(
            f'at batch {large} the √ rule for ε alone ends within 0.3 points of the base',
            *('test_accuracy', f'sqrt-bs{large}', 'within', (-0.003, 0.003)),
            *('(equal curves with β scaled too)', MALLADI, 'S'),
            minus=base,
        ),
        'malladi_keeps': claim(
            f"at batch {large} Malladi's rule ends within 0.3 points of the base",
            *('test_accuracy', f'malladi-bs{large}', 'within', (-0.003, 0.003)),
            *('equal curves', MALLADI, 'S'),
            minus=base,
        ),
        'half_life_keeps': claim(
            f'at batch {small} the half-life rule ends within 0.3 points of the base',
            *('test_accuracy', f'halflife-bs{small}', 'within', (-0.003, 0.003)),
            *('small batches do well with it', MAREK, 'S'),
            minus=base,
        ),
    }
    study.finding = (
        f'At batch size {large} the linear rule ended {{linear_overshoots}} of test accuracy below the √ rule; the'
        f" √ rule ended {{sqrt_keeps}} from the base, Malladi's rule {{malladi_keeps}}. At batch size {small} the"
        f' half-life rule ended {{half_life_keeps}} from it.'
    )
    return config.with_variant(
        study,
        variant,
        quick={'subset': 6000, 'seeds': 3},
        smoke={'subset': 300, 'hidden': (16,), 'epochs': 2.0, 'seeds': 2},
    )
