"""The metrics that Weir gives of its own delivery: names, units and meaning. `docs/metrics.md` is printed from it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]

SIGNAL: Final = "weir.signal"
"""`traces`, `logs` or `metrics`."""

REASON: Final = "weir.loss.reason"
"""Why records were lost; the values of `signals.Loss`."""

BREAKER: Final = "weir.breaker.state"
"""`closed`, `open` or `half-open`."""

ERROR: Final = "error.type"
SERVER: Final = ("server.address", "server.port")
COMPONENT: Final = ("otel.component.name", "otel.component.type")


class Instrument(NamedTuple):
    """One metric.

    Attributes:
        name: As OpenTelemetry's semantic conventions have it where they mean the same, else below `weir.`.
        kind: The instrument.
        unit: As UCUM writes it.
        meaning: What the number says.
        attributes: Those it may have.
        buckets: The bounds of a histogram.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_EXPORTED: Final = (*COMPONENT, *SERVER, ERROR)

SPAN_EXPORTED: Final = Instrument(
    "otel.sdk.exporter.span.exported",
    "counter",
    "{span}",
    "Spans whose export is over: acknowledged by a server, or lost for the reason in `error.type`.",
    _EXPORTED,
)
SPAN_INFLIGHT: Final = Instrument(
    "otel.sdk.exporter.span.inflight",
    "updowncounter",
    "{span}",
    "Spans whose export is not over: they wait in the spool or are on their way.",
    (*COMPONENT, *SERVER),
)
LOG_EXPORTED: Final = Instrument(
    "otel.sdk.exporter.log.exported",
    "counter",
    "{log_record}",
    "Log records whose export is over: acknowledged by a server, or lost for the reason in `error.type`.",
    _EXPORTED,
)
LOG_INFLIGHT: Final = Instrument(
    "otel.sdk.exporter.log.inflight",
    "updowncounter",
    "{log_record}",
    "Log records whose export is not over: they wait in the spool or are on their way.",
    (*COMPONENT, *SERVER),
)
OPERATION_DURATION: Final = Instrument(
    "otel.sdk.exporter.operation.duration",
    "histogram",
    "s",
    "From the first attempt to send a batch until a server took or refused it, with all waits between.",
    _EXPORTED,
    _SECONDS,
)
ACCEPTED: Final = Instrument(
    "weir.spool.accepted",
    "counter",
    "{record}",
    "Records that came to this process: from the application, or taken over from processes that are gone. "
    "Always the sum of the next three.",
    (SIGNAL,),
)
DELIVERED: Final = Instrument(
    "weir.delivery.delivered", "counter", "{record}", "Records that a server acknowledged.", (SIGNAL,)
)
LOST: Final = Instrument(
    "weir.delivery.lost", "counter", "{record}", "Records that will not arrive, by reason.", (SIGNAL, REASON)
)
WAITING: Final = Instrument(
    "weir.spool.waiting",
    "updowncounter",
    "{record}",
    "Records that are neither delivered nor lost.",
    (SIGNAL,),
)
SIZE: Final = Instrument(
    "weir.spool.size", "gauge", "By", "What the service's spool takes on disk, with the files of all its processes."
)
LIMIT: Final = Instrument("weir.spool.limit", "gauge", "By", "What the service's spool may take on disk.")
OLDEST_AGE: Final = Instrument(
    "weir.spool.oldest_age", "gauge", "s", "The age of the oldest record that waits; 0 when none does.", (SIGNAL,)
)
BATCH_SIZE: Final = Instrument(
    "weir.delivery.batch.size",
    "histogram",
    "{record}",
    "Records in a request.",
    (SIGNAL,),
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
)
BATCH_TARGET: Final = Instrument(
    "weir.delivery.batch.target",
    "gauge",
    "By",
    "How large requests are made now, before compression; learnt from the answers.",
    (SIGNAL,),
)
RESPONSE_TIME: Final = Instrument(
    "weir.delivery.response.time",
    "histogram",
    "s",
    "How long a server took to answer a request, or how long none came. `error.type` is the status, or what became of "
    "the request in a word.",
    (SIGNAL, *SERVER, ERROR),
    _SECONDS[:13],
)
COMPRESSION_RATIO: Final = Instrument(
    "weir.delivery.compression.ratio",
    "gauge",
    "1",
    "How many bytes compression made one, over all requests; 1 where nothing is compressed.",
    (SIGNAL,),
)
BREAKER_STATE: Final = Instrument(
    "weir.delivery.breaker.state",
    "updowncounter",
    "1",
    "1 for the state that the circuit breaker of the signal's endpoint is in, 0 for the others.",
    (SIGNAL, BREAKER, *SERVER),
)

INSTRUMENTS: Final = (
    SPAN_EXPORTED,
    SPAN_INFLIGHT,
    LOG_EXPORTED,
    LOG_INFLIGHT,
    OPERATION_DURATION,
    ACCEPTED,
    DELIVERED,
    LOST,
    WAITING,
    SIZE,
    LIMIT,
    OLDEST_AGE,
    BATCH_SIZE,
    BATCH_TARGET,
    RESPONSE_TIME,
    COMPRESSION_RATIO,
    BREAKER_STATE,
)
