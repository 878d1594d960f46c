"""Every resource besides Observation, and Bundles, as bytes.

Law: what is not known is left out, never filled in; text from outside is escaped as JSON and
cleared of control characters. Bodies already made are joined as they are, never parsed again.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import orjson

from cloud.fhir import terms
from cloud.fhir.ids import ID_CHARS_MAX, instant, score_id
from cloud.fhir.terms import Json
from cloud.records import GATEWAY, AlertEvent, Identity
from vitals.codes import BY_NAME

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_ID: Final = re.compile(rf"[A-Za-z0-9.-]{{1,{ID_CHARS_MAX}}}")

GENDERS: Final = frozenset({"male", "female", "other", "unknown"})

SEVERITY: Final = {"high": "high", "medium": "moderate", "low": "low"}
"""Alarm priority (IEC 60601-1-8) to DetectedIssue.severity."""

ISSUE_STATUS: Final = {"active": "preliminary", "latched": "preliminary", "ended": "final"}
"""A running episode may still change: worst value, end, acknowledgement. A latched one is of the
past, but waits for somebody: only its end is final."""

SCORE_TEXT: Final = {
    "news2": "NEWS2 (National Early Warning Score 2)",
    "qsofa": "qSOFA (quick SOFA)",
    "shock": "Shock index",
}
"""The scores, by the name that their ids and codes carry."""


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _checked(ident: str) -> str:
    if _ID.fullmatch(ident) is None:
        raise ValueError("not a FHIR id: 1 to 64 of A-Z a-z 0-9 - .")
    return ident


def patient(identity: Identity) -> bytes:
    """Return the Patient of an identity: id = subject, MRN, name, birth date and gender if known.

    Raises ValueError for a subject that is no FHIR id.
    """
    who = identity.patient
    out: Json = {"resourceType": "Patient", "id": _checked(identity.subject)}
    if mrn := _clean(who.mrn):
        out["identifier"] = [
            {
                "type": {"coding": [terms.coding(terms.IDENTIFIER_TYPE, "MR")]},
                "system": terms.LOCAL_MRN,
                "value": mrn,
            }
        ]
    if name := _clean(who.name):
        out["name"] = [{"text": name}]
    if who.sex in GENDERS:
        out["gender"] = who.sex
    if _is_date(who.birth_date):
        out["birthDate"] = who.birth_date
    return orjson.dumps(out)


def device(device: str) -> bytes:
    """Return the Device of a pseudonym; raises ValueError for what is no FHIR id."""
    return orjson.dumps(
        {
            "resourceType": "Device",
            "id": _checked(device),
            "identifier": [{"system": terms.LOCAL_DEVICE, "value": device}],
        }
    )


def detected_issue(event: AlertEvent) -> bytes:
    """Return the DetectedIssue of an alert episode at this step: id = episode.

    ``preliminary`` until it ended. A retrospective one is tagged, so that nobody takes "would
    have alerted" for an alarm; doubts about its evidence are tags too, which hide nothing. Who
    acknowledged or shelved it, and their words, stay out of it: they are people's. An alert about
    a gateway names no patient. Raises ValueError for ids that are none.
    """
    vital = BY_NAME.get(event.vital)
    period: Json = {"start": instant(event.began_ms)}
    if event.ended_ms is not None:
        period["end"] = instant(event.ended_ms)
    codings = [terms.coding(terms.LOCAL_KIND, event.kind)]
    if vital is not None:
        codings.append(terms.coding(terms.LOCAL_VITAL, vital.name))
    about = vital.display if vital else event.vital
    out: Json = {"resourceType": "DetectedIssue", "id": _checked(event.episode)}
    if tags := _tags(event):
        out["meta"] = {"tag": tags}
    out |= {
        "status": ISSUE_STATUS[event.state],
        "code": {"coding": codings, "text": f"{about}: {event.kind}" if about else event.kind},
        "severity": SEVERITY[event.priority],
        "identifiedPeriod": period,
    }
    if event.kind != GATEWAY:
        out["patient"] = {"reference": f"Patient/{_checked(event.subject)}"}
    if event.evidence:
        out["evidence"] = [
            {"detail": [{"reference": f"Observation/{_checked(ident)}"}]}
            for ident in event.evidence
        ]
    if detail := _clean(event.text):
        out["detail"] = detail
    if done := _mitigation(event):
        out["mitigation"] = done
    return orjson.dumps(out)


def _tags(event: AlertEvent) -> list[Json]:
    said = {
        "retrospective": event.retrospective,
        "latched": event.state == "latched",
        "standing": event.standing,
        "suppressed": bool(event.suppressed_by),
    }
    tags = [terms.coding(terms.LOCAL_TAG, word) for word, holds in said.items() if holds]
    return tags + [terms.coding(terms.LOCAL_QUALITY, word) for word in event.quality]


def _mitigation(event: AlertEvent) -> list[Json]:
    """Return what was done about it: action and time, without author."""
    done: list[Json] = []
    if event.acknowledged_ms is not None:
        done.append({"action": _action("acknowledged"), "date": instant(event.acknowledged_ms)})
    if event.shelved_until_ms is not None:
        action = _action("shelved", f" until {instant(event.shelved_until_ms)}")
        done.append({"action": action})
    return done


def _action(word: str, more: str = "") -> Json:
    return {"coding": [terms.coding(terms.LOCAL_ACTION, word)], "text": word + more}


def issue_bundle(event: AlertEvent) -> bytes | None:
    """Return the transaction Bundle that PUTs an alert's DetectedIssue; safe to repeat.

    None for an alert about a gateway, which has no patient. Raises ValueError.
    """
    if event.kind == GATEWAY:
        return None
    return transaction([(f"DetectedIssue/{event.episode}", detected_issue(event))])


def score(
    subject: str,
    time_ms: int,
    name: str,
    total: float | None,
    bounds: tuple[float, float] | None,
    sub_scores: Mapping[str, int],
    missing: Sequence[tuple[str, str]] = (),
    evidence: Sequence[str] = (),
    *,
    spo2_scale: int = 1,
) -> bytes:
    """Return the Observation of a score at one time: id = subject.name.time.

    ``name`` is of SCORE_TEXT; ``bounds``: what the total lies between when it is None;
    ``missing``: (parameter, why: absent, stale, ...); ``evidence``: ids of the Observations it
    rests on. A whole number is a valueInteger, a ratio a Quantity. No total is no value: the
    bounds are said in a note, because any number in ``value`` would be read as the score. Raises
    ValueError for a name or id that is none.
    """
    out: Json = {
        "resourceType": "Observation",
        "id": score_id(subject, name, time_ms),
        "status": "final",
        "category": [{"coding": [terms.coding(terms.CATEGORY, "survey")]}],
        "code": terms.score(name, SCORE_TEXT[name]),
        "subject": {"reference": f"Patient/{subject}"},
        "effectiveDateTime": instant(time_ms),
    }
    if total is not None:
        out |= _points(total)
    else:
        out["dataAbsentReason"] = terms.absent("unknown") | {"text": "incomplete"}
        gaps = ", ".join(f"{parameter} {why}" for parameter, why in missing)
        between = "" if bounds is None else f"between {bounds[0]:g} and {bounds[1]:g}"
        lacks = f"missing: {gaps}" if gaps else ""
        if note := "; ".join(filter(None, (between, lacks))):
            out["note"] = [{"text": note}]
    if evidence:
        out["derivedFrom"] = [{"reference": f"Observation/{_checked(one)}"} for one in evidence]
    components = [
        {"code": terms.sub_score(name, parameter, spo2_scale)} | _points(points)
        for parameter, points in sub_scores.items()
    ] + [
        {
            "code": terms.sub_score(name, parameter, spo2_scale),
            "dataAbsentReason": terms.absent("unknown") | {"text": why},
        }
        for parameter, why in missing
    ]
    if components:
        out["component"] = components
    return orjson.dumps(out)


def _points(number: float) -> Json:
    if isinstance(number, int):
        return {"valueInteger": number}
    return {"valueQuantity": {"value": number, "system": terms.UCUM, "code": "1"}}


def operation_outcome(severity: str, code: str, diagnostics: str) -> bytes:
    """Return an OperationOutcome with one issue.

    ``severity``: fatal, error, warning or information; ``code``: R4 issue-type, such as
    ``invalid``, ``not-found``, ``not-supported``, ``forbidden``, ``login``, ``processing``.
    """
    issue: Json = {"severity": severity, "code": code}
    if text := _clean(diagnostics):
        issue["diagnostics"] = text
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})


def searchset(
    base_url: str,
    self_url: str,
    next_url: str | None,
    entries: Sequence[tuple[str, bytes]],
    total: int | None,
) -> bytes:
    """Return a searchset Bundle.

    ``entries``: (``Observation/xyz``, body). An OperationOutcome's entry has mode ``outcome``,
    every other ``match``; ``total`` counts matches of the whole search, None when not known.
    """
    links = [{"relation": "self", "url": self_url}]
    if next_url is not None:
        links.append({"relation": "next", "url": next_url})
    head: Json = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        head["total"] = total
    head["link"] = links
    base = base_url.rstrip("/")
    parts = []
    for relative, body in entries:
        if relative.startswith("OperationOutcome"):
            # It has no address, but R4 wants a fullUrl of every entry: a name made of its content.
            name = orjson.dumps(uuid.uuid5(uuid.NAMESPACE_OID, body.decode()).urn)
            parts.append(b'{"fullUrl":%b,"resource":%b,"search":{"mode":"outcome"}}' % (name, body))
        else:
            url = orjson.dumps(f"{base}/{relative}")
            parts.append(b'{"fullUrl":%b,"resource":%b,"search":{"mode":"match"}}' % (url, body))
    return _with_entries(orjson.dumps(head), parts)


TRANSACTION: Final = '{"resourceType":"Bundle","type":"transaction","entry":['
TRANSACTION_END: Final = "]}"
BETWEEN_ENTRIES: Final = '},{"request":{"method":"PUT","url":"'
"""Stands between two entries of a transaction and nowhere else: no text of ours holds it."""


def put(relative: str, body: str) -> str:
    """Return the entry of a transaction Bundle that PUTs ``Observation/xyz``.

    A fullUrl under terms.BASE names each resource: HL7's validator refuses relative references
    (``Patient/...``) in an entry without one; servers go by the request. The id stands first
    thrice, then what else changes from sample to sample: see `cloud.fhir.chart`.
    """
    return (
        f'{{"request":{{"method":"PUT","url":"{relative}"}},'
        f'"fullUrl":"{terms.BASE}/{relative}","resource":{body}}}'
    )


def transaction(entries: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a transaction Bundle that PUTs each (``Observation/xyz``, body): safe to repeat."""
    if not entries:
        return b'{"resourceType":"Bundle","type":"transaction"}'  # FHIR forbids an empty array
    listed = ",".join([put(relative, body.decode()) for relative, body in entries])
    return f"{TRANSACTION}{listed}{TRANSACTION_END}".encode()


