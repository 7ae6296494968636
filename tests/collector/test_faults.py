"""Sidecar and gateway are broken on purpose: nothing is lost, and Weir's tally agrees with what arrived."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from tests.collector.conftest import WAIT_S, until
from tests.collector.test_way import arrived, bodies, names, newest, orders

from otelweir.testing import Answer, Backend

if TYPE_CHECKING:
    from tests.collector.conftest import Collector, Service

    from otelweir.signals import Lane

    Start = Callable[..., Collector]
    Run = Callable[..., Service]

PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])


def nothing_missing(backend: Backend, count: int) -> bool:
    """Every order has arrived, its record and its span; some perhaps twice."""
    wanted = orders(count)
    return not (wanted - bodies(backend)) and not (wanted - names(backend))


class TestTheSidecarIsKilled:
    @PROTOCOLS
    def test_in_an_outage(self, collector: Start, service: Run, backend: Backend, protocol: str) -> None:
        """What it had acknowledged is on its disk; what it had not, on Weir's."""
        backend.stop()
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        shop = service(sidecar.endpoints[protocol], protocol)
        shop.do("orders 0 100")
        lanes: tuple[Lane, ...] = ("logs", "traces")
        acknowledged = {lane: shop.delivers(lane, 100) for lane in lanes}
        sidecar.kill()
        shop.do("orders 100 200")
        shop.tells("logs", lambda tally: tally.waiting >= 100, "the second hundred waits with Weir")
        backend.start()
        sidecar.start()
        backend.wait_for(lambda: arrived(backend, 200), WAIT_S)
        for lane, before in acknowledged.items():
            tally = shop.delivers(lane, 200)
            assert (before.delivered, tally.delivered, tally.lost) == (100, 200, {})

    def test_again_and_again_under_load(self, collector: Start, service: Run, backend: Backend) -> None:
        """In the middle of requests, too: what was under way may arrive twice, but all of it arrives."""
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        shop = service(sidecar.endpoints["http/protobuf"])
        for start in range(0, 2000, 500):
            shop.do(f"orders {start} {start + 500}")
            sidecar.kill()
            sidecar.start()
        backend.wait_for(lambda: nothing_missing(backend, 2000), WAIT_S)
        backend.wait_for(lambda: newest(backend, "orders") == 2000, WAIT_S)
        for lane in ("logs", "traces"):
            tally = shop.delivers(lane, 2000)
            assert (tally.delivered, tally.lost) == (2000, {})


class TestTheGateway:
    def test_is_restarted_under_load(self, collector: Start, service: Run, backend: Backend) -> None:
        """On SIGTERM it decides the traces that it holds."""
        gateway = collector("gateway.yaml", "GATEWAY", EXPORT_ENDPOINT=backend.endpoint, DECISION_WAIT="600s")
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=gateway.endpoints["http/protobuf"])
        shop = service(sidecar.endpoints["http/protobuf"])
        for start in range(0, 1500, 500):
            shop.do(f"orders {start} {start + 500}")
            gateway.stop()
            gateway.start()
        shop.delivers("logs", 1500)
        shop.delivers("traces", 1500)
        until(lambda: sidecar.figure("exporter_sent_spans") >= 1500, "the gateway has all spans")
        gateway.stop()
        # What it decided as it ended is on its disk, and leaves with the next start.
        gateway.start()
        backend.wait_for(lambda: nothing_missing(backend, 1500), WAIT_S)

    def test_is_killed_and_loses_nothing_that_it_did_not_hold(
        self, collector: Start, service: Run, backend: Backend
    ) -> None:
        """Logs and metrics at any time; traces where `tail_sampling` is left out."""
        gateway = collector(
            "gateway.yaml", "GATEWAY", EXPORT_ENDPOINT=backend.endpoint, TRACES_PROCESSORS="[]", TRACES_BLOCK="false"
        )
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=gateway.endpoints["http/protobuf"])
        shop = service(sidecar.endpoints["http/protobuf"])
        for start in range(0, 1500, 500):
            shop.do(f"orders {start} {start + 500}")
            gateway.kill()
            gateway.start()
        backend.wait_for(lambda: nothing_missing(backend, 1500), WAIT_S)
        backend.wait_for(lambda: newest(backend, "orders") == 1500, WAIT_S)


