"""Logs: one JSON object a line, and never what an exception said."""

import io
import json

import pytest

from healthsync.runtime.log import LEVELS, Log

AT_MS = 1_795_428_000_123  # 2026-11-23T10:00:00.123Z


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(out: io.StringIO) -> Log:
    return Log("edge", lambda: AT_MS, out)


def test_each_event_is_one_json_line_with_time_level_service_and_event(
    log: Log, out: io.StringIO
) -> None:
    log.info("started", port=7010)
    log.warning("slow", seconds=1.5, names=["a", "b"])
    log.error("stopped", reason=None)
    assert out.getvalue().count("\n") == 3
    first, second, third = lines(out)
    assert first == {
        "time": "2026-11-23T10:00:00.123Z",
        "level": "info",
        "service": "edge",
        "event": "started",
        "port": 7010,
    }
    assert (second["level"], second["names"]) == ("warning", ["a", "b"])
    assert (third["level"], third["reason"]) == ("error", None)
    assert {str(line["level"]) for line in lines(out)} <= set(LEVELS)


def test_a_line_break_in_a_field_stays_inside_its_line(log: Log, out: io.StringIO) -> None:
    log.info("odd", device="bed\n{}\r\u2028\x00")
    (only,) = [json.loads(line) for line in out.getvalue().split("\n") if line]
    assert only["device"] == "bed\n{}\r\u2028\x00"


def test_a_crash_says_where_and_never_what_the_exception_said(log: Log, out: io.StringIO) -> None:
    def parse(line: str) -> None:
        raise ValueError(f"cannot read {line}")

    try:
        try:
            parse("mrn=SIM000001 name=Ada")
        except ValueError as error:
            raise RuntimeError("SIM000001 again") from error
    except RuntimeError as error:
        log.crash("defect", error)
    (line,) = lines(out)
    assert line["level"] == "error"
    assert line["error"] == "RuntimeError"
    trace = line["trace"]
    assert isinstance(trace, list)
    assert "test_log.py" in trace[-1]
    for said in ("SIM000001", "Ada", "again", "cannot read"):
        assert said not in out.getvalue()


def test_without_a_stream_it_writes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    Log("edge", lambda: 0).info("hello")
    assert json.loads(capsys.readouterr().out)["time"] == "1970-01-01T00:00:00.000Z"
