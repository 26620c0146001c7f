"""Which batch size should I use? Asked of a dataset and a model, answered with evidence.

A trial is a batch size, a learning rate and a length, trained with a learning rate that falls to zero in a straight
line after a short warm-up. For each batch size the lengths are a ladder, a factor of about two apart, up to the
budgets' own; on each rung the learning rate is chosen on validation data, among neighbours a factor of two apart. The
report opens with the recommendation for three budgets (epochs, updates, seconds on this device), what fresh seeds reach
with it, and which batch sizes are as good, worse or undecided; below it stand error against length, the best batch size
for any budget, and the critical batch size of McCandlish et al. 2018 (1812.06162).

    python launch.py --config=experiments/which_batch.py          # the full search, for a GPU
    python launch.py --config=experiments/which_batch.py:cpu      # two epochs, 250 updates: for 2 CPU cores
    python launch.py --config=experiments/which_batch.py:fast     # a sixth of MNIST, a narrow network: 2 minutes
    python launch.py --config=experiments/which_batch.py:smoke    # seconds; shows that it works

Expected for MNIST (`:cpu`): batch size 4 for two epochs (16 is undecided), 1024 for 250 updates, 64 for the time that
it needs for two epochs, and a critical batch size that grows from 46 for 8 % validation error to 94 for 3 %
(docs/results). Time on 2 CPU cores: `:cpu` about an hour, `:fast` two minutes, `:smoke` 20 seconds. On one GPU the full
search (estimated): some minutes. `--dry_run` tells trials, updates and time before anything is trained.

Of your own: --config.dataset=npz:FILE, idx:FOLDER or tfds:NAME, --config.model=cnn or mymodels:Net, and what training
may cost: --config.search.budget_epochs=10 --config.search.budget_updates=2000 --config.search.budget_seconds=60. Give
each question its own --workdir. From Python, for arrays: `bsgap.recommend`.
"""

from ml_collections import ConfigDict

from bsgap import config
from bsgap.analysis.claims import Claim
from bsgap.analysis.quantities import found

SHALLUE = 'Shallue et al. 2019 (1811.03600), §4'
MCCANDLISH = 'McCandlish et al. 2018 (1812.06162), §3 and appendix A'
FINDING = (
    'The critical batch size is {b_crit.value} for the middle one of the errors to be reached (published for MNIST: 20'
    ' at the start, 200 on average). The gradient noise scale, a mean over a trial, is {noise_grows.value} times as'
    ' large in the longest trial as in the shortest (published: 50 at the start, 900 on average), and there'
    ' {noise_predicts.value} times the critical batch size. Such numbers belong to an error, a network and its learning'
    ' rates.'
)


def get_config(variant: str = '') -> ConfigDict:
    study = config.searching()
    study.claims = 'experiments.which_batch:claims' if variant in ('', 'cpu') else ''
    study.finding = FINDING if study.claims else ''
    study.sweep.batch_size = (1, 4, 16, 64, 256, 1024, 4096)
    study.search.budget_epochs = 5.0
    study.search.budget_updates = 1000
    return config.with_variant(
        study,
        variant,
        cpu={
            'sweep.batch_size': (4, 16, 64, 256, 1024),
            'search.budget_epochs': 2.0,
            'search.budget_updates': 250,
        },
        fast={
            'subset': 10000,
            'validation': 1 / 30,
            'sweep.batch_size': (8, 32, 128, 512),
            'hidden': (256, 256),
            'seeds': 3,
            'search.rungs': 1,
            'search.budget_epochs': 2.0,
            'search.budget_updates': 100,
            'search.confirm_seeds': 3,
        },
        smoke={
            'subset': 2000,
            'validation': 0.01,
            'sweep.batch_size': (8, 32, 128),
            'sweep.learning_rate': (0.05, 0.2),
            'hidden': (32,),
            'seeds': 2,
            'search.rungs': 1,
            'search.budget_epochs': 2.0,
            'search.budget_updates': 0,
            'search.confirm_seeds': 2,
        },
    )


def claims(variant: str = '') -> list[Claim]:
    """What is published for MNIST, or for many sets; the bounds were written while an earlier search ran."""
    return [
        Claim('perfect_scaling',
              'at small batch sizes the updates to the target fall in proportion to the batch size (slope −1)',
              lambda runs: found(runs, 'first_slope'),
              within=(-1.15, -0.85), published='−1', source=SHALLUE, status='S', bound_first=False),
        Claim('flat', 'at large batch sizes a larger batch saves few updates (slope above −½)',
              lambda runs: found(runs, 'last_slope'),
              at_least=-0.5, published='0 at the end', source=SHALLUE, status='S', bound_first=False),
        Claim('b_crit',
              'the critical batch size, for the middle one of the errors to be reached, is about 200, within a factor'
              ' of 3.2',
              lambda runs: found(runs, 'b_crit'),
              within=(63.0, 632.0), published='20 at the start, 200 on average', source=MCCANDLISH, status='S',
              bound_first=False),
        Claim('neither_rule',
              'the best ε grows with the batch size, but slower than in proportion (exponent 0 to 0.85)',
              lambda runs: found(runs, 'learning_rate_exponent'),
              within=(0.0, 0.85), published='neither the linear nor the √ rule', source=SHALLUE, status='S',
              bound_first=False),
        Claim('budgets_differ', 'the batch size that is best for few updates loses accuracy where epochs are limited',
              lambda runs: found(runs, 'loss_in_epochs'),
              at_least=0.0, unit='points', published='an epoch budget favours small, an update budget large batches',
              source=SHALLUE, status='S', bound_first=False),
        Claim('noise_grows', 'the noise scale grows at least fivefold over training',
              lambda runs: found(runs, 'noise_growth'),
              at_least=5.0, published='50 → 900', source=MCCANDLISH, status='S', bound_first=False),
        Claim('noise_predicts', 'the noise scale predicts the critical batch size within a factor of 10',
              lambda runs: found(runs, 'noise_over_b_crit'),
              within=(0.1, 10.0), published='900 against 200', source=MCCANDLISH, status='S', bound_first=False),
    ]  # fmt: skip
