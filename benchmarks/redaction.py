"""What redaction adds to the encoding of the same records, in the same run.

    python -m benchmarks.redaction [--rounds N] [--json]

Each shape is a batch of records that hold no secret, as nearly all records do, and differ in ids and the values that
differ in life; `http_server` is the ordinary span with ten attributes that the promise is about. The last rows are
records that do hold one: an address in a log message, a password in an attribute. The peer is Weir's own encoder,
which is five times as fast as the official one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks import encoder
from benchmarks.harness import Row, arguments, by_turns, ratio, report, timed
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otelweir.distro.redaction import log_encoder, span_encoder
from otelweir.pipeline.redact import Redactor
from otelweir.pipeline.spool.otlp import encode_log, encode_span

BATCH = 512
GOAL = 0.35

Work = Callable[[Any], object]


def with_a_password(n: int) -> ReadableSpan:
    made = encoder.span("POST /login", SpanKind.SERVER, {"http.route": "/login", "form.password": f"hunter{n}"})
    return encoder.ended(made)


def with_an_address(n: int) -> ReadWriteLogRecord:
    return encoder.log(f"user a{n}@example.com logged in", SeverityNumber.INFO, {"code.line.number": 12})


def main() -> None:
    options = arguments(__doc__, rounds=25)
    redactor = Redactor()
    span, log = span_encoder(redactor), log_encoder(redactor)
    shapes: list[tuple[Callable[[int], Any], Work, Work, float | None]] = [
        (encoder.http_server, span, encode_span, GOAL),
        (encoder.database, span, encode_span, None),
        (encoder.llm, span, encode_span, None),
        (encoder.events_and_links, span, encode_span, None),
        (encoder.weir_log, log, encode_log, None),
        (encoder.exception_log, log, encode_log, None),
        (encoder.tiny_log, log, encode_log, None),
        (with_a_password, span, encode_span, None),
        (with_an_address, log, encode_log, None),
    ]
    rows: list[Row] = []
    for make, redact, encode, goal in shapes:
        found = by_turns(
            {make.__name__: _over(make, redact), "encoding alone": _over(make, encode)}, options.rounds, BATCH
        )
        row = ratio(found, make.__name__, "encoding alone", goal)
        rows.append(row._replace(ratio=row.ratio - 1, median_us=row.median_us * (1 - 1 / row.ratio)))
    report(rows, options.json)


def _over(make: Callable[[int], Any], work: Work) -> Callable[[int], float]:
    made = count()

    def run(times: int) -> float:
        # New ones each time: what redaction remembers of the last ones must not help it more than it does in life.
        records = [make(next(made)) for _ in range(times)]

        def all_of_them() -> None:
            for record in records:
                work(record)

        return timed(all_of_them)

    return run


if __name__ == "__main__":
    main()
