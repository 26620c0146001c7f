"""Does a larger batch still end lower when the learning rate is chosen for it?

Source: Shen 2018, and the Deep Learning Book, chapter 38: ten times the learning rate recovers batch 1024; Shallue et
al. 2019 (1811.03600): tuned, and not at equal epochs, the large batch does no harm, and the best ε follows neither the
linear nor the √ rule. The origin's set-up (experiments/mnist.py); for each batch size the best ε of a grid is chosen on
validation data, by each seed alone, and reported on test data. The curves are also compared where learning rate ×
updates is the same.

    python launch.py --config=experiments/mnist_learning_rate.py          # 125 runs of 30 epochs
    python launch.py --config=experiments/mnist_learning_rate.py:quick    # 60 runs of 15 epochs, a tenth of MNIST
    python launch.py --config=experiments/mnist_learning_rate.py:smoke    # seconds; shows that it works

Expected: at tuned ε the batch sizes end within 0.3 points; the exponent of the best ε lies between ½ and 1 or below.
Time on 2 CPU cores: about 5 hours; quick: about 13 minutes. On one GPU (estimated): some 10 minutes.
"""

from typing import Any

from ml_collections import ConfigDict

from bsgap import config
from bsgap.claims import claim
from experiments import mnist

SHEN = 'Shen 2018; Deep Learning Book, ch. 38'
SHALLUE = 'Shallue et al. 2019 (1811.03600)'


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-learning-rate'
    study.validation = 1 / 12
    study.sweep.batch_size = (16, 64, 256, 1024, 4096)
    study.sweep.learning_rate = (0.01, 0.03, 0.1, 0.3, 1.0)
    study.seeds = 5
    study.figures = ('learning_rate', 'learning_rate_sum', 'accuracy', 'gap')
    exponent = 'exponent learning_rate against batch_size'
    by_batch: Any = {'group': 'batch_size', 'select': 'validation_accuracy'}
    # A part of MNIST leaves batch 1024 too few updates at ε 0.01 to meet the others' first evaluation.
    rates = (0.01, 0.03, 0.1) if variant == 'quick' else (0.01, 0.01, 0.01)
    same = tuple(f'bs{size}-lr{rate}' for size, rate in zip((64, 256, 1024), rates, strict=True))
    study.claims = {
        'recovers': claim(
            'batch 1024 at ε 0.1 ends within 0.3 points of batch 64 at 0.01',
            *('test_accuracy', 'bs1024-lr0.1', 'within', (-0.003, 0.003)),
            *('97.8 against 97.9 %', SHEN, 'V'),
            minus='bs64-lr0.01',
        ),
        'no_harm': claim(
            'at the best ε of each, after equal epochs, batch 1024 ends at most 0.3 points below batch 64',
            *('test_accuracy', 'bs1024-*', 'at least', -0.003),
            *('no harm when tuned (but not at equal epochs)', SHALLUE, 'S'),
            minus='bs64-*',
            select='validation_accuracy',
        ),
        'linear': claim(
            'the best ε grows in proportion to the batch size (exponent 1)',
            *(exponent, 'bs*', 'within', (0.85, 1.15)),
            *('1', 'the linear rule; Goyal et al. 2017', 'S'),
            **by_batch,
        ),
        'square_root': claim(
            'the best ε grows with the square root of the batch size (exponent ½)',
            *(exponent, 'bs*', 'within', (0.35, 0.65)),
            *('½', 'the √ rule; Hoffer et al. 2017', 'S'),
            **by_batch,
        ),
        'collapse': claim(
            f'where ε × updates is the same, {", ".join(same)} are at most 0.3 points of test accuracy apart',
            *('spread test_accuracy', same, 'at most', 0.003),
            *('95.0 and 95.0 %', 'a re-run of Shen 2018', 'V'),
        ),
        'collapse_distance': claim(
            f'where ε × updates is the same, the distances of {", ".join(same)} from the start are at most 8 % apart',
            *('relative spread distance', same, 'at most', 0.08),
            *('(our own bound)', 'a re-run of Shen 2018', 'S'),
        ),
    }
    study.finding = (
        'At the learning rates that validation data chose, batch size 1024 ended {no_harm} from batch size 64. With ten'
        ' times the learning rate of batch size 64, 0.1 against 0.01, it ended {recovers} from it. The best learning'
        ' rate grows with the batch size to the power {linear.value}: linear rule {linear.verdict}, square-root rule'
        ' {square_root.verdict}. Where learning rate × updates is the same, the batch sizes 64, 256 and 1024 are'
        ' {collapse} of test accuracy apart, and their distances from the start {collapse_distance}.'
    )
    return config.with_variant(
        study,
        variant,
        quick={
            'subset': 6000,
            'validation': 0.05,
            'sweep.batch_size': (16, 64, 256, 1024),
            'epochs': 15.0,
            'seeds': 3,
        },
        smoke={
            'subset': 2000,
            'validation': 0.01,
            'sweep.batch_size': (64, 256, 1024),
            'sweep.learning_rate': (0.01, 0.1),
            'hidden': (32,),
            'epochs': 2.0,
            'seeds': 2,
        },
    )
