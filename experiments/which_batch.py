"""Which batch size should I use? Asked of a dataset and a model, answered with evidence.

For each batch size of a grid the learning rate is searched on validation data, by successive halving over the whole
grid × seeds, widened where the best lies at an edge. The report opens with the recommendation for three budgets
(epochs, updates, seconds on this device); below it stand the updates to a target against batch size with the hyperbola
of McCandlish et al. 2018 (1812.06162) and the critical batch size, the noise scale over training, and what fresh seeds
reach with the recommendation.

    python launch.py --config=experiments/which_batch.py          # the full search, for a GPU
    python launch.py --config=experiments/which_batch.py:cpu      # two epochs, 250 updates: 35 minutes on 2 CPU cores
    python launch.py --config=experiments/which_batch.py:fast     # under 5 minutes there; it says how sure it is
    python launch.py --config=experiments/which_batch.py:smoke    # seconds; shows that it works

Expected for MNIST (`:cpu`): batch size 4 for two epochs, 1024 for 250 updates, and 256 for the time that batch size 64
needs for two epochs; a critical batch size of 250 (200 to 360) for 3.2 % validation error, and a noise scale that grows
from some tens to 1000 (docs/results). Time on 2 CPU cores: `:cpu` about 35 minutes, `:fast` 3.5 minutes, `:smoke` 15
seconds. On one GPU the full search (estimated): some minutes.

Of your own: --config.dataset=idx:FOLDER or tfds:NAME, --config.model=cnn or mymodels:Net, and what training may cost:
--config.search.budget_epochs=10 --config.search.budget_updates=2000 --config.search.budget_seconds=60. Give each
question its own --workdir.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import found
from experiments import mnist

SHALLUE = 'Shallue et al. 2019 (1811.03600), §4'
MCCANDLISH = 'McCandlish et al. 2018 (1812.06162), §3 and appendix A'
FINDING = (
    'Published for MNIST (McCandlish et al. 2018): a critical batch size of 20 at the start and 200 on average, a noise'
    ' scale of 50 at the start and 900 on average. Here the critical batch size is {b_crit.value}, the noise scale grew'
    ' {noise_grows.value}-fold over training, and its mean over the updates to the target is {noise_predicts.value}'
    ' times the critical batch size. Such numbers belong to a point of training: a lower target means a larger critical'
    ' batch size and a larger noise scale, because the gradient shrinks and its noise does not. They also belong to the'
    ' network and the learning rate. And the noise scale is no more than an estimate of what it stands for: it takes'
    ' the curvature for the same in all directions and the learning rate for the best at each moment, while these are'
    ' constant.'
)


def get_config(variant: str = '') -> ConfigDict:
    study = mnist.get_config()
    study.name = 'which-batch'
    study.claims = 'experiments.which_batch:claims' if variant in ('', 'cpu') else ''
    study.finding = FINDING if study.claims else ''
    study.mean, study.std = (), ()  # those of the training split, whatever the dataset is
    study.validation = 1 / 12
    study.sweep.batch_size = (1, 4, 16, 64, 256, 1024, 4096)
    study.sweep.learning_rate = (0.01, 0.03, 0.1, 0.3, 1.0)
    study.learning_rate = 0.01  # the origin's, with which each batch size is trained as well
    study.seeds = 5
    study.search.rungs = 3
    study.search.budget_epochs = 5.0
    study.search.budget_updates = 1000
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
            'validation': 1 / 60,
            'sweep.batch_size': (8, 32, 128, 512),
            'sweep.learning_rate': (0.03, 0.1, 0.3),
            'learning_rate': 0.03,
            'seeds': 3,
            'search.rungs': 2,
            'search.widen': 1,
            'search.budget_epochs': 1.0,
            'search.budget_updates': 100,
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
            'search.budget_updates': 0,
            'search.confirm_seeds': 2,
        },
    )


def claims(variant: str = '') -> list[Claim]:
    """What is published for MNIST, or for many sets; it was written down while the search `:cpu` ran."""
    return [
        Claim('perfect_scaling',
              'at small batch sizes the updates to the target fall in proportion to the batch size (slope −1)',
              lambda runs: found(runs, 'first_slope'),
              within=(-1.15, -0.85), published='−1', source=SHALLUE, status='S', bound_first=False),
        Claim('flat', 'at large batch sizes a larger batch saves few updates (slope above −½)',
              lambda runs: found(runs, 'last_slope'),
              at_least=-0.5, published='0 at the end', source=SHALLUE, status='S', bound_first=False),
        Claim('b_crit', 'the critical batch size on average over training is about 200, give or take half a decade',
              lambda runs: found(runs, 'b_crit'),
              within=(63.0, 632.0), published='20 at the start, 200 on average', source=MCCANDLISH, status='S',
              bound_first=False),
        Claim('neither_rule',
              'the best ε grows with the batch size, but slower than in proportion (exponent 0 to 0.85)',
              lambda runs: found(runs, 'learning_rate_exponent'),
              within=(0.0, 0.85), published='neither the linear nor the √ rule', source=SHALLUE, status='S',
              bound_first=False),
        Claim('three_winners', 'budgets in epochs, updates and seconds are won by three different batch sizes',
              lambda runs: found(runs, 'winners'),
              at_least=3.0, published='an epoch budget favours small, an update budget large batches', source=SHALLUE,
              status='S', bound_first=False),
        Claim('noise_grows', 'the noise scale grows at least fivefold over training',
              lambda runs: found(runs, 'noise_growth'),
              at_least=5.0, published='50 → 900', source=MCCANDLISH, status='S', bound_first=False),
        Claim('noise_predicts', 'the noise scale predicts the critical batch size within a factor of 10',
              lambda runs: found(runs, 'noise_over_b_crit'),
              within=(0.1, 10.0), published='900 against 200', source=MCCANDLISH, status='S', bound_first=False),
    ]  # fmt: skip
