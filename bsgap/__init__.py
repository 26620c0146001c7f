"""Which batch size should I use to train a neural network, and what does it do to the generalization gap?

    default_config()         every field of a study, to be changed
    train(config, workdir)   trains what is missing, and returns the table of runs
    runs(workdir)            the table of runs, a row an evaluation
    report(workdir)          figures, tables and a page
    load(workdir, run)       the model that a run trained
    recommend(train, test)   which batch size to use for arrays of your own

The same from the command line: `python launch.py --config=experiments/mnist.py`.
"""

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # loaded where they are needed, so that `import bsgap` is quick
    from flax import nnx
    from ml_collections import ConfigDict
    from pandas import DataFrame

    from bsgap.launch.recommendation import Recommendation
    from bsgap.training.watcher import Watcher

__all__ = ['default_config', 'load', 'recommend', 'report', 'runs', 'train']
__version__ = metadata.version('bsgap')

# Read when NumPy and SciPy are loaded: their small systems of equations are slower on several threads, the fit of the
# critical batch size more than ten times.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')


def default_config() -> 'ConfigDict':
    """Every field of a study with its default; `bsgap/config/fields.py` says what each one is.

    >>> config = bsgap.default_config()
    >>> config.learning_rate = 0.1
    >>> config.sweep.batch_size = (32, 100)  # crossed with other fields of `sweep`
    >>> config.subset, config.hidden, config.epochs, config.seeds = 300, (16,), 1, 2  # small, for this example
    """
    from bsgap.config import default

    return default()


def train(config: 'ConfigDict', workdir: str | Path, watchers: 'Sequence[Watcher]' = ()) -> 'DataFrame':
    """Trains those runs of a study that `workdir` does not have yet, and returns `runs(workdir)`.

    A workdir that was left half trained is gone on with, bit for bit. `watchers` are told how training goes: objects
    of subclasses of `bsgap.training.watcher.Watcher`.

    >>> table = bsgap.train(config, workdir)  # doctest: +ELLIPSIS
    study    study: 2 recipes × 2 seeds = 4 runs...
    >>> table.groupby('recipe').seed.nunique().to_dict()
    {'bs100-lr0.1': 2, 'bs32-lr0.1': 2}

    Raises:
      bsgap.errors.UserError: a field of `config`, or what `workdir` holds, can't be used; the message says which.
      bsgap.errors.Interrupted: SIGINT, SIGTERM or SIGHUP came; all runs are saved, and the same call goes on with them.
    """
    from bsgap.launch import job

    job.train(config, workdir, watchers)
    return runs(workdir)


def runs(workdir: str | Path) -> 'DataFrame':
    """All evaluations of all runs of a workdir as one long table, a row an evaluation.

    Accuracies and `gap` (train − test accuracy) are fractions, losses are in nats, times in seconds.
    `bsgap.analysis.table.runs` has all columns with their dtypes and what is NaN.

    >>> table = bsgap.runs(workdir)
    >>> last = table.groupby(['recipe', 'seed']).last()
    >>> last.test_accuracy.between(0, 1).all().item()
    True

    Raises:
      bsgap.errors.UserError: `workdir` holds no study, or a file of it is damaged.
    """
    from bsgap.analysis import table

    return table.runs(workdir)


def report(workdir: str | Path) -> Path:
    """Writes the figures, tables and report.html of a workdir from its files alone, and returns the page's path.

    >>> bsgap.report(workdir).name  # doctest: +ELLIPSIS
    <BLANKLINE>
    ...
    'report.html'

    Raises:
      bsgap.errors.UserError: `workdir` holds no study, or can't be written.
    """
    from bsgap.report import page

    return page.report(workdir)


def load(workdir: str | Path, run: str, update: int | None = None) -> 'nnx.Module':
    """The model that a run trained, with its normalisation, in evaluation mode: a Flax NNX module.

    It maps examples as it was trained on, such as uint8 images [B, H, W, C], to float32 logits [B, classes]. `update`
    is one at which the run was saved, by default the last. No training data are needed; the checksum is compared.
    Import a model of your own before.

    >>> import numpy as np
    >>> model = bsgap.load(workdir, 'bs32-lr0.1-seed0')
    >>> model(np.zeros((5, 28, 28, 1), np.uint8)).shape
    (5, 10)

    Raises:
      bsgap.errors.UserError: there is no such run or update (those that there are, are named), or it is damaged.
    """
    from bsgap.files import expanded
    from bsgap.training import trained

    return trained.load(expanded(workdir), run, update)


def recommend(
    train: Sequence[Any],
    test: Sequence[Any] | None = None,
    *,
    workdir: str | Path,
    model: str | type = 'mlp',
    budget_epochs: float = 3.0,
    fields: Mapping[str, Any] = MappingProxyType({}),
) -> 'Recommendation':
    """Which batch size to use for arrays of your own: the search of `experiments/which_batch.py`, on them.

    `train` and `test` are pairs (x, y): x uint8 images [N, H, W] or [N, H, W, C], floats or tokens of any shape [N, …];
    y whole numbers, texts or booleans [N]. Without `test` a fifth of `train` is held out. `model` is 'mlp', 'cnn',
    'module:Class', or a class of Flax NNX modules that can be imported. `fields` are any of `default_config` by name:
    `{'seeds': 3, 'hidden': (64,), 'sweep.batch_size': (8, 64), 'search.budget_updates': 500}`.

    The arrays are kept in `workdir`, with everything else; a search that was stopped goes on by the same call.

    >>> from sklearn.datasets import load_breast_cancer  # doctest: +SKIP
    >>> x, y = load_breast_cancer(return_X_y=True)  # doctest: +SKIP
    >>> found = bsgap.recommend((x, y), workdir='runs/cancer', fields={'hidden': (64,)})  # doctest: +SKIP
    >>> found.batch_size, found.learning_rate  # doctest: +SKIP

    Returns:
      `batch_size` and `learning_rate` for the budget in epochs, `table` (a row a budget and batch size), `text` (all of
      the answer in words), `report` (the page's path).

    Raises:
      bsgap.errors.UserError: the arrays or a field can't be used, or `workdir` holds other data.
      bsgap.errors.Interrupted: SIGINT, SIGTERM or SIGHUP came; all runs are saved, and the same call goes on with them.
    """
    from bsgap.launch import recommendation

    return recommendation.recommend(train, test, model, budget_epochs, workdir, fields)
