"""What is wrong with a gateway, in words, each with its next step.

Law: pure; from the picture that `edge.status` puts together to complaints and an exit code. Every
complaint has a code, and `edge/RUNBOOK.md` has an anchor for every code. What happened long ago
is no complaint: counters count only by what they grew of late.
"""

from enum import StrEnum
from typing import Any, Final, NamedTuple

from healthsync.runtime.exits import Exit

OLDEST_S_MAX: Final = 60.0
"""A frame this old is backlog worth a technician's eye; detect rings for nothing older."""

CLOCK_OFF_MS_MAX: Final = 2000.0
"""This gateway's clock against the cloud's; `edge.skew.STEP_MS`, what a network may feign."""

CERTIFICATE_DAYS_MIN: Final = 7.0
"""Renewal is tried from half life on; a week is what is left for a person to look."""

CERTIFICATE_SHARE_MIN: Final = 0.25
"""Of the life of a certificate that is renewed here: half of the tries have failed by then."""

SPOOL_SHARE_MAX: Final = 0.8
"""Of the quota; at a ward's pace the rest lasts days."""

DISK_SHARE_MIN: Final = 0.05
"""Of the file system that must stay free: SQLite's journal and the system's log need room."""

STUCK_S_MAX: Final = 5.0
"""A commit takes milliseconds, on a worn card a second."""

QUIET_START_S: Final = 300.0
"""A gateway that just started may wait for its devices so long."""


class Code(StrEnum):
    """A closed set; each is an anchor in edge/RUNBOOK.md."""

    NOT_RUNNING = "not-running"
    NO_CONTROL = "no-control"
    LINK_DOWN = "link-down"
    CLOUD_KEY_MISSING = "cloud-key-missing"
    SETTINGS_REFUSED = "settings-refused"
    BACKLOG = "backlog"
    SPOOL_NEAR_FULL = "spool-near-full"
    FRAMES_DROPPED = "frames-dropped"
    INPUT_NOT_KEPT = "input-not-kept"
    SPOOL_UNREADABLE = "spool-unreadable"
    SPOOL_SET_ASIDE = "spool-set-aside"
    DISK_LOW = "disk-low"
    COMMIT_STUCK = "commit-stuck"
    CLOCK_OFF = "clock-off"
    CERTIFICATE_ENDS = "certificate-ends"
    CERTIFICATE_UNREADABLE = "certificate-unreadable"
    CERTIFICATE_EXPIRING = "certificate-expiring"
    CERTIFICATE_EXPIRED = "certificate-expired"
    NOT_ENROLLED = "not-enrolled"
    AWAITING_APPROVAL = "awaiting-approval"
    CONNECTIONS_FULL = "connections-full"
    DEVICE_REFUSED = "device-refused"
    NO_DEVICES = "no-devices"
    CONFIG_WRONG = "config-wrong"
    RESTART_NEEDED = "restart-needed"


class Complaint(NamedTuple):
    """One thing that is wrong."""

    code: Code
    text: str
    next: str


Picture = dict[str, Any]
"""What `edge.status.gather` returns; documented in edge/CONTROL.md."""


def judge(picture: Picture) -> tuple[Exit, list[Complaint]]:
    """Return the exit code and what is wrong, the worst first."""
    live = picture["live"]
    if live is None:
        return Exit.FAILED, [
            Complaint(
                Code.NOT_RUNNING,
                "the program does not answer, neither on its socket nor on its metrics port",
                "systemctl status healthsync-edge; journalctl -u healthsync-edge -n 50 -o cat",
            )
        ]
    wrong = [
        *_input(live, picture["program"]),
        *_spool(picture["spool"], picture["disk"]),
        *_link(live, picture["certificate"]),
        *_program(picture["program"], picture["unanswered"]),
    ]
    return (Exit.DEGRADED if wrong else Exit.OK), wrong


