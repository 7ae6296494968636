"""No secret leaves a process under the launcher: not in any part of any signal, by whatever way it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch

SERVICE = """
    import logging
    from opentelemetry import metrics, trace

    log = logging.getLogger("shop")
    tracer = trace.get_tracer("shop")
    SECRET = "zq7secret"
    link = trace.Link(trace.SpanContext(1, 2, True), {"token": f"{SECRET}01"})
    with tracer.start_as_current_span(f"POST /users/{SECRET}02@example.org", links=[link]) as span:
        span.set_attribute("db.password", f"{SECRET}03")
        span.set_attribute("url.full", f"https://u:{SECRET}04@x.io/?access_token={SECRET}05")
        span.set_attribute("gen_ai.input.messages", [{"role": "user", "content": f"my password is {SECRET}06"}])
        span.add_event("sent", {"to": f"{SECRET}07@example.org"})
    try:
        with tracer.start_as_current_span("fails"):
            raise ValueError(f"token={SECRET}08 was refused")
    except ValueError:
        log.exception("failed with api_key=%s", f"{SECRET}09", extra={"client_secret": f"{SECRET}10"})
    log.warning("plain order 4711", extra={"order": {"token": f"{SECRET}11"}})
    for n in range(3):
        log.info(f"password={SECRET}12 in a template")
    metrics.get_meter("shop").create_counter("logins").add(1, {"user": f"{SECRET}13@example.org", "route": "/login"})
"""


def environ(backend: Backend, folder: Path, **more: str) -> dict[str, str]:
    return {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "owner=zq7secret14@example.org,team=shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "WEIR_SPOOL_DIR": str(folder / "spool"),
        **more,
    }


@pytest.mark.parametrize("spool", ["true", "false"])
def test_no_secret_leaves(launch: Launch, backend: Backend, tmp_path: Path, spool: str) -> None:
    done = launch(SERVICE, **environ(backend, tmp_path, WEIR_SPOOL=spool))
    assert done.code == 0, done.err
    assert {span.name for span in backend.spans} == {"POST /users/[redacted:email]", "fails"}
    bodies = [log.body for log in backend.logs if log.scope == "shop"]
    assert "failed with api_key=[redacted:name]" in bodies
    assert "plain order 4711" in bodies
    assert all(b"zq7secret" not in request.body for request in backend.requests)
    everything = repr((backend.spans, backend.logs, backend.metrics))
    assert "zq7secret" not in everything
    assert "weir.redact.replaced" in everything
    kept = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert all(b"zq7secret" not in path.read_bytes() for path in kept)


def test_on_the_console_neither(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    names = {f"OTEL_{signal}_EXPORTER": "console" for signal in ("TRACES", "LOGS", "METRICS")}
    done = launch(SERVICE, **environ(backend, tmp_path, **names))
    assert "POST /users/[redacted:email]" in done.out
    assert "zq7secret" not in done.out


def test_it_can_be_turned_off(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    launch(SERVICE, **environ(backend, tmp_path, WEIR_REDACT="false"))
    assert "POST /users/zq7secret02@example.org" in {span.name for span in backend.spans}


def test_a_policy_decides_from_the_beginning(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"redact": {"allow": "*@example.org", "signals": {"traces": {"action": "drop"}}}}')
    done = launch(SERVICE, **environ(backend, tmp_path, WEIR_POLICY_FILE=str(policy)))
    assert done.code == 0, done.err
    [span] = [span for span in backend.spans if span.name == "POST /users/zq7secret02@example.org"]
    assert "db.password" not in span.attributes
    assert "zq7secret03" not in repr(backend.spans)


HELD = """
    import gc
    import logging
    from opentelemetry import baggage, context, metrics, trace
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
    from opentelemetry.trace.span import TraceState

    logging.getLogger().setLevel(logging.DEBUG)
    log = logging.getLogger("shop")
    SECRET = "zq7secret"
    tracer = trace.get_tracer("shop", attributes={"owner": f"{SECRET}01@example.org"})
    far = SpanContext(5, 6, True, TraceFlags(1), TraceState([("v", f"token:{SECRET}02"), ("w", "1")]))
    parent = trace.set_span_in_context(trace.NonRecordingSpan(far))
    context.attach(baggage.set_baggage("api_key", f"{SECRET}03"))

    def held():
        from otelweir.pipeline.sample.spans.tail import Tail
        tails = [one for one in gc.get_objects() if isinstance(one, Tail)]
        return [span for one in tails for trace in one._held.values() for span in trace.spans]

    def request(n, fails):
        links = [trace.Link(far, {"password": f"{SECRET}04"})]
        with tracer.start_as_current_span(f"POST /users/{SECRET}05@example.org", parent, links=links) as span:
            log.debug("debug line with password=%s", f"{SECRET}06", extra={"client_secret": f"{SECRET}07"})
            log.debug(f"token={SECRET}08 in a line of its own {n}")
            with tracer.start_as_current_span("inner", attributes={"user.email": f"{SECRET}09@example.org"}) as inner:
                inner.set_attribute("gen_ai.input.messages", [{"role": "user", "content": f"my token is {SECRET}10"}])
                inner.add_event("sent", {"authorization": f"Basic {SECRET}11"})
            for one in held():
                assert SECRET not in one.to_json(), one.to_json()
            print("held", len(held()))
            if fails:
                try:
                    raise ValueError(f"password={SECRET}12 was refused")
                except ValueError as error:
                    log.exception("failed for %s", f"{SECRET}13@example.org")
                    span.record_exception(error, {"cookie": f"a={SECRET}14"})
                    span.set_status(Status(StatusCode.ERROR, f"no such user {SECRET}15@example.org"))

    counter = metrics.get_meter("shop").create_counter("logins", description=f"by {SECRET}16@example.org")
    histogram = metrics.get_meter("shop").create_histogram("times")
    for n in range(6):
        request(n, n == 3)
        with tracer.start_as_current_span("counted"):
            counter.add(1, {"user": f"{SECRET}17@example.org"})
            histogram.record(0.1, {"session_token": f"{SECRET}18"})
