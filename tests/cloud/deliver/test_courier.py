"""The table of errors, row by row, against a real server process that behaves so."""

import json
import signal
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from cloud.deliver.answer import BACKOFF_S_MAX, RETRY_AFTER_S_MAX
from cloud.deliver.courier import CONFLICTS_MAX, OUTCOME_BYTES_MAX
from tests.cloud.deliver.rig import NOW_MS, Desk, Ended, FhirServer, bundle, observation, record

A, B, C = observation("a.spo2.1"), observation("b.spo2.2"), observation("c.spo2.3")
BAD = observation("x.spo2.9", 61.5, status="nonsense")
POST = "POST /fhir"


def test_a_bundle_is_one_transaction_and_all_of_it_is_there(fhir: FhirServer, desk: Desk) -> None:
    desk.deliver(A, B)
    assert fhir.lines() == ["GET /fhir/metadata", POST]
    assert fhir.stored() == dict([A, B])
    assert (desk.waits, desk.letters) == ([], [])
    headers = fhir.seen()[1]["headers"]
    assert headers["Content-Type"] == headers["Accept"] == "application/fhir+json"
    assert headers["Prefer"] == "return=minimal"
    assert "Authorization" not in headers


def test_a_record_again_changes_nothing(fhir: FhirServer, desk: Desk) -> None:
    desk.deliver(A, B)
    desk.deliver(A, B)
    assert set(fhir.versions().values()) == {1}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_overload_and_faults_are_asked_again(fhir: FhirServer, desk: Desk, status: int) -> None:
    fhir.rule(POST, "status", times=3, status=status)
    desk.deliver(A)
    assert desk.waits == [0.5, 1.0, 2.0]
    assert fhir.stored() == dict([A])
    assert desk.letters == []


@pytest.mark.parametrize("status", [202, 206, 301, 302, 307, 308, 403, 405, 406, 410, 415, 428])
def test_what_says_nothing_of_the_content_is_asked_again(
    fhir: FhirServer, desk: Desk, status: int
) -> None:
    fhir.rule(POST, "status", times=2, status=status, headers={"Location": f"{fhir.origin}/x"})
    desk.deliver(A)
    assert len(desk.waits) == 2
    assert fhir.stored() == dict([A])
    assert desk.letters == []
    assert not [line for line in fhir.lines() if line.endswith("/x")], "a redirection was followed"


def test_the_wait_doubles_to_its_bound_and_there_is_no_last_try(
    fhir: FhirServer, desk: Desk
) -> None:
    fhir.rule(POST, "status", times=1000, status=503)
    with pytest.raises(Ended):
        desk.deliver(A)
    assert desk.waits[:8] == [0.5, 1, 2, 4, 8, 16, 32, 60]
    assert set(desk.waits[7:]) == {BACKOFF_S_MAX}
    assert len(desk.waits) == desk.waits_max + 1
    assert desk.letters == []


@pytest.mark.parametrize(
    ("sent", "waited"),
    [
        ("7", 7.0),
        ("0", 0.5),
        ("86400", RETRY_AFTER_S_MAX),
        ("-5", 0.5),
        ("soon", 0.5),
        (format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 20, UTC), usegmt=True), 20.0),
    ],
)
def test_retry_after_is_heeded_within_its_bound(
    fhir: FhirServer, desk: Desk, sent: str, waited: float
) -> None:
    fhir.rule(POST, "status", status=429, headers={"Retry-After": sent})
    desk.deliver(A)
    assert desk.waits == [waited]


