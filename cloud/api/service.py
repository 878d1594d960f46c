"""What every route needs: stores in threads, who asks, and refusals in FHIR's words."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, ParamSpec, TypeVar

import redis
import trio
from starlette.requests import Request
from starlette.responses import Response

from cloud.api import problems, tokens
from cloud.api.history import Archive, Row
from cloud.api.metrics import Metrics
from cloud.api.problems import FHIR_JSON
from cloud.api.store import Store
from cloud.api.tokens import Principal
from healthsync.runtime.log import Log

P = ParamSpec("P")
T = TypeVar("T")

# Threads that wait for Redis, and connections they share: answers take well under a millisecond.
REDIS_THREADS: Final = 8

# Threads that read Parquet: two cores' worth; more would only wait for each other.
ARCHIVE_THREADS: Final = 4

# A search that takes longer is answered with an error; HAProxy would give up soon after.
REQUEST_TIMEOUT_S: Final = 50.0

STATIC: Final = Path(__file__).with_name("static")


class ArchiveDown(Exception):
    """The archive's servers did not answer."""


class Service(NamedTuple):
    """The servers and keys behind the routes."""

    base_url: str
    """Public, ends in ``/fhir``."""
    store: Store
    archive: Archive
    jwt_public: bytes
    jwt_private: bytes
    metrics: Metrics
    log: Log
    now_ms: Callable[[], int]
    redis_limit: trio.CapacityLimiter
    archive_limit: trio.CapacityLimiter

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking read of Redis in a thread; raise Problem 503 when it is down."""
        call = functools.partial(function, *args, **kwargs)
        try:
            with trio.fail_after(REQUEST_TIMEOUT_S):
                return await trio.to_thread.run_sync(
                    call, limiter=self.redis_limit, abandon_on_cancel=True
                )
        except redis.RedisError as error:
            self.log.warning("redis-error", error=type(error).__name__)
            raise problems.unavailable("the live store does not answer; try again") from error
        except trio.TooSlowError as error:
            raise problems.unavailable("the live store is too slow; try again") from error

    async def search(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking read of Redis and the archive; raise Problem 503 when one is down."""
        call = functools.partial(function, *args, **kwargs)
        try:
            with trio.fail_after(REQUEST_TIMEOUT_S):
                return await trio.to_thread.run_sync(
                    call, limiter=self.archive_limit, abandon_on_cancel=True
                )
        except redis.RedisError as error:
            self.log.warning("redis-error", error=type(error).__name__)
            raise problems.unavailable("the live store does not answer; try again") from error
        except ArchiveDown as error:
            self.log.warning("archive-error", error=type(error.__cause__).__name__)
            raise problems.unavailable(
                "the archive does not answer, and an answer without it would be in part; try again"
            ) from error
        except trio.TooSlowError as error:
            raise problems.unavailable("the search takes too long; narrow its dates") from error

    def bearer(self, request: Request) -> Principal:
        """Return who asks; raise Problem 401."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token or scheme.lower() != "bearer":
            raise problems.unauthenticated("a bearer token is needed")
        try:
            return tokens.verify(token.strip(), self.jwt_public, self.now_ms() / 1000)
        except tokens.TokenError as error:
            raise problems.unauthenticated(f"{error}; ask for a new one") from error

    def allowed(self, request: Request, resource: str, letter: str) -> Principal:
        """Return who asks, if they may; raise Problem 401 or 403."""
        principal = self.bearer(request)
        if not principal.may(resource, letter):
            raise problems.forbidden(f"the token has no scope for {resource}.{letter}")
        return principal

    async def may_see(self, principal: Principal, subject: str) -> bool:
        """Tell whether a subject's ward is one of the token's."""
        if principal.sees_all:
            return True
        identity = await self.ask(self.store.identity, subject)
        return principal.sees(identity.patient.ward if identity else None)


class GuardedArchive:
    """The archive with every failure of its servers as ArchiveDown."""

    def __init__(self, archive: Archive, failures: tuple[type[Exception], ...]) -> None:
        """Take the archive and what it raises when S3 or KMS is down."""
        self._archive = archive
        self._failures = failures

    def rows(
        self,
        subject: str,
        start_ms: int | None,
        end_ms: int | None,
        vitals: frozenset[int] | None,
        newest: int,
    ) -> list[Row]:
        """Return rows; raise ArchiveDown."""
        try:
            return self._archive.rows(subject, start_ms, end_ms, vitals, newest)
        except self._failures as error:
            raise ArchiveDown from error


def fhir(body: bytes, status: int = 200) -> Response:
    """Return FHIR JSON."""
    return Response(body, status, media_type=FHIR_JSON)


def wall_seconds() -> float:
    """Return a clock for measuring durations."""
    return time.perf_counter()
