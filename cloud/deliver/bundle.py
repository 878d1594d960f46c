"""A record of ``fhir`` as what may be sent: PUTs of named resources, and nothing else.

Law: pure. A Bundle is taken whole or not at all; one that would delete, create without an id, or
write another resource than it names is never sent. Bodies are passed on byte for byte.
"""

import re
from typing import Annotated, Final, NamedTuple

import msgspec

from vitals.errors import UNREADABLE

# FHIR R4 §2.24.0.1 ``id``; §3.1.0.7 update: PUT [type]/[id]. A condition after ``?`` is no name;
# ``.`` and ``..`` are ids that a proxy takes for a way up.
_URL: Final = re.compile(r"([A-Z][A-Za-z]{1,63})/(?!\.{1,2}\Z)([A-Za-z0-9.-]{1,64})")


class Malformed(Exception):
    """A record that is no transaction Bundle of PUTs; says why in a closed word."""

    def __init__(self, why: str) -> None:
        """``why``: empty, json, type, method, url or name."""
        super().__init__(why)
        self.why = why


class Entry(NamedTuple):
    """One resource: where it goes (``Observation/xyz``) and its JSON."""

    url: str
    body: bytes


class _Request(msgspec.Struct):
    method: str
    url: str


class _Entry(msgspec.Struct):
    request: _Request
    resource: msgspec.Raw


class _Bundle(msgspec.Struct, rename="camel"):
    resource_type: str
    type: str
    entry: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


class _Resource(msgspec.Struct, rename="camel"):
    resource_type: str
    id: str


_bundles: Final = msgspec.json.Decoder(_Bundle)
_resources: Final = msgspec.json.Decoder(_Resource)


def entries_of(value: bytes | None) -> list[Entry]:
    """Return a record's resources in their order; raise Malformed."""
    if not value:
        raise Malformed("empty")
    try:
        bundle = _bundles.decode(value)
        if (bundle.resource_type, bundle.type) != ("Bundle", "transaction"):
            raise Malformed("type")
        return [_entry(entry) for entry in bundle.entry]
    except UNREADABLE as error:
        raise Malformed("json") from error


def _entry(entry: _Entry) -> Entry:
    if entry.request.method != "PUT":
        raise Malformed("method")
    url = _URL.fullmatch(entry.request.url)
    if url is None:
        raise Malformed("url")
    body = bytes(entry.resource)
    resource = _resources.decode(body)
    if (resource.resource_type, resource.id) != url.groups():
        raise Malformed("name")
    return Entry(entry.request.url, body)
