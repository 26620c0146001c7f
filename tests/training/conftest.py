"""What several tests of training compare with."""

from collections.abc import Callable
from pathlib import Path

import pytest
from trainings import train, two_cohorts


@pytest.fixture(scope='session')
def uninterrupted(once: Callable[..., Path]) -> Path:
    """The workdir of `two_cohorts()`, trained without interruption; to be read, or copied."""
    return once('uninterrupted', lambda workdir: train(two_cohorts(), workdir))
