"""The instruments on a meter provider. Most are read when somebody collects, so that delivery pays nothing for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation

from otelweir.selfmetrics import names
from otelweir.selfmetrics.exchanges import Exchanges, Sent, error_of, outcome_of
from otelweir.selfmetrics.names import BREAKER, ERROR, REASON, SIGNAL, Instrument
from otelweir.selfmetrics.tally import Tally
from otelweir.signals import LANES, Lane

if TYPE_CHECKING:
    from otelweir.selfmetrics.sources import CourierSource, SpoolSource

METER: Final = "otelweir"
STATES: Final = ("closed", "open", "half-open")

_COMPONENTS: Final[Mapping[Lane, str]] = {"traces": "span", "logs": "log", "metrics": "metric"}
_EXPORTS: Final[Mapping[Lane, tuple[Instrument, Instrument]]] = {
    # Not metrics: a record there is a metric with all its data points, and the convention counts the points.
    "traces": (names.SPAN_EXPORTED, names.SPAN_INFLIGHT),
    "logs": (names.LOG_EXPORTED, names.LOG_INFLIGHT),
}
_UNFINISHED: Final = frozenset({"retry_after", "unauthorised"})

Attributes = Mapping[str, str | int]
Read = Callable[[], Iterable[Observation]]


def instruments(
    meter_provider: MeterProvider,
    tally: Tally,
    spool: SpoolSource,
    courier: CourierSource,
    exchanges: Exchanges,
    *,
    max_bytes: int | None = None,
    protocols: Mapping[Lane, str] | None = None,
    sdk_names: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Make the instruments of `names.py`.

    Args:
        meter_provider: Gets them, in a meter named `otelweir`.
        tally: Says what became of records.
        spool: Says what waits.
        courier: Says how it goes with each endpoint.
        exchanges: Tells of each request.
        max_bytes: What the spool may take on disk.
        protocols: By lane `grpc` or `http/protobuf`, which is also what is taken for a lane that is missing.
        sdk_names: Whether to give `otel.sdk.exporter.*`, too. Where the SDK's own exporters send the same signals and
            `OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED` is true, these give them already.
        clock: Seconds that do not go back.
    """
    meter = meter_provider.get_meter(METER)
    _Delivery(meter, tally, spool, courier, exchanges).make(max_bytes)
    if sdk_names:
        _Exporters(meter, tally, courier, exchanges, protocols or {}, clock).make()


class _Delivery:
    """What is Weir's own."""

    def __init__(
        self, meter: Meter, tally: Tally, spool: SpoolSource, courier: CourierSource, exchanges: Exchanges
    ) -> None:
        self._meter = meter
        self._tally = tally
        self._spool = spool
        self._courier = courier
        self._exchanges = exchanges
        self._times = _histogram(meter, names.RESPONSE_TIME)
        self._sizes = _histogram(meter, names.BATCH_SIZE)

    def make(self, max_bytes: int | None) -> None:
        reads: dict[Instrument, Read] = {
            names.ACCEPTED: lambda: self._counts(lambda lane: self._tally.of(lane).accepted),
            names.DELIVERED: lambda: self._counts(lambda lane: self._tally.of(lane).delivered),
            names.LOST: self._lost,
            names.WAITING: lambda: self._counts(lambda lane: self._tally.of(lane).waiting),
            names.SIZE: lambda: [Observation(self._spool.disk_bytes())],
            names.OLDEST_AGE: lambda: self._counts(lambda lane: self._spool.waiting(lane).oldest_age_s),
            names.BATCH_TARGET: self._targets,
            names.COMPRESSION_RATIO: self._ratios,
            names.BREAKER_STATE: self._breakers,
        }
        if max_bytes is not None:
            reads[names.LIMIT] = lambda: [Observation(max_bytes)]
        for instrument, read in reads.items():
            _observe(self._meter, instrument, _when_used(self._tally, read))
        self._exchanges.listen(self._sent)

    def _counts(self, count: Callable[[Lane], float]) -> Iterator[Observation]:
        for lane in LANES:
            yield Observation(count(lane), {SIGNAL: lane})

    def _lost(self) -> Iterator[Observation]:
        for lane in LANES:
            for why, records in self._tally.of(lane).lost.items():
                yield Observation(records, {SIGNAL: lane, REASON: why.value})

    def _targets(self) -> Iterator[Observation]:
        for lane, state in self._courier.state().items():
            yield Observation(state.target_bytes, {SIGNAL: lane})

    def _ratios(self) -> Iterator[Observation]:
        for lane in LANES:
            if (summary := self._exchanges.of(lane)).requests:
                yield Observation(summary.compression_ratio, {SIGNAL: lane})

    def _breakers(self) -> Iterator[Observation]:
        for lane, state in self._courier.state().items():
            for one in STATES:
                attributes = {SIGNAL: lane, BREAKER: one, **_server(state.endpoint)}
                yield Observation(int(state.breaker == one), attributes)

    def _sent(self, sent: Sent) -> None:
        attributes: Attributes = {SIGNAL: sent.lane}
        self._sizes.record(sent.records, attributes)
        if (state := self._courier.state().get(sent.lane)) is not None:
            attributes = {**attributes, **_server(state.endpoint)}
        if (error := error_of(sent)) is not None:
            attributes = {**attributes, ERROR: error}
        self._times.record(sent.took_s, attributes)