def _input(live: dict[str, float], program: Picture | None) -> list[Complaint]:
    wrong = []
    # Without the control socket only what happened since the start is known.
    grown = live if program is None else program["recent"]
    if lost := int(grown.get("refused_inputs_total", 0)):
        wrong.append(
            Complaint(
                Code.INPUT_NOT_KEPT,
                _many(lost, "input was", "inputs were") + " refused: the disk did not take them",
                "df -h; senders that wait for answers keep it and send it again",
            )
        )
    if dropped := int(grown.get("dropped_frames_total", 0)):
        wrong.append(
            Complaint(
                Code.FRAMES_DROPPED,
                _many(dropped, "frame was", "frames were")
                + " dropped: the spool's quota is reached",
                "report it, these readings are lost; healthsync edge spool status counts them",
            )
        )
    if program is not None and program["commit_stuck_s"] > STUCK_S_MAX:
        wrong.append(
            Complaint(
                Code.COMMIT_STUCK,
                f"a commit has waited {program['commit_stuck_s']:.0f} s for the disk",
                "dmesg | tail for card errors; after 30 s systemd starts the gateway again",
            )
        )
    if refused := int(grown.get("connections_refused_total", 0)):
        wrong.append(
            Complaint(
                Code.CONNECTIONS_FULL,
                _many(refused, "connection was", "connections were")
                + " refused: the limit is reached",
                "ss -tn state established to see who holds them; raise connections_max",
            )
        )
    if program is None:
        return wrong
    devices = program["devices"]
    if devices["refused"]:
        wrong.append(
            Complaint(
                Code.DEVICE_REFUSED,
                _many(devices["refused"], "device speaks and is", "devices speak and are")
                + " refused",
                "healthsync edge watch shows which and why",
            )
        )
    if not devices["heard"] and program["uptime_s"] > QUIET_START_S:
        wrong.append(
            Complaint(
                Code.NO_DEVICES,
                "no device was heard for 5 minutes",
                "healthsync edge watch; then the network: ip -br link, ss -tln",
            )
        )
    return wrong


def _spool(spool: Picture | None, disk: dict[str, int] | None) -> list[Complaint]:
    wrong = []
    if spool is None:
        wrong.append(
            Complaint(
                Code.SPOOL_UNREADABLE,
                "the spool cannot be read",
                "use sudo, or healthsync edge spool status for the reason",
            )
        )
    else:
        wrong += _stored(spool)
    if disk is not None and disk["free_bytes"] < DISK_SHARE_MIN * disk["total_bytes"]:
        wrong.append(
            Complaint(
                Code.DISK_LOW,
                f"the disk of the state directory has {disk['free_bytes'] // 10**6} MB free",
                "df -h and du -xh --max-depth=2 / | sort -h | tail",
            )
        )
    return wrong


def _stored(spool: Picture) -> list[Complaint]:
    wrong = []
    refused = spool["lanes"]["quarantine"]["bytes"]
    readings = spool["bytes"] - refused
    for what, size, most, key in (
        ("the spool's readings", readings, spool["bytes_max"], "spool_bytes_max"),
        ("refused input", refused, spool["quarantine_bytes_max"], "quarantine_bytes_max"),
    ):
        if size > SPOOL_SHARE_MAX * most:
            wrong.append(
                Complaint(
                    Code.SPOOL_NEAR_FULL,
                    f"{what} take {100 * size // most} % of their quota",
                    f"mend the link first; then {key}, if the disk has room",
                )
            )
    oldest = spool["oldest_s"]
    if oldest is not None and oldest > OLDEST_S_MAX:
        wrong.append(
            Complaint(
                Code.BACKLOG,
                f"the oldest frame has waited {_span(oldest)}",
                "look again in a minute: it must shrink while the link is up",
            )
        )
    # One that was salvaged is history: its frames are in the spool again.
    aside = [one["file"] for one in spool["aside"] if ".salvaged-" not in one["file"]]
    if aside:
        wrong.append(
            Complaint(
                Code.SPOOL_SET_ASIDE,
                _many(len(aside), "spool file was", "spool files were")
                + f" set aside: {', '.join(sorted(aside)[:3])}",
                "healthsync edge spool verify FILE; keep it until its frames were salvaged",
            )
        )
    return wrong


