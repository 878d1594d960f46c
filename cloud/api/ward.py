"""The ward station's routes: the page, signing in and out, state and events."""

import secrets
from contextlib import aclosing
from typing import Final
from urllib.parse import parse_qs, urlsplit

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cloud.api import problems, signin, tokens
from cloud.api.hub import Hub, json_bytes
from cloud.api.service import STATIC, Service
from cloud.api.tokens import Principal

COOKIE: Final = "__Host-ward"
FORM_BYTES_MAX: Final = 2048

# Two hashes of 32 MiB at a time; more tries wait.
SCRYPT_THREADS: Final = 2

FILES: Final = {
    "ward.css": "text/css",
    "ward.js": "text/javascript",
    "tile.js": "text/javascript",
    "sound.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class EventStream(Response):
    """A stream of server-sent events, ended by either side."""

    def __init__(self, hub: Hub, principal: Principal, lifetime_s: float) -> None:
        """Take whom to serve and for how long."""
        super().__init__(media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub
        self._principal = principal
        self._lifetime_s = lifetime_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve until the client leaves, lags or its session ends."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def chunk(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone)
            await self._hub.serve(self._principal, self._lifetime_s, chunk)
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Ward:
    """The handlers, over one service and hub."""

    def __init__(self, service: Service, hub: Hub, door: signin.Door) -> None:
        """Take the servers behind and the users."""
        self._service = service
        self._hub = hub
        self._door = door
        self._tries = signin.Tries()
        self._scrypt_limit = trio.CapacityLimiter(SCRYPT_THREADS)
        self._files = {name: ((STATIC / name).read_bytes(), kind) for name, kind in FILES.items()}
        self._page = (STATIC / "ward.html").read_bytes()

    def routes(self) -> list[Route]:
        """Return the routes below ``/ward``."""
        return [
            Route("/ward", self.page, name="ward"),
            Route("/ward/static/{name}", self.static, name="ward-static"),
            Route("/ward/signin", self.sign_in, methods=["POST"], name="ward-signin"),
            Route("/ward/signout", self.sign_out, methods=["POST"], name="ward-signout"),
            Route("/ward/state", self.state, name="ward-state"),
            Route("/ward/events", self.events, name="ward-events"),
        ]

    async def page(self, _request: Request) -> Response:
        """Answer the page, which holds no data."""
        return Response(
            self._page,
            headers={"Content-Security-Policy": PAGE_POLICY},
            media_type="text/html",
        )

    async def static(self, request: Request) -> Response:
        """Answer one of the page's files."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise problems.not_found("no such file")
        body, kind = found
        return Response(body, media_type=kind)

    def _principal(self, request: Request) -> Principal:
        """Return who is looking, by session or bearer token; raise Problem 401 or 403."""
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            principal = self._service.bearer(request)
        else:
            try:
                principal = tokens.verify(
                    cookie, self._service.jwt_public, self._service.now_ms() / 1000, tokens.SESSION
                )
            except tokens.TokenError as error:
                raise problems.unauthenticated("the session has ended; sign in") from error
        if not (principal.may("Observation", "s") and principal.may("Patient", "r")):
            raise problems.forbidden("the ward station needs Observation.s and Patient.r")
        return principal

    async def state(self, request: Request) -> Response:
        """Answer the snapshot that the stream begins with."""
        return Response(self._hub.snapshot(self._principal(request)), media_type="application/json")

    async def events(self, request: Request) -> Response:
        """Answer the stream."""
        principal = self._principal(request)
        lifetime_s = max(0.0, principal.expires_s - self._service.now_ms() / 1000)
        return EventStream(self._hub, principal, lifetime_s)

    async def sign_in(self, request: Request) -> Response:
        """Check name and password; answer the session as a cookie."""
        self._same_origin(request)
        form = await self._form(request)
        name, password = form.get("user", ""), form.get("password", "")
        if not name or not password:
            raise problems.bad("user and password are needed", "required")
        forwarded = request.headers.get("x-forwarded-for", "")
        address = forwarded.rpartition(",")[2].strip() or "direct"
        now_s = self._service.now_ms() / 1000
        wait_s = self._tries.wait_s(address, name, now_s)
        if wait_s:
            raise problems.throttled("too many tries; wait", wait_s)
        self._tries.begun(address, name, now_s)
        user = await trio.to_thread.run_sync(
            self._door.check, name, password, limiter=self._scrypt_limit
        )
        if user is None:
            self._service.log.warning("sign-in-refused")
            raise problems.Problem(401, "login", "name or password is wrong")
        self._tries.succeeded(address, name)
        self._service.log.info("sign-in", wards=len(user.wards))
        response = Response(json_bytes({"user": user.name}), media_type="application/json")
        response.set_cookie(
            COOKIE,
            signin.session(user, self._service.jwt_private, int(now_s)),
            max_age=signin.SESSION_S,
            path="/",
            secure=True,
            httponly=True,
            samesite="strict",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """Forget the session."""
        self._same_origin(request)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return response

    def _same_origin(self, request: Request) -> None:
        """Refuse a form that another site sent."""
        origin = request.headers.get("origin")
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise problems.forbidden("sign in from the ward page itself")
        if origin is not None:
            ours = urlsplit(self._service.base_url)
            if urlsplit(origin)[:2] != (ours.scheme, ours.netloc):
                raise problems.forbidden("sign in from the ward page itself")

    @staticmethod
    async def _form(request: Request) -> dict[str, str]:
        body = b""
        async with aclosing(request.stream()) as parts:
            async for part in parts:
                body += part
                if len(body) > FORM_BYTES_MAX:
                    raise problems.Problem(413, "too-long", "the form is too long")
        try:
            fields = parse_qs(body.decode("ascii"), max_num_fields=8, strict_parsing=True)
        except (UnicodeDecodeError, ValueError) as error:
            raise problems.bad("user and password are needed, form-encoded") from error
        return {name: values[-1] for name, values in fields.items()}


def boot_id() -> str:
    """Return a mark of this process for event ids."""
    return secrets.token_hex(4)
