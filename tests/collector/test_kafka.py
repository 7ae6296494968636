"""With Kafka between the tiers: a real broker, which is killed, and who counts what it holds."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.collector.broker import Broker, Reader, missing
from tests.collector.conftest import WAIT_S, Collector, Service, until

from otelweir.testing import Backend

if TYPE_CHECKING:
    Start = Callable[..., Collector]
    Run = Callable[..., Service]

WRITES = "gateway-balancer.yaml gateway-kafka-write.yaml"
READS = "gateway.yaml gateway-kafka-read.yaml"
SIGNALS = ("LOGS", "TRACES", "METRICS")


@pytest.fixture(scope="module")
def _kafka() -> None:
    if remedy := missing():
        if os.environ.get("CI"):
            pytest.fail(remedy)
        pytest.skip(remedy)


@pytest.fixture(scope="module")
def broker(_kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    one = Broker(tmp_path_factory.mktemp("broker"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def kafka(broker: Broker, request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables of both tiers, for topics of this test's own, made as gateway-kafka-write.yaml says."""
    name = request.node.name
    topics = {f"KAFKA_{signal}_TOPIC": f"{name}.{signal.lower()}" for signal in SIGNALS}
    broker.create(dict.fromkeys(topics.values(), 4), {"max.message.bytes": "8388608"})
    return {"KAFKA_BROKERS": f"[{broker.address}]", "KAFKA_GROUP": name, **topics}


@pytest.fixture
def reader(broker: Broker, kafka: dict[str, str]) -> Iterator[Reader]:
    one = Reader(broker, [kafka[f"KAFKA_{signal}_TOPIC"] for signal in SIGNALS])
    yield one
    one.close()


def attributes(message: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in message.attributes}


class Held:
    """What the broker holds, decoded. Delivery is at least once: what is there twice counts once, by its identity."""

    def __init__(self, reader: Reader) -> None:
        self.logs: dict[str, Any] = {}
        self.spans: dict[bytes, Any] = {}
        self.orders = 0.0
        self.partitions: dict[bytes, set[int]] = defaultdict(set)
        self.keys: dict[bytes, set[bytes]] = defaultdict(set)
        for message in reader.messages:
            if message.topic.endswith(".logs"):
                for resource in ExportLogsServiceRequest.FromString(message.value).resource_logs:
                    for scope in resource.scope_logs:
                        for log in scope.log_records:
                            if scope.scope.name == "shop":
                                self.logs[log.body.string_value] = log
                                self._placed(log.trace_id, message)
            elif message.topic.endswith(".traces"):
                for resource in ExportTraceServiceRequest.FromString(message.value).resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            self.spans[span.span_id] = span
                            self._placed(span.trace_id, message)
            else:
                for resource in ExportMetricsServiceRequest.FromString(message.value).resource_metrics:
                    for scope in resource.scope_metrics:
                        for metric in scope.metrics:
                            if metric.name == "orders":
                                newest = max(metric.sum.data_points, key=lambda point: point.time_unix_nano)
                                self.orders = max(self.orders, newest.as_int, newest.as_double)

    def _placed(self, trace_id: bytes, message: Any) -> None:
        if trace_id:
            self.partitions[trace_id].add(message.partition)
            self.keys[trace_id].add(message.key)


def held(reader: Reader, enough: Callable[[Held], bool], what: str) -> Held:
    """Read until there is enough."""

    def found() -> Held | None:
        reader.read()
        now = Held(reader)
        return now if enough(now) else None

    now = until(found, what)
    assert now is not None
    return now