def _link(live: dict[str, float], certificate: Picture | None) -> list[Complaint]:
    wrong = []
    if not live.get("link_up"):
        wrong.append(
            Complaint(
                Code.LINK_DOWN,
                "no session with the cloud",
                "nothing is lost, the spool keeps it; journalctl -u haproxy -n 20",
            )
        )
    offset = live.get("clock_offset_ms", 0.0)
    if live.get("link_up") and abs(offset) > CLOCK_OFF_MS_MAX:
        wrong.append(
            Complaint(
                Code.CLOCK_OFF,
                f"this clock is {offset / 1000:+.1f} s off the cloud's",
                "chronyc tracking; over 30 s no device's clock is corrected",
            )
        )
    if certificate is None:
        return wrong
    if "error" in certificate:
        wrong.append(
            Complaint(
                Code.CERTIFICATE_UNREADABLE,
                f"link_certificate cannot be read ({certificate['error']})",
                "use sudo, or mend link_certificate in the configuration",
            )
        )
    elif (renewal := certificate.get("renewal")) is not None:
        wrong += _renewal(certificate, renewal)
    elif certificate["days_left"] < CERTIFICATE_DAYS_MIN or not certificate["begun"]:
        days = certificate["days_left"]
        text = f"has {days:.1f} days left" if days > 0 else f"ended {-days:.1f} days ago"
        if not certificate["begun"]:
            text = "is not valid yet: is this clock right?"
        wrong.append(
            Complaint(
                Code.CERTIFICATE_ENDS,
                f"the link's certificate {text}",
                "renew it; collecting goes on, sending ends with it",
            )
        )
    return wrong


def _renewal(certificate: Picture, renewal: Picture) -> list[Complaint]:
    state, trouble = renewal["state"], renewal["trouble"]
    why = f" ({trouble})" if trouble else ""
    if state in {"none", "enrolling"}:
        return [
            Complaint(
                Code.NOT_ENROLLED,
                "this gateway has no certificate, so nothing is sent",
                "healthsync edge enrol with the enrolment file; collecting goes on",
            )
        ]
    if state == "awaiting":
        return [
            Complaint(
                Code.AWAITING_APPROVAL,
                f"the certificate ended {-certificate['days_left']:.1f} days ago;"
                " the new one waits for an operator",
                f"have it approved: healthsync cloud pki approve {certificate['subject']}"
                f" {renewal['fingerprint']}",
            )
        ]
    if certificate["left_share"] <= 0:
        step = "a new enrolment file is needed: healthsync edge enrol"
        return [
            Complaint(
                Code.CERTIFICATE_EXPIRED,
                f"the certificate ended {-certificate['days_left']:.1f} days ago{why}",
                step if state == "refused" else "is the authority reachable? it is asked again",
            )
        ]
    failing = state == "renewing" and trouble and certificate["left_share"] < CERTIFICATE_SHARE_MIN
    if state == "refused" or failing:
        return [
            Complaint(
                Code.CERTIFICATE_EXPIRING,
                f"the certificate has {certificate['days_left']:.1f} days left and is not"
                f" renewed{why}",
                "the heading in the runbook has a line for each code",
            )
        ]
    return []


def _cloud(program: Picture) -> list[Complaint]:
    wrong = []
    if withheld := program["late"]["withheld_epochs"]:
        wrong.append(
            Complaint(
                Code.CLOUD_KEY_MISSING,
                _many(withheld, "epoch is", "epochs are")
                + " kept back: the cloud has not the key that opens them",
                "report it: ingest's hpke_private_older must name the key; nothing is lost",
            )
        )
    if trouble := program["settings"]["trouble"]:
        wrong.append(
            Complaint(
                Code.SETTINGS_REFUSED,
                f"settings of the cloud are not in use: {trouble}",
                "the ones before are; mend the document, check-settings, sign it anew",
            )
        )
    return wrong


def _program(program: Picture | None, unanswered: str) -> list[Complaint]:
    if program is None:
        return [Complaint(Code.NO_CONTROL, unanswered, "shown is what the metrics port says")]
    wrong = _cloud(program)
    reload = program["reload"]
    if reload["error"]:
        wrong.append(
            Complaint(
                Code.CONFIG_WRONG,
                f"the changed configuration was refused: {reload['error']}",
                "healthsync edge check-config, then systemctl reload healthsync-edge",
            )
        )
    if reload["restart_needed"]:
        wrong.append(
            Complaint(
                Code.RESTART_NEEDED,
                f"changed, but not in use: {', '.join(reload['restart_needed'])}",
                "systemctl restart healthsync-edge; devices call again by themselves",
            )
        )
    return wrong


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * 60 else f"{seconds / 3600:.1f} h"
