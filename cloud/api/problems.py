"""Every refusal as an OperationOutcome (FHIR R4): status, issue code, one sentence.

Law: an answer's text names the parameter or the server at fault, never its content.
"""

from starlette.responses import Response

from cloud.fhir import resources

FHIR_JSON = "application/fhir+json"


class Problem(Exception):
    """A request that cannot be answered; becomes an OperationOutcome."""

    def __init__(
        self, status: int, code: str, text: str, headers: dict[str, str] | None = None
    ) -> None:
        """Take the HTTP status, the R4 issue-type code and what is wrong."""
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.headers = headers or {}


def bad(text: str, code: str = "invalid") -> Problem:
    """400: the request is wrong as it stands."""
    return Problem(400, code, text)


def unauthenticated(text: str) -> Problem:
    """401: no token, or none that is valid here."""
    return Problem(401, "login", text, {"WWW-Authenticate": 'Bearer realm="healthsync"'})


def forbidden(text: str) -> Problem:
    """403: a valid token without the scope."""
    return Problem(403, "forbidden", text)


def not_found(text: str) -> Problem:
    """404: nothing there, or nothing that this token may know of."""
    return Problem(404, "not-found", text)


def unavailable(text: str) -> Problem:
    """503: a server behind this one does not answer; a partial answer is none."""
    return Problem(503, "transient", text, {"Retry-After": "2"})


def throttled(text: str, retry_s: int) -> Problem:
    """429: too many tries."""
    return Problem(429, "throttled", text, {"Retry-After": str(retry_s)})


STATUS_CODES = {404: "not-found", 405: "not-supported", 406: "not-supported", 413: "too-long"}


def respond(problem: Problem) -> Response:
    """Return the problem as a response."""
    severity = "fatal" if problem.status == 500 else "error"
    body = resources.operation_outcome(severity, problem.code, problem.text)
    return Response(body, problem.status, problem.headers, FHIR_JSON)
