"""Runs the certificate's keeper beside the collection, in a thread, and shows what it sees.

Law: collection never depends on it. A defect here is logged and looked at again a minute later;
a stop abandons the thread, whose writes are whole or not there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from edge import certificate, metrics
from edge.certificate_keeper import CertificateKeeper
from edge.certificate_store import CertificateStore
from edge.config import Config
from edge.haproxy_socket import HaproxySocket
from healthsync.runtime.log import Log

LOOK_S: Final = 1.0
DEFECT_S: Final = 60.0
LINK_LOOK_S: Final = 60.0
"""Between two looks at a ``link_certificate`` that somebody else renews."""


class Renewal:
    """Made once; without a folder it only reads when ``link_certificate`` ends."""

    def __init__(self, config: Config, log: Log, now_ms: Callable[[], int]) -> None:
        """Open nothing."""
        self._log, self._now_ms = log, now_ms
        self.link_certificate = config.link_certificate
        """May be assigned anew."""
        self._keeper: CertificateKeeper | None = None
        if config.certificate.folder:
            socket = config.certificate.haproxy_socket
            store = CertificateStore(Path(config.certificate.folder))
            haproxy = HaproxySocket(socket, str(store.path)) if socket else None
            self._keeper = CertificateKeeper(
                config.edge_id, store, haproxy, config.uplink_port, log, now_ms
            )

    def status(self) -> dict[str, Any] | None:
        """Return the keeper's view (CONTROL.md); None when the certificate is not kept here."""
        if self._keeper is None:
            return None
        view = self._keeper.view
        return {name: getattr(view, name) for name in view.__struct_fields__}

    def prepare(self) -> None:
        """Make what HAProxy needs to start, before this program says that it is ready."""
        if self._keeper is not None:
            self._keeper.prepare()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            pause_s = LOOK_S if self._keeper else LINK_LOOK_S
            try:
                ends_ms = await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
            except Exception as error:  # noqa: BLE001 - a defect here never ends the collection
                self._log.crash("renewal-crashed", error)
                pause_s = DEFECT_S
            else:
                if ends_ms is not None:
                    left_s = (ends_ms - self._now_ms()) / 1000
                    metrics.CERTIFICATE_EXPIRES.labels("link").set(left_s)
            await trio.sleep(pause_s)

    def _look(self) -> int | None:
        """Return when the certificate ends, None when there is none."""
        if self._keeper is not None:
            self._keeper.step()
            held = self._keeper.held
            return None if held is None or held.placeholder else held.ends_ms
        if not self.link_certificate:
            return None
        try:
            return certificate.read(Path(self.link_certificate)).ends_ms
        except (OSError, ValueError):
            return None  # `status` says so
