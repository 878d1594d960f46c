"""The gateway's half of a session: what ingest says is checked before it is believed."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge.backlog import Held, Stored
from edge.link import Acked, Event, Link, Measured, Offered, Opened, Room, State
from edge.outbox import Outbox
from vitals import epoch, session
from vitals.epoch import WrappedEpoch
from vitals.errors import SessionError
from vitals.session import CloudMessage, Data, Epoch, Hello, Welcome

NOW = 1_795_428_000_000
PRIVATE = X25519PrivateKey.generate()


def _epoch(private: X25519PrivateKey = PRIVATE) -> WrappedEpoch:
    return epoch.begin("ward-1", private.public_key(), NOW, os.urandom)[0]


class Talk:
    """A link with what ingest says to it."""

    def __init__(self, *epochs: WrappedEpoch) -> None:
        self.epochs = list(epochs)
        self.outbox = Outbox()
        self.link = Link("ward-1", "0.1.0", self.outbox)

    def hello(self) -> Hello:
        said = session.decode_edge(self.link.greet(self.epochs, [], 0, 0.0))
        assert isinstance(said, Hello)
        return said

    def hear(self, message: CloudMessage, now_s: float = 0.0) -> Event | None:
        return self.link.receive(session.encode(message), NOW, now_s)

    def open(self, **changes: object) -> Opened:
        self.hello()
        welcome = Welcome(1, 8, NOW, **changes)  # type: ignore[arg-type]  # a test's fields
        opened = self.hear(welcome)
        assert isinstance(opened, Opened)
        self.link.begin(Stored(0, 0, {}), opened.withheld)
        return opened

    def send(self, seq: int, of: WrappedEpoch) -> list[session.EdgeMessage | None]:
        frame = Held(seq + 1, of.epoch, seq, b"frame")
        return [session.decode_edge(one) for one in self.link.data(frame, 0.0, late=False)]


def test_hello_says_who_and_which_versions() -> None:
    one = _epoch()
    hello = Talk(one).hello()
    assert (hello.edge, hello.protocol, hello.oldest) == (
        "ward-1",
        session.PROTOCOL,
        session.OLDEST,
    )
    assert hello.epochs == [one]


@pytest.mark.parametrize(
    "message",
    [
        session.Ack("e", [(0, 0)]),
        session.Credit(1),
        session.Pong(1, 2, 3),
        session.Close("overload"),
    ],
)
def test_before_welcome_nothing_else_is_taken(message: CloudMessage) -> None:
    talk = Talk(_epoch())
    talk.hello()
    with pytest.raises(SessionError):
        talk.hear(message)


def test_a_version_that_is_not_spoken_here_ends_the_session() -> None:
    for protocol in (session.OLDEST - 1, session.PROTOCOL + 1):
        talk = Talk(_epoch())
        talk.hello()
        with pytest.raises(SessionError, match="protocol"):
            talk.hear(Welcome(protocol, 8, NOW))


def test_a_second_welcome_and_text_end_the_session() -> None:
    talk = Talk(_epoch())
    talk.open()
    with pytest.raises(SessionError):
        talk.hear(Welcome(1, 8, NOW))
    with pytest.raises(SessionError, match="text"):
        talk.link.receive("hello", NOW, 0.0)


def test_a_message_of_a_newer_ingest_is_passed_over() -> None:
    talk = Talk(_epoch())
    talk.hello()
    newer = b"\x82\xa1t\xa5later\xa1x\x01"
    assert talk.link.receive(newer, NOW, 0.0) is None
    before = talk.link.state
    talk.open()
    assert talk.link.receive(newer, NOW, 0.0) is None
    assert (before, talk.link.state) == (State.GREETING, State.OPEN)


def test_an_epoch_is_told_before_its_first_frame_and_once() -> None:
    one, later = _epoch(), _epoch()
    talk = Talk(one)
    talk.open()
    assert talk.send(0, one) == [Data(b"frame", 0)]
    assert talk.link.offer([Held(9, later.epoch, 0, b"frame")], later, 0.0)
    assert talk.send(0, later) == [Epoch(later), Data(b"frame", 0)]
    assert talk.send(1, later) == [Data(b"frame", 0)]


def test_acknowledgements_are_of_frames_that_this_session_sent() -> None:
    one = _epoch()
    talk = Talk(one)
    talk.open()
    talk.send(3, one)
    assert talk.hear(session.Ack(one.epoch, [(0, 9)])) == Acked(one.epoch, [(3, 3)])
    assert talk.hear(session.Ack("other", [(0, 9)])) == Acked("other", [])


def test_resume_points_are_believed_of_frames_that_were_sent() -> None:
    one, other = _epoch(), _epoch()
    talk = Talk(one, other)
    talk.open()
    for seq in (0, 1, 2, 5):
        talk.send(seq, one)
    talk.link.end()
    opened = talk.open(
        resume=[
            (one.epoch, [(0, 2), (4, 5), (5, 5), (7, 9)]),
            (other.epoch, [(0, 0)]),
            ("never heard of", [(0, 2**32)]),
        ]
    )
    assert opened.resume == [(one.epoch, [(0, 2), (5, 5)])]


def test_epochs_of_a_key_that_ingest_has_not_are_withheld() -> None:
    ours, theirs = _epoch(), _epoch(X25519PrivateKey.generate())
    talk = Talk(ours, theirs)
    assert talk.open(keys=[ours.key_id]).withheld == {theirs.epoch}
    assert not talk.link.offer([Held(1, theirs.epoch, 0, b"frame")], theirs, 0.0)
    assert talk.outbox.next_live() is None
    assert talk.link.offer([Held(2, ours.epoch, 0, b"frame")], ours, 0.0)
    assert talk.outbox.next_live() is not None
    talk.link.end()
    assert talk.open(keys=[]).withheld == frozenset(), "an ingest that does not say holds all"


def test_credit_is_taken_from_welcome_and_after() -> None:
    one = _epoch()
    talk = Talk(one)
    talk.open()
    assert talk.hear(session.Credit(0)) == Room()
    talk.link.offer([Held(1, one.epoch, 0, b"frame")], one, 0.0)
    assert talk.outbox.next_live() is None
    talk.hear(session.Credit(1))
    assert talk.outbox.next_live() is not None


def test_heartbeats_measure_the_clock() -> None:
    talk = Talk(_epoch())
    talk.open()
    assert talk.hear(session.Pong(NOW - 20, NOW + 500, NOW + 500)) == Measured(510, 20)


def test_settings_are_handed_on_unjudged() -> None:
    talk = Talk(_epoch())
    talk.open()
    settings = session.Settings(3, b"x", "k", b"s")
    assert talk.hear(settings) == Offered(settings)


def test_why_ingest_closed_is_told_in_known_words_only() -> None:
    talk = Talk(_epoch())
    talk.open()
    with pytest.raises(SessionError, match="superseded"):
        talk.hear(session.Close("superseded"))
    with pytest.raises(SessionError, match="unknown"):
        talk.hear(session.Close("Ada Ng", "mrn=M1"))


def test_what_was_ever_sent_is_known_for_folding() -> None:
    one = _epoch()
    talk = Talk(one)
    talk.open()
    for seq in (4, 2):
        talk.send(seq, one)
    talk.link.end()
    assert talk.link.highest_sent() == {one.epoch: 4}
    assert talk.link.was_sent(Held(1, one.epoch, 2, b""))
    assert not talk.link.was_sent(Held(1, one.epoch, 3, b""))
