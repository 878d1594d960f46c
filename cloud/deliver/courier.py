"""One record of ``fhir`` to its end: stored by the server, or a dead letter that Kafka has.

Law: `deliver` returns only when every resource of the record is one or the other; before that it
asks again, for ever if need be. It returns in no other way than by an exception, and then the
record is not done. Only content that a FHIR R4 server itself refused is given up: before each dead
letter the server has to show its CapabilityStatement, so that a wrong address, a proxy's error page
or a server that is being set up costs waiting and nothing else.

============ ========================================= =====================================
verdict      of the Bundle                             of one resource
============ ========================================= =====================================
STORED       entries not stored: each by PUT           done
AGAIN        backoff, again                            backoff, again
FAULT        as AGAIN; after `give_up_s`: each by PUT  as AGAIN; after `give_up_s`: dead letter
LOGIN        as AGAIN (a new token was tried already)  as AGAIN
CONFLICT     as AGAIN, CONFLICTS_MAX times; then each  as AGAIN, CONFLICTS_MAX times; then
             by PUT                                    dead letter
REFUSED      each by PUT, in order                     dead letter
============ ========================================= =====================================
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from cloud.deliver import metrics
from cloud.deliver.answer import (
    Answer,
    Unintelligible,
    Verdict,
    backoff_s,
    check_stored,
    left_of,
    retry_after_s,
    verdict_of,
)
from cloud.deliver.bundle import Entry, Malformed, entries_of
from cloud.deliver.connection import Unanswered
from cloud.deliver.server import Server
from cloud.records import Undelivered
from healthsync.runtime.log import Log

CONFLICTS_MAX: Final = 5
"""Another writer is done within a second or two; a rule of the server is for ever."""

OUTCOME_BYTES_MAX: Final = 16 * 1024
"""What is kept of a server's word on a refusal."""


class Record(NamedTuple):
    """A record of ``fhir`` and where it lies."""

    partition: int
    offset: int
    key: bytes
    value: bytes | None
    time_ms: int
    """When it was written, by its writer's clock; 0 or less: not known."""


class Decided(NamedTuple):
    """What `_decide` ends with; ``left``: entries of a stored transaction that are not."""

    verdict: Verdict
    answer: Answer
    left: list[int]


