"""How large is a mini-batch's gradient, and how much does it vary, with the batch size?

Source: Shen 2018, "Effect of batch size on training dynamics": at the weights after epoch 2 of batch size 64 the mean
norm of the last layer's gradient over the same 1024 examples grows with the batch: .14 at 1, .243 at 64, .363 at 1024;
so does its spread. The source's weights moved during each trial, so that it mixes the path with the batch size:
measured here both with weights that move (as there) and with frozen ones, at the weights that the main study
(experiments/mnist.py) has after 2 epochs, to rounding: a run is decided by its recipe and its seed.

    python launch.py --config=experiments/mnist_gradient_norm.py          # 6 runs of 2 epochs (:quick is the same)
    python launch.py --config=experiments/mnist_gradient_norm.py:smoke    # seconds; shows that it works

Frozen, the mean norm must fall with the batch size (a mean of vectors is no longer than they are on average), so that
nothing is claimed of it. Time on 2 CPU cores: about 2 minutes; on one GPU (estimated): seconds.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
from experiments import mnist

SHEN = 'Shen 2018, figures and code'


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-gradient-norm'
    study.sweep.batch_size = (64,)
    study.epochs = 2
    study.measurements = ('gradient_norm',)
    study.figures = ('gradient_norm', 'curves')
    study.claims = 'experiments.mnist_gradient_norm:claims'
    study.finding = (
        "From batch size 1 to 1024 the mean norm of the last layer's gradient changed by a factor of"
        ' {moving_grows} where the weights move meanwhile, its relative spread by {moving_spread}; at 64 it was'
        ' {moving_at_64}, at 1024 {moving_at_1024}. With frozen weights, where only the batch size differs, it can but'
        ' fall: a mean of vectors is no longer than they are on average.'
    )
    return config.with_variant(study, variant, quick={}, smoke={'subset': 2000, 'hidden': (32,), 'seeds': 2})


def claims(variant: str = '') -> list[Claim]:
    return [
        Claim('moving_grows', 'with weights that move, the mean norm is larger at batch 1024 than at 1',
              lambda runs: value(runs, 'bs64-*', 'gradient_norm_moving_growth'),
              at_least=1.0, unit='ratio', published='.363 / .14 = 2.6', source=SHEN, status='V'),
        Claim('moving_spread', 'with weights that move, its relative spread is larger at batch 1024 than at 1',
              lambda runs: value(runs, 'bs64-*', 'gradient_norm_moving_spread_growth'),
              at_least=1.0, unit='ratio', published='it grows', source=SHEN, status='V'),
        Claim('moving_at_64', 'with weights that move, it is .243 at batch 64, give or take a fifth',
              lambda runs: value(runs, 'bs64-*', 'gradient_norm_moving_bs64'),
              within=(0.194, 0.292), published='.243', source=SHEN, status='V'),
        Claim('moving_at_1024', 'with weights that move, it is .363 at batch 1024, give or take a fifth',
              lambda runs: value(runs, 'bs64-*', 'gradient_norm_moving_bs1024'),
              within=(0.290, 0.436), published='.363', source=SHEN, status='V'),
    ]  # fmt: skip
