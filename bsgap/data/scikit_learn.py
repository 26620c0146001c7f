"""The small sets that come with scikit-learn, which need no network."""

from bsgap.config import Data
from bsgap.config.checks import one_of
from bsgap.data.examples import Source
from bsgap.errors import optional

NAMES = ('breast_cancer', 'diabetes', 'digits', 'iris', 'linnerud', 'wine')


def read(name: str, settings: Data) -> Source:
    """Loads a set; none has a test split. UserError if it is not known, or scikit-learn is not installed."""
    one_of(NAMES)('dataset', name)
    with optional(f'config.dataset: sklearn:{name}', 'scikit-learn', 'sklearn'):
        from sklearn import datasets  # 1 s
    return Source(getattr(datasets, f'load_{name}')(return_X_y=True), None)
