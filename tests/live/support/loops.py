"""Both event loops: importing this fixture runs a file's `async def` tests on each."""

import pytest

ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")
UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")


@pytest.fixture(params=[ASYNCIO, UVLOOP])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """The event loop of the test; uvloop comes with the test dependencies."""
    return request.param
