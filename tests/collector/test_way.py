"""Records reach the backend through sidecar, balancer and gateway, as they were and with nothing missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.collector.conftest import WAIT_S, Collector, Service

from otelweir.testing import Backend

if TYPE_CHECKING:
    Start = Callable[..., Collector]
    Run = Callable[..., Service]


def bodies(backend: Backend) -> Counter[Any]:
    return Counter(log.body for log in backend.logs if log.scope == "shop")


def names(backend: Backend) -> Counter[str]:
    return Counter(span.name for span in backend.spans)


def orders(count: int) -> Counter[str]:
    return Counter(f"order {n}" for n in range(count))


def newest(backend: Backend, name: str) -> float:
    """The sum over the points of the last export of a metric."""
    last = [metric for metric in backend.metrics if metric.name == name]
    return sum(point.value for point in last[-1].points) if last else 0.0


def arrived(backend: Backend, count: int) -> bool:
    """Every order has arrived with all its signals, once each."""
    return bodies(backend) == orders(count) == names(backend) and newest(backend, "orders") == count


class TestTheWholeWay:
    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_brings_all_signals_with_what_weir_adds(
        self, collector: Start, service: Run, backend: Backend, protocol: str
    ) -> None:
        """Weights, patterns, costs and tracestates are as they were; the sidecar adds where it stands."""
        gateway = collector(
            "gateway.yaml", "GATEWAY", EXPORT_ENDPOINT=backend.endpoint, DECISION_WAIT="1s", METRICS_INTERVAL="500ms"
        )
        balancer = collector(
            "gateway-balancer.yaml",
            "BALANCER",
            RESOLVER=f"{{static: {{hostnames: ['127.0.0.1:{gateway.grpc}']}}}}",
        )
        exporter = "otlp_grpc" if protocol == "grpc" else "otlp_http"
        sidecar = collector(
            "sidecar.yaml",
            "SIDECAR",
            EXPORT_ENDPOINT=balancer.endpoints[protocol],
            EXPORTER=exporter,
            EXPORT_INSECURE="true",
            resource="k8s.pod.name=shop-1,container.name=shop,service.name=nobody,host.name=nobody",
        )
        shop = service(
            sidecar.endpoints[protocol],
            protocol,
            WEIR_LOG_SAMPLING="on",
            WEIR_LOG_RATES="info=0.25",
            OTEL_TRACES_SAMPLER="weir",
            OTEL_TRACES_SAMPLER_ARG="rate=0.25",
        )
        shop.run("""
            for n in range(1000):
                with tracer.start_as_current_span("checkout"):
                    logger.info("paid %d", n)
            with tracer.start_as_current_span("root", context=trace.set_span_in_context(trace.NonRecordingSpan(
                trace.SpanContext(1, 1, True, trace.TraceFlags(1))))):
                with tracer.start_as_current_span("chat", kind=trace.SpanKind.CLIENT, attributes={
                    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
                    "gen_ai.request.model": "gpt-4o", "gen_ai.response.model": "gpt-4o",
                    "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 500,
                }):
                    pass
        """)
        logs, spans = shop.delivers("logs", 250), shop.delivers("traces", 200)
        backend.wait_for(
            lambda: sum(bodies(backend).values()) == logs.delivered and len(backend.spans) == spans.delivered,
            WAIT_S,
        )
        assert not logs.lost
        assert not spans.lost

        paid = [log for log in backend.logs if log.scope == "shop"]
        assert sum(log.attributes["weir.sample.weight"] for log in paid) == pytest.approx(1000, rel=0.02)
        assert {log.attributes["log.record.template"] for log in paid} == {"paid <*>"}
        assert len({log.attributes["weir.pattern.id"] for log in paid}) == 1
        checkouts = [span for span in backend.spans if span.name == "checkout"]
        assert {span.trace_state for span in checkouts} == {"ot=th:c"}
        (chat,) = (span for span in backend.spans if span.name == "chat")
        assert chat.attributes["weir.cost.amount"] == pytest.approx(0.0075)
        assert chat.attributes["gen_ai.usage.input_tokens"] == 1000
        assert not any(name.startswith("redaction.") for log in paid for name in log.attributes)
        for resource in (*(span.resource for span in backend.spans), *(log.resource for log in paid)):
            # What the service says of itself, and what it cannot know.
            assert (resource["service.name"], resource["k8s.pod.name"]) == ("shop", "shop-1")
            assert resource["os.type"] == "linux"
            assert resource["host.name"] != "nobody"

        # What the gateway measures is what there was, not what was kept.
        backend.wait_for(
            lambda: newest(backend, "weir.log.volume") == sum(log.attributes["weir.sample.weight"] for log in paid),
            WAIT_S,
        )
        calls = 4 * len(checkouts) + 2
        backend.wait_for(lambda: newest(backend, "traces.span.metrics.calls") == calls, WAIT_S)
        # Names that will be gone one day are said at the start.
        assert not any("deprecated" in one.log for one in (sidecar, balancer, gateway))


class TestSecretsThatWeirDidNotSee:
    def test_stop_at_the_sidecar(self, collector: Start, service: Run, backend: Backend) -> None:
        """Of a service with redaction off, as of one without Weir."""
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        shop = service(sidecar.endpoints["http/protobuf"], WEIR_REDACT="off")
        shop.run("""
            key = "sk-" + "a1B2" * 8
            with tracer.start_as_current_span("login", attributes={
                "password": "hunter2", "http.request.header.authorization": "Basic abc", "note": "key " + key,
                "gen_ai.usage.input_tokens": 7, "max_tokens": "12", "order": "4111-x",
            }):
                logger.info("calling with Bearer abcdefghijklmnopqrstuvwxyz")
        """)
        shop.delivers("logs", 1)
        (span,) = backend.wait_for(lambda: backend.spans, WAIT_S)
        (log,) = backend.wait_for(lambda: [log for log in backend.logs if log.scope == "shop"], WAIT_S)
        assert span.attributes["password"] == "****"
        assert span.attributes["http.request.header.authorization"] == "****"
        assert span.attributes["note"] == "key ****"
        assert span.attributes["gen_ai.usage.input_tokens"] == 7
        assert span.attributes["max_tokens"] == "12"
        assert span.attributes["order"] == "4111-x"
        assert span.attributes["redaction.masked.count"] == 3
        assert log.body == "calling with ****"


class TestTailSampling:
    def test_keeps_what_matters_and_measures_the_rest(self, collector: Start, service: Run, backend: Backend) -> None:
        gateway = collector(
            "gateway.yaml",
            "GATEWAY",
            EXPORT_ENDPOINT=backend.endpoint,
            DECISION_WAIT="1s",
            METRICS_INTERVAL="500ms",
            TRACES_PERCENT="0",
        )
        shop = service(gateway.endpoints["http/protobuf"])
        shop.do("orders 0 50")
        shop.do("fails")
        shop.run("""
            with tracer.start_as_current_span("cheap", attributes={"weir.cost.amount": 0.5}):
                pass
            with tracer.start_as_current_span("expensive", attributes={"weir.cost.amount": 1.5}):
                pass
            with tracer.start_as_current_span("slow") as span:
                span._start_time -= 3 * 10**9
        """)
        shop.delivers("traces", 54)
        backend.wait_for(lambda: newest(backend, "traces.span.metrics.calls") == 54, WAIT_S)
        backend.wait_for(lambda: len(backend.spans) >= 3, WAIT_S)
        assert names(backend) == Counter({"fails": 1, "expensive": 1, "slow": 1})

    def test_says_in_the_tracestate_what_share_it_kept(self, collector: Start, service: Run, backend: Backend) -> None:
        """Of what Weir kept already: both look at the same randomness, and the stricter of them counts."""
        gateway = collector(
            "gateway.yaml",
            "GATEWAY",
            EXPORT_ENDPOINT=backend.endpoint,
            DECISION_WAIT="1s",
            METRICS_INTERVAL="500ms",
            TRACES_PERCENT="25",
        )
        shop = service(
            gateway.endpoints["http/protobuf"], OTEL_TRACES_SAMPLER="weir", OTEL_TRACES_SAMPLER_ARG="rate=0.5"
        )
        shop.do("orders 0 800")
        kept_by_weir = shop.delivers("traces", 200).delivered
        backend.wait_for(lambda: newest(backend, "traces.span.metrics.calls") == 2 * kept_by_weir, WAIT_S)
        gateway.stop()
        gateway.start()
        backend.wait_for(lambda: len(backend.spans) > 100, WAIT_S)
        assert {span.trace_state for span in backend.spans} == {"ot=th:c"}
        assert 600 < 4 * len(backend.spans) < 1000


class TestTheFigures:
    def test_are_of_a_service_and_not_of_one_of_its_processes(
        self, collector: Start, service: Run, backend: Backend
    ) -> None:
        """Told apart by environment, on the resource and on the points."""
        gateway = collector("gateway.yaml", "GATEWAY", EXPORT_ENDPOINT=backend.endpoint, METRICS_INTERVAL="500ms")
        for environment, count in (("prod", 10), ("prod", 5), ("test", 20)):
            shop = service(
                gateway.endpoints["http/protobuf"],
                OTEL_RESOURCE_ATTRIBUTES=f"deployment.environment.name={environment}",
            )
            shop.do(f"orders 0 {count}")

        def figures(name: str) -> dict[str, float]:
            found = [metric for metric in backend.metrics if metric.name == name]
            for metric in found:
                environment = metric.resource["deployment.environment.name"]
                assert metric.resource == {"service.name": "shop", "deployment.environment.name": environment}
                assert {point.attributes["deployment.environment.name"] for point in metric.points} == {environment}
            return {
                metric.resource["deployment.environment.name"]: sum(point.value for point in metric.points)
                for metric in found
                if all("collector.instance.id" in point.attributes for point in metric.points)
            }

        for name in ("weir.log.volume", "traces.span.metrics.calls"):
            backend.wait_for(lambda name=name: figures(name) == {"prod": 15, "test": 20}, WAIT_S)  # type: ignore[misc]


class TestTheBalancer:
    def test_gives_each_gateway_whole_traces(self, collector: Start, service: Run, backend: Backend) -> None:
        with Backend() as other:
            gateways = [
                collector("gateway.yaml", "GATEWAY", EXPORT_ENDPOINT=one.endpoint, DECISION_WAIT="1s")
                for one in (backend, other)
            ]
            balancer = collector(
                "gateway-balancer.yaml",
                "BALANCER",
                RESOLVER=f"{{static: {{hostnames: {[f'127.0.0.1:{gateway.grpc}' for gateway in gateways]}}}}}",
            )
            shop = service(balancer.endpoints["grpc"], "grpc")
            shop.run("""
                for n in range(100):
                    with tracer.start_as_current_span(f"order {n}"):
                        for part in range(3):
                            with tracer.start_as_current_span("part"):
                                pass
            """)
            shop.delivers("traces", 400)
            backend.wait_for(lambda: len(backend.spans) + len(other.spans) == 400, WAIT_S)
            here, there = ({span.trace_id for span in one.spans} for one in (backend, other))
            assert not here & there
            assert len(here) + len(there) == 100
            assert min(len(here), len(there)) > 10

            # One of them goes, and comes again: nothing is lost.
            gateways[1].stop()
            shop.do("orders 0 100")
            shop.delivers("traces", 500)
            gateways[1].start()
            missing = orders(100)
            backend.wait_for(lambda: not missing - Counter({span.name for span in backend.spans + other.spans}), WAIT_S)
