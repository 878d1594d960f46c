"""The ASGI application: routes, refusals, headers, durations."""

from collections.abc import Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.api import problems, signin
from cloud.api.hub import Hub
from cloud.api.metrics import Metrics
from cloud.api.problems import STATUS_CODES, Problem
from cloud.api.rest import Rest
from cloud.api.service import Service
from cloud.api.ward import Ward
from vitals.errors import SealError

HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"strict-transport-security", b"max-age=31536000"),
)
API_POLICY: Final = (
    b"content-security-policy",
    b"default-src 'none'; frame-ancestors 'none'",
)

STREAMS: Final = frozenset({"ward-events"})


class Headers:
    """Adds the security headers to every answer and measures it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, seconds: Callable[[], float]) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._seconds()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *HEADERS]
                if API_POLICY[0] not in names:
                    message["headers"].append(API_POLICY)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = _route_name(scope)
            self._metrics.answers.labels(route, str(status)).inc()
            if route not in STREAMS:
                self._metrics.request.labels(route).observe(self._seconds() - began)


def _route_name(scope: Scope) -> str:
    route: Any = scope.get("route")
    endpoint = scope.get("endpoint")
    name = getattr(route, "name", None) or getattr(endpoint, "__name__", None)
    return str(name or "none").replace("_", "-")


def build(service: Service, hub: Hub, door: signin.Door, seconds: Callable[[], float]) -> Starlette:
    """Return the application."""

    async def on_problem(_request: Request, error: Exception) -> Response:
        if not isinstance(error, Problem):
            raise error
        return problems.respond(error)

    async def on_http(_request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        code = STATUS_CODES.get(error.status_code, "processing")
        headers = dict(error.headers or {})
        text = {404: "nothing is served here", 405: "not with this method"}
        return problems.respond(
            Problem(error.status_code, code, text.get(error.status_code, "refused"), headers)
        )

    async def on_sealed(_request: Request, error: Exception) -> Response:
        service.log.crash("sealed-value", error)
        return problems.respond(Problem(500, "exception", "a stored value does not open"))

    async def on_crash(_request: Request, error: Exception) -> Response:
        service.log.crash("request", error)
        return problems.respond(Problem(500, "exception", "a defect; the server's log has it"))

    async def on_gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)

    async def home(_request: Request) -> Response:
        return RedirectResponse("/ward", 302)

    return Starlette(
        routes=[
            Route("/", home, name="home"),
            *Rest(service).routes(),
            *Ward(service, hub, door).routes(),
        ],
        middleware=[Middleware(Headers, metrics=service.metrics, seconds=seconds)],
        exception_handlers={
            Problem: on_problem,
            HTTPException: on_http,
            ClientDisconnect: on_gone,
            SealError: on_sealed,
            Exception: on_crash,
        },
    )
