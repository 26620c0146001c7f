"""Does the noise of small batches keep a network from overfitting?

Source: Deep Learning Book, chapter 37: the noise of small batches regularises. After equal epochs the batch sizes have
learned the training set to different degrees (experiments/mnist.py), which hides what noise does. Here they are
compared where their training loss is the same, on a fifth of MNIST, at one learning rate, so that the noise falls with
the batch size; once with clean labels, and once with a tenth of them wrong, which a network can learn by heart.

    python launch.py --config=experiments/equal_loss.py          # 60 runs of 1200 updates
    python launch.py --config=experiments/equal_loss.py:quick    # 20 runs, batch sizes to 1024
    python launch.py --config=experiments/equal_loss.py:smoke    # seconds; shows that it works

Expected, if noise regularises: at the same training loss the small batch has the lower test loss. Time on 2 CPU cores:
about an hour; quick: about 8 minutes. On one GPU (estimated): some minutes.
"""

from ml_collections import ConfigDict

from bsgap import config
from experiments import mnist

BOOK = 'Deep Learning Book, ch. 37'
UPDATES = 1200
TARGETS = {'clean': 0.05, 'wrong': 0.55}  # training loss


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'equal-loss'
    study.subset = 12000
    study.learning_rate = 0.1
    study.sweep.batch_size = (16, 64, 256, 1024, 4096)
    study.sweep.label_noise = (0.0, 0.1)
    study.epochs, study.updates = 0, UPDATES
    study.evaluate_at = tuple(round(UPDATES / 1.25**k) for k in range(20))
    study.figures = ('equal_loss', 'learning_rate_sum')
    study.claims = 'experiments.equal_loss:claims'
    study.finding = (
        f'Where the training loss is {TARGETS["clean"]}, the smallest batch has {{clean_loss}} times the test loss of'
        f' the largest and its test accuracy is {{clean_accuracy}} above. With a tenth of the labels wrong, at a'
        f' training loss of {TARGETS["wrong"]}, these are {{wrong_loss}} times and {{wrong_accuracy}}.'
    )
    return config.with_variant(
        study,
        variant,
        quick={'sweep.batch_size': (16, 1024), 'seeds': 5},
        smoke={'subset': 640, 'sweep.batch_size': (16, 320), 'hidden': (32,), 'seeds': 2},
    )
