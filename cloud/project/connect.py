"""Connections to Redis: TLS, one ACL user a service, bounded waits.

Law: never plain. `once` gives a client that connects a single time: a silent reconnect could land
on a server that lost its last second, and what is then written would jump over the loss.
"""

from collections.abc import Callable
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloud.settings import Redis, read_password

# A healthy answer takes well under a millisecond; a server busy with its append-only file, a
# second or two. Beyond this it counts as gone and offsets are read again.
ANSWER_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 2.0


def _options(settings: Redis) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "ssl": True,
        "ssl_ca_certs": str(settings.ca),
        "username": settings.user,
        "password": read_password(settings.password_file),
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "protocol": 2,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
    }


def single() -> Callable[[Any], None]:
    """Return a connect hook that lets the first connection through and refuses every other."""
    used = False

    def hook(connection: Any) -> None:
        nonlocal used
        if used:
            raise redis.ConnectionError("the connection was lost; open a new writer")
        used = True
        connection.on_connect()

    return hook


def once(settings: Redis) -> redis.Redis:
    """Return a client that connects one time; raises ConfigError on an unreadable password."""
    return redis.Redis(**_options(settings), redis_connect_func=single())


def pooled(settings: Redis, connections: int) -> redis.Redis:
    """Return a client of at most ``connections``, for readers: they may reconnect at will."""
    options = _options(settings)
    options.pop("ssl")
    pool = redis.BlockingConnectionPool(
        max_connections=connections,
        timeout=CONNECT_TIMEOUT_S,
        connection_class=redis.SSLConnection,
        **options,
    )
    return redis.Redis(connection_pool=pool)
