"""The way of spans and log records to the acknowledgement, against OpenTelemetry's own, in the same run.

    python -m benchmarks.delivery [--rounds N] [--records N] [--rate N] [--flood N] [--json]

Weir as `configure()` sets it up, without sampling. The peer is the SDK with batch processors, OTLP/HTTP exporters and
the handler of opentelemetry-instrumentation-logging, all with their defaults, but queues that hold everything, so that
it loses nothing. Each runs in a process of its own; both send to the same server, in a third one, over loopback. Spans
have eight attributes; log records come from a call of `logging` with arguments and two extra attributes, within a span,
or from OpenTelemetry's API, where both have the same way up to the processor.

- CPU: user and system, of the whole process, from before the first record to after the last acknowledgement. Records
  come at a steady pace.
- seconds: the time of the clock for the same, with records as fast as they can be made. Half of it is twice as many
  records a second.
- longest call, 99.9 %: how long the application waits for the end of a span, or for a logging call, at the steady pace.
- memory: the largest resident memory of the process (`VmHWM`, so this needs Linux), at the steady pace and in a flood.

A run that loses a record counts for nothing and stops the benchmark.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from benchmarks.harness import Row, arguments, ratio, report
from benchmarks.sink import ROOT, Sink

TICK_S = 0.01
TARGET_MB = 10.0

# --- the application ------------------------------------------------------------------------------------------------


def weir(endpoint: str) -> Callable[[], bool]:
    """Set up Weir; gives what waits until everything has arrived."""
    import otelweir

    handle = otelweir.configure(service_name="shop", endpoint=endpoint)
    return lambda: bool(handle.flush(120))


def official(endpoint: str, queue: int) -> Callable[[], bool]:
    """Set up OpenTelemetry; gives what waits until everything has arrived."""
    from opentelemetry import trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "shop"})
    traces, logs = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    spans = BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces"), max_queue_size=queue)
    records = BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs"), max_queue_size=queue)
    traces.add_span_processor(spans)
    logs.add_log_record_processor(records)
    trace.set_tracer_provider(traces)
    set_logger_provider(logs)
    logging.getLogger().addHandler(LoggingHandler(logger_provider=logs))
    return lambda: spans.force_flush(120_000) and records.force_flush(120_000)


def spans_ending() -> Iterator[Callable[[], None]]:
    """The ends of spans that have begun."""
    from opentelemetry import trace

    tracer = trace.get_tracer("shop.orders", "1.0")
    for number in range(sys.maxsize):
        attributes: dict[str, Any] = {
            "http.request.method": "GET",
            "http.route": "/orders/{id}",
            "url.path": f"/orders/{number}",
            "http.response.status_code": 200,
            "server.address": "shop.example",
            "server.port": 443,
            "order.items": number % 17,
            "order.paid": number % 3 == 0,
        }
        yield tracer.start_span("GET /orders/{id}", kind=trace.SpanKind.SERVER, attributes=attributes).end


def log_calls() -> Iterator[Callable[[], None]]:
    """Calls of a logger, within a span."""
    from opentelemetry import trace

    log = logging.getLogger("shop.orders")
    log.setLevel(logging.INFO)
    context = trace.SpanContext(0x2F, 0x17, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        for number in range(sys.maxsize):

            def call(number: int = number) -> None:
                extra = {"order.items": number % 17, "customer.tier": "gold"}
                log.info("order %d of %s was paid after %.1f s", number, "customer", number / 7, extra=extra)

            yield call


def records_emitted() -> Iterator[Callable[[], None]]:
    """Log records for OpenTelemetry's own API."""
    from opentelemetry._logs import LogRecord, SeverityNumber, get_logger

    emit = get_logger("shop.orders", "1.0").emit
    for number in range(sys.maxsize):
        record = LogRecord(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=f"order {number} of customer was paid after {number / 7:.1f} s",
            attributes={"order.items": number % 17, "customer.tier": "gold"},
        )

        def call(record: LogRecord = record) -> None:
            emit(record)

        yield call


CALLS: Mapping[str, Callable[[], Iterator[Callable[[], None]]]] = {
    "spans": spans_ending,
    "logs": log_calls,
    "logs by the API": records_emitted,
}


