"""Keeps the gateway's certificate good: tells HAProxy, proves, renews, recovers (ENROL.md).

Law: blocking, for a thread of its own; each `step` does what is due and returns, within the bounds
of its calls. Whatever fails is a state and a code in ``view``, tried again later, never raised.
Times come from the gateway's clock, pauses from a monotonic one. An answer to a certificate that
was replaced meanwhile is thrown away.
"""

import base64
import random
import time
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from edge import est, est_call
from edge.certificate_store import (
    ENROL,
    RENEW,
    Attempt,
    Authority,
    CertificateStore,
    Held,
    bundle,
    make_attempt,
)
from edge.est import Declined, EstError, NotNow, Pending
from edge.est_call import Answer, Server
from edge.haproxy_socket import HaproxySocket
from edge.renewal import REFUSED_S, State, View, due_ms, retry_s
from healthsync.runtime.haproxy import HaproxyError
from healthsync.runtime.log import Log
from vitals import enrolment
from vitals.errors import ConfigError

LOOPBACK: Final = "127.0.0.1"
TELL_S: Final = 10.0
"""Between two tries to reach HAProxy's socket."""

PROVE_S: Final = 20.0
"""A new certificate has so long to pass: HAProxy's own checks come each second."""

PROVE_AGAIN_S: Final = 60.0
HEALTH_CALL_S: Final = 5.0
HEALTH_PAUSE_S: Final = 1.0


