"""What closes the generalization gap of a large batch: the learning rate, the statistics, or the number of updates?

Source: Hoffer, Hubara, Soudry 2017, "Train longer, generalize better" (1705.08741), network F1: 784-[512-BN-ReLU]×5-10,
SGD with momentum 0.9, weight decay 1e-4, gradient norm clipped to 5, ε 0.1 divided by 10 at epochs 10, 20 and 30 of 50;
batch 128 against 4096. From `large` on each recipe adds one remedy: √ scaling of ε from 128 (`sqrt`), Ghost Batch Norm
over 128 examples (`ghost`), and regime adaptation: all lengths × 4096/128, so that the updates are as many (`adapted`).
`ghost_alone` and `adapted_alone` have one remedy each, to tell them apart.

    python launch.py --config=experiments/mnist_train_longer.py          # 42 runs of 50 to 1600 epochs
    python launch.py --config=experiments/mnist_train_longer.py:quick    # 42 runs, a tenth of MNIST, batch 32 and 1024
    python launch.py --config=experiments/mnist_train_longer.py:smoke    # seconds; shows that it works

Published test accuracy: small 98.27, large 97.05, + √ε 97.55, + ghost 97.60, + adaptation 98.53 %. Time on 2 CPU cores:
about 16 hours; quick: an hour to 3 hours and a half. On one GPU (estimated): about an hour.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import value
from experiments import mnist

HOFFER = 'Hoffer et al. 2017 (1705.08741)'


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-train-longer'
    study.sweep.batch_size = ()
    study.hidden, study.batch_norm = (512,) * 5, True
    study.schedule, study.milestones, study.factor, study.epochs = 'decay_learning_rate', (10, 20, 30), 10, 50
    study.learning_rate, study.momentum, study.weight_decay, study.clip = 0.1, 0.9, 1e-4, 5.0
    study.batch_size, study.base_batch_size = 4096, 128
    ghost = {'scaling': 'sqrt', 'ghost_batch': 128}
    study.recipes = {
        'small': {'batch_size': 128},
        'large': {},
        'sqrt': {'scaling': 'sqrt'},
        'ghost': ghost,
        'adapted': {**ghost, 'adapt_regime': True, 'evaluate_epochs': 32.0},
        'ghost_alone': {'ghost_batch': 128},
        'adapted_alone': {'adapt_regime': True, 'evaluate_epochs': 32.0},
    }
    study.figures = ('curves', 'updates', 'distance')

    study.claims = 'experiments.mnist_train_longer:claims'
    study.finding = (
        'The small batch ended {gap} of test accuracy above the large one. Scaling the learning rate by the square root'
        ' brought {sqrt_helps}, Ghost Batch Norm on top of it {ghost_helps}. With both, and as many updates as the'
        ' small batch, the large one ended {adaptation_closes} above the small one. Alone, Ghost Batch Norm brought'
        ' {ghost_alone_helps}; as many updates alone ended {adaptation_alone_closes} from the small batch (negative:'
        ' below).'
    )
    return config.with_variant(
        study,
        variant,
        quick={
            'subset': 6000,
            'batch_size': 1024,
            'base_batch_size': 32,
            'recipes.small.batch_size': 32,
            'recipes.ghost.ghost_batch': 32,
            'recipes.adapted.ghost_batch': 32,
            'recipes.ghost_alone.ghost_batch': 32,
            'epochs': 15.0,
            'milestones': (3, 6, 9),
        },
        smoke={
            'subset': 320,
            'hidden': (16, 16),
            'batch_size': 128,
            'base_batch_size': 32,
            'recipes.small.batch_size': 32,
            'recipes.ghost.ghost_batch': 32,
            'recipes.adapted.ghost_batch': 32,
            'recipes.ghost_alone.ghost_batch': 32,
            'recipes.adapted.evaluate_epochs': 4.0,
            'recipes.adapted_alone.evaluate_epochs': 4.0,
            'epochs': 4.0,
            'milestones': (1, 2, 3),
            'seeds': 2,
        },
    )


def claims(variant: str = '') -> list[Claim]:
    def gain(name: str, text: str, recipe: str, over: str, published: str, status: str, bound: float = 0.0) -> Claim:
        return Claim(
            name, text, lambda runs: value(runs, recipe, 'test_accuracy') - value(runs, over, 'test_accuracy'),
            at_least=bound, unit='points', published=published, source=f'{HOFFER}, table 1', status=status,
        )  # fmt: skip

    return [
        gain('gap', 'the small batch ends at least 0.5 points above the large one', 'small', 'large',
             '98.27 − 97.05', 'S', 0.005),
        gain('sqrt_helps', '√ scaling of ε brings part of it', 'sqrt', 'large', '97.55 − 97.05', 'U'),
        gain('ghost_helps', 'Ghost Batch Norm brings more', 'ghost', 'sqrt', '97.60 − 97.55', 'U'),
        gain('adaptation_closes', 'with as many updates the large batch ends no lower than the small one',
             'adapted', 'small', '98.53 − 98.27', 'S'),
        gain('ghost_alone_helps', 'Ghost Batch Norm alone brings part of it', 'ghost_alone', 'large',
             '(not alone)', 'U'),
        gain('adaptation_alone_closes', 'as many updates alone end no lower than the small batch',
             'adapted_alone', 'small', '(not alone)', 'U'),
    ]  # fmt: skip
