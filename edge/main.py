"""Runs the gateway: collector, committer, uplink, control socket, one process.

Law: stops in the order of the flow (no more input, last commit, last answers, link closed), so
that a clean stop loses nothing. SIGTERM and SIGINT stop, SIGHUP reads the configuration again.
systemd's watchdog is fed only while data can flow. Exit codes are `healthsync.runtime.exits`.
"""

import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from edge import clock_floor, reload
from edge.collect import Collector
from edge.commit import Committer
from edge.config import Config
from edge.control import Control
from edge.gateway_clock import GatewayClock
from edge.in_force import InForce, quota
from edge.live import Recent, read_registry
from edge.pulse import Pulse
from edge.reload import Loaded
from edge.renew import Renewal
from edge.seal import Sealing
from edge.uplink import Uplink, leaves
from healthsync import __version__
from healthsync.runtime import clock, cycles
from healthsync.runtime import metrics as metrics_port
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify, watchdog_interval_s
from vitals.errors import ConfigError

STATE_MODE: Final = 0o750

PULSE_S: Final = 5.0
"""Between two looks at the program's health when systemd asks for none."""


class Gateway:
    """The parts, put together; made once a process."""

    def __init__(self, path: Path, loaded: Loaded, log: Log, time: GatewayClock) -> None:
        """Open the spool and the ports; raise sqlite3.Error or OSError."""
        self._path, self._loaded, self._log = path, loaded, log
        self._clock = time
        now_ms = time.now_ms
        self._started_ms = now_ms()
        config = loaded.config
        self._sealing = Sealing(config.edge_id, _key(loaded), self._started_ms)
        self._committer = Committer(config.spool_path, quota(config), self._sealing, log, now_ms)
        self._uplink = Uplink(
            config.edge_id, config.uplink_port, config.spool_path, self._committer, log, now_ms
        )
        self._committer.stored = self._uplink.offer
        self._collector = Collector(config, self._committer, log, now_ms)
        self._committer.upkeep.heard = self._collector.devices.counted
        self._in_force = InForce(loaded, self._collector, self._committer, self._uplink, time, log)
        self._renewal = Renewal(config, log, now_ms)
        self._collecting = True
        self._stopping = False
        self._recent = Recent()
        self._reloading = trio.Lock()
        self._reloaded: dict[str, Any] = {
            "at_ms": None,
            "error": "",
            "applied": [],
            "restart_needed": [],
        }
        _listen(self._collector, config)
        metrics_port.serve(config.metrics_port)

    # -- what the technician sees ---------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the program's own part of the picture (edge/CONTROL.md)."""
        now_ms = self._clock.now_ms()
        live, rejects = read_registry()
        late, eta_s = self._uplink.progress()
        keeper = self._in_force.keeper
        return {
            "edge": self._loaded.config.edge_id,
            "version": __version__,
            "epoch": self._sealing.epoch.epoch,
            "started_ms": self._started_ms,
            "uptime_s": max(0.0, (now_ms - self._started_ms) / 1000),
            "stopping": self._stopping,
            "commit_stuck_s": round(self._committer.stuck_s(), 1),
            "live": live,
            "rejects": rejects,
            "recent": self._recent.grown(now_ms, live, rejects),
            "reload": self._reloaded,
            "late": {
                "frames": late,
                "eta_s": None if eta_s is None else round(eta_s, 1),
                "withheld_epochs": self._uplink.withheld,
            },
            "settings": {
                "version": keeper.version,
                "on_trial": keeper.on_trial,
                "trouble": keeper.trouble,
            },
            "certificate": self._renewal.status(),
            "clock": {"correction_ms": round(self._clock.correction_ms)},
        }

    # -- the configuration, again ---------------------------------------------------------------

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again and use what can change; return what became of it."""
        async with self._reloading:
            try:
                new = await trio.to_thread.run_sync(reload.load, self._path)
            except ConfigError as error:
                self._log.error("reload-refused", reason=str(error))
                self._reloaded = self._reloaded | {
                    "at_ms": self._clock.now_ms(),
                    "error": str(error),
                }
                return self._reloaded
            change = reload.compare(self._loaded, new)
            self._loaded = change.loaded
            self._in_force.use(change.loaded)
            self._renewal.link_certificate = change.loaded.config.link_certificate
            self._log.info("reloaded", changed=change.applied)
            if change.restart_needed:
                self._log.warning("restart-needed", keys=change.restart_needed)
            self._reloaded = {
                "at_ms": self._clock.now_ms(),
                "error": "",
                "applied": change.applied,
                "restart_needed": change.restart_needed,
            }
            return self._reloaded

    # -- tasks ----------------------------------------------------------------------------------

    async def serve(self, ready: Callable[[], None], early: list[int]) -> None:
        """Run every part until SIGTERM or SIGINT; ``early``: reloads asked for before."""
        stop = trio.Event()
        config = self._loaded.config
        control = Control(
            self._collector.devices,
            self._collector.skews.skew_ms,
            self.status,
            self.reload,
            self._log,
            self._clock.now_ms,
        )
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as whole:
                whole.start_soon(self._signals, signals, stop)
                whole.start_soon(self._uplink.run)
                whole.start_soon(self._pulse)
                whole.start_soon(self._in_force.watch)
                whole.start_soon(self._renewal.run)
                whole.start_soon(self._keep_time)
                await whole.start(control.serve, config.control_path)
                async with trio.open_nursery() as keeping:
                    keeping.start_soon(self._committer.run)
                    async with trio.open_nursery() as taking:
                        taking.start_soon(self._collect)
                        await trio.to_thread.run_sync(self._renewal.prepare)
                        ready()
                        if early:
                            await self._hang_up()
                        await stop.wait()
                        self._stopping = True
                        notify("STOPPING=1")
                        self._log.info("stopping")
                        taking.cancel_scope.cancel()
                    self._committer.stop()
                self._collector.close()
                whole.cancel_scope.cancel()

    async def _signals(self, signals: AsyncIterator[int], stop: trio.Event) -> None:
        # To the end: one that nobody took would be raised anew when the program is done.
        async for number in signals:
            if number != signal.SIGHUP:
                stop.set()
            elif not stop.is_set():
                await self._hang_up()

    async def _hang_up(self) -> None:
        try:
            await self.reload()
        except Exception as error:  # noqa: BLE001 - a defect here never ends the collection
            self._log.crash("reload-crashed", error)

    async def _collect(self) -> None:
        try:
            await self._collector.run()
        finally:
            self._collecting = False

    async def _keep_time(self) -> None:
        """Remember the time, so that no later start begins before it."""
        folder = Path(self._loaded.config.state_dir)
        try:
            while True:
                now_ms = self._clock.now_ms()
                await trio.to_thread.run_sync(clock_floor.save, folder, now_ms)
                await trio.sleep(clock_floor.SAVE_S)
        finally:
            clock_floor.save(folder, self._clock.now_ms())

    async def _pulse(self) -> None:
        interval_s = watchdog_interval_s()
        pause_s = PULSE_S if interval_s is None else min(interval_s, PULSE_S)
        pulse = Pulse(self._log)
        while True:
            beats = pulse.beats(
                self._committer.stuck_s(), collecting=self._collecting, stopping=self._stopping
            )
            if beats and interval_s is not None:
                notify("WATCHDOG=1")
            if self._recent.due(self._clock.now_ms()):
                self._recent.note(self._clock.now_ms(), *read_registry())
            await trio.sleep(pause_s)


def _key(loaded: Loaded) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(loaded.public)


def _listen(collector: Collector, config: Config) -> None:
    host = config.listen_host
    for port, kind in ((config.line_port, "line"), (config.mllp_port, "mllp")):
        if port is not None:
            collector.listen("line" if kind == "line" else "mllp", host, port)
    # Whoever may call these may claim any address: HAProxy on this machine alone.
    if config.line_proxy_port is not None:
        collector.listen("line", "127.0.0.1", config.line_proxy_port, proxied=True)
    if config.mllp_proxy_port is not None:
        collector.listen("mllp", "127.0.0.1", config.mllp_proxy_port, proxied=True)


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)


def run(path: Path) -> int:
    """Run with the configuration at ``path`` until asked to stop; return an exit code."""
    # Until Trio takes it over, and after, a reload is no reason to die.
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: early.append(number))
    loaded = reload.load(path)
    config = loaded.config
    gateway_clock = GatewayClock(clock.now_ms, clock_floor.read(config))
    log = Log("edge", gateway_clock.now_ms)
    if gateway_clock.correction_ms:
        log.warning("clock-behind-floor", by_ms=round(gateway_clock.correction_ms))
    try:
        Path(config.state_dir).mkdir(mode=STATE_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"state_dir: cannot be made ({type(error).__name__})") from error
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A core file would hold keys and readings in clear, on the card that may be stolen.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        gateway = Gateway(path, loaded, log, gateway_clock)
    except sqlite3.Error as error:
        log.error("spool-cannot-open", error=_name(error))  # noqa: TRY400 - our own log
        return Exit.UNAVAILABLE
    except OSError as error:
        log.error("port-taken", errno=error.errno)  # noqa: TRY400 - our own log
        return Exit.UNAVAILABLE

    # At Python's thresholds lines made it walk every connection eight times in ten seconds.
    cycles.seldom()

    def ready() -> None:
        notify("READY=1")
        log.info("serving", edge=config.edge_id, epoch=gateway.status()["epoch"])

    try:
        trio.run(gateway.serve, ready, early)
    except KeyboardInterrupt:
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - the last stop: a defect is logged, never silent
        for one in leaves(error):
            log.crash("crashed", one)
        return Exit.INTERNAL
    log.info("stopped")
    return Exit.OK