class CertificateKeeper:
    """Made once; call `step` about once a second."""

    def __init__(
        self,
        name: str,
        store: CertificateStore,
        haproxy: HaproxySocket | None,
        uplink_port: int,
        log: Log,
        now_ms: Callable[[], int],
        mono_s: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Open nothing. ``haproxy`` None: it can not be told."""
        self._name, self._store, self._haproxy = name, store, haproxy
        self._uplink = Server(LOOPBACK, uplink_port)
        self._log, self._now_ms, self._mono_s = log, now_ms, mono_s
        self._pause, self._jitter = pause, jitter
        self._seen: tuple[int, int, int] | None = None
        self._unproven: Held | None = None
        self._tell_at = self._prove_at = self._try_at = 0.0
        self._deaf, self._last_code = False, ""  # what was logged is not logged again
        self.held: Held | None = None
        """What HAProxy is to use."""
        self.view = View(State.NONE)

    def prepare(self) -> None:
        """Make a placeholder where there is no certificate."""
        try:
            if self._store.ensure_placeholder(self._name):
                self._log.warning("certificate-placeholder-made")
        except OSError as error:
            self._failed("folder-unusable", type(error).__name__)

    def step(self) -> None:
        """Do what is due."""
        try:
            self._look()
            self._tell()
            self._prove()
            self._renew()
        except (OSError, ValueError) as error:
            self._failed("folder-unusable", type(error).__name__)

    def _show(self, **changes: object) -> None:
        self.view = msgspec.structs.replace(self.view, **changes)

    def _failed(self, code: str, error: str) -> None:
        if self.view.trouble != code:
            self._log.error("certificate-trouble", code=code, error=error)
        self._show(trouble=code)

    # -- what lies in the folder ----------------------------------------------------------------

    def _look(self) -> None:
        changed = self._store.changed()
        if changed is not None and changed == self._seen and self.held is not None:
            return
        if changed is None or self.held is None:
            self.prepare()
            changed = self._store.changed()
        self.held = self._store.held()
        self._unproven = self._store.previous()
        self._seen = changed
        told = None if self._haproxy is None else False
        self.view = View(State.NONE, told=told, proven=self._unproven is None)
        self._tell_at = self._prove_at = self._try_at = 0.0

    # -- HAProxy --------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Make HAProxy use what the folder holds; at start it may hold something else."""
        if self._haproxy is None or self.held is None or self.view.told:
            return
        if self._mono_s() < self._tell_at:
            return
        try:
            if self._haproxy.serial() != self.held.leaf.serial_number:
                self._haproxy.use(self.held.raw)
                self._log.info("certificate-told", serial=self.held.serial)
        except HaproxyError as error:
            self._tell_at = self._mono_s() + TELL_S
            if not self._deaf:
                self._log.warning("haproxy-not-told", reason=str(error))
            self._deaf = True
            self._show(trouble="haproxy-not-told")
            return
        self._deaf = False
        trouble = "" if self.view.trouble == "haproxy-not-told" else self.view.trouble
        self._show(told=True, trouble=trouble)

    def _healthy(self, seconds: float) -> bool:
        """Tell whether a request gets through HAProxy to the cloud within a bound."""
        end = self._mono_s() + seconds
        while True:
            try:
                answer = est_call.call(
                    self._uplink, "GET", "/health", now_ms=0, seconds=HEALTH_CALL_S
                )
            except EstError:
                pass
            else:
                if answer.status == 200:
                    return True
            if self._mono_s() >= end:
                return False
            self._pause(HEALTH_PAUSE_S)

    def _prove(self) -> None:
        """Forget the certificate before when the new one works; put it back when only it does."""
        if self.held is None or self.view.proven or not self.view.told or self._haproxy is None:
            return
        if self._mono_s() < self._prove_at:
            return
        before = self._unproven
        if before is None or before.serial == self.held.serial:
            self._store.proven()
            self._show(proven=True)
            return
        if self._healthy(PROVE_S):
            self._proven(self.held)
            return
        self._prove_at = self._mono_s() + PROVE_AGAIN_S
        if before.placeholder or self._now_ms() >= before.ends_ms:
            return  # nothing better is at hand
        try:
            self._haproxy.use(before.raw)
            old_works = self._healthy(PROVE_S)
            self._haproxy.use(self.held.raw)
        except HaproxyError:
            self._show(told=False)  # it is asked anew which one it has
            return
        if not old_works:
            return  # the line is down: neither is to blame
        if self._healthy(PROVE_S):  # the line was down, and came back in between
            self._proven(self.held)
            return
        self._put_back(self.held)

    def _proven(self, held: Held) -> None:
        self._store.proven()
        self._unproven = None
        self._log.info("certificate-proven", serial=held.serial)
        self._show(proven=True, failures=0)

    def _put_back(self, bad: Held) -> None:
        if not self._store.put_back(instead_of=bad.serial):
            return  # somebody enrolled meanwhile
        failures = self.view.failures
        self._store.end_attempt(RENEW)
        self._look()
        self._log.error("certificate-put-back", serial=bad.serial)
        self._show(state=State.RENEWING, failures=failures)
        self._later("new-certificate-refused", None)
        self._tell()

    # -- renewal --------------------------------------------------------------------------------

    def _renew(self) -> None:
        held = self.held
        if held is None:
            return
        if held.placeholder:
            begun = self._store.attempt(ENROL) is not None
            self._show(state=State.ENROLLING if begun else State.NONE)
            return
        now_ms = self._now_ms()
        if now_ms < due_ms(held.begins_ms, held.ends_ms, held.serial):
            kept = "haproxy-not-told"
            self._show(
                state=State.VALID, trouble=kept if self.view.trouble == kept else "", failures=0
            )
            return
        ended = now_ms >= held.ends_ms
        if ended and self.view.state in {State.NONE, State.VALID, State.RENEWING}:
            self._show(state=State.EXPIRED)
            self._try_at = 0.0  # another way from now on
        elif not ended and self.view.state in {State.EXPIRED, State.AWAITING}:
            self._show(state=State.RENEWING)  # the clock was ahead
            self._try_at = 0.0
        elif self.view.state in {State.NONE, State.VALID}:
            self._show(state=State.RENEWING)
        if self._mono_s() < self._try_at:
            return
        try:
            self._ask(held, ended=ended)
        except EstError as error:
            self._declined(error, ended=ended)
        except (ConfigError, ValueError):
            self._declined(Declined("authority-unusable", "enrol anew"), ended=ended)
        except OSError:
            self._later("folder-unusable", None)

    def _declined(self, error: EstError, *, ended: bool) -> None:
        state = self.view.state
        if isinstance(error, Pending) and ended:
            state = State.AWAITING
        elif error.code in est.FINAL:
            state = State.REFUSED
        elif not isinstance(error, NotNow) or state != State.AWAITING:
            state = State.EXPIRED if ended else State.RENEWING
        self._show(state=state)
        self._later(error.code, REFUSED_S if state == State.REFUSED else error.retry_s)

    def _later(self, code: str, wait_s: float | None) -> None:
        """Note a failure and when to try again."""
        if self.held is None:
            return
        failures = self.view.failures + 1
        left_s = (self.held.ends_ms - self._now_ms()) / 1000
        wait_s = retry_s(failures, left_s, self._jitter()) if wait_s is None else wait_s
        self._try_at = self._mono_s() + wait_s
        if self._last_code != code:
            self._log.warning("certificate-not-renewed", code=code, retry_s=round(wait_s))
        self._last_code = code
        self._show(trouble=code, failures=failures)

    def _ask(self, held: Held, *, ended: bool) -> None:
        attempt = self._attempt(held)
        public = attempt.private.public_key()
        authority = self._authority(held, ended=ended)
        if ended:
            self._show(fingerprint=est.fingerprint(public))
            answer = self._by_old_key(attempt, held, authority)
        else:
            answer = self._post(self._uplink, attempt)
        est.outcome(answer.status, answer.retry_after, answer.body)
        now_ms = self._now_ms()
        found = est.read_certificates(answer.body)
        chain = est.accept(found, self._name, public, authority.certificates, now_ms)
        raw = bundle(chain, attempt.private)
        if not self._store.install(raw, instead_of=held.serial):
            return  # somebody enrolled meanwhile
        self._store.end_attempt(RENEW)
        failures = self.view.failures
        self._look()
        self._show(state=State.VALID, failures=failures)
        self._last_code = ""
        self._log.info("certificate-renewed", serial=self.held.serial if self.held else "")
        self._tell()
        self._prove()

    def _attempt(self, held: Held) -> Attempt:
        """Return the attempt to follow ``held``, on the disk before it is used."""
        attempt = self._store.attempt(RENEW)
        if attempt is None or attempt.renews != held.serial:
            attempt = make_attempt(self._name, renews=held.serial)
            self._store.keep_attempt(RENEW, attempt)
        return attempt

    def _authority(self, held: Held, *, ended: bool) -> Authority:
        """Return who issued; ask through HAProxy when nobody enrolled here."""
        authority = self._store.authority()
        if authority is not None:
            return authority
        if ended:
            step = "no EST server is known here; ask for an enrolment file and enrol"
            raise Declined("authority-unknown", step)
        answer = est_call.call(self._uplink, "GET", f"{enrolment.PATH}cacerts", now_ms=0)
        est.outcome(answer.status, answer.retry_after, answer.body)
        found = est.read_certificates(answer.body)
        # It is the one that issued what we hold, or it is nobody.
        mine = [held.leaf, *found]
        est.accept(mine, self._name, held.key.public_key(), found, held.begins_ms)
        authority = Authority(est_call.pem(found))
        self._store.keep_authority(authority)
        return authority

    def _by_old_key(self, attempt: Attempt, held: Held, authority: Authority) -> Answer:
        if not authority.est:
            step = "no EST server is known here; ask for an enrolment file and enrol"
            raise Declined("authority-unknown", step)
        old = base64.b64encode(held.leaf.public_bytes(Encoding.DER)).decode()
        signature = base64.b64encode(est.prove(attempt.der, held.key)).decode()
        proof = (("x-renewal-certificate", old), ("x-renewal-signature", signature))
        return self._post(est_call.server(authority.est, authority.ca), attempt, *proof)

    def _post(self, at: Server, attempt: Attempt, *headers: tuple[str, str]) -> Answer:
        return est_call.call(
            at,
            "POST",
            f"{enrolment.PATH}simplereenroll",
            (*est_call.PKCS10, *headers),
            est.to_body(attempt.der),
            now_ms=self._now_ms(),
        )
