from collections.abc import Iterator

import launching
import pytest


@pytest.fixture(scope='module')
def compiled_once() -> Iterator[None]:
    with launching.compiled_once():
        yield