class TestTheBroker:
    def test_gets_everything_though_it_is_killed(
        self, collector: Start, service: Run, broker: Broker, kafka: dict[str, str], reader: Reader
    ) -> None:
        """What is sent while it is away waits in the writer's queue, which is killed, too."""
        writes = collector(WRITES, "BALANCER", **kafka)
        shop = service(writes.endpoints["http/protobuf"])
        shop.do("orders 0 200")
        shop.delivers("logs", 200)
        broker.kill()
        shop.do("orders 200 400")
        assert shop.delivers("logs", 400).delivered == 400  # to the queue, of which nothing can leave now
        writes.kill()
        writes.start()
        broker.start()
        shop.do("orders 400 600")
        logs, spans = shop.delivers("logs", 600), shop.delivers("traces", 600)

        everything = {f"order {n}" for n in range(600)}
        there = held(
            reader,
            lambda now: len(now.logs) >= 600 and len(now.spans) >= 600 and now.orders >= 600,
            "600 of each signal in Kafka",
        )
        assert set(there.logs) == everything == {span.name for span in there.spans.values()}
        assert there.orders == 600
        assert (logs.delivered, spans.delivered, logs.lost, spans.lost) == (600, 600, {}, {})
        # It gave nothing up.
        assert not writes.figure("exporter_send_failed_spans")

    def test_holds_what_weir_adds_with_each_trace_in_one_place(
        self, collector: Start, service: Run, kafka: dict[str, str], reader: Reader
    ) -> None:
        """Weights, templates and costs are in the payload; spans and records of a trace have its id as their key."""
        writes = collector(WRITES, "BALANCER", **kafka)
        shop = service(
            writes.endpoints["http/protobuf"],
            WEIR_LOG_SAMPLING="on",
            WEIR_LOG_RATES="info=0.25",
            OTEL_TRACES_SAMPLER="always_on",
        )
        shop.run("""
            for n in range(1000):
                logger.info("paid %d", n)
            for n in range(40):
                with tracer.start_as_current_span("checkout"):
                    with tracer.start_as_current_span("chat", kind=trace.SpanKind.CLIENT, attributes={
                        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
                        "gen_ai.request.model": "gpt-4o", "gen_ai.response.model": "gpt-4o",
                        "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 500,
                    }):
                        logger.error("declined %d", n)
            logger.error("that was all")
        """)

        def agrees(now: Held) -> bool:
            logs, spans = shop.tally("logs"), shop.tally("traces")
            assert not logs.lost
            assert not spans.lost
            return (
                "that was all" in now.logs
                and (len(now.logs), len(now.spans)) == (logs.delivered, spans.delivered)
                and not logs.waiting
            )

        there = held(reader, agrees, "what the service says it delivered")
        assert sum(body.startswith("declined") for body in there.logs) == 40
        assert len(there.spans) == 80

        paid = [attributes(log) for body, log in there.logs.items() if body.startswith("paid")]
        assert sum(one["weir.sample.weight"] for one in paid) == pytest.approx(1000, rel=0.02)
        assert {one["log.record.template"] for one in paid} == {"paid <*>"}
        assert len({one["weir.pattern.id"] for one in paid}) == 1
        chats = [span for span in there.spans.values() if span.name == "chat"]
        assert [attributes(chat)["weir.cost.amount"] for chat in chats] == pytest.approx([0.0075] * 40)

        assert len(there.partitions) == 40
        assert {len(partitions) for partitions in there.partitions.values()} == {1}
        assert all(keys == {trace_id.hex().encode()} for trace_id, keys in there.keys.items())
        # And the load is spread.
        assert len(set().union(*there.partitions.values())) > 1


class TestBothTiers:
    def test_bring_everything_to_the_backend(
        self, collector: Start, service: Run, kafka: dict[str, str], backend: Backend
    ) -> None:
        """Two gateways share the partitions, in an outage of the backend; then one is ended."""
        writes = collector(WRITES, "BALANCER", **kafka)
        first, second = (
            collector(
                READS,
                "GATEWAY",
                **kafka,
                EXPORT_ENDPOINT=backend.endpoint,
                DECISION_WAIT="1s",
                METRICS_INTERVAL="500ms",
            )
            for _ in range(2)
        )
        shop = service(writes.endpoints["grpc"], "grpc")
        backend.stop()
        shop.do("orders 0 300")
        # In one record twice what Kafka takes by default.
        shop.run("""logger.info("large", extra={f"part.{n}": "x" * 200_000 for n in range(10)})""")
        assert shop.delivers("logs", 301).delivered == 301
        backend.start()
        everything = {f"order {n}" for n in range(300)}

        def arrived(wanted: set[str]) -> bool:
            bodies = {log.body for log in backend.logs if log.scope == "shop"}
            return bodies == {*wanted, "large"} and {span.name for span in backend.spans} == wanted

        backend.wait_for(lambda: arrived(everything), WAIT_S)
        # Both had a part of it: neither has read all partitions.
        for gateway in (first, second):
            assert 0 < gateway.figure("exporter_sent_spans") < 300
        second.stop()
        shop.do("orders 300 400")
        everything |= {f"order {n}" for n in range(300, 400)}
        backend.wait_for(lambda: arrived(everything), WAIT_S)
