import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location(
    "redis_server", Path(__file__).with_name("redis_server.py")
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)


@pytest.fixture(scope="session")
def redis_process() -> Iterator[Any]:
    server = _module.RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def server(redis_process: Any) -> Any:
    client = redis_process.client()
    client.flushall()
    client.close()
    return redis_process