class TestAFullQueue:
    @PROTOCOLS
    def test_makes_weir_keep_the_rest(self, collector: Start, service: Run, backend: Backend, protocol: str) -> None:
        """The application's requests are refused with 503; nothing is given up on either side."""
        backend.stop()
        sidecar = collector(
            "sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint, QUEUE_BYTES="60000", BATCH_BYTES="10000"
        )
        shop = service(sidecar.endpoints[protocol], protocol, WEIR_BATCH_MAX_BYTES="20000")
        shop.do("orders 0 1000")
        tally = shop.tells("logs", lambda tally: "full" in tally.failing, "the sidecar takes no more")
        assert 0 < tally.delivered < 1000
        assert tally.waiting
        assert not tally.lost
        backend.start()
        backend.wait_for(lambda: nothing_missing(backend, 1000), WAIT_S)
        for lane in ("logs", "traces"):
            tally = shop.delivers(lane, 1000)
            assert (tally.delivered, tally.lost) == (1000, {})

    def test_goes_on_when_senders_give_up(self, collector: Start, backend: Backend) -> None:
        """A queue that blocks stands still for ever, sooner or later, when those who wait go away."""
        sidecar = collector(
            "sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint, QUEUE_BYTES="60000", BATCH_BYTES="10000"
        )
        until_s = time.monotonic() + 2

        def hurry(wait_s: float) -> None:
            while time.monotonic() < until_s:
                with suppress(OSError):
                    post(sidecar.http, "hurry", 50, wait_s)

        senders = [threading.Thread(target=hurry, args=(0.005 * n,)) for n in range(1, 11)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        until(lambda: post(sidecar.http, "patient", 1, 30) == 200, "it takes one more")
        backend.wait_for(lambda: any(log.body == "patient" for log in backend.logs), WAIT_S)


def post(port: int, body: str, records: int, wait_s: float) -> int:
    """Send records by hand, waiting no longer than that for the answer; its status."""
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(records):
        logs.add(attributes=[KeyValue(key="filling", value=AnyValue(string_value="x" * 200))]).body.string_value = body
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wait_s)
    try:
        connection.request("POST", "/v1/logs", request.SerializeToString(), {"Content-Type": "application/x-protobuf"})
        return connection.getresponse().status
    finally:
        connection.close()


