"""What is in force: the configuration, the settings that the cloud pushed over it, and the clock.

Law: the one place that hands them to the parts that use them; open connections go on under them
with their next line. Nothing here touches the spool's content.
"""

from pathlib import Path
from typing import Final

import trio

from edge import metrics
from edge.collect import Collector
from edge.commit import Committer
from edge.config import Config, settings_key
from edge.gateway_clock import GatewayClock
from edge.pushed import Pushed
from edge.pushed_keeper import PushedKeeper
from edge.reload import Loaded
from edge.spool_quota import Quota
from edge.uplink import Uplink
from healthsync.runtime.log import Log
from vitals.session import Settings

SETTINGS_S: Final = 1.0
"""Between two looks at settings that are on trial."""

DAY_MS: Final = 86_400_000


def quota(config: Config) -> Quota:
    """Return what the spool may hold."""
    return Quota(
        config.spool_bytes_max,
        config.quarantine_bytes_max,
        int(config.spool_age_max_days * DAY_MS),
        refuse=config.spool_full == "refuse",
    )


class InForce:
    """Made once; `use` with every reading of the configuration."""

    def __init__(
        self,
        loaded: Loaded,
        collector: Collector,
        committer: Committer,
        uplink: Uplink,
        clock: GatewayClock,
        log: Log,
    ) -> None:
        """Take in use what was kept of the cloud's settings; raise ConfigError."""
        config = loaded.config
        self._loaded, self._clock, self._log = loaded, clock, log
        self._collector, self._committer, self._uplink = collector, committer, uplink
        self.keeper = PushedKeeper(
            config.edge_id, Path(config.state_dir), settings_key(config), collector.counts, log
        )
        self.keeper.use = self._use_pushed
        outcome = self.keeper.start()
        if outcome is not None:
            uplink.tell_outcome(*outcome)
        uplink.measured = self.measured
        uplink.pushed = self._pushed
        self.use(loaded)

    def _use_pushed(self, _pushed: Pushed) -> None:
        self.use(self._loaded)

    def use(self, loaded: Loaded) -> None:
        """Use the configuration, with what the cloud pushed over it."""
        self._loaded = loaded
        config, pushed = loaded.config, self.keeper.pushed
        setting = self._collector.setting
        setting.ward = config.ward if pushed.ward is None else pushed.ward
        setting.zone = config.zone if pushed.zone is None else pushed.zone
        setting.vendor = loaded.vendor if pushed.vendor is None else pushed.vendor
        setting.devices, setting.admission = pushed.devices, config.admission
        self._collector.connections_max = config.connections_max
        self._committer.set_quota(quota(config))
        self._uplink.set_order(config.backlog_order)
        self._uplink.settings_version = self.keeper.version

    def measured(self, off_ms: float, delay_ms: float) -> None:
        """Take the cloud's clock minus this gateway's."""
        if self._clock.measured(off_ms, delay_ms):
            self._log.warning("clock-corrected", by_ms=round(self._clock.correction_ms))
            self._uplink.clock_moved()
            off_ms = 0.0
        metrics.CLOCK_OFFSET_MS.set(off_ms + self._clock.correction_ms)
        self._collector.skews.gateway_off(off_ms)

    async def _pushed(self, settings: Settings) -> tuple[str, str]:
        outcome = self.keeper.offered(settings, trio.current_time())
        self._uplink.settings_version = self.keeper.version
        return outcome

    async def watch(self) -> None:
        """Judge settings that are on trial, until cancelled."""
        while True:
            outcome = self.keeper.watch(trio.current_time())
            if outcome is not None:
                self._uplink.settings_version = self.keeper.version
                self._uplink.tell_outcome(*outcome)
            await trio.sleep(SETTINGS_S)
