"""``healthsync firewall``: from a policy file to the kernel, and safely back.

Exit codes: 0 done, or nothing differs; 1 something differs, or it is too late; 69 busy; 70 the
kernel refuses; 78 the policy is wrong.
"""

import argparse
import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from firewall import change, feed, kernel, policy, policy_file, report, text, wire
from firewall.change import CONFIRM_S, Store
from firewall.compile import BLOCKED, BLOCKED_S, compile_policy
from firewall.iptables import render as render_iptables
from firewall.kernel import Kernel
from firewall.messages import timed
from firewall.ruleset import Family, Ruleset
from healthsync.runtime import whole
from healthsync.runtime.exits import Exit
from vitals.errors import ConfigError

STATE: Final = Path("/var/lib/healthsync-firewall")
POLICY: Final = Path("/etc/healthsync/firewall.toml")

Options = argparse.Namespace


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[Options], int], about: str, *, file: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(run=_told(run))
        sub.add_argument("--state", type=Path, default=STATE, help=f"folder of changes ({STATE})")
        if file:
            sub.add_argument("--policy", type=Path, default=POLICY, help=f"policy file ({POLICY})")
        return sub

    command("check", _check, "say whether a policy is right; nothing is touched")
    command("plan", _plan, "what `apply` would change in the kernel; exit 1 when anything")
    sub = command("apply", _apply, "put a policy in force; rolled back unless it is confirmed")
    sub.add_argument("--confirm-in", default=f"{CONFIRM_S}s", help="time to confirm, as 60s or 5m")
    sub.add_argument(
        "--supervisor",
        choices=("auto", "systemd", "none"),
        default="auto",
        help="who holds the rollback program: a unit of systemd's, or a session of its own",
    )
    command("confirm", _confirm, "keep what was applied; it is loaded at boot", file=False)
    command("rollback", _rollback, "bring back what was before it, now", file=False)
    command("load", _load, "load what was confirmed, else the policy: for boot")
    sub = command("verify", _verify, "compare the kernel with the policy; exit 1 when it differs")
    sub.add_argument("--metrics", type=Path, help="write the result as Prometheus text there")
    sub.add_argument("--json", action="store_true")
    sub = command("render", _render, "the policy as text for other tools")
    sub.add_argument("language", choices=("nft", "iptables", "ip6tables"))
    command("diff", _diff, "the policy against what was confirmed, as nft text")
    sub = command("block", _block, "block a source for a while")
    sub.add_argument("address", nargs="?", help="IPv4 or IPv6 address")
    sub.add_argument("--for", dest="time", default=f"{BLOCKED_S}s", help="as 10m, up to 7d")
    sub.add_argument(
        "--feed",
        action="store_true",
        help="read the log of `cloud est` on stdin and block who is refused again and again",
    )
    sub.add_argument(
        "--journal", metavar="UNIT", help="with --feed: follow this unit's journal, not stdin"
    )
    sub.add_argument("--after", type=int, default=feed.REFUSALS, help="refusals of one source")
    sub.add_argument("--within", default=f"{feed.WINDOW_S}s", help="time in which they count")
    sub = command("blocked", _blocked, "list who is blocked, and for how long yet")


def _told(run: Callable[[Options], int]) -> Callable[[Options], int]:
    """Return a command whose refusals are said in a line, with what to do."""

    def told(options: Options) -> int:
        try:
            return run(options)
        except change.Busy as error:
            return _say(str(error), Exit.UNAVAILABLE)
        except change.TooLate as error:
            return _say(str(error), Exit.DEGRADED)
        except kernel.Refused as error:
            return _say(f"the kernel refuses, nothing was changed: {error}", Exit.INTERNAL)
        except kernel.Unknown as error:
            return _say(str(error), Exit.INTERNAL)
        except PermissionError:
            return _say("needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN); try sudo", Exit.USAGE)
        except subprocess.SubprocessError as error:
            told = "the rollback program did not start, nothing was changed"
            return _say(f"{told} ({type(error).__name__})", Exit.UNAVAILABLE)

    return told


def _say(text_: str, code: Exit) -> int:
    print(f"healthsync firewall: {text_}", file=sys.stderr)
    return code


def _ruleset(options: Options) -> Ruleset:
    return compile_policy(policy_file.load(options.policy))


def _seconds(text_: str, option: str) -> int:
    try:
        return policy.seconds(text_)
    except ValueError:
        raise ConfigError(f"{option}: {text_!r}: use as 30s, 10m, 6h") from None


def _check(options: Options) -> int:
    ruleset = _ruleset(options)
    rules = sum(len(chain.rules) for chain in ruleset.chains)
    print(f"{options.policy}: right; {rules} rules, {len(ruleset.sets)} sets")
    return Exit.OK


def _plan(options: Options) -> int:
    lines = _drift(options)
    print("\n".join(lines) if lines else "nothing to change")
    return Exit.DEGRADED if lines else Exit.OK


def _drift(options: Options) -> list[str]:
    ruleset = _ruleset(options)
    wanted = kernel.made(ruleset)
    with Kernel() as one:
        found, _ = one.snapshot(ruleset.table)
    return report.drift(wanted, found, ruleset)


