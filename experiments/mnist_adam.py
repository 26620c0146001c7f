"""How should Adam's ε and β change with the batch size?

Sources: Malladi et al. 2022 (2205.10287): with k times the batch, ε × √k and β → 1 − k(1 − β) (and Adam's term against
division by zero by √k, which stays here); Marek et al. 2025 (2507.07101): keep the half-life of the second moment in
examples, β₂ → β₂^k; and the linear rule that SGD has, ε × k. The origin's MLP; ε 0.001 at batch 256 (in :quick 128) is
the base of all rules. It falls to zero, so that the noise of the last updates does not hide what the rules do.

    python launch.py --config=experiments/mnist_adam.py          # 90 runs of 10 epochs
    python launch.py --config=experiments/mnist_adam.py:quick    # 150 runs of 10 epochs, a tenth of MNIST
    python launch.py --config=experiments/mnist_adam.py:smoke    # seconds; shows that it works

Expected: the linear rule overshoots at the large batch; √ and Malladi's rule keep the accuracy of the base (`:quick`:
they end 1.3 and 0.6 points below). Time on 2 CPU cores: about 2 hours; quick: about 40 minutes. On one GPU (estimated):
about 5 minutes.
"""

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
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
SIZES = {'': (32, 256, 2048), 'quick': (32, 128, 1024), 'smoke': (8, 32, 128)}


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-adam'
    study.sweep.batch_size = ()
    study.optimizer, study.learning_rate, study.schedule = 'adam', 1e-3, 'linear'
    study.epochs, study.evaluate_epochs, study.seeds = 10, 2.5, 6
    sizes = SIZES.get(variant, SIZES[''])
    small, study.base_batch_size, large = sizes
    study.recipes = {
        f'{rule}-bs{size}': {'batch_size': size, **fields} for rule, fields in RULES.items() for size in sizes
    }
    study.figures = ('accuracy', 'curves')
    study.claims = 'experiments.mnist_adam:claims'
    study.finding = (
        f'At batch size {large} the linear rule ended {{linear_overshoots}} of test accuracy below the √ rule. There'
        f" the √ rule ended {{sqrt_keeps}} from the base (negative: below), and Malladi's rule {{malladi_keeps}}. At"
        f' batch size {small} the half-life rule ended {{half_life_keeps}} from the base, which has batch size'
        f' {study.base_batch_size}.'
    )
    return config.with_variant(
        study,
        variant,
        quick={'subset': 6000, 'seeds': 10},
        smoke={'subset': 300, 'hidden': (16,), 'epochs': 2.0, 'seeds': 2},
    )


def claims(variant: str = '') -> list[Claim]:
    small, middle, large = SIZES[variant]
    base = f'fixed-bs{middle}'

    def above(runs: DataFrame, recipe: str, other: str) -> Series:
        return value(runs, recipe, 'test_accuracy') - value(runs, other, 'test_accuracy')

    return [
        Claim('linear_overshoots', f'at batch {large} the linear rule ends at least 0.1 points below the √ rule',
              lambda runs: above(runs, f'sqrt-bs{large}', f'linear-bs{large}'),
              at_least=0.001, unit='points', published='√, not linear (no figure for MNIST)', source=MALLADI,
              status='S'),
        Claim('sqrt_keeps', f'at batch {large} the √ rule for ε alone ends within 0.3 points of the base',
              lambda runs: above(runs, f'sqrt-bs{large}', base),
              within=(-0.003, 0.003), unit='points', published='(equal curves with β scaled too)', source=MALLADI,
              status='S'),
        Claim('malladi_keeps', f"at batch {large} Malladi's rule ends within 0.3 points of the base",
              lambda runs: above(runs, f'malladi-bs{large}', base),
              within=(-0.003, 0.003), unit='points', published='equal curves', source=MALLADI, status='S'),
        Claim('half_life_keeps', f'at batch {small} the half-life rule ends within 0.3 points of the base',
              lambda runs: above(runs, f'halflife-bs{small}', base),
              within=(-0.003, 0.003), unit='points', published='small batches do well with it', source=MAREK,
              status='S'),
    ]  # fmt: skip
