"""A Kafka broker that tests start, kill and ask: one process, on loopback, in KRaft mode."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.collector.conftest import ROOT, free_port

JARS = ROOT / "build" / "kafka"
FETCH = "tests/collector/kafka/fetch.sh"

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
# After SIGKILL it is not taken in again before its last session has ended.
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
"""


def missing() -> str:
    """What has to be done before a broker can start; empty when nothing."""
    if shutil.which("java") is None:
        return "Kafka needs Java 17 or later (Debian: apt-get install openjdk-17-jre-headless)"
    return "" if any(JARS.glob("kafka_*.jar")) else f"Kafka's jars are missing: {FETCH}"


@dataclass(frozen=True)
class Message:
    """What the broker holds, as a consumer gets it. Keys of what has no key are empty."""

    topic: str
    partition: int
    key: bytes
    value: bytes


class Broker:
    """A broker whose messages survive `kill`. Started again, it listens on the same port.

    Args:
        folder: An empty folder for what it keeps.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        port, controller = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        self._properties = folder / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(port=port, controller=controller, data=folder / "data"), encoding="utf-8"
        )
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatted = subprocess.run(
            _java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert formatted.returncode == 0, formatted.stderr

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _java("kafka.Kafka", str(self._properties)), stdout=log, stderr=log, start_new_session=True
            )
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except confluent_kafka.KafkaException:
                time.sleep(0.1)
        raise RuntimeError(f"the broker did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def create(self, topics: Mapping[str, int], config: Mapping[str, str]) -> None:
        """Makes topics, with their number of partitions."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        wanted = [NewTopic(topic, partitions, 1, config=dict(config)) for topic, partitions in topics.items()]
        for made in admin.create_topics(wanted, operation_timeout=30).values():
            made.result(30)

    def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None:
            # Nothing that it keeps is needed any more.
            self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
        self._process.wait(30)
        self._process = None


class Reader:
    """Reads topics of a broker from their first message on.

    What it read stays in `messages`; of what the producer sent twice, both are there.
    """

    def __init__(self, broker: Broker, topics: list[str]) -> None:
        self.messages: list[Message] = []
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": broker.address,
                "group.id": "tests",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._consumer.assign(
            [
                confluent_kafka.TopicPartition(topic, partition, confluent_kafka.OFFSET_BEGINNING)
                for topic in topics
                for partition in self._consumer.list_topics(topic, timeout=30).topics[topic].partitions
            ]
        )

    def read(self) -> None:
        """Takes what is there, and waits up to a tenth of a second when nothing is."""
        for message in self._consumer.consume(500, timeout=0.1):
            if message.error() is None:
                key, value = message.key() or b"", message.value() or b""
                assert isinstance(key, bytes)
                self.messages.append(Message(message.topic() or "", message.partition() or 0, key, value))

    def close(self) -> None:
        self._consumer.close()


def _java(name: str, *arguments: str) -> list[str]:
    # Small and quick to start rather than fast: it carries a few thousand records.
    options = [
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    ]
    return ["java", *options, "-cp", f"{JARS}/*", name, *arguments]