def _apply(options: Options) -> int:
    seconds = _seconds(options.confirm_in, "--confirm-in")
    found = change.apply(Store(options.state), options.policy, seconds, options.supervisor)
    if found is None:
        print("in force already, and confirmed: nothing was changed")
        return Exit.OK
    print(
        f"change {found.change} is in force for {found.seconds} s, then what was before returns.\n"
        "Open a new connection to see that you still can, then: healthsync firewall confirm"
    )
    return Exit.OK


def _confirm(options: Options) -> int:
    print(f"change {change.confirm(Store(options.state))} stays, and is loaded at boot")
    return Exit.OK


def _rollback(options: Options) -> int:
    print(f"change {change.roll_back(Store(options.state))} is taken back")
    return Exit.OK


def _load(options: Options) -> int:
    path = options.policy if options.policy.exists() else None
    print(f"loaded: {change.load(Store(options.state), path)}")
    return Exit.OK


def _verify(options: Options) -> int:
    lines = _drift(options)
    if options.metrics is not None:
        whole.write(options.metrics, _metrics(len(lines)).encode(), mode=0o644)
    if options.json:
        print(json.dumps({"drift": lines}))
    else:
        print("\n".join(lines) if lines else "the kernel has what the policy says")
    return Exit.DEGRADED if lines else Exit.OK


def _metrics(drift: int) -> str:
    return (
        "# HELP healthsync_firewall_drift Places in which the kernel differs from the policy.\n"
        "# TYPE healthsync_firewall_drift gauge\n"
        f"healthsync_firewall_drift {drift}\n"
        "# HELP healthsync_firewall_verified_seconds When it was compared, Unix time.\n"
        "# TYPE healthsync_firewall_verified_seconds gauge\n"
        f"healthsync_firewall_verified_seconds {int(time.time())}\n"
    )


def _render(options: Options) -> int:
    ruleset = _ruleset(options)
    if options.language == "nft":
        print(text.render(ruleset), end="")
    else:
        family = Family.V4 if options.language == "iptables" else Family.V6
        print(render_iptables(ruleset)[family], end="")
    return Exit.OK


def _diff(options: Options) -> int:
    store = Store(options.state)
    confirmed = store.confirmed()
    old = None
    if confirmed:
        old, _ = change.compiled(store.file(confirmed, change.POLICY))
    lines = report.difference(old, _ruleset(options))
    print("\n".join(lines) if lines else "the policy is what was confirmed")
    return Exit.DEGRADED if lines else Exit.OK


# -- blocked sources -------------------------------------------------------------------------------


def _block(options: Options) -> int:
    seconds = _seconds(options.time, "--for")
    if not 1 <= seconds <= policy.BLOCK_S_MAX:
        raise ConfigError(f"--for: up to {policy.BLOCK_S_MAX // 86_400}d")
    table = _ruleset(options).table
    if not options.feed:
        if options.address is None:
            raise ConfigError("give an address, or --feed")
        block(table, options.address, seconds)
        print(f"{options.address} is blocked for {seconds} s")
        return Exit.OK
    within = _seconds(options.within, "--within")
    counted = feed.Refusals(options.after, within)
    if options.journal is None:
        _feed(sys.stdin, counted, table, seconds)
        return Exit.OK
    # Of what was said before it began nobody knows whether it was counted: from now on.
    call = ["journalctl", "--follow", "--lines=0", "--output=cat", f"--unit={options.journal}"]
    try:
        following = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        return _say(f"journalctl does not start ({error.strerror})", Exit.UNAVAILABLE)
    with following as journal:
        try:
            _feed(journal.stdout or (), counted, table, seconds)
        finally:
            journal.terminate()
    return _say(f"journalctl ended with {journal.returncode}", Exit.UNAVAILABLE)


def _feed(lines: Iterable[str], counted: feed.Refusals, table: str, seconds: int) -> None:
    for line in lines:
        address = feed.refused(line)
        if not address or not counted.again(address, time.monotonic()):
            continue
        try:
            block(table, address, seconds)
        except kernel.Refused as error:
            # The table may be back in a moment; who goes on is counted anew.
            print(f"{address} is not blocked: {error}", file=sys.stderr, flush=True)
        else:
            print(f"{address} is blocked for {seconds} s", flush=True)


def block(table: str, address: str, seconds: int) -> None:
    """Block one source; raises ConfigError for what is none, kernel.Refused without a firewall."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise ConfigError(f"{address!r} is not an address; use 192.0.2.7 or 2001:db8::7") from None
    family = Family.V4 if found.version == 4 else Family.V6
    messages = timed(table, BLOCKED[family], [(found.packed, seconds * 1000)])
    with Kernel() as one:
        one.send(wire.batch(messages))


def _blocked(options: Options) -> int:
    with Kernel() as one:
        for blocked in one.blocked(_ruleset(options).table):
            address = ipaddress.ip_address(blocked.address)
            print(f"{address}\t{blocked.left_ms // 1000} s")
    return Exit.OK