"""


def held_environ(backend: str, folder: Path, **more: str) -> dict[str, str]:
    return {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "owner=zq7secret19@example.org,team=shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_METRICS_EXEMPLAR_FILTER": "always_on",
        "WEIR_SPOOL_DIR": str(folder / "spool"),
        "WEIR_TRACE_TAIL": "true",
        "WEIR_TRACE_TAIL_RATE": "0",
        "WEIR_FLIGHT_RECORDER": "errors",
        "WEIR_LOG_FIRST": "1",
        "WEIR_LOG_RATES": "debug=0",
        **more,
    }


def bytes_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (folder / "spool").rglob("*") if path.is_file())


@pytest.mark.parametrize("spool", ["true", "false"])
def test_what_waited_in_memory_leaves_without_secrets(
    launch: Launch, backend: Backend, tmp_path: Path, spool: str
) -> None:
    """Spans of the tail hold none while they wait; records of the flight recorder lose theirs on the way out."""
    done = launch(HELD, **held_environ(backend.endpoint, tmp_path, WEIR_SPOOL=spool))
    assert (done.code, done.out.split("\n")[0]) == (0, "held 1"), done.err
    assert {span.attributes["weir.sample.reason"] for span in backend.spans} == {"error"}
    assert {span.name for span in backend.spans} == {"POST /users/[redacted:email]", "inner"}
    flown = [log for log in backend.logs if log.attributes.get("weir.sample.reason") == "flight_recorder"]
    assert "debug line with password=[redacted:name]" in {log.body for log in flown}
    everything = b"".join(request.body for request in backend.requests)
    assert everything.count(b"[redacted:") > 20
    assert b"zq7secret" not in everything
    assert b"zq7secret" not in bytes_on_disk(tmp_path)
    assert b"weir.log.pattern.rollup" in everything


def test_what_lies_on_disk_in_an_outage_holds_no_secret(launch: Launch, tmp_path: Path) -> None:
    """Nobody listens, so all of it is still there when the process has ended: tail, recorder, roll-ups and metrics."""
    done = launch(HELD, **held_environ("http://127.0.0.1:9", tmp_path, WEIR_SHUTDOWN_TIMEOUT="1s"))
    assert done.code == 0, done.err
    kept = bytes_on_disk(tmp_path)
    assert b"POST /users/[redacted:email]" in kept
    assert b"debug line with password=[redacted:name]" in kept
    assert b"logins" in kept
    assert b"zq7secret" not in kept
    # The rest is the application's own: logging's handler of last resort.
    assert not [line for line in done.err.splitlines() if line.startswith("WEIR") and "zq7secret" in line]


def test_logs_of_a_kept_trace_hold_none(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    """All logs of a kept trace go out with it, also of one that is kept by rate."""
    more = {"WEIR_FLIGHT_RECORDER": "traces", "WEIR_TRACE_TAIL_RATE": "1"}
    done = launch(HELD, **held_environ(backend.endpoint, tmp_path, **more))
    assert done.code == 0, done.err
    with_trace = [log for log in backend.logs if log.attributes.get("weir.sample.reason") == "trace"]
    assert "debug line with password=[redacted:name]" in {log.body for log in with_trace}
    assert b"zq7secret" not in b"".join(request.body for request in backend.requests)


def test_a_reader_that_is_asked_gets_none(launch: Launch, tmp_path: Path) -> None:
    """As Prometheus' is: no exporter stands behind it."""
    service = """
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from otelweir.distro import assemble
        from otelweir.distro.redaction import redactor_of
        from otelweir.settings import load

        reader = assemble._reader(InMemoryMetricReader(), redactor_of(load({}).settings))
        from opentelemetry.sdk.metrics import MeterProvider
        provider = MeterProvider([reader], shutdown_on_exit=False)
        provider.get_meter("shop").create_counter("logins").add(1, {"user": "zq7secret@example.org", "route": "/"})
        print(reader.get_metrics_data().to_json())
    """
    done = launch.plain(service)
    assert done.code == 0, done.err
    assert "zq7secret" not in done.out
    assert '"user": "[redacted:email]"' in done.out and '"route": "/"' in done.out


