from collections.abc import Iterator

import launching
import pytest
from helpers import write_pictures


@pytest.fixture(scope='module')
def compiled_once() -> Iterator[None]:
    with launching.compiled_once():
        yield


@pytest.fixture(scope='module')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of 40 + 20 pictures of 2×2."""
    return f'idx:{write_pictures(tmp_path_factory.mktemp("pictures"))}'
