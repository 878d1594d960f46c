import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloud.ingest import session as ingest_session
from cloud.ingest.delivered import RANGES_MAX, Delivered
from cloud.ingest.keys import CloudKeys
from cloud.ingest.session import IngestSession, Refused
from tests.cloud.ingest.frames import NOW, Edge, Keys
from vitals import session
from vitals.epoch import key_id
from vitals.errors import EpochError
from vitals.limits import CREDIT_FRAMES


def tell(
    state: IngestSession, message: session.EdgeMessage
) -> session.Data | session.Outcome | None:
    return state.receive(session.encode(message), NOW)


def heard(state: IngestSession) -> list[session.CloudMessage | None]:
    return [session.decode_cloud(data) for data in state.drain(NOW + 5)]


@pytest.fixture
def fresh(keys: Keys) -> IngestSession:
    return IngestSession("ward-3", keys.cloud, CREDIT_FRAMES)


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
    (welcome,) = heard(fresh)
    assert isinstance(welcome, session.Welcome)
    assert welcome == session.Welcome(1, CREDIT_FRAMES, NOW + 5, [], [edge.wrapped.key_id])
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
    fresh = IngestSession("ward-3", Keys().cloud, 1)
    assert refused(fresh, session.Hello(2, "ward-3", "", [], oldest=2)) == "protocol"


def test_a_newer_gateway_that_still_speaks_this_version_is_let_in(keys: Keys) -> None:
    state = IngestSession("ward-3", keys.cloud, 1)
    tell(state, session.Hello(7, "ward-3", "build 99", [], oldest=1))
    (welcome,) = heard(state)
    assert isinstance(welcome, session.Welcome)
    assert (welcome.protocol, state.version) == (1, 1)
    assert state.receive(b"\x82\xa1t\xa5later\xa1x\x01", NOW) is None


def test_what_was_delivered_to_an_earlier_session_is_told_and_nothing_else(
    keys: Keys, edge: Edge, other_edge: Edge
) -> None:
    delivered = Delivered()
    earlier = IngestSession("ward-3", keys.cloud, 1, delivered)
    tell(earlier, session.Hello(1, "ward-3", "", [edge.wrapped]))
    for seq in (0, 1, 2, 7):
        earlier.delivered(edge.epoch, seq)
    delivered.note("ward-4", other_edge.epoch, 1)
    later = IngestSession("ward-3", keys.cloud, 1, delivered)
    tell(later, session.Hello(1, "ward-3", "", [edge.wrapped]))
    (welcome,) = heard(later)
    assert isinstance(welcome, session.Welcome)
    assert welcome.resume == [(edge.epoch, [(0, 2), (7, 7)])]
    assert IngestSession("ward-4", keys.cloud, 1, delivered).drain(NOW) == []


def test_what_is_remembered_of_delivered_frames_is_bounded() -> None:
    delivered = Delivered(epochs_max=2)
    for at, epoch in enumerate("abc"):
        delivered.note("e", epoch, at)
    assert delivered.of("e", "abc") == [("b", [(1, 1)]), ("c", [(2, 2)])]
    for seq in range(0, 4 * RANGES_MAX, 2):
        delivered.note("e", "c", seq)
    ((_, ranges),) = delivered.of("e", "c")
    assert len(ranges) <= RANGES_MAX
    assert ranges[-1] == (4 * RANGES_MAX - 2,) * 2, "the newest are kept"


def test_what_a_gateway_says_it_has_stored_is_noted(keys: Keys, edge: Edge) -> None:
    state = IngestSession("ward-3", keys.cloud, 1)
    waiting = [session.Waiting(edge.epoch, 3, 90, {0: 40, 2: 2})]
    tell(state, session.Hello(1, "ward-3", "", [edge.wrapped], 1, waiting, 7))
    assert (state.waiting, state.settings) == (42, 7)


def test_epochs_of_an_older_cloud_key_open_as_long_as_it_is_held(edge: Edge, keys: Keys) -> None:
    newer = X25519PrivateKey.generate()
    state = IngestSession("ward-3", CloudKeys([newer, keys.private]), 1)
    tell(state, session.Hello(1, "ward-3", "", [edge.wrapped]))
    assert state.opener(edge.epoch) is not None
    (welcome,) = heard(state)
    assert isinstance(welcome, session.Welcome)
    assert set(welcome.keys) == {edge.wrapped.key_id, key_id(newer.public_key())}


def test_the_outcome_of_settings_is_handed_on(state: IngestSession) -> None:
    assert tell(state, session.Outcome(3, "kept")) == session.Outcome(3, "kept")


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
    state = IngestSession("ward-3", keys.cloud, 1)
    tell(state, session.Hello(1, "ward-3", "", []))
    assert state.opener(edge.epoch) is None
    tell(state, session.Epoch(edge.wrapped))
    opener = state.opener(edge.epoch)
    assert opener is not None
    assert opener.open(edge.simple(1))[0].seq == 1
    assert state.opener(edge.epoch) is opener


def test_an_epoch_of_an_unknown_key_raises_each_time(edge: Edge) -> None:
    state = IngestSession("ward-3", Keys().cloud, 1)
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
