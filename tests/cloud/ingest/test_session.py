import pytest

from cloud.ingest import session as ingest_session
from cloud.ingest.session import IngestSession, Refused
from tests.cloud.ingest.frames import NOW, Edge, Keys
from vitals import session
from vitals.errors import EpochError
from vitals.limits import CREDIT_FRAMES


def tell(state: IngestSession, message: session.EdgeMessage) -> session.Data | None:
    return state.receive(session.encode(message), NOW)


def heard(state: IngestSession) -> list[session.CloudMessage]:
    return [session.decode_cloud(data) for data in state.drain(NOW + 5)]


@pytest.fixture
def fresh(keys: Keys) -> IngestSession:
    return IngestSession("ward-3", keys.private, CREDIT_FRAMES)


@pytest.fixture
def state(fresh: IngestSession, edge: Edge) -> IngestSession:
    tell(fresh, session.Hello(1, "ward-3", "build 7", [edge.wrapped]))
    heard(fresh)
    return fresh


def refused(state: IngestSession, message: session.EdgeMessage) -> str:
    with pytest.raises(Refused) as caught:
        tell(state, message)
    assert caught.value.reason in session.CLOSE_REASONS
    return caught.value.reason


def test_hello_is_answered_with_credit(fresh: IngestSession, edge: Edge) -> None:
    tell(fresh, session.Hello(1, "ward-3", "build 7", [edge.wrapped]))
    assert heard(fresh) == [session.Welcome(1, CREDIT_FRAMES, NOW + 5)]
    assert heard(fresh) == []


def test_hello_of_another_name_is_refused(fresh: IngestSession) -> None:
    assert refused(fresh, session.Hello(1, "ward-4", "", [])) == "identity"


def test_an_epoch_of_another_gateway_is_refused(fresh: IngestSession, other_edge: Edge) -> None:
    assert refused(fresh, session.Hello(1, "ward-3", "", [other_edge.wrapped])) == "identity"


def test_the_first_message_must_be_hello(fresh: IngestSession) -> None:
    assert refused(fresh, session.Ping(1)) == "protocol"
    assert heard(fresh) == []


def test_another_protocol_and_a_second_hello_are_refused(state: IngestSession) -> None:
    assert refused(state, session.Hello(1, "ward-3", "", [])) == "protocol"
    fresh = IngestSession("ward-3", state._private, 1)
    assert refused(fresh, session.Hello(2, "ward-3", "", [])) == "protocol"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", "text", b"x" * (3 * 1024 * 1024)])
def test_junk_is_refused(state: IngestSession, data: bytes | str) -> None:
    with pytest.raises(Refused):
        state.receive(data, NOW)


def test_nothing_is_acknowledged_before_it_is_delivered(state: IngestSession, edge: Edge) -> None:
    assert tell(state, session.Data(edge.simple(0), 0)) is not None
    assert heard(state) == []
    state.delivered(edge.epoch, 0)
    assert heard(state) == [session.Ack(edge.epoch, [(0, 0)])]
    assert heard(state) == []


def test_acks_are_ranges_of_each_epoch(state: IngestSession, edge: Edge) -> None:
    for seq in (5, 1, 2, 3, 9):
        state.delivered(edge.epoch, seq)
    state.delivered("b" * 32, 4)
    assert heard(state) == [
        session.Ack(edge.epoch, [(1, 3), (5, 5), (9, 9)]),
        session.Ack("b" * 32, [(4, 4)]),
    ]


def test_many_holes_make_several_small_acks(
    state: IngestSession, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_session, "ACK_RANGES_MAX", 2)
    for seq in (0, 2, 4, 6, 8):
        state.delivered(edge.epoch, seq)
    acks = [message for message in heard(state) if isinstance(message, session.Ack)]
    assert [len(ack.ranges) for ack in acks] == [2, 2, 1]
    assert [low for ack in acks for low, _ in ack.ranges] == [0, 2, 4, 6, 8]


def test_a_frame_without_a_name_gives_its_place_back_and_no_ack(state: IngestSession) -> None:
    tell(state, session.Data(b"junk", 0))
    state.delivered("", -1)
    assert (state.held, heard(state)) == (0, [])


def test_more_frames_than_credit_end_the_session(state: IngestSession) -> None:
    for _ in range(CREDIT_FRAMES):
        tell(state, session.Data(b"", 0))
    assert refused(state, session.Data(b"", 0)) == "protocol"


def test_delivered_frames_make_room_for_more(state: IngestSession, edge: Edge) -> None:
    for seq in range(3 * CREDIT_FRAMES):
        tell(state, session.Data(b"", 0))
        state.delivered(edge.epoch, seq)
    assert state.held == 0


def test_ping_is_answered_with_all_three_times(state: IngestSession) -> None:
    state.receive(session.encode(session.Ping(77)), NOW + 2)
    assert heard(state) == [session.Pong(77, NOW + 2, NOW + 5)]


def test_credit_is_told_when_it_changes_only(state: IngestSession) -> None:
    state.set_credit(0)
    assert state.pending()
    assert heard(state) == [session.Credit(0)]
    state.set_credit(0)
    assert not state.pending()
    state.set_credit(CREDIT_FRAMES)
    assert heard(state) == [session.Credit(CREDIT_FRAMES)]


def test_an_epoch_in_mid_session_is_known_from_then_on(keys: Keys, edge: Edge) -> None:
    state = IngestSession("ward-3", keys.private, 1)
    tell(state, session.Hello(1, "ward-3", "", []))
    assert state.opener(edge.epoch) is None
    tell(state, session.Epoch(edge.wrapped))
    opener = state.opener(edge.epoch)
    assert opener is not None
    assert opener.open(edge.simple(1))[0].seq == 1
    assert state.opener(edge.epoch) is opener


def test_an_epoch_of_an_unknown_key_raises_each_time(edge: Edge) -> None:
    state = IngestSession("ward-3", Keys().private, 1)
    tell(state, session.Hello(1, "ward-3", "", [edge.wrapped]))
    for _ in range(2):
        with pytest.raises(EpochError):
            state.opener(edge.epoch)


def test_an_epochs_name_cannot_break_a_kafka_key(state: IngestSession, edge: Edge) -> None:
    import msgspec

    bad = msgspec.structs.replace(edge.wrapped, epoch="a/b")
    assert refused(state, session.Epoch(bad)) == "protocol"


def test_endless_epochs_end_the_session(
    state: IngestSession, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgspec

    monkeypatch.setattr(ingest_session, "EPOCHS_MAX", 2)
    tell(state, session.Epoch(msgspec.structs.replace(edge.wrapped, epoch="0" * 32)))
    more = session.Epoch(msgspec.structs.replace(edge.wrapped, epoch="1" * 32))
    assert refused(state, more) == "protocol"


def test_a_gateway_that_closes_is_over(state: IngestSession) -> None:
    assert refused(state, session.Close("going-away")) == "going-away"
