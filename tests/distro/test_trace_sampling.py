"""The sampler, the tail and the flight recorder in processes that are started with nothing but variables."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch

EXAMPLE = Path(__file__).parents[2] / "examples" / "traces_that_matter.py"

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
    from opentelemetry import trace
    for number in range(20):
        with trace.get_tracer("app").start_as_current_span(f"request {number}"):
            pass
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


def test_the_tail_keeps_what_matters_and_the_recorder_its_logs(launch: Launch, backend: Backend) -> None:
    """The example, as its first lines say."""
    ended = launch(
        EXAMPLE.read_text(encoding="utf-8"),
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_TRACES_SAMPLER="weir",
        WEIR_TRACE_TAIL="true",
        WEIR_TRACE_TAIL_SLOW="50ms",
        WEIR_FLIGHT_RECORDER="errors",
        WEIR_LOG_FIRST="1",
        WEIR_LOG_RATES="debug=0",
    )
    assert ended.code == 0
    reasons: dict[object, set[str]] = {}
    for span in backend.spans:
        reasons.setdefault(span.attributes["weir.sample.reason"], set()).add(span.trace_id)
        by_rate = span.attributes["weir.sample.reason"] == "rate"
        assert span.attributes["weir.sample.weight"] == pytest.approx(10.0 if by_rate else 1.0, rel=0.01)
    failed = [span.attributes.get("order.id") for span in backend.spans if span.trace_id in reasons["error"]]
    assert len(reasons["error"]) == 2 and len(reasons["slow"]) >= 1
    held = [log for log in backend.logs if log.attributes.get("weir.sample.reason") == "flight_recorder"]
    assert [log.body for log in held if log.trace_id in reasons["error"]] == [
        text for order in (20, 70) for text in (f"order {order} came", f"card of order {order} is asked")
    ]
    assert {log.attributes["weir.sample.weight"] for log in held} == {0.0}
    assert {20, 70} <= set(failed)


def test_what_the_tail_holds_goes_out_at_sigterm(launch: Launch, backend: Backend) -> None:
    """Most services end by it, with requests that have not ended."""
    program = """
        import os, signal, time
        from opentelemetry import trace
        root = trace.get_tracer("app").start_span("request")
        trace.get_tracer("app").start_span("query", trace.set_span_in_context(root)).end()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    """
    ended = launch(
        program, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, WEIR_TRACE_TAIL="true", WEIR_TRACE_TAIL_RATE="1"
    )
    assert (ended.code, ended.err) == (-signal.SIGTERM, "")
    assert [span.name for span in backend.spans] == ["query"]


def test_the_sampler_follows_its_policy(launch: Launch, tmp_path: Path) -> None:
    """In the stock SDK, too, where there is nothing else of Weir."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("traces: {rate: 0}")
    program = f"""
        import time
        from pathlib import Path
        from opentelemetry import trace
        from opentelemetry.sdk._configuration import _OTelSDKConfigurator
        _OTelSDKConfigurator().configure()
        begun = lambda: trace.get_tracer("app").start_span("GET /cart").is_recording()
        print(begun())
        Path({str(policy)!r}).write_text("traces: {{rate: 1}}")
        until = time.monotonic() + 60
        while not begun() and time.monotonic() < until:
            time.sleep(0.05)
        print(begun())
    """
    ended = launch.plain(
        program,
        OTEL_TRACES_SAMPLER="weir",
        OTEL_TRACES_SAMPLER_ARG=str(policy),
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    assert (ended.code, ended.out, ended.err) == (0, "False\nTrue\n", "")


def test_a_bad_argument_is_told_and_everything_is_kept(launch: Launch, backend: Backend) -> None:
    ended = launch(
        SERVICE,
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_TRACES_SAMPLER="weir",
        OTEL_TRACES_SAMPLER_ARG="ratio=0.1",
    )
    assert ended.code == 0
    assert "OTEL_TRACES_SAMPLER_ARG='ratio=0.1' is not pairs such as rate=0.1" in ended.err
    assert len(backend.spans) == 20
