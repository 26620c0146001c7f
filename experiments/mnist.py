"""The effect of batch size on the training of an MLP on MNIST."""
from ml_collections import ConfigDict

from bsgap import config


def get_config(variant: str = '') -> ConfigDict:
    study = config.default()
    study.name = 'mnist'
    study.mean, study.std = (0.1307,), (0.3081,)
    if variant == 'smoke':
        study.name = 'mnist-smoke'
        study.subset = 6000
        study.epochs = 3
        study.seeds = 2
    return study
