"""The exporters that the `OTEL_*_EXPORTER` variables name; OTLP ones are loaded when there is something to export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.util._importlib_metadata import entry_points

from otelweir import errors
from otelweir.distro import compat
from otelweir.distro.delivery import Delivery
from otelweir.distro.destinations import destination
from otelweir.distro.late import Late
from otelweir.distro.weir_exporters import WeirLogExporter, WeirMetricExporter, WeirSpanExporter

Signal: TypeAlias = Literal["traces", "metrics", "logs"]

PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""OTLP protocols and the entry points of their exporters."""

DEFAULT_PROTOCOL: Final = "http/protobuf"


def protocol(signal: Signal, environ: Mapping[str, str]) -> str:
    """The OTLP protocol of a signal; an unknown one is reported and the default applies."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environ.get(name, "").strip().lower()
        if value in PROTOCOLS:
            return value
        if value:
            errors.warn(errors.BAD_VALUE, f"{name}={value!r} is not {' or '.join(PROTOCOLS)}")
    return DEFAULT_PROTOCOL


def names(signal: Signal, environ: Mapping[str, str]) -> list[str]:
    """The exporters of a signal, as its variable lists them; `none` is no exporter."""
    listed = [name.strip() for name in environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").split(",")]
    return [name for name in dict.fromkeys(listed) if name and name.lower() != "none"]


@dataclass(frozen=True)
class Target:
    """Where `configure()` says to send; what is None, the variables decide.

    Attributes:
        endpoint: Base URL for all signals; paths as `/v1/logs` are added for HTTP.
        headers: For every request.
    """

    endpoint: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)

    def arguments(self, signal: Signal, protocol_: str) -> dict[str, Any]:
        """The arguments of an exporter's constructor."""
        given: dict[str, Any] = {}
        if self.endpoint is not None:
            over_http = protocol_ == "http/protobuf"
            if over_http and not self.endpoint.startswith(("http://", "https://")):
                errors.warn(errors.BAD_VALUE, f"endpoint={self.endpoint!r} is not a URL such as http://localhost:4318")
            else:
                given["endpoint"] = f"{self.endpoint.rstrip('/')}/v1/{signal}" if over_http else self.endpoint
        if self.headers is not None:
            given["headers"] = dict(self.headers)
        return given


class LazySpanExporter(SpanExporter):
    """A span exporter that is loaded at the first batch."""

    def __init__(self, load: Callable[[], SpanExporter], loaded: SpanExporter | None = None) -> None:
        self.lazy = Late(load, loaded)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.lazy.export(lambda exporter: exporter.export(spans), SpanExportResult.FAILURE)

    def shutdown(self) -> None:
        if (exporter := self.lazy.loaded) is not None:
            exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        exporter = self.lazy.loaded
        return exporter.force_flush(timeout_millis) if exporter is not None else True


class LazyLogExporter(LogRecordExporter):
    """A log exporter that is loaded at the first batch."""

    def __init__(self, load: Callable[[], LogRecordExporter], loaded: LogRecordExporter | None = None) -> None:
        self.lazy = Late(load, loaded)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return self.lazy.export(lambda exporter: exporter.export(batch), LogRecordExportResult.FAILURE)

    def shutdown(self) -> None:
        if (exporter := self.lazy.loaded) is not None:
            exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        exporter = self.lazy.loaded
        return exporter.force_flush(timeout_millis) if exporter is not None else True


class LazyMetricExporter(MetricExporter):
    """A metric exporter that is loaded at the first batch; temporality and aggregation are the defaults of OTLP.

    A reader asks its exporter for them as soon as it is made: where they are something else, pass the loaded exporter.
    """

    def __init__(self, load: Callable[[], MetricExporter], loaded: MetricExporter | None = None) -> None:
        super().__init__(*(compat.metric_preferences(loaded) if loaded is not None else ()))
        self.lazy = Late(load, loaded)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return self.lazy.export(
            lambda exporter: exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs),
            MetricExportResult.FAILURE,
        )

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        if (exporter := self.lazy.loaded) is not None:
            exporter.shutdown(timeout_millis=timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        exporter = self.lazy.loaded
        return exporter.force_flush(timeout_millis) if exporter is not None else True


_LAZY: Final[Mapping[Signal, Callable[..., Any]]] = {
    "traces": LazySpanExporter,
    "metrics": LazyMetricExporter,
    "logs": LazyLogExporter,
}

_METRIC_PREFERENCES: Final = (
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
)


def exporters(
    signal: Signal, environ: Mapping[str, str], target: Target, delivery: Delivery | None = None
) -> list[Any]:
    """The exporters of a signal (or metric readers), in the order of its variable.

    One that cannot be loaded is reported and left out; the others work.

    Args:
        signal: Whose.
        environ: The environment.
        target: Where `configure()` says to send.
        delivery: Where `otlp` and `weir` put what they export; None for OpenTelemetry's own OTLP exporters.
    """
    found: list[Any] = []
    for name in names(signal, environ):
        if delivery is not None and name in ("otlp", "weir"):
            to = destination(
                signal, environ, endpoint=target.endpoint, headers=target.headers, settings=delivery.settings
            )
            if delivery.open(signal, to):
                found.append(_SPOOLED[signal](delivery=delivery))
            continue
        otlp = name == "otlp" or name in PROTOCOLS.values()
        protocol_ = protocol(signal, environ) if name == "otlp" else ""
        entry_point = PROTOCOLS[protocol_] if name == "otlp" else name
        protocol_ = protocol_ or next((p for p, e in PROTOCOLS.items() if e == name), "")
        arguments = target.arguments(signal, protocol_) if otlp else {}

        def load(name: str = entry_point, arguments: dict[str, Any] = arguments) -> Any:
            group = f"opentelemetry_{signal}_exporter"
            known = entry_points(group=group, name=name)
            if not known:
                raise LookupError(f"no package provides {name!r} in the entry point group {group}")
            return next(iter(known)).load()(**arguments)

        # A metric reader asks its exporter for preferences as soon as it is made.
        if otlp and not (signal == "metrics" and any(environ.get(variable) for variable in _METRIC_PREFERENCES)):
            found.append(_LAZY[signal](load))
            continue
        try:
            loaded = load()
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises
            errors.warn(errors.NOT_LOADED, f"OTEL_{signal.upper()}_EXPORTER={name}: {error}")
            continue
        found.append(loaded if isinstance(loaded, MetricReader) else _LAZY[signal](load, loaded))
    return found


_SPOOLED: Final[Mapping[Signal, Callable[..., Any]]] = {
    "traces": WeirSpanExporter,
    "metrics": WeirMetricExporter,
    "logs": WeirLogExporter,
}
