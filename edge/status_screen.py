"""The screen of ``healthsync edge status``: what is wrong first, then a line a part.

Law: pure but for the stream it writes to; numbers and reasons, no name of a device or patient.
"""

from datetime import UTC, datetime
from typing import TextIO

from edge.complaint import Complaint, Picture


def write(picture: Picture, out: TextIO) -> None:
    """Write the screen: what is wrong first, then a line a part."""
    head = f"{picture['edge']}: {picture['state']}"
    print(f"{head:<57}{moment(picture['at_ms'])}", file=out)
    for one in picture["wrong"]:
        complaint = Complaint(**one)
        print(f"  ! {complaint.text}  [{complaint.code}]\n      {complaint.next}", file=out)
    for name, text in _lines(picture):
        print(f"  {name:<12}{text}", file=out)


def _lines(picture: Picture) -> list[tuple[str, str]]:
    lines = []
    live, program, spool = picture["live"], picture["program"], picture["spool"]
    if live is not None:
        lines += _flow(live, picture["rejects"], program)
    if spool is not None:
        lines += _spool_lines(spool)
    if live is not None:
        up = "up" if live.get("link_up") else "down"
        flight = f"{live.get('frames_in_flight', 0):.0f} frames in flight"
        lines.append(
            ("link", f"{up}, {live.get('sessions_total', 0):.0f} sessions since start, {flight}")
        )
        if program is not None and program["late"]["frames"]:
            lines.append(("late", _late(program["late"])))
        offset = f"{live.get('clock_offset_ms', 0):+.0f} ms against the cloud's"
        if program is not None and program["clock"]["correction_ms"]:
            offset += f"; times of receipt are moved by {program['clock']['correction_ms']:+d} ms"
        if not live.get("link_up"):
            offset = "not compared: no session"
        lines.append(("clock", offset))
    if (cert := picture["certificate"]) is not None and "error" not in cert:
        lines += _certificate(cert)
    if (disk := picture["disk"]) is not None:
        free, total = disk["free_bytes"], disk["total_bytes"]
        lines.append(("disk", f"{_size(free)} free of {_size(total)}"))
    if program is not None:
        if version := program["settings"]["version"]:
            trial = ", on trial" if program["settings"]["on_trial"] else ""
            lines.append(("settings", f"version {version} of the cloud{trial}"))
        since = f"{moment(program['started_ms'])}, {span(program['uptime_s'])} ago"
        lines.append(("started", f"{since}, version {program['version']}"))
    return lines


def _flow(
    live: dict[str, float], rejects: dict[str, float], program: Picture | None
) -> list[tuple[str, str]]:
    if program is None:
        return [
            ("devices", f"{live.get('devices', 0):.0f} heard in 5 min"),
            ("connections", f"{live.get('connections', 0):.0f}"),
            ("input", _input(live) + " since start"),
            ("refused", _reasons(rejects) + " since start"),
        ]
    devices, recent = program["devices"], program["recent"]
    words = ("ok", "clock", "late", "silent", "refused")
    states = ", ".join(f"{devices[word]} {word}" for word in words if devices[word])
    seconds = recent["seconds"]
    rate = (recent["lines_total"] + recent["messages_total"]) / max(seconds, 1.0)
    worst_s = live.get("device_skew_max_ms", 0) / 1000
    clocks = f", clocks off by up to {worst_s:.0f} s" if worst_s >= 1 else ""
    return [
        ("devices", f"{states or 'none'}; {devices['heard']} heard in 5 min{clocks}"),
        ("connections", f"{live.get('connections', 0):.0f}"),
        ("input", f"{rate:.1f}/s in {span(seconds)}: {_input(recent)}"),
        ("refused", f"{_reasons(recent['rejects'])} in {span(seconds)}"),
    ]


def _certificate(cert: Picture) -> list[tuple[str, str]]:
    renewal = cert.get("renewal")
    if renewal is not None and renewal["state"] in {"none", "enrolling"}:
        return [("certificate", "a placeholder: not enrolled")]
    ends = moment(cert["ends_ms"])
    lines = [("certificate", f"{cert['days_left']:.1f} days left, until {ends}")]
    if "serial" in cert:
        lines.append(("", f"{cert['subject']}, serial {cert['serial']}"))
    if renewal is None:
        return lines
    text = renewal["state"]
    if renewal["trouble"]:
        text += f", last {renewal['trouble']}"
    if not renewal["told"]:
        text += "; HAProxy has not been told"
    elif not renewal.get("proven", True):
        text += "; not proven yet"
    lines.append(("renewal", text))
    if renewal["state"] == "awaiting":
        lines.append(("", f"fingerprint {renewal['fingerprint']}"))
    return lines


def _late(late: Picture) -> str:
    text = _many(late["frames"], "frame", "frames") + " of before, after the live ones"
    return text if late["eta_s"] is None else f"{text}; done in {span(late['eta_s'])}"


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _input(counts: dict[str, float]) -> str:
    return ", ".join(
        f"{counts.get(f'{name}_total', 0):.0f} {name}" for name in ("lines", "messages", "readings")
    )


def _reasons(rejects: dict[str, float]) -> str:
    ordered = sorted(rejects.items(), key=lambda one: (-one[1], one[0]))
    listed = ", ".join(f"{count:.0f} {reason}" for reason, count in ordered if count)
    return listed or "none"


def _spool_lines(spool: Picture) -> list[tuple[str, str]]:
    oldest = "nothing waits"
    if spool["oldest_s"] is not None:
        oldest = f"oldest {span(spool['oldest_s'])}"
    refused = spool["lanes"]["quarantine"]
    size, frames = spool["bytes"] - refused["bytes"], spool["frames"] - refused["frames"]
    text = f"{frames} frames, {_size(size)} of {_size(spool['bytes_max'])}"
    share = 100 * size / spool["bytes_max"]
    lines = [("spool", f"{text} ({share:.0f} %), {oldest}")]
    totals = spool["totals"]
    if any(totals.get(f"{what}_dropped") for what in ("readings", "rejects")):
        dropped = f"{totals['readings_dropped']} readings" if "readings_dropped" in totals else ""
        lines.append(("dropped", f"{dropped or 'refused input'} by the quota, ever"))
    text = f"{refused['frames']} frames, {_size(refused['bytes'])}"
    ever = totals.get("rejects_spooled", 0)
    most = _size(spool["quarantine_bytes_max"])
    lines.append(("quarantine", f"{text} of {most}; {ever} refused inputs ever"))
    return lines


def span(seconds: float) -> str:
    """Return a length of time in one or two units, as short as can be read."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours // 24:.0f} d {hours % 24:.0f} h"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def moment(ms: int) -> str:
    """Return milliseconds of UTC as a person reads them."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