def application(kind: str, what: str, endpoint: str, records: int, rate: int) -> NoReturn:
    """Make records, at a pace (0: none) and wait until all have arrived; print what that cost, as JSON."""
    flush = weir(endpoint) if kind == "weir" else official(endpoint, records + 1)
    took = array("d", bytes(8 * records))
    calls = CALLS[what]()
    next(calls)
    gc.collect()
    clock = time.perf_counter
    before, began = os.times(), clock()
    for number in range(records):
        if rate and not number % (rate // 100):
            time.sleep(max(0.0, began + number / rate - clock()))
        call = next(calls)
        start = clock()
        call()
        took[number] = clock() - start
    arrived = flush()
    ended, after = clock(), os.times()
    assert arrived
    waited = sorted(took)
    cpu_s = after.user + after.system - before.user - before.system
    found = {"CPU": cpu_s, "s": ended - began, "longest": waited[-1], "99.9 %": waited[-1 - records // 1000]}
    # Not getrusage: its figure begins with that of the parent before exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(json.dumps({**found, "MB": int(status.split("VmHWM:")[1].split()[0]) / 1024}))
    sys.stdout.flush()
    os._exit(0)


# --- the comparison -------------------------------------------------------------------------------------------------


def measured(sink: Sink, kind: str, what: str, records: int, rate: int) -> dict[str, float]:
    """What a process with so many records costs, per record where that makes sense."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_"))}
    with tempfile.TemporaryDirectory() as folder:
        environ |= {"WEIR_SPOOL_DIR": folder, "WEIR_LOG_SAMPLING": "off", "OTEL_METRICS_EXPORTER": "none"}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.delivery", kind, what, sink.endpoint, str(records), str(rate)],
            cwd=ROOT,
            env=environ,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    arrived = sum(sink.records().values())
    assert arrived == records, f"{kind}: {arrived} of {records} {what} arrived"
    found: dict[str, float] = json.loads(done.stdout)
    return {name: value / records if name in ("CPU", "s") else value for name, value in found.items()}


def main() -> None:
    if len(sys.argv) == 6 and sys.argv[1] in ("weir", "official"):
        kind, what, endpoint = sys.argv[1:4]
        application(kind, what, endpoint, int(sys.argv[4]), int(sys.argv[5]))
    options = arguments(__doc__, rounds=5, records=20_000, rate=4000, flood=60_000)
    found: dict[str, list[float]] = {}
    with Sink() as sink:
        for _ in range(options.rounds):
            for what in CALLS:
                for mode, count, rate in (("paced", options.records, options.rate), ("flood", options.flood, 0)):
                    for kind in ("weir", "official"):
                        for name, value in measured(sink, kind, what, count, rate).items():
                            found.setdefault(f"{kind} {what} {mode} {name}", []).append(value)
    rows, beyond = [], {}
    for what in CALLS:
        for name, title, target in (
            ("paced CPU", f"CPU, {what}", 0.75),
            ("flood s", f"seconds in a flood, {what}", 0.5),
            ("flood CPU", f"CPU in a flood, {what}", None),
            ("paced longest", f"longest call, {what}", None),
            ("paced 99.9 %", f"99.9 % of calls, {what}", None),
        ):
            mine, theirs = f"weir {what} {name}", f"official {what} {name}"
            of = ratio(found, mine, theirs, target)
            rows.append(Row(title, "official", of.ratio, of.target, of.median_us * 1e6))
        for mode in ("paced", "flood"):
            ours, others = found[f"weir {what} {mode} MB"], found[f"official {what} {mode} MB"]
            beyond[f"{what}, {mode}"] = median(a - b for a, b in zip(ours, others, strict=True))
    if options.json:
        print(json.dumps({"rows": [row._asdict() for row in rows], "beyond_mb": beyond, "target_mb": TARGET_MB}))
        return
    report(rows, as_json=False)
    for name, megabytes in beyond.items():
        print(f"memory beyond the official pipeline, {name}: {megabytes:.1f} MB, at most {TARGET_MB:g}")


if __name__ == "__main__":
    main()