def test_another_policy_holds_without_a_restart(launch: Launch, backend: Backend, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"redact": {"allow": "*@example.org"}}')
    service = f"""
        import gc, logging, pathlib, time
        from otelweir.pipeline.redact.redactor import Redactor
        log = logging.getLogger("shop")
        log.warning("first to zq7secret@example.org")
        pathlib.Path({str(policy)!r}).write_text('{{"redact": {{"action": "drop", "keys": ["customer_code"]}}}}')
        until = time.monotonic() + 40
        while time.monotonic() < until:
            log.warning("then to zq8secret@example.org.", extra={{"customer_code": "c7"}})
            time.sleep(0.2)
            if any(one.of("logs").plan.action == "drop" for one in gc.get_objects() if isinstance(one, Redactor)):
                break
        log.warning("last to zq9secret@example.org.", extra={{"customer_code": "c8"}})
    """
    done = launch(service, **environ(backend, tmp_path, WEIR_POLICY_FILE=str(policy), WEIR_POLICY_REFRESH="1s"))
    assert done.code == 0, done.err
    bodies = [log.body for log in backend.logs if log.scope == "shop"]
    assert bodies[0] == "first to zq7secret@example.org"
    assert bodies[-1] == "last to ."
    assert [log for log in backend.logs if log.scope == "shop"][-1].attributes.get("customer_code") is None
