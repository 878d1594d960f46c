"""Runs the gateway: collector, committer, uplink, one process.

Law: stops in the order of the flow (no more input, last commit, last answers, link closed), so
that a clean stop loses nothing. Exit codes are `healthsync.runtime.exits`.
"""

import resource
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import trio

from edge import config as config_
from edge.collect import Collector
from edge.commit import Committer
from edge.config import Config
from edge.seal import Sealing
from edge.uplink import Uplink, leaves
from healthsync.runtime import clock
from healthsync.runtime import metrics as metrics_port
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify, watchdog_interval_s
from vitals.errors import ConfigError

STATE_MODE = 0o750


async def _watchdog() -> None:
    interval = watchdog_interval_s()
    while interval is not None:
        notify("WATCHDOG=1")
        await trio.sleep(interval)


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


async def serve(
    committer: Committer,
    collector: Collector,
    uplink: Uplink,
    log: Log,
    ready: Callable[[], None],
) -> None:
    """Run every part until SIGTERM or SIGINT."""
    async with trio.open_nursery() as whole:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            whole.start_soon(uplink.run)
            whole.start_soon(_watchdog)
            async with trio.open_nursery() as keeping:
                keeping.start_soon(committer.run)
                async with trio.open_nursery() as taking:
                    taking.start_soon(collector.run)
                    ready()
                    async for _ in signals:
                        break
                    log.info("stopping")
                    taking.cancel_scope.cancel()
                committer.stop()
            collector.close()
        whole.cancel_scope.cancel()


def run(path: Path) -> int:
    """Run with the configuration at ``path`` until asked to stop; return an exit code."""
    config = config_.load(path)
    public = config_.public_key(config)
    log = Log("edge", clock.now_ms)
    try:
        Path(config.state_dir).mkdir(mode=STATE_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"state_dir: cannot be made ({type(error).__name__})") from error
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sealing = Sealing(config.edge_id, public, clock.now_ms())
    try:
        committer = Committer(
            config.spool_path,
            config.spool_bytes_max,
            sealing,
            log,
            clock.now_ms,
            refuse_when_full=config.spool_full == "refuse",
        )
    except sqlite3.Error as error:
        log.error("spool-cannot-open", error=error.sqlite_errorname)  # noqa: TRY400 - our own log
        return Exit.UNAVAILABLE
    uplink = Uplink(
        config.edge_id, config.uplink_port, config.spool_path, committer, log, clock.now_ms
    )
    committer.stored = uplink.offer
    collector = Collector(config, committer, log, clock.now_ms)
    uplink.measured = collector.skews.gateway_off
    try:
        _listen(collector, config)
        metrics_port.serve(config.metrics_port)
    except OSError as error:
        log.error("port-taken", errno=error.errno)  # noqa: TRY400 - our own log
        return Exit.UNAVAILABLE

    def ready() -> None:
        notify("READY=1")
        log.info("serving", edge=config.edge_id, epoch=sealing.epoch.epoch)

    try:
        trio.run(serve, committer, collector, uplink, log, ready)
    except KeyboardInterrupt:
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - the last stop: a defect is logged, never silent
        for one in leaves(error):
            log.crash("crashed", one)
        return Exit.INTERNAL
    notify("STOPPING=1")
    log.info("stopped")
    return Exit.OK
