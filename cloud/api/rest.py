"""FHIR R4 REST: read, search, ``$lastn``, metadata."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud.api import history, problems, query
from cloud.api.problems import FHIR_JSON, bad, not_found
from cloud.api.service import Service, fhir
from cloud.api.tokens import Principal
from cloud.fhir import resources, terms
from cloud.fhir.ids import instant, is_subject, parse_observation_id
from cloud.fhir.resources import SERVED, Served
from cloud.records import AlertEvent, Identity
from healthsync import __version__
from vitals.reading import Patient

OFFERED: Final = {
    "Observation": SERVED["Observation"],
    "Patient": Served(("read", "search-type"), {"_id": "token", "identifier": "token"}),
    "DetectedIssue": Served(
        ("read", "search-type"),
        {"_id": "token", "patient": "reference", "status": "token"},
    ),
}

_JSON: Final = frozenset({"json", "application/json", FHIR_JSON, "text/json"})
_STATUSES: Final = frozenset(
    {"registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error",
     "unknown"}
)  # fmt: skip
_ISSUE: Final = frozenset({"patient", "status", "_id", "_count", query.CURSOR})
_PATIENT: Final = frozenset({"identifier", "_id"})


def is_strict(request: Request) -> bool:
    """Tell whether the client asked for strict handling."""
    return "handling=strict" in request.headers.get("prefer", "").replace(" ", "").lower()


def check_format(request: Request) -> None:
    """Raise Problem 406 when the client takes no JSON."""
    wanted = request.query_params.get("_format")
    if wanted is not None:
        accepted = wanted.partition(";")[0].strip() in _JSON
    else:
        header = request.headers.get("accept", "*/*")
        kinds = {part.partition(";")[0].strip().lower() for part in header.split(",")}
        accepted = bool(kinds & {*_JSON, "*/*", "application/*", ""})
    if not accepted:
        raise problems.Problem(406, "not-supported", f"this server answers {FHIR_JSON} only")


class Rest:
    """The handlers, over one service."""

    def __init__(self, service: Service) -> None:
        """Take the servers behind."""
        self._service = service
        self._base = service.base_url

    def routes(self) -> list[Route]:
        """Return the routes below ``/fhir``."""
        return [
            Route("/fhir/metadata", self.metadata, name="metadata"),
            Route("/fhir/Patient", self.patient_search, name="patient-search"),
            Route("/fhir/Patient/{id}", self.patient_read, name="patient-read"),
            Route("/fhir/Observation", self.observation_search, name="observation-search"),
            Route("/fhir/Observation/$lastn", self.lastn, name="observation-lastn"),
            Route("/fhir/Observation/{id}", self.observation_read, name="observation-read"),
            Route("/fhir/DetectedIssue", self.issue_search, name="issue-search"),
            Route("/fhir/DetectedIssue/{id}", self.issue_read, name="issue-read"),
            Route("/fhir/{rest:path}", self.unknown, name="unknown"),
        ]

    async def metadata(self, request: Request) -> Response:
        """Answer the CapabilityStatement; open to everybody."""
        check_format(request)
        now = instant(self._service.now_ms())
        return fhir(resources.capability_statement(self._base, __version__, now, OFFERED))

    async def unknown(self, request: Request) -> Response:
        """Refuse a resource type that is not served."""
        self._service.bearer(request)
        raise problems.Problem(
            404, "not-supported", f"this server has {', '.join(OFFERED)}; see {self._base}/metadata"
        )

    # Patient

    async def patient_read(self, request: Request) -> Response:
        """Answer one Patient; a device without a patient is one without a name."""
        principal = self._service.allowed(request, "Patient", "r")
        check_format(request)
        identity = await self._identity(principal, request.path_params["id"])
        if identity is None:
            raise not_found("no such Patient")
        return fhir(resources.patient(identity))

    async def _identity(self, principal: Principal, subject: str) -> Identity | None:
        service = self._service
        if not is_subject(subject):
            return None
        identity = await service.ask(service.store.identity, subject)
        if identity is None:
            if not principal.sees_all or not await service.ask(service.store.known, subject):
                return None
            return Identity(subject, Patient(), "", "", 0)
        return identity if principal.sees(identity.patient.ward) else None

    async def patient_search(self, request: Request) -> Response:
        """Answer Patients by record number or id."""
        principal = self._service.allowed(request, "Patient", "s")
        check_format(request)
        used = query.sorted_out(
            request.query_params.multi_items(), _PATIENT, strict=is_strict(request)
        )
        numbers, ids = query.values_of(used, "identifier"), query.values_of(used, "_id")
        if not numbers and not ids:
            raise bad("identifier: a search for patients needs identifier or _id", "required")
        wanted: list[set[str]] = [set(text.split(",")) for text in ids]
        for text in numbers:
            found = set()
            for token in query.tokens_of(text, "identifier"):
                if token.system not in {None, terms.LOCAL_MRN} or token.code is None:
                    continue
                subject = await self._service.ask(self._service.store.subject_of_mrn, token.code)
                if subject is not None:
                    found.add(subject)
            wanted.append(found)
        entries = []
        for subject in sorted(set.intersection(*wanted)):
            identity = await self._identity(principal, subject)
            if identity is not None:
                entries.append((f"Patient/{subject}", resources.patient(identity)))
        return self._searchset("Patient", used, entries, None, len(entries))

    # Observation

    async def observation_read(self, request: Request) -> Response:
        """Answer one Observation."""
        principal = self._service.allowed(request, "Observation", "r")
        check_format(request)
        ident = request.path_params["id"]
        parsed = parse_observation_id(ident)
        service = self._service
        if parsed is None or not await service.may_see(principal, parsed.subject):
            raise not_found("no such Observation")
        built = await service.search(history.read, ident, parsed, service.store, service.archive)
        if built is None:
            raise not_found("no such Observation")
        return fhir(built.body)

    async def observation_search(self, request: Request) -> Response:
        """Answer a page of Observations, newest first, live and archived."""
        principal = self._service.allowed(request, "Observation", "s")
        check_format(request)
        items = request.query_params.multi_items()
        search = query.observation(items, self._base, strict=is_strict(request))
        service = self._service
        found = history.Page([], more=False)
        subject = search.subject
        if subject and is_subject(subject) and await service.may_see(principal, subject):
            cursor = query.cursor_of(items) or ""
            found = await service.search(
                history.page, search, cursor, service.store, service.archive
            )
        entries = [(f"Observation/{built.id}", built.body) for built in found.entries]
        mark = query.cursor_text(found.entries[-1].id) if found.more else None
        return self._searchset("Observation", search.used, entries, mark, None)

    async def lastn(self, request: Request) -> Response:
        """Answer the newest of each group of codes."""
        principal = self._service.allowed(request, "Observation", "s")
        check_format(request)
        items = request.query_params.multi_items()
        wanted = query.lastn(items, self._base, strict=is_strict(request))
        service, subject = self._service, wanted.search.subject
        found = []
        if subject and is_subject(subject) and await service.may_see(principal, subject):
            found = await service.ask(history.lastn, wanted, service.store)
        entries = [(f"Observation/{built.id}", built.body) for built in found]
        return self._searchset("Observation/$lastn", wanted.search.used, entries, None, len(found))

    # DetectedIssue

    async def issue_read(self, request: Request) -> Response:
        """Answer one alert episode."""
        principal = self._service.allowed(request, "DetectedIssue", "r")
        check_format(request)
        event = await self._service.ask(self._service.store.alert, request.path_params["id"])
        if event is None or not await self._service.may_see(principal, event.subject):
            raise not_found("no such DetectedIssue")
        return fhir(resources.detected_issue(event))

    async def issue_search(self, request: Request) -> Response:
        """Answer a patient's alert episodes, newest first."""
        principal = self._service.allowed(request, "DetectedIssue", "s")
        check_format(request)
        items = request.query_params.multi_items()
        used = query.sorted_out(items, _ISSUE, strict=is_strict(request))
        service, store = self._service, self._service.store
        subject = query.patient_of(used, self._base)
        ids = [ident for text in query.values_of(used, "_id") for ident in text.split(",")]
        if subject is None and not ids:
            raise bad("patient: a search needs a patient, or _id", "required")
        statuses = {
            status for text in query.values_of(used, "status") for status in text.split(",")
        }
        if statuses - _STATUSES:
            raise bad("status: not an observation-status", "value")
        events: list[AlertEvent] = []
        if ids:
            found = [await service.ask(store.alert, ident) for ident in ids]
            events = [e for e in found if e is not None and subject in {None, e.subject}]
        elif subject is not None and is_subject(subject):
            events = await service.ask(store.alerts, subject)
        seen = {s: await service.may_see(principal, s) for s in {e.subject for e in events}}
        events = [
            event
            for event in events
            if seen[event.subject]
            and (not statuses or resources.ISSUE_STATUS[event.state] in statuses)
        ]
        events.sort(key=_newest_first)
        total = len(events)
        last = query.cursor_of(items)
        if last is not None:
            events = _after(events, last, await service.ask(store.alert, last))
        count = query.count_of(used, "_count", query.COUNT_DEFAULT, query.COUNT_MAX)
        page = events[:count]
        mark = query.cursor_text(page[-1].episode) if len(events) > count else None
        entries = [(f"DetectedIssue/{e.episode}", resources.detected_issue(e)) for e in page]
        shown = [(name, value) for name, value in used if name != query.CURSOR]
        return self._searchset("DetectedIssue", shown, entries, mark, total)

    def _searchset(
        self,
        path: str,
        used: Sequence[tuple[str, str]],
        entries: Sequence[tuple[str, bytes]],
        mark: str | None,
        total: int | None,
    ) -> Response:
        text = urlencode(used, safe="/|,:$")
        self_url = f"{self._base}/{path}?{text}" if text else f"{self._base}/{path}"
        next_url = None
        if mark is not None:
            more = urlencode([*used, (query.CURSOR, mark)], safe="/|,:$")
            next_url = f"{self._base}/{path}?{more}"
        return fhir(resources.searchset(self._base, self_url, next_url, entries, total))


def _newest_first(event: AlertEvent) -> tuple[int, str]:
    return -event.began_ms, event.episode


def _after(events: list[AlertEvent], last: str, last_event: AlertEvent | None) -> list[AlertEvent]:
    if last_event is None:
        raise bad("the page link is of an episode that is gone; start the search again", "value")
    mark = _newest_first(msgspec.structs.replace(last_event, episode=last))
    return [event for event in events if _newest_first(event) > mark]
