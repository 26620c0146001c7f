"""How large is the gradient over the same examples, and how much does it vary, with the batch size?

Source: Shen 2018, "Effect of batch size on training dynamics": from the weights after epoch 2 of batch size 64 the same
1024 examples are gone through in batches, with a step of SGD after each, and the gradients of the last layer averaged.
The norm of that mean grows with the batch size: .14 at 1, .243 at 64, .363 at 1024; so does its spread over trials. The
weights move during a trial, at a small batch size further, to where the loss is lower; with frozen weights the mean is
the same for all batch sizes, whatever they are. (That it is the norm of a mean we infer from the figures: the norms of
single gradients have a mean of 4 at batch size 1, and fall.) Measured here as there, at the weights that the main study
(experiments/mnist.py) has after 2 epochs, to rounding: a run is decided by its recipe and its seed. Beside it, the
norms of single gradients at frozen weights.

    python launch.py --config=experiments/mnist_gradient_norm.py          # 12 runs of 2 epochs (:quick is the same)
    python launch.py --config=experiments/mnist_gradient_norm.py:smoke    # seconds; shows that it works

Of single gradients the norm must fall with the batch size (a mean of vectors is no longer than they are on average), so
that nothing is claimed of it. Time on 2 CPU cores: about 5 minutes; on one GPU (estimated): seconds.
"""

from collections.abc import Callable

from ml_collections import ConfigDict
from pandas import DataFrame, Series

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
from experiments import mnist

SHEN = 'Shen 2018, figures and code'


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-gradient-norm'
    study.sweep.batch_size = (64,)
    study.epochs, study.seeds = 2, 12
    study.measurements = ('gradient_norm',)
    study.figures = ('gradient_norm', 'curves')
    study.claims = 'experiments.mnist_gradient_norm:claims'
    study.finding = (
        "Over the same 1024 examples, in batches with a step after each, the norm of the last layer's mean gradient was"
        ' {at_1} at batch size 1, {at_64} at 64 and {at_1024} at 1024: from 1 to 1024 it grew by a factor of {grows},'
        ' and its spread over trials, relative to it, by {spread_grows}. It is the weights, which move further in small'
        ' batches: where they stay as they are, the mean gradient is the same for all batch sizes.'
    )
    return config.with_variant(study, variant, quick={}, smoke={'subset': 2000, 'hidden': (32,), 'seeds': 2})


def claims(variant: str = '') -> list[Claim]:
    def norm(name: str) -> Callable[[DataFrame], Series]:
        return lambda runs: value(runs, 'bs64-*', f'gradient_norm_mean_{name}')

    # What is measured was put right after the first runs: it had been the mean of the norms. The bounds, but that of
    # batch size 1, are older.
    made = [
        Claim('grows', 'the norm of the mean gradient is larger at batch 1024 than at 1', norm('growth'),
              at_least=1.0, unit='ratio', published='.363 / .14 = 2.6', source=SHEN, status='V', bound_first=False),
        Claim('spread_grows', 'its relative spread is larger at batch 1024 than at 1', norm('spread_growth'),
              at_least=1.0, unit='ratio', published='it grows', source=SHEN, status='V', bound_first=False),
    ]  # fmt: skip
    bounds = {1: ('.14', (0.112, 0.168)), 64: ('.243', (0.194, 0.292)), 1024: ('.363', (0.290, 0.436))}
    for size, (published, bound) in bounds.items():
        made.append(
            Claim(f'at_{size}', f'it is {published} at batch {size}, give or take a fifth', norm(f'bs{size}'),
                  within=bound, published=published, source=SHEN, status='V', bound_first=False)
        )  # fmt: skip
    return made