def _with_entries(head: bytes, parts: list[bytes]) -> bytes:
    if not parts:
        return head  # FHIR forbids an empty array
    return b'%b,"entry":[%b]}' % (head[:-1], b",".join(parts))


class Served:
    """What a server offers of one resource type, for its CapabilityStatement."""

    __slots__ = ("interactions", "operations", "profiles", "search")

    def __init__(
        self,
        interactions: Sequence[str],
        search: Mapping[str, str] | None = None,
        operations: Mapping[str, str] | None = None,
        profiles: Sequence[str] = (),
    ) -> None:
        """Take interactions, search parameters (name -> type) and operations (name -> url)."""
        self.interactions = tuple(interactions)
        self.search = dict(search or {})
        self.operations = dict(operations or {})
        self.profiles = tuple(profiles)


SERVED: Final[Mapping[str, Served]] = {
    "Observation": Served(
        ("read", "search-type"),
        {
            "_id": "token",
            "patient": "reference",
            "subject": "reference",
            "code": "token",
            "category": "token",
            "date": "date",
        },
        {"lastn": "http://hl7.org/fhir/OperationDefinition/Observation-lastn"},
        tuple(terms.PROFILE + name for name in sorted({*terms.PROFILES.values(), "vitalsigns"})),
    ),
    "Patient": Served(("read", "search-type"), {"_id": "token", "identifier": "token"}),
    "Device": Served(("read",)),
    "DetectedIssue": Served(("read", "search-type"), {"patient": "reference"}),
}
"""What the REST server offers unless it says otherwise."""


