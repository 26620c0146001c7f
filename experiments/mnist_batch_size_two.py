"""Batch size 2 on MNIST at a smaller and a larger learning rate than the origin's.

Source: Shen 2018, "Effect of batch size on training dynamics", and the Deep Learning Book, chapter 37: batch size 2
reaches 99 %. The text gives no learning rate; experiments/mnist_batch_sizes.py has the origin's, 0.01.

    python launch.py --config=experiments/mnist_batch_size_two.py          # 12 runs, all of MNIST
    python launch.py --config=experiments/mnist_batch_size_two.py:smoke    # seconds; shows that it works

Expected: the smaller rate has learned nearly as much after 30 epochs; the larger one is too noisy. Time on 2 CPU cores:
about an hour; on one GPU (H200) 5 minutes, as 825,000 updates follow one another.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
from experiments import mnist
from experiments.mnist_batch_sizes import SHEN

RATES = {'slow': 0.003, 'fast': 0.03}


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-batch-size-two'
    study.validation = 1 / 12
    study.sweep.batch_size = (2,)
    study.sweep.learning_rate = tuple(RATES.values())
    study.evaluate_epochs = 3.0
    study.figures = ('curves',)
    study.claims = 'experiments.mnist_batch_size_two:claims'
    study.finding = 'Batch size 2 ended at {slow} at a learning rate of 0.003, {fast} at 0.03.'
    return config.with_variant(study, variant, smoke={'subset': 300, 'hidden': (32,), 'epochs': 3.0, 'seeds': 2})


def claims(variant: str = '') -> list[Claim]:
    def reaches(name: str, rate: float) -> Claim:
        return Claim(
            name, f'batch size 2 reaches 99 % test accuracy at ε {rate}',
            lambda runs: value(runs, f'bs2-lr{rate}', 'test_accuracy'),
            at_least=0.99, unit='%', published='99 % (no ε)', source=SHEN, status='U',
        )  # fmt: skip

    return [reaches(*of) for of in RATES.items()]
