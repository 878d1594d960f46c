"""Ports, topics, limits, errors: each written once, consistent with itself."""

import inspect
import re

import pytest

from vitals import errors, limits, ports, topics


def test_every_port_has_its_own_name_and_number() -> None:
    assert len({port.name for port in ports.PORTS}) == len(ports.PORTS)
    assert len({port.number for port in ports.PORTS}) == len(ports.PORTS)
    assert len(ports.BY_NAME) == len(ports.PORTS)


@pytest.mark.parametrize("port", ports.PORTS, ids=lambda port: port.name)
def test_a_port_can_stand_in_etc_services(port: ports.Port) -> None:
    # RFC 6335 §5.1: 1-15 characters for registered names; ours are local, so only the alphabet.
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", port.name)
    assert 1 <= port.number <= 65535
    assert port.side in {"edge", "cloud"}
    assert port.text
    assert "\n" not in port.text


def test_the_ports_people_type_are_those_of_the_design() -> None:
    typed = {name: ports.BY_NAME[name].number for name in ("line", "line-tls", "mllp", "mllp-tls")}
    assert typed == {"line": 7010, "line-tls": 7011, "mllp": 2575, "mllp-tls": 2576}


def test_topics_are_those_of_the_design_commands_and_poison() -> None:
    assert [topic.name for topic in topics.ALL] == [
        "samples",
        "fhir",
        "alerts",
        "identity",
        "quarantine",
        "commands",
        "poison",
        "state",
        "undelivered",
    ]
    by_subject = [topic for topic in topics.ALL if topic is not topics.QUARANTINE]
    assert {topic.partitions for topic in by_subject} == {topics.SUBJECT_PARTITIONS}
    assert {t.name for t in topics.ALL if t.compact} == {"alerts", "identity", "state"}


def test_a_topic_that_forgets_nothing_is_compacted() -> None:
    assert all(topic.compact for topic in topics.ALL if topic.retention_ms < 0)


@pytest.mark.parametrize(
    ("subject", "partition"), [("0" * 32, 0), ("f" * 32, 7), ("0000000a" * 4, 2)]
)
def test_a_subjects_partition_never_changes(subject: str, partition: int) -> None:
    assert topics.partition_of(subject) == partition


def test_every_limit_is_positive_and_says_its_unit() -> None:
    named = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert named
    for name, value in named.items():
        assert value > 0, name
        assert re.search(
            r"_(BYTES|S|MS|CHARS|FRAMES|READINGS|ALERTS|FIELDS|CONNECTIONS)(_MAX)?$", f"_{name}"
        ), name


def test_limits_nest_as_the_data_does() -> None:
    assert limits.LINE_BYTES_MAX <= limits.QUARANTINE_RAW_BYTES_MAX < limits.FRAME_BYTES_MAX
    assert limits.COMMIT_BYTES_MAX < limits.FRAME_BYTES_MAX <= limits.FRAME_BODY_BYTES_MAX
    assert limits.FRAME_HEADER_BYTES_MAX < 2**16, "its length has two bytes"
    assert limits.FRAME_BYTES_MAX < limits.SESSION_MESSAGE_BYTES_MAX
    assert limits.HALF_LINE_S_MAX <= limits.LINE_IDLE_S_MAX
    assert limits.EPOCH_FRAMES_MAX < 2**96, "the nonce has twelve bytes"
    assert limits.FRAME_BYTES_MAX < limits.SPOOL_BYTES_MAX


def drawn_tree() -> dict[str, str]:
    """Return class -> parent as the docstring of vitals.errors draws it."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]  # it has one
        found = re.match(
            r"^\s*((?:│   |    )*)(├── |└── )?([A-Z]\w+)(?:\s|$)", line.removeprefix("    ")
        )
        if not found or not hasattr(errors, found[3]):
            continue
        depth = len(found[1]) // 4 + bool(found[2])
        above[depth:] = [found[3]]
        parents[found[3]] = above[depth - 1] if depth else "Exception"
    return parents


def test_the_error_tree_is_the_one_drawn() -> None:
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert drawn_tree() == real
    assert len(real) == 10
