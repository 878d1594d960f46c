"""``healthsync cloud pull-crl --config FILE``: the lists, from the authority to HAProxy.

Ends on SIGTERM or SIGINT only. What cannot be had leaves what is there as it is.
"""

import http.client
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge

from cloud.revocation import lists
from cloud.revocation.config import PullConfig, Source
from cloud.revocation.lists import ListRefused, Lists
from healthsync.runtime import config as config_
from healthsync.runtime import metrics as metrics_
from healthsync.runtime import rounds, tls, whole
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.haproxy import Runtime
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop
from vitals.errors import ConfigError

ANSWER_S_MAX: Final = 5.0
BUFFER_BYTES: Final = 65_536
"""``tune.bufsize`` in cloud.cfg.j2."""

AGAIN_S: Final = 5.0
"""After a round that failed."""

FAILURES = Counter("healthsync_crl_failures_total", "Lists not had or not believed", ["reason"])
ENTRIES = Gauge("healthsync_crl_entries", "Revoked certificates in the lists in use")
EXPIRES = Gauge("healthsync_crl_expires_seconds", "Until the next list is due, below 0: overdue")
IN_HAPROXY = Gauge("healthsync_crl_in_haproxy", "1: the running HAProxy has the lists in use")


def fetch(source: Source) -> bytes:
    """Return what the authority answers; raise OSError, HTTPException or ListRefused."""
    context = tls.client(source.ca, source.cert, source.key)
    raw = _connect(source, context)
    connection = http.client.HTTPSConnection(source.host, source.port, timeout=ANSWER_S_MAX)
    connection.sock = raw
    try:
        connection.request("GET", source.path, headers={"Host": source.tls_name})
        answer = connection.getresponse()
        body = answer.read(lists.BYTES_MAX + 1)
    finally:
        connection.close()
    if answer.status != 200:
        raise ListRefused(f"the authority answered {answer.status}")
    return body


def _connect(source: Source, context: ssl.SSLContext) -> ssl.SSLSocket:
    import socket

    plain = socket.create_connection((source.host, source.port), ANSWER_S_MAX)
    try:
        secure = context.wrap_socket(plain, server_hostname=source.tls_name)
    except BaseException:
        plain.close()
        raise
    tls.require_suite(secure.cipher())
    return secure


class Puller:
    """Holds which lists are in use."""

    def __init__(
        self,
        settings: PullConfig,
        fetch: Callable[[], bytes],
        now: Callable[[], datetime],
        log: Log,
    ) -> None:
        """Read what is on disk; raise ConfigError when the authorities cannot be read."""
        self._settings, self._fetch, self._now, self._log = settings, fetch, now, log
        try:
            self._among = lists.authorities(settings.ca.read_bytes())
        except (OSError, ListRefused) as error:
            kind = type(error).__name__
            raise ConfigError(f"{settings.ca}: no authorities there ({kind}); see ca") from error
        self._told = False
        self._failing: frozenset[str] = frozenset()
        self.used: Lists | None = None
        try:
            self.used = lists.check(settings.file.read_bytes(), self._among)
        except (OSError, ListRefused) as error:
            log.warning("crl-on-disk-unusable", error=type(error).__name__)

    def round(self) -> bool:
        """Ask, check, write, tell HAProxy; return False to be called again soon."""
        failing = {reason for reason in (self._pull(), self._tell()) if reason}
        self._failing = frozenset(failing)
        self._watch_age()
        return not failing

    def _pull(self) -> str:
        try:
            pem = self._fetch()
            if self.used is None or pem != self.used.pem:
                before = None if self.used is None else self.used.numbers
                self._use(lists.check(pem, self._among, before))
        except ListRefused as error:
            return self._fail("refused", str(error))
        except (OSError, http.client.HTTPException) as error:
            return self._fail("unreachable", type(error).__name__)
        return ""

    def _use(self, found: Lists) -> None:
        whole.write(self._settings.file, found.pem, mode=0o644)
        self.used, self._told = found, False
        self._log.info("crl", entries=len(found.serials), numbers=sorted(found.numbers.values()))

    def _tell(self) -> str:
        settings, used = self._settings, self.used
        if used is None or self._told or not settings.haproxy_socket:
            return ""
        try:
            runtime = Runtime(settings.haproxy_socket, BUFFER_BYTES)
            runtime.replace("crl-file", str(settings.file), used.pem)
        except OSError as error:
            IN_HAPROXY.set(0)
            return self._fail("haproxy", str(error) or type(error).__name__)
        self._told = True
        IN_HAPROXY.set(1)
        return ""

    def _watch_age(self) -> None:
        if self.used is None:
            return
        left_s = (self.used.next_update - self._now()).total_seconds()
        ENTRIES.set(len(self.used.serials))
        EXPIRES.set(left_s)
        if left_s < 0:
            self._log.error("crl-overdue", since_s=round(-left_s))

    def _fail(self, reason: str, detail: str) -> str:
        """Count a failure, say it when the round before had none of its kind; return the reason."""
        FAILURES.labels(reason).inc()
        if reason not in self._failing:
            self._log.warning("crl-failed", reason=reason, detail=detail[:200])
        return reason


def run(config: Path) -> int:
    """Pull until told to stop; return the exit code."""
    settings = config_.load(config, PullConfig)
    log = Log("pull-crl", now_ms)
    stop = Stop()
    puller = Puller(settings, lambda: fetch(settings.source), lambda: datetime.now(UTC), log)
    metrics_.serve(settings.metrics.port)
    log.info("serving", every_s=settings.every_s)

    def work() -> float:
        return settings.every_s if puller.round() else min(settings.every_s, AGAIN_S)

    rounds.run(stop, work)
    log.info("stopped", code=Exit.OK.value)
    return Exit.OK
