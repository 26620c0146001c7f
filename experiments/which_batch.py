"""Which batch size should I use? Asked of a dataset and a model, answered with evidence.

For each batch size of a grid the learning rate is searched on validation data, by successive halving over the whole grid
× seeds, widened where the best lies at an edge. The report opens with the recommendation for three budgets (epochs,
updates, seconds on this device); below it stand the updates to a target against batch size with the hyperbola of
McCandlish et al. 2018 (1812.06162) and the critical batch size, the noise scale over training, and a check of the
recommendation with fresh seeds.

    python launch.py --config=experiments/which_batch.py          # the full search
    python launch.py --config=experiments/which_batch.py:cpu      # half an hour on two CPU cores: two epochs, 250 updates
    python launch.py --config=experiments/which_batch.py:fast     # under 5 minutes on two CPU cores; says how sure it is
    python launch.py --config=experiments/which_batch.py:smoke    # shows that it works

Of your own: --config.dataset=idx:FOLDER or tfds:NAME, --config.model=cnn or mymodels:Net, and what training may cost:
--config.search.budget_epochs=10 --config.search.budget_updates=2000 --config.search.budget_seconds=60. Give each
question its own --workdir.
"""

from ml_collections import ConfigDict

from bsgap import config
from experiments import mnist


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'which-batch'
    study.claims = {}
    study.mean, study.std = (), ()  # those of the training split, whatever the dataset is
    study.validation = 1 / 12
    study.sweep.batch_size = (1, 4, 16, 64, 256, 1024, 4096, 16384)
    study.sweep.learning_rate = (0.01, 0.03, 0.1, 0.3, 1.0)
    study.learning_rate = 0.01  # the origin's, with which each batch size is trained as well
    study.seeds = 5
    study.measurements = ('noise_scale',)
    study.search.rungs = 3
    study.search.budget_epochs = 10.0
    return config.with_variant(
        study,
        variant,
        cpu={
            'validation': 1 / 20,
            'sweep.batch_size': (4, 16, 64, 256, 1024),
            'seeds': 3,
            'search.budget_epochs': 2.0,
            'search.budget_updates': 250,
            'search.confirm_seeds': 3,
        },
        fast={
            'subset': 12000,
            'validation': 1 / 30,
            'sweep.batch_size': (4, 16, 64, 256, 1024),
            'sweep.learning_rate': (0.03, 0.1, 0.3),
            'seeds': 3,
            'measurements': (),
            'search.rungs': 2,
            'search.widen': 1,
            'search.budget_epochs': 1.0,
            'search.budget_updates': 60,
            'search.moments': (),
            'search.confirm_seeds': 0,
        },
        smoke={
            'subset': 2000,
            'validation': 0.01,
            'sweep.batch_size': (8, 32, 128),
            'sweep.learning_rate': (0.03, 0.1, 0.3),
            'hidden': (32,),
            'seeds': 2,
            'search.rungs': 2,
            'search.widen': 1,
            'search.budget_epochs': 2.0,
            'search.confirm_seeds': 2,
        },
    )
