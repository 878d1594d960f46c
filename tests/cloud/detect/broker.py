"""A plaintext Kafka node of one's own: temp folder, free loopback ports, ended by its pid."""

import os
import subprocess
import time
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from onebox import ports
from vitals import topics

JARS = Path(__file__).parents[3] / ".tools" / "kafka"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


class Broker:
    """Started by `start`, stopped by `stop`."""

    def __init__(self, folder: Path, **message_bytes: int) -> None:
        """``message_bytes``: by topic, the largest batch it takes, if not what ours take."""
        self._message_bytes = message_bytes
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self._controller = ports.free(2)
        self.bootstrap = f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running node; raises RuntimeError when there is none."""
        if self._process is None:
            raise RuntimeError("the broker is not started")
        return self._process.pid

    def start(self) -> None:
        if not any(JARS.glob("kafka_*.jar")):
            raise FileNotFoundError(
                f"{JARS}: Kafka's jars are missing; `make setup` brings them (Maven)"
            )
        properties = self._folder / "server.properties"
        properties.write_text(
            PROPERTIES.format(port=self.port, controller=self._controller, folder=self._folder)
        )
        java = ["java", "-Xmx512m", "-cp", f"{JARS}/*"]
        cluster = uuid.uuid4().hex[:22]
        with (self._folder / "kafka.log").open("ab") as log:
            subprocess.run(
                [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties],
                check=True,
                stdout=log,
                stderr=log,
                timeout=60,
            )
            self._process = subprocess.Popen(
                [*java, "kafka.Kafka", properties],
                stdout=log,
                stderr=log,
                env={**os.environ, "KAFKA_HEAP_OPTS": "-Xmx512m"},
            )
        self._make_topics()

    def _make_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        deadline = time.monotonic() + 60
        while True:
            try:
                admin.list_topics(timeout=1)
                break
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
        wanted = [
            NewTopic(
                t.name,
                num_partitions=t.partitions,
                config={
                    "cleanup.policy": "compact" if t.compact else "delete",
                    "max.message.bytes": str(
                        self._message_bytes.get(t.name, topics.MESSAGE_BYTES_MAX)
                    ),
                },
            )
            for t in topics.ALL
        ]
        for made in admin.create_topics(wanted).values():
            made.result(30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