class _Exporters:
    """What OpenTelemetry has a name for. Here the exporter is all that comes after the end of a span: records are with
    it from when they are accepted until they are acknowledged or lost, whatever was tried meanwhile."""

    def __init__(
        self,
        meter: Meter,
        tally: Tally,
        courier: CourierSource,
        exchanges: Exchanges,
        protocols: Mapping[Lane, str],
        clock: Callable[[], float],
    ) -> None:
        self._meter = meter
        self._tally = tally
        self._courier = courier
        self._exchanges = exchanges
        self._protocols = protocols
        self._clock = clock
        self._began: dict[Lane, float] = {}
        self._pid = os.getpid()
        self._durations = _histogram(meter, names.OPERATION_DURATION)

    def make(self) -> None:
        for lane, (exported, inflight) in _EXPORTS.items():
            _observe(self._meter, exported, _when_used(self._tally, partial(self._exported, lane)))
            _observe(self._meter, inflight, _when_used(self._tally, partial(self._inflight, lane)))
        self._exchanges.listen(self._sent)

    def _exported(self, lane: Lane) -> Iterator[Observation]:
        count, attributes = self._tally.of(lane), self._attributes(lane)
        yield Observation(count.delivered, attributes)
        for why, records in count.lost.items():
            yield Observation(records, {**attributes, ERROR: why.value})

    def _inflight(self, lane: Lane) -> Iterator[Observation]:
        yield Observation(self._tally.of(lane).waiting, self._attributes(lane))

    def _attributes(self, lane: Lane) -> Attributes:
        protocol = "grpc" if self._protocols.get(lane) == "grpc" else "http"
        component = _COMPONENTS[lane]
        state = self._courier.state().get(lane)
        return {
            "otel.component.name": f"weir_{component}_exporter/0",
            "otel.component.type": f"otlp_{protocol}_{component}_exporter",
            **(_server(state.endpoint) if state is not None else {}),
        }

    def _sent(self, sent: Sent) -> None:
        now, outcome = self._clock(), outcome_of(sent)
        if self._pid != (pid := os.getpid()):  # what the parent tried, it goes on with itself
            self._pid, self._began = pid, {}
        began = self._began.setdefault(sent.lane, now - sent.took_s)
        if outcome in _UNFINISHED or (outcome == "too_large" and sent.records > 1):
            return  # it goes on with the next request of the lane, whose oldest records are these
        del self._began[sent.lane]
        attributes, error = self._attributes(sent.lane), error_of(sent)
        self._durations.record(max(0.0, now - began), attributes if error is None else {**attributes, ERROR: error})


def _when_used(tally: Tally, read: Read) -> Read:
    """Nothing until something was accepted: a process without telemetry has none about its delivery either."""
    return lambda: read() if any(count.accepted for count in tally.now().values()) else ()


def _observe(meter: Meter, instrument: Instrument, read: Read) -> None:
    def callback(_options: CallbackOptions) -> Iterable[Observation]:
        try:
            return list(read())
        except Exception:  # noqa: BLE001 - the other metrics go on
            return []

    create = {
        "counter": meter.create_observable_counter,
        "updowncounter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }[instrument.kind]
    create(instrument.name, [callback], unit=instrument.unit, description=instrument.meaning)


def _histogram(meter: Meter, instrument: Instrument) -> Histogram:
    return meter.create_histogram(
        instrument.name,
        unit=instrument.unit,
        description=instrument.meaning,
        explicit_bucket_boundaries_advisory=list(instrument.buckets),
    )


@lru_cache(64)
def _server(endpoint: str) -> Attributes:
    """`server.address` and `server.port` of an endpoint, as far as it tells."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        address, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if address is None:
        return {}
    if port is None:
        port = {"https": 443, "http": 80}.get(parts.scheme)
    return {"server.address": address, **({} if port is None else {"server.port": port})}