class Courier:
    """Used by one thread."""

    def __init__(
        self,
        server: Server,
        bury: Callable[[Record, Undelivered], None],
        pause: Callable[[float], None],
        now_ms: Callable[[], int],
        chance: Callable[[], float],
        log: Log,
        give_up_s: float = 0.0,
    ) -> None:
        """``bury`` returns when Kafka has the letter; ``pause`` waits, and raises to end it all."""
        self._server = server
        self._bury = bury
        self._pause = pause
        self._now_ms = now_ms
        self._chance = chance
        self._log = log
        self._give_up_s = give_up_s
        self._is_known = False

    def deliver(self, record: Record) -> None:
        """Return when the record is done."""
        try:
            entries = entries_of(record.value)
        except Malformed as error:
            letter = self._letter(record, "malformed", 0, "", record.value or b"", b"")
            self._give_up(record, letter, error.why)
            metrics.BUNDLES.inc()
            return
        if not self._is_known:
            self._know(record)
        body = record.value or b""
        decided = self._decide(
            record,
            lambda: self._server.transact(body),
            lambda answer: _of_transaction(answer, len(entries)),
        )
        left = decided.left if decided.verdict is Verdict.STORED else range(len(entries))
        metrics.RESOURCES.inc(len(entries) - len(left))
        if left:
            self._log.warning(
                "split",
                partition=record.partition,
                offset=record.offset,
                status=decided.answer.status,
                resources=len(left),
            )
        for at in left:
            self._put(record, entries[at])
        metrics.BUNDLES.inc()

    def _put(self, record: Record, entry: Entry) -> None:
        while True:
            verdict, answer, _ = self._decide(
                record, lambda: self._server.put(entry.url, entry.body), _of_put
            )
            if verdict is Verdict.STORED:
                metrics.RESOURCES.inc()
                return
            if self._know(record):
                break  # it answered as R4 at once: the refusal was its own
        outcome = answer.body[:OUTCOME_BYTES_MAX]
        reason = _REASONS[verdict]
        letter = self._letter(record, reason, answer.status, entry.url, entry.body, outcome)
        self._give_up(record, letter, reason)

    def _know(self, record: Record) -> bool:
        """Return when a FHIR R4 server answers; True: it did at the first question."""
        tries = 0
        while True:
            try:
                self._pause(0)
                self._is_known = self._server.is_r4()
                reason, retry_after = "not-r4", ""
            except Unanswered as error:
                reason, retry_after = error.reason, error.retry_after
                self._is_known = False
            if self._is_known:
                return tries == 0
            tries += 1
            self._again(record, tries, reason, 0, retry_after)

    def _decide(
        self, record: Record, ask: Callable[[], Answer], judge: Callable[[Answer], Decided]
    ) -> Decided:
        """Ask until the answer is one to act on: STORED, or one of `_REASONS`."""
        tries = conflicts = 0
        faulty_since_ms: int | None = None
        while True:
            self._pause(0)
            tries += 1
            try:
                answer = ask()
                decided = judge(answer)
            except Unanswered as error:
                faulty_since_ms = None
                self._again(record, tries, error.reason, 0, error.retry_after)
                continue
            except Unintelligible:
                faulty_since_ms = None
                self._again(record, tries, "answer", answer.status, "")
                continue
            verdict = decided.verdict
            if verdict in {Verdict.STORED, Verdict.REFUSED}:
                return decided
            if verdict is Verdict.CONFLICT:
                conflicts += 1
                if conflicts >= CONFLICTS_MAX:
                    return decided
            if verdict is not Verdict.FAULT:
                faulty_since_ms = None
            elif faulty_since_ms is None:
                faulty_since_ms = self._now_ms()
            elif 0 < 1000 * self._give_up_s <= self._now_ms() - faulty_since_ms:
                return decided
            self._again(record, tries, verdict.value, answer.status, answer.retry_after)

    def _again(
        self, record: Record, tries: int, reason: str, status: int, retry_after: str
    ) -> None:
        """Count a failure and wait."""
        wait_s = max(backoff_s(tries, self._chance()), retry_after_s(retry_after, self._now_ms()))
        metrics.RETRIES.labels(reason).inc()
        self._log.warning(
            "retry",
            partition=record.partition,
            offset=record.offset,
            reason=reason,
            status=status,
            tries=tries,
            wait_ms=round(1000 * wait_s),
        )
        self._pause(wait_s)

    def _letter(
        self, record: Record, reason: str, status: int, url: str, body: bytes, outcome: bytes
    ) -> Undelivered:
        return Undelivered(
            reason=reason,
            status=status,
            partition=record.partition,
            offset=record.offset,
            at_ms=self._now_ms(),
            url=url,
            body=body,
            outcome=outcome,
        )

    def _give_up(self, record: Record, letter: Undelivered, why: str) -> None:
        self._bury(record, letter)
        metrics.UNDELIVERED.labels(letter.reason).inc()
        self._log.error(
            "undelivered",
            partition=record.partition,
            offset=record.offset,
            reason=letter.reason,
            why=why,
            status=letter.status,
        )


_REASONS: Final = {
    Verdict.REFUSED: "refused",
    Verdict.CONFLICT: "conflict",
    Verdict.FAULT: "fault",
}
"""Why a resource is given up: `Undelivered.reason`."""


def _of_put(answer: Answer) -> Decided:
    verdict = verdict_of(answer.status)
    if verdict is Verdict.STORED:
        check_stored(answer.body)
    return Decided(verdict, answer, [])


def _of_transaction(answer: Answer, count: int) -> Decided:
    verdict = verdict_of(answer.status)
    left = left_of(answer.body, count) if verdict is Verdict.STORED else []
    return Decided(verdict, answer, left)
