"""Which batch size for a regression on a small table? Scikit-learn's diabetes set (Efron et al. 2004, Least angle
regression): ten measurements of 442 patients, and how far the disease went within a year.

    python launch.py --config=experiments/diabetes.py          # (:quick is the same)
    python launch.py --config=experiments/diabetes.py:smoke    # seconds; shows that it works

Needs `python -m pip install '.[sklearn]'`. Expected: no batch size from 2 to 128 is told from another: all learn what
there is to be learned (docs/results). Time on 2 CPU cores: about 3 minutes, mostly of compilation.
"""

from ml_collections import ConfigDict

from bsgap import config


def get_config(variant: str = '') -> ConfigDict:
    study = config.searching()
    study.name = 'diabetes'
    study.dataset, study.task = 'sklearn:diabetes', 'regression'
    study.validation, study.test_share = 0.3, 0.3
    study.hidden = (32,)
    study.sweep.batch_size = (2, 8, 32, 128)
    study.sweep.learning_rate = (0.00625, 0.025, 0.1)
    study.search.budget_epochs = 20.0
    study.search.margin = 0.01
    return config.with_variant(
        study,
        variant,
        quick={},
        smoke={
            'hidden': (4,),
            'seeds': 2,
            'sweep.batch_size': (4, 16, 64),
            'sweep.learning_rate': (0.025, 0.1),
            'search.rungs': 1,
            'search.budget_epochs': 5.0,
            'search.confirm_seeds': 2,
        },
    )
