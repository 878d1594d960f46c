"""What may be sent: the Bundles that detect writes, and nothing that would do something else."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloud.deliver.bundle import Entry, Malformed, entries_of
from cloud.fhir import chart
from cloud.records import decode_samples, encode
from tests.cloud.deliver.rig import bundle, observation
from tests.cloud.detect.records_of import ward

A, B = observation("a.spo2.1"), observation("b-1.spo2.2")


def test_what_detect_writes_is_taken_byte_for_byte() -> None:
    taken = 0
    for _partition, one in ward(seconds=5, beds=3):
        for _subject, made in chart.of({}).bundles(decode_samples(encode(one)).columns):
            for url, body in entries_of(made):
                assert body in made
                resource = json.loads(body)
                assert url == f"{resource['resourceType']}/{resource['id']}"
                taken += 1
    assert taken > 0


def test_order_is_kept() -> None:
    urls = [url for url, _ in entries_of(bundle(B, A, B))]
    assert urls == [B[0], A[0], B[0]]


def changed(**fields: Any) -> bytes:
    """Return a Bundle whose second entry is another."""
    value = json.loads(bundle(A, B))
    value["entry"][1] |= fields
    return json.dumps(value).encode()


MALFORMED: dict[str, list[bytes | None]] = {
    "empty": [None, b""],
    "json": [
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        bundle(A)[:-1],
        bundle(),
        b'{"resourceType":"Bundle","type":"transaction","entry":[]}',
        b'{"resourceType":"Bundle","type":"transaction","entry":[{}]}',
        changed(resource="text"),
        changed(resource=None),
        changed(resource={"resourceType": "Observation"}),
        changed(resource={"resourceType": "Observation", "id": 7}),
        changed(request=None),
    ],
    "type": [
        bundle(A).replace(b"transaction", b"batch"),
        bundle(A).replace(b"Bundle", b"Parameters"),
    ],
    "method": [
        changed(request={"method": method, "url": B[0]})
        for method in ("POST", "DELETE", "PATCH", "GET", "put", "")
    ],
    "url": [
        changed(request={"method": "PUT", "url": url})
        for url in (
            "Observation",
            "Observation/",
            "Observation?identifier=1",
            f"{B[0]}?x=1",
            f"/{B[0]}",
            f"https://elsewhere.example/{B[0]}",
            "Observation/..",
            "Observation/.",
            "Observation/a/b",
            f"{B[0]}\n",
            f"{B[0]} HTTP/1.1",
            "Observation/" + "x" * 65,
            "",
        )
    ],
    "name": [
        changed(resource=observation("other.spo2.1")[1]),
        changed(resource=B[1] | {"resourceType": "Patient"}),
    ],
}


@pytest.mark.parametrize(
    ("why", "value"),
    [(why, value) for why, values in MALFORMED.items() for value in values],
)
def test_anything_else_is_refused_whole(why: str, value: bytes | None) -> None:
    with pytest.raises(Malformed) as raised:
        entries_of(value)
    assert raised.value.why == why


@given(st.text(alphabet="abcXYZ019.-", min_size=1, max_size=64))
def test_every_fhir_id_is_an_address(ident: str) -> None:
    assume(ident not in {".", ".."})
    (entry,) = entries_of(bundle(observation(ident)))
    assert entry == Entry(f"Observation/{ident}", entry.body)


@given(st.binary(max_size=300))
def test_bytes_at_random_are_refused_or_nothing(value: bytes) -> None:
    with pytest.raises(Malformed):
        entries_of(value)