@pytest.mark.parametrize("do", ["reset", "cut", "noise"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_broken_answer_is_asked_again_whether_stored_or_not(
    fhir: FhirServer, desk: Desk, do: str, after: bool
) -> None:
    desk.deliver(C)
    # twice: one reset of a kept connection is asked again at once
    fhir.rule(POST, do, times=2, after=after)
    desk.deliver(A, B)
    assert 1 <= len(desk.waits) <= 2
    assert fhir.stored() == dict([A, B, C])
    assert set(fhir.versions().values()) == {1}
    assert desk.letters == []


def test_a_hang_is_given_up_and_asked_again(fhir: FhirServer) -> None:
    desk = Desk(fhir.base, answer_s=0.3)
    fhir.rule(POST, "hang", seconds=5)
    desk.deliver(A)
    assert [line["reason"] for line in desk.logged("retry")] == ["timeout"]
    assert fhir.stored() == dict([A])
    desk.close()


def test_a_server_that_is_away_is_waited_for(fhir: FhirServer, desk: Desk) -> None:
    desk.deliver(C)
    fhir.end(signal.SIGKILL)
    desk.on_wait = lambda count: fhir.start() if count == 4 else None
    desk.deliver(A)
    assert {line["reason"] for line in desk.logged("retry")} == {"connect"}
    assert len(desk.waits) == 4
    assert fhir.stored() == dict([A, C])


PAGES = {
    "html": "<html>Welcome to our Wi-Fi</html>",
    "empty": "",
    "outcome": '{"resourceType":"OperationOutcome"}',
    "searchset": '{"resourceType":"Bundle","type":"searchset","entry":[]}',
    "fewer": '{"resourceType":"Bundle","type":"transaction-response",'
    '"entry":[{"response":{"status":"201"}}]}',
    "more": '{"resourceType":"Bundle","type":"transaction-response","entry":['
    + ",".join(['{"response":{"status":"201"}}'] * 3)
    + "]}",
    "other type": '{"resourceType":"Bundle","type":"batch-response","entry":['
    + ",".join(['{"response":{"status":"201"}}'] * 2)
    + "]}",
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_an_answer_of_200_that_is_none_counts_for_nothing(
    fhir: FhirServer, desk: Desk, page: str
) -> None:
    fhir.rule(POST, "status", times=2, status=200, body=page)
    desk.deliver(A, B)
    assert [line["reason"] for line in desk.logged("retry")] == ["answer", "answer"]
    assert fhir.stored() == dict([A, B])


@pytest.mark.parametrize("word", ["202 Accepted", "400 Bad", "500", "", "2000 OK", "20"])
def test_an_entry_that_is_not_stored_is_put_by_itself(
    fhir: FhirServer, desk: Desk, word: str
) -> None:
    answers = [{"response": {"status": status}} for status in ("201 Created", word, "200 OK")]
    page = {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}
    fhir.rule(POST, "status", status=200, body=json.dumps(page))
    desk.deliver(A, B, C)
    assert [line for line in fhir.lines() if "PUT" in line] == [f"PUT /fhir/{B[0]}"]
    assert fhir.stored() == dict([B])


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refused_bundle_is_sent_one_by_one(fhir: FhirServer, desk: Desk, status: int) -> None:
    fhir.rule(POST, "status", times=1, status=status)
    desk.deliver(A, B, C)
    puts = [line for line in fhir.lines() if "PUT" in line]
    assert puts == [f"PUT /fhir/{url}" for url, _ in (A, B, C)]
    assert fhir.stored() == dict([A, B, C])
    assert (desk.waits, desk.letters) == ([], [])


@pytest.mark.parametrize(
    ("bad", "status"), [(BAD, 422), (observation("12345"), 400)], ids=["422", "400-numeric-id"]
)
def test_the_bad_one_is_set_aside_and_the_good_ones_are_there(
    fhir: FhirServer, desk: Desk, bad: tuple[str, dict[str, object]], status: int
) -> None:
    desk.deliver(A, bad, B)
    assert fhir.stored() == dict([A, B])
    (letter,) = desk.letters
    assert (letter.reason, letter.status, letter.url) == ("refused", status, bad[0])
    assert (letter.partition, letter.offset, letter.at_ms) == (3, 7, NOW_MS)
    assert json.loads(letter.body) == bad[1]
    assert json.loads(letter.outcome)["resourceType"] == "OperationOutcome"
    assert desk.waits == []


def test_what_a_server_says_of_a_value_is_kept_and_never_logged(
    fhir: FhirServer, desk: Desk
) -> None:
    desk.deliver(A, BAD)
    assert b"61.5" in desk.letters[0].outcome
    logged = desk.out.getvalue()
    assert desk.logged("undelivered")[0]["status"] == 422
    for word in ("61.5", "diagnostics", "unknown status", BAD[1]["id"], "0" * 32):
        assert word not in logged


def test_a_bundle_too_large_for_the_server_arrives_in_pieces(fhir: FhirServer, desk: Desk) -> None:
    fhir.control(max_bytes=len(bundle(A)) + 10)
    large = observation("big.spo2.1")
    large[1]["note"] = [{"text": "n" * 2000}]
    desk.deliver(A, large, B)
    assert fhir.stored() == dict([A, B])
    assert [(letter.url, letter.status) for letter in desk.letters] == [(large[0], 413)]


@pytest.mark.parametrize("size", [OUTCOME_BYTES_MAX, OUTCOME_BYTES_MAX + 1])
def test_a_servers_word_is_kept_up_to_its_bound(fhir: FhirServer, desk: Desk, size: int) -> None:
    fhir.rule("(POST|PUT) .*", "status", times=2, status=400, body="w" * size)
    desk.deliver(A)
    assert len(desk.letters[0].outcome) == OUTCOME_BYTES_MAX


@pytest.mark.parametrize("status", [409, 412])
def test_a_conflict_that_passes_is_no_loss(fhir: FhirServer, desk: Desk, status: int) -> None:
    fhir.rule(POST, "status", times=CONFLICTS_MAX - 1, status=status)
    desk.deliver(A, B)
    assert len(desk.waits) == CONFLICTS_MAX - 1
    assert not [line for line in fhir.lines() if "PUT" in line]
    assert fhir.stored() == dict([A, B])


@pytest.mark.parametrize("status", [409, 412])
def test_a_conflict_that_stays_is_set_aside(fhir: FhirServer, desk: Desk, status: int) -> None:
    fhir.rule(f"{POST}|PUT /fhir/{B[0]}", "status", times=1000, status=status)
    desk.deliver(A, B)
    assert fhir.stored() == dict([A])
    assert [(x.reason, x.status, x.url) for x in desk.letters] == [("conflict", status, B[0])]
    puts = [line for line in fhir.lines() if line == f"PUT /fhir/{B[0]}"]
    assert len(puts) == CONFLICTS_MAX


def test_a_fault_is_given_up_only_when_so_configured(fhir: FhirServer) -> None:
    desk = Desk(fhir.base, give_up_s=100)
    fhir.rule(f"{POST}|PUT /fhir/{B[0]}", "status", times=1000, status=500)
    desk.deliver(A, B)
    assert fhir.stored() == dict([A])
    assert [(x.reason, x.status, x.url) for x in desk.letters] == [("fault", 500, B[0])]
    assert 200 <= sum(desk.waits) < 400
    desk.close()


@pytest.mark.parametrize("status", [502, 503, 504, 429, 403])
def test_what_is_not_the_servers_own_fault_is_never_given_up(fhir: FhirServer, status: int) -> None:
    desk = Desk(fhir.base, give_up_s=1)
    fhir.rule(POST, "status", times=1000, status=status)
    with pytest.raises(Ended):
        desk.deliver(A)
    assert desk.letters == []
    desk.close()


@pytest.mark.parametrize(
    "away",
    [
        {"on": POST, "do": "status", "times": 1, "status": 503},
        {"on": POST, "do": "reset", "times": 2},
        {"on": POST, "do": "status", "times": 1, "status": 200},
    ],
    ids=["503", "reset", "no-answer"],
)
def test_a_fault_counts_from_its_first_answer_in_a_row(
    fhir: FhirServer, away: dict[str, object]
) -> None:
    desk = Desk(fhir.base, give_up_s=60)
    faulty = {"on": POST, "do": "status", "times": 1, "status": 500}
    fhir.control(rules=[dict(one) for one in (faulty, away) * 12])
    desk.deliver(A)
    assert sum(desk.waits) > 600
    assert desk.letters == []
    desk.close()


def test_a_wrong_address_sets_nothing_aside(fhir: FhirServer) -> None:
    desk = Desk(fhir.base._replace(path="/fihr"))
    with pytest.raises(Ended):
        desk.deliver(A)
    assert desk.letters == []
    assert {line["reason"] for line in desk.logged("retry")} == {"not-r4"}
    assert POST not in fhir.lines()
    desk.close()


@pytest.mark.parametrize("version", ["3.0.2", "5.0.0", "4.3.0", "4", ""])
def test_another_release_of_fhir_is_sent_nothing(
    fhir: FhirServer, desk: Desk, version: str
) -> None:
    page = json.dumps({"resourceType": "CapabilityStatement", "fhirVersion": version})
    fhir.rule("GET .*", "status", times=1000, status=200, body=page)
    with pytest.raises(Ended):
        desk.deliver(A)
    assert set(fhir.lines()) == {"GET /fhir/metadata"}


def test_a_server_that_ends_to_be_one_sets_nothing_aside(fhir: FhirServer, desk: Desk) -> None:
    """A proxy in front that answers everything with its own 404 for a while."""
    desk.deliver(C)
    fhir.rule(".*", "status", times=1000, status=404, body="<html>")
    desk.on_wait = lambda count: fhir.control(rules=[]) if count == 6 else None
    desk.deliver(A, B)
    assert desk.letters == []
    assert fhir.stored() == dict([A, B, C])


def test_a_put_answered_by_a_page_is_not_stored(fhir: FhirServer, desk: Desk) -> None:
    fhir.control(
        rules=[
            {"on": POST, "do": "status", "times": 1, "status": 400},
            {"on": "PUT .*", "do": "status", "times": 2, "status": 200, "body": PAGES["html"]},
        ]
    )
    desk.deliver(A)
    assert len(desk.waits) == 2
    assert fhir.stored() == dict([A])


def test_a_record_that_is_no_bundle_of_puts_is_never_sent(fhir: FhirServer, desk: Desk) -> None:
    value = bundle(A).replace(b'"PUT"', b'"DELETE"')
    desk.courier.deliver(record(value))
    assert fhir.lines() == []
    (letter,) = desk.letters
    assert (letter.reason, letter.status, letter.url) == ("malformed", 0, "")
    assert letter.body == value
    assert desk.logged("undelivered")[0]["why"] == "method"


def test_the_same_resource_twice_ends_with_the_last(fhir: FhirServer, desk: Desk) -> None:
    """HAPI refuses such a transaction; two devices of one patient can make one."""
    older, newer = observation("a.spo2.1", 90), observation("a.spo2.1", 91)
    desk.deliver(older, newer)
    assert fhir.stored() == dict([newer])
    assert desk.letters == []


def test_without_a_token_401_is_asked_again(fhir: FhirServer, desk: Desk) -> None:
    fhir.rule(POST, "status", times=3, status=401)
    desk.deliver(A)
    assert len(desk.waits) == 3
    assert fhir.stored() == dict([A])
