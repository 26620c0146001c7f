"""What is learned from the examples: a loss, and a score of which more is better."""

from typing import NamedTuple


class Task(NamedTuple):
    """`name`: classification | regression | module:function, a loss and a score of the user's own.

    `score` names the columns of what was measured, as in test_accuracy; `text`, `error` and `loss` are the words for
    the score, for what it lacks to 1, and for the loss. A score that is a share is told in per cent, and its
    differences in points.
    """

    name: str
    score: str
    text: str
    error: str
    loss: str
    is_share: bool

    @property
    def scale(self) -> int:
        """What a score is multiplied by when it is told."""
        return 100 if self.is_share else 1


_KNOWN = {
    'classification': Task('classification', 'accuracy', 'accuracy', 'error', 'cross-entropy, nats', True),
    'regression': Task('regression', 'r2', 'R²', '1 − R²', 'squared error', False),
}
NAMES = (*_KNOWN, 'module:function')


def task(name: str) -> Task:
    """A task by the name that a checked config has."""
    return _KNOWN.get(name) or Task(name, 'score', 'score', '1 − score', 'your own', False)
