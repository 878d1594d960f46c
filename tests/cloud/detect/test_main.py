"""Configuration: the role's template gives a file that loads."""

from pathlib import Path

import jinja2
import msgspec
import pytest

from cloud.brokers import BrokerWatch
from cloud.detect import clients
from cloud.detect.config import Config
from cloud.settings import Kafka, Metrics
from healthsync.runtime.config import load

TEMPLATES = Path(__file__).parents[3] / "ansible" / "roles" / "healthsync_cloud" / "templates"
VARIABLES = {
    "hs_kafka_bootstrap": "127.0.0.1:9093",
    "hs_kafka_ca": "/etc/healthsync/ca.pem",
    "hs_kafka_cert": "/etc/healthsync/detect.pem",
    "hs_kafka_key": "/etc/healthsync/detect.key",
    "hs_metrics_port": 9121,
}


@pytest.mark.parametrize("policy", [{}, {"hs_detect_policy_file": "/etc/healthsync/policy.toml"}])
def test_the_template_gives_a_configuration(tmp_path: Path, policy: dict[str, str]) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - it renders TOML, not HTML
    )
    file = tmp_path / "detect.toml"
    file.write_text(environment.get_template("detect.toml.j2").render(VARIABLES | policy))
    config = load(file, Config)
    assert config.kafka.bootstrap == "127.0.0.1:9093"
    assert config.metrics.port == 9121
    assert config.identity() == "detect-0"
    assert str(config.policy_file or "") == policy.get("hs_detect_policy_file", "")


def test_each_instance_has_its_own_identity() -> None:
    kafka = Kafka("127.0.0.1:9093", Path("ca"), Path("cert"), Path("key"))
    config = Config(kafka, Metrics(9121), instance=2)
    assert config.identity() == "detect-2"
    named = msgspec.structs.replace(config, transactional_id="detect-icu")
    assert named.identity() == "detect-icu"


def test_the_clients_have_the_settings_that_exactly_once_hangs_on() -> None:
    asked: dict[str, dict[str, object]] = {}

    def consumer(settings: dict[str, object]) -> None:
        asked["consumer"] = settings

    def producer(settings: dict[str, object]) -> None:
        asked["producer"] = settings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "Consumer", consumer)
        patch.setattr(clients, "Producer", producer)
        commands = clients.commands({}, "detect-0")
        asked["commands"] = asked.pop("consumer")
        clients.consumer({}, "detect-0", BrokerWatch())
        clients.producer({}, "detect-0")
    assert commands is None
    # how far commands were read stands in memory: the group is told nothing of it
    assert asked["commands"]["enable.auto.commit"] is False
    assert asked["commands"]["enable.auto.offset.store"] is False
    assert asked["commands"]["isolation.level"] == "read_committed"
    assert asked["commands"]["auto.offset.reset"] == "earliest"
    assert asked["commands"]["enable.partition.eof"] is False
    assert "group.instance.id" not in asked["commands"]
    assert asked["consumer"]["isolation.level"] == "read_committed"
    assert asked["consumer"]["enable.auto.commit"] is False
    assert asked["producer"]["transactional.id"] == "detect-0"
    assert asked["producer"]["acks"] == "all"
