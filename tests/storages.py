"""Both kinds of storage, for tests of what is said of either."""

import functools
from collections.abc import Callable

import pytest

from tmemfs.native.storage import NativeStorage
from tmemfs.tmem import Core
from tmemfs.tmem.storage import PythonStorage

STORAGES: dict[str, Callable[[int, int], PythonStorage | NativeStorage]] = {
    "python": PythonStorage,
    "native": NativeStorage,
}


@pytest.fixture(autouse=True, params=STORAGES)
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have every core that is made keep its pages in this kind."""
    init = functools.partialmethod(Core.__init__, make_storage=STORAGES[request.param])
    monkeypatch.setattr(Core, "__init__", init)
    return str(request.param)