class TestTooMuchAtOnce:
    @PROTOCOLS
    def test_a_record_that_is_too_large_is_set_aside_and_the_others_arrive(
        self, collector: Start, service: Run, backend: Backend, protocol: str
    ) -> None:
        """What the sidecar takes at all passes every hop, however large."""
        gateway = collector("gateway.yaml", "GATEWAY", EXPORT_ENDPOINT=backend.endpoint)
        sidecar = collector(
            "sidecar.yaml",
            "SIDECAR",
            EXPORT_ENDPOINT=gateway.endpoints[protocol],
            EXPORTER="otlp_grpc" if protocol == "grpc" else "otlp_http",
            EXPORT_INSECURE="true",
        )
        shop = service(sidecar.endpoints[protocol], protocol, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
        shop.do("orders 0 50")
        shop.do("large 16")
        shop.do("large 15")
        shop.do("orders 50 100")
        tally = shop.delivers("logs", 102)
        assert (tally.delivered, tally.lost) == (101, {"too_large": 1})
        backend.wait_for(lambda: sum(bodies(backend).values()) == 101, WAIT_S)
        (large,) = (log for log in backend.logs if log.body == "large")
        assert sum(len(str(value)) for value in large.attributes.values()) > 15 * 200_000

    @PROTOCOLS
    def test_a_request_that_is_too_large_is_cut(
        self, collector: Start, service: Run, backend: Backend, protocol: str
    ) -> None:
        """The collector says 400 where others say 413."""
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        sidecar.stop()
        shop = service(
            sidecar.endpoints[protocol],
            protocol,
            WEIR_BATCH_MIN_BYTES=str(16 * 2**20),
            WEIR_BATCH_MAX_BYTES=str(16 * 2**20),
            WEIR_BACKLOG_RATE=str(2**30),
            OTEL_TRACES_EXPORTER="none",
            OTEL_METRICS_EXPORTER="none",
        )
        for _ in range(40):
            shop.do("large 1")
        shop.tells("logs", lambda tally: tally.waiting == 40, "eight megabytes wait")
        sidecar.start()
        tally = shop.delivers("logs", 40)
        assert (tally.delivered, tally.lost) == (40, {})
        assert tally.outcomes.get("too_large", 0) >= 1
        backend.wait_for(lambda: sum(bodies(backend).values()) == 40, WAIT_S)


class TestNoMemoryLeft:
    @PROTOCOLS
    def test_is_a_refusal_before_the_acknowledgement(
        self, collector: Start, service: Run, backend: Backend, protocol: str
    ) -> None:
        sidecar = collector(
            "sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint, MEMORY_MIB="2", MEMORY_SPIKE_MIB="1"
        )
        shop = service(sidecar.endpoints[protocol], protocol)
        shop.do("orders 0 100")
        tally = shop.tells("logs", lambda tally: "memory" in tally.failing, "it refuses")
        assert (tally.delivered, tally.waiting, tally.lost) == (0, 100, {})
        sidecar.stop()
        sidecar.environ |= {"MEMORY_MIB": "256", "MEMORY_SPIKE_MIB": "64"}
        sidecar.start()
        backend.wait_for(lambda: arrived(backend, 100), WAIT_S)


class TestTheBackendBehindTheSidecar:
    @pytest.mark.parametrize("status", [429, 503])
    def test_is_asked_until_it_takes(self, collector: Start, service: Run, backend: Backend, status: int) -> None:
        backend.answers += [Answer(status)] * 3
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        shop = service(sidecar.endpoints["http/protobuf"])
        shop.do("orders 0 100")
        backend.wait_for(lambda: arrived(backend, 100), WAIT_S)
        assert shop.delivers("logs", 100).delivered == 100

    @pytest.mark.parametrize("status", [400, 500])
    def test_that_refuses_for_good_is_no_loss_in_silence(
        self, collector: Start, service: Run, backend: Backend, status: int
    ) -> None:
        """Here the collector is weaker than Weir, which waits for another key and sets aside what is refused: it drops,
        and counts. The documentation says which figure to watch; this is that figure."""
        backend.default_answer = Answer(status)
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        shop = service(sidecar.endpoints["http/protobuf"], OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
        shop.do("orders 0 100")
        shop.delivers("logs", 100)
        until(lambda: sidecar.figure("exporter_send_failed_log_records") == 100, "it counts what it dropped")

    @pytest.mark.parametrize(
        ("protocol", "status"), [("http/protobuf", 401), ("grpc", 429), ("http/protobuf", 500), ("grpc", 503)]
    )
    def test_is_asked_for_ever_through_a_sidecar_without_a_queue(
        self, collector: Start, service: Run, backend: Backend, protocol: str, status: int
    ) -> None:
        """Weir hears what the backend answers: it waits for another key, a quota, the end of a server's own fault."""
        backend.answers += [Answer(status)] * 2
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint, QUEUE="false")
        shop = service(sidecar.endpoints[protocol], protocol)
        shop.do("orders 0 100")
        backend.wait_for(lambda: arrived(backend, 100), WAIT_S)
        tally = shop.delivers("logs", 100)
        assert (tally.delivered, tally.lost) == (100, {})
        assert not {"rejected", "too_large"} & set(tally.outcomes)

    def test_that_refuses_a_record_has_it_set_aside_through_a_sidecar_without_a_queue(
        self, collector: Start, service: Run, backend: Backend
    ) -> None:
        backend.default_answer = Answer(400)
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint, QUEUE="false")
        shop = service(sidecar.endpoints["http/protobuf"], OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
        shop.do("orders 0 3")
        tally = shop.delivers("logs", 3)
        assert (tally.delivered, tally.lost) == (0, {"rejected": 3})

    @PROTOCOLS
    def test_that_takes_only_small_requests_gets_small_ones_through_a_sidecar_without_a_queue(
        self, collector: Start, service: Run, backend: Backend, protocol: str
    ) -> None:
        """The sidecar says so in words only, under a status that means something else."""
        backend.max_body = 8000
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint, QUEUE="false")
        shop = service(sidecar.endpoints[protocol], protocol, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
        shop.do("orders 0 200")
        tally = shop.delivers("logs", 200)
        assert (tally.delivered, tally.lost) == (200, {})
        assert set(tally.outcomes) == {"delivered", "too_large"}
        assert bodies(backend) == orders(200)
