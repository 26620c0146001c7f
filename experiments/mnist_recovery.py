"""Is a model that was trained with a large batch stuck?

Source: Shen 2018, "Effect of batch size on training dynamics": a model trained with batch size 1024 goes on with batch
size 64 and reaches what batch size 64 reaches; unchanged it does not. The origin's set-up (experiments/mnist.py): 30
epochs at 1024, then 30 more, at 64 or still at 1024; beside it 30 epochs at 64 alone. (Which of the source's curves is
which is inferred.)

    python launch.py --config=experiments/mnist_recovery.py          # 15 runs
    python launch.py --config=experiments/mnist_recovery.py:quick    # 9 runs, a fifth of MNIST
    python launch.py --config=experiments/mnist_recovery.py:smoke    # seconds; shows that it works

Expected: 98.0 % with the switch, 96.3 % without. Time on 2 CPU cores: about an hour; quick: about 7 minutes. On one
GPU (estimated): about 3 minutes.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.claims import claim
from experiments import mnist

SHEN = 'Shen 2018, figures (labels inferred)'


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'mnist-recovery'
    study.sweep.batch_size = ()
    study.batch_size, study.epochs, study.milestones = 1024, 60, (30,)
    study.seeds = 5
    study.recipes = {
        'stay': {},
        'switch': {'schedule': 'switch_batch', 'switch_to': (64,)},
        'small': {'batch_size': 64, 'epochs': 30.0},
    }
    study.figures = ('curves', 'schedule', 'distance')
    study.claims = {
        'recovers': claim(
            'after the switch to batch 64 the model ends at most 0.2 points below batch 64 from the start',
            *('test_accuracy', 'switch', 'at least', -0.002),
            *('97.9 – 98.05 against 97.9 %', SHEN, 'V'),
            minus='small',
        ),
        'staying_does_not': claim(
            'going on with batch 1024 ends at least 1 point below the switch to batch 64',
            *('test_accuracy', 'switch', 'at least', 0.01),
            *('97.9 – 98.05 against 96.3 %', SHEN, 'V'),
            minus='stay',
        ),
    }
    study.finding = (
        'From a model trained with batch size 1024, going on with 64 ended {recovers} of test accuracy from training'
        ' with 64 alone, and {staying_does_not} above going on with 1024.'
    )
    if not variant:  # what is published for all of MNIST is not held against a part of it
        study.claims['switch_figure'] = claim(
            'after the switch test accuracy is 97.9 to 98.05 %, give or take 0.2',
            *('test_accuracy', 'switch', 'within', (0.977, 0.9825)),
            *('97.9 – 98.05 %', SHEN, 'V'),
        )
        study.claims['stay_figure'] = claim(
            'without it, it is 96.3 %, give or take 0.3',
            *('test_accuracy', 'stay', 'within', (0.96, 0.966)),
            *('96.3 %', SHEN, 'V'),
        )
        study.finding += ' The figures are {switch_figure} with the switch and {stay_figure} without.'
    return config.with_variant(
        study,
        variant,
        quick={'subset': 12000, 'seeds': 3},
        smoke={
            'subset': 1200,
            'hidden': (32,),
            'epochs': 4.0,
            'milestones': (2,),
            'recipes.small.epochs': 2.0,
            'seeds': 2,
        },
    )
