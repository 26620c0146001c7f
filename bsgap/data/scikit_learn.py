"""The small sets that come with scikit-learn, which need no network."""

from bsgap.config import Data
from bsgap.config.checks import one_of
from bsgap.data.examples import Source
from bsgap.errors import UserError

NAMES = ('breast_cancer', 'diabetes', 'digits', 'iris', 'linnerud', 'wine')


def read(name: str, settings: Data) -> Source:
    """Loads a set; none has a test split. UserError if it is not known, or scikit-learn is not installed."""
    one_of(NAMES)('dataset', name)
    try:
        from sklearn import datasets  # optional, and 1 s
    except ImportError as error:
        needs = "needs scikit-learn: python -m pip install '.[sklearn]'"
        raise UserError(f'config.dataset: sklearn:{name} {needs}') from error
    return Source(getattr(datasets, f'load_{name}')(return_X_y=True), None)
