"""The effect of batch size on the training of an MLP on MNIST.

Source: Kevin Shen, "Effect of batch size on training dynamics" (2018), from the author's code; retold in Portuguese by
the Deep Learning Book, chapters 37 and 38. MLP 784-1024-1024-10 with ReLU, Xavier-normal weights and zero biases; plain
SGD with learning rate 0.01, no momentum, no weight decay; 30 epochs, reshuffled each, the last partial batch kept.

    python launch.py --config=experiments/mnist.py          # 9 runs
    python launch.py --config=experiments/mnist.py:smoke    # the same study on a tenth of the data, 3 epochs, 2 seeds

Expected after 30 epochs at batch size 64 / 256 / 1024: test accuracy 97.9 / 97.2 / 95.2 %, train 100 / 98.4 / 95.5 %.
Time on 2 CPU cores: about 25 minutes; smoke: under a minute.
"""

from ml_collections import ConfigDict

from bsgap import config


def get_config(variant: str = '') -> ConfigDict:
    study = config.default()
    study.name = 'mnist'
    study.dataset = 'mnist'
    study.mean, study.std = (0.1307,), (0.3081,)
    study.hidden = (1024, 1024)
    study.optimizer = 'sgd'
    study.sweep.batch_size = (64, 256, 1024)
    study.learning_rate = 0.01
    study.epochs = 30
    study.seeds = 3
    return config.with_variant(study, variant, smoke={'subset': 6000, 'epochs': 3, 'seeds': 2})