def _rest_resource(kind: str, served: Served) -> Json:
    out: Json = {
        "type": kind,
        "interaction": [{"code": code} for code in served.interactions],
    }
    if served.profiles:
        out["supportedProfile"] = list(served.profiles)
    if served.search:
        out["searchParam"] = [{"name": n, "type": t} for n, t in served.search.items()]
    if served.operations:
        out["operation"] = [{"name": n, "definition": u} for n, u in served.operations.items()]
    return out


def capability_statement(
    base_url: str, version: str, now: str, served: Mapping[str, Served] = SERVED
) -> bytes:
    """Return the CapabilityStatement of the REST server at ``base_url``.

    ``now`` is a FHIR dateTime; ``served`` must name exactly what the server does.
    """
    return orjson.dumps(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": now,
            "kind": "instance",
            "software": {"name": "IoT Health Sync", "version": version},
            "implementation": {
                "description": "Vital signs of monitored beds",
                "url": base_url.rstrip("/"),
            },
            "fhirVersion": "4.0.1",
            "format": ["application/fhir+json", "json"],
            "rest": [
                {
                    "mode": "server",
                    "security": {
                        "service": [
                            {
                                "coding": [
                                    terms.coding(
                                        "http://terminology.hl7.org/CodeSystem/"
                                        "restful-security-service",
                                        "SMART-on-FHIR",
                                    )
                                ]
                            }
                        ]
                    },
                    "resource": [_rest_resource(kind, of) for kind, of in served.items()],
                }
            ],
        }
    )
