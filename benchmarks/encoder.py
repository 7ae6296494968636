"""Encoding to OTLP bytes against the official encoder, in the same run.

    python benchmarks/encoder.py [--rounds N]

Each shape is a batch of records that differ in ids, times and the values that differ in life. The official encoder gets
the batch as its exporter would, and serializes the request; Weir encodes record by record, as it does when each is
finished, and joins the request. The figure is how many times faster Weir is, in CPU time of this thread; both take
turns in every round and the best round counts. `alone` is Weir without the join: what the application's thread pays.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from otelweir.pipeline.spool.otlp import encode_log, encode_span, join

BATCH = 512  # the official batch processors' default
GOAL = 5.0

RESOURCE = Resource(
    {
        "service.name": "shop",
        "service.version": "4.12.0",
        "service.instance.id": "0198c8a5-5c1e-7a34-9d0e-3c1d7a40f1aa",
        "deployment.environment.name": "production",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.1",
        "host.name": "ip-10-0-14-3",
        "os.type": "linux",
        "process.pid": 4711,
        "process.command_args": ["gunicorn", "shop.wsgi", "-w", "4"],
    }
)
SCOPE = InstrumentationScope("shop.orders", "1.0")
tracer = TracerProvider(resource=RESOURCE, shutdown_on_exit=False).get_tracer("shop.instrumentation", "0.66b1")
rnd = random.Random(5)  # the same records on every run

PROSE = "The order was placed on Monday and should arrive within two working days; the customer asks for a refund. "
STACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/srv/shop/orders/views_{n}.py", line {n * 17}, in handle_{n}\n    return self.next.handle_{n}(request)\n'
    for n in range(14)
)


def context(is_remote: bool = False) -> SpanContext:
    return SpanContext(rnd.getrandbits(128), rnd.getrandbits(64), is_remote, TraceFlags(TraceFlags.SAMPLED))


def span(name: str, kind: SpanKind, attributes: dict[str, Any], remote: bool = False) -> Any:
    parent = set_span_in_context(NonRecordingSpan(context(remote)))
    return tracer.start_span(name, parent, kind, attributes)


def http_server(n: int) -> ReadableSpan:
    path = rnd.choice(("/orders/{id}", "/cart", "/", "/search"))
    made = span(
        f"GET {path}",
        SpanKind.SERVER,
        {
            "http.request.method": "GET",
            "url.scheme": "https",
            "url.path": f"/orders/{rnd.randrange(10**6)}",
            "http.route": path,
            "server.address": "shop.example.com",
            "server.port": 443,
            "client.address": f"10.{rnd.randrange(256)}.{rnd.randrange(256)}.7",
            "network.protocol.version": "1.1",
            "user_agent.original": f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{rnd.randrange(99)}",
        },
        remote=True,
    )
    made.set_attribute("http.response.status_code", rnd.choice((200, 200, 201, 404, 500)))
    return ended(made)


def database(n: int) -> ReadableSpan:
    made = span(
        "SELECT shop.orders",
        SpanKind.CLIENT,
        {
            "db.system.name": "postgresql",
            "db.namespace": "shop",
            "db.collection.name": "orders",
            "db.operation.name": "SELECT",
            "db.query.text": f"SELECT id, state, total FROM orders WHERE customer = {rnd.randrange(10**6)} ORDER BY "
            "placed DESC LIMIT 20 -- a comment that makes the statement as long as they usually are",
            "server.address": "db-1.internal",
            "server.port": 5432,
        },
    )
    return ended(made)


def llm(n: int) -> ReadableSpan:
    def message(role: str, length: int) -> dict[str, Any]:
        start = rnd.randrange(len(PROSE))
        return {"role": role, "parts": [{"type": "text", "content": (PROSE * 40)[start : start + length]}]}

    made = span(
        "chat large-model",
        SpanKind.CLIENT,
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "large-model",
            "gen_ai.response.model": "large-model-2026-01",
            "gen_ai.response.id": f"chatcmpl-{rnd.getrandbits(96):x}",
            "gen_ai.request.temperature": 0.2,
            "gen_ai.usage.input_tokens": rnd.randrange(4000),
            "gen_ai.usage.output_tokens": rnd.randrange(1000),
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.system_instructions": PROSE * 10,
            "gen_ai.input.messages": [message("user", 1500), message("assistant", 800), message("user", 300)],
            "gen_ai.output.messages": [message("assistant", 1200)],
        },
    )
    return ended(made)


def events_and_links(n: int) -> ReadableSpan:
    parent = set_span_in_context(NonRecordingSpan(context()))
    made = tracer.start_span(
        "orders process",
        parent,
        SpanKind.CONSUMER,
        {"messaging.system": "kafka", "messaging.destination.name": "orders", "messaging.batch.message_count": 3},
        [Link(context(True), {"messaging.message.id": f"{rnd.getrandbits(64):x}"}) for _ in range(3)],
    )
    made.add_event("message received", {"offset": rnd.randrange(10**7), "partition": rnd.randrange(12)})
    made.add_event("message handled", {"took_ms": rnd.random() * 50, "retried": False})
    made.add_event("exception", {"exception.type": "ValueError", "exception.stacktrace": STACK})
    made.set_status(Status(StatusCode.ERROR, "the third message failed"))
    return ended(made)


def ended(made: Any) -> ReadableSpan:
    made.end()
    readable: ReadableSpan = made._readable_span()
    return readable


def log(body: str, number: SeverityNumber, attributes: dict[str, Any] | None, trace: bool = True) -> ReadWriteLogRecord:
    now = time.time_ns()
    record = LogRecord(
        timestamp=now,
        observed_timestamp=now + 900,
        context=set_span_in_context(NonRecordingSpan(context()), Context()) if trace else Context(),
        severity_text=number.name,
        severity_number=number,
        body=body,
        attributes=attributes,
    )
    return ReadWriteLogRecord(record, RESOURCE, SCOPE)


def weir_log(n: int) -> ReadWriteLogRecord:
    number = rnd.randrange(10**6)
    return log(
        f"order {number} of customer {rnd.randrange(10**5)} accepted",
        SeverityNumber.INFO,
        {
            "code.file.path": "/srv/shop/orders/views.py",
            "code.function.name": "place",
            "code.line.number": rnd.choice((101, 214, 377)),
            "weir.sample.weight": rnd.choice((1.0, 5.0)),
            "weir.sample.reason": "rate",
            "log.record.template": "order %s of customer %s accepted",
            "weir.pattern.id": "5f2c90aa11d37b4e",
        },
    )


def exception_log(n: int) -> ReadWriteLogRecord:
    return log(
        f"order {rnd.randrange(10**6)} failed",
        SeverityNumber.ERROR,
        {
            "code.file.path": "/srv/shop/orders/views.py",
            "code.line.number": 218,
            "exception.type": "OrderError",
            "exception.message": f"no stock for article {rnd.randrange(10**5)}",
            "exception.stacktrace": f"{STACK}OrderError: no stock for article {n}",
        },
    )


def tiny_log(n: int) -> ReadWriteLogRecord:
    return log(f"tick {n}", SeverityNumber.DEBUG, None, trace=False)


Shape = tuple[str, Sequence[Any], Callable[[Sequence[Any]], Any], Callable[[Any], Any]]


def shapes() -> list[tuple[str, list[Shape]]]:
    return [
        (
            "spans",
            [
                (make.__name__, [make(n) for n in range(BATCH)], encode_spans, encode_span)
                for make in (http_server, database, llm, events_and_links)
            ],
        ),
        (
            "logs",
            [
                (make.__name__, [make(n) for n in range(BATCH)], encode_logs, encode_log)
                for make in (weir_log, exception_log, tiny_log)
            ],
        ),
    ]


def cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.thread_time()
    work()
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()

    for signal, of_signal in shapes():
        print(f"{signal:<18}{'bytes':>8}{'official µs':>13}{'weir µs':>9}{'alone µs':>10}{'ratio':>8}")
        ratios = []
        for name, batch, official, encode in of_signal:
            contenders: list[Callable[[], object]] = [
                lambda batch=batch, official=official: official(batch).SerializeToString(),  # type: ignore[misc]
                lambda batch=batch, encode=encode: join([encode(record) for record in batch]),  # type: ignore[misc]
                lambda batch=batch, encode=encode: [encode(record) for record in batch],  # type: ignore[misc]
            ]
            best = [float("inf")] * 3
            for turn in range(options.rounds):
                for place in (0, 1, 2) if turn % 2 else (2, 1, 0):
                    best[place] = min(best[place], cpu_s(contenders[place]))
            theirs, ours, alone = (seconds / len(batch) * 1e6 for seconds in best)
            ratios.append(theirs / ours)
            size = sum(len(encode(record)[1]) for record in batch) // len(batch)
            print(f"  {name:<16}{size:>8}{theirs:>13.2f}{ours:>9.2f}{alone:>10.2f}{ratios[-1]:>7.1f}x")
        print(f"  {'median':<16}{'':>40}{statistics.median(ratios):>7.1f}x    goal: {GOAL:.0f}x")


if __name__ == "__main__":
    main()
