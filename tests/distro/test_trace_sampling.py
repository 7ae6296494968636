"""The sampler, the tail and the flight recorder in processes that are started with nothing but variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch

PLAIN = """
    import sys
    from opentelemetry import trace
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator
    _OTelSDKConfigurator().configure()
    with trace.get_tracer("app").start_as_current_span("GET /cart"):
        with trace.get_tracer("app").start_as_current_span("query") as query:
            print(query.is_recording(), query.get_span_context().trace_state.to_header())
    print([name for name in sys.modules if name.startswith(("otelweir.distro", "otelweir.settings", "pydantic"))])
"""

SERVICE = """
    import logging, time
    from opentelemetry import trace
    from opentelemetry.trace import StatusCode
    logging.getLogger().setLevel(logging.DEBUG)
    log, tracer = logging.getLogger("app"), trace.get_tracer("app")

    def request(number, failed):
        with tracer.start_as_current_span(f"request {number}") as root:
            for step in range(3):
                log.debug("step %d of %d", step, number)
            with tracer.start_as_current_span("query"):
                pass
            if failed:
                root.set_status(StatusCode.ERROR)

    for number in range(20):
        request(number, failed=number == 13)
"""


def test_the_stock_sdk_finds_the_sampler_by_name(launch: Launch) -> None:
    """Without the rest of Weir: nothing of its distribution is even imported."""
    ended = launch.plain(
        PLAIN,
        OTEL_TRACES_SAMPLER="weir",
        OTEL_TRACES_SAMPLER_ARG="rate=1,per_second=100",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == ["True ot=th:0", "[]"]


def test_the_tail_keeps_what_failed_and_the_recorder_its_logs(launch: Launch, backend: Backend) -> None:
    ended = launch(
        SERVICE,
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_TRACES_SAMPLER="weir",
        WEIR_TRACE_TAIL="true",
        WEIR_TRACE_TAIL_RATE="0",
        WEIR_FLIGHT_RECORDER="errors",
        WEIR_LOG_RATES="debug=0",
        WEIR_LOG_FIRST="1",
    )
    assert (ended.code, ended.err) == (0, "")
    spans = {span.name: span for span in backend.spans}
    assert set(spans) == {"request 13", "query"}
    assert {span.attributes["weir.sample.reason"] for span in spans.values()} == {"error"}
    held = [log for log in backend.logs if log.attributes.get("weir.sample.reason") == "flight_recorder"]
    assert [log.body for log in held] == [f"step {step} of 13" for step in range(3)]
    assert {log.attributes["weir.sample.weight"] for log in held} == {0.0}
    assert {log.trace_id for log in held} == {spans["query"].trace_id}


def test_a_bad_argument_is_told_and_everything_is_kept(launch: Launch, backend: Backend) -> None:
    ended = launch(
        SERVICE,
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_TRACES_SAMPLER="weir",
        OTEL_TRACES_SAMPLER_ARG="ratio=0.1",
    )
    assert ended.code == 0
    assert "OTEL_TRACES_SAMPLER_ARG='ratio=0.1' is not pairs such as rate=0.1" in ended.err
    assert len(backend.spans) == 40
