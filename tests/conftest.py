"""What pytest needs to run trial's tests as trial does."""

import os
from collections.abc import Iterator

import pytest

from tests.live import devtools


@pytest.fixture(autouse=True, scope="session")
def _temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """trial makes a folder for its tests and goes there: `TestCase.mktemp` is relative to it."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("trial"))
    yield
    os.chdir(before)


@pytest.fixture(autouse=True, scope="session")
def _browser() -> Iterator[None]:
    """The workers of pytest-xdist end without the handlers of `atexit`."""
    yield
    devtools.close()
