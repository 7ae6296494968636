"""The exporters that the `OTEL_*_EXPORTER` variables name; OTLP ones are loaded when there is something to export.

An OTLP exporter brings an HTTP or gRPC client and protobuf, half of what a process spends on telemetry while it
starts. Loaded on the exporting thread at the first batch, they cost a short-lived process nothing. Before a fork all
are loaded, and a first export is waited for: what any thread of the application imports at that moment would stay half
imported in the child, behind a lock that nobody releases. The child makes its own exporter, since one that is shared
would share its connections, too.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.util._importlib_metadata import entry_points

from otelweir import errors
from otelweir.distro import compat
from otelweir.pipeline.capture import quiet

Signal: TypeAlias = Literal["traces", "metrics", "logs"]
T = TypeVar("T")
R = TypeVar("R")

PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""OTLP protocols and the entry points of their exporters."""

DEFAULT_PROTOCOL: Final = "http/protobuf"
_LOAD_PATIENCE_S: Final = 5.0
"""How long a fork waits for a load, which ends by itself."""
_EXPORT_PATIENCE_S: Final = 1.0
"""How long a fork waits for a first export, which may hang."""


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


class _Loading:
    """Lets one thread load and export for the first time, and no fork happen meanwhile.

    Attributes:
        patience_s: How long a fork waits.
        exporters: All exporters that are loaded late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self.patience_s = _LOAD_PATIENCE_S
        self.exporters: weakref.WeakSet[_Lazy[Any]] = weakref.WeakSet()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    def __enter__(self) -> None:
        self._lock.acquire()
        self.patience_s = _LOAD_PATIENCE_S

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _before(self) -> None:
        # A fork from within an import that the loading thread waits for must not wait for ever.
        self._held = self._lock.acquire(timeout=self.patience_s)
        for lazy in list(self.exporters) if self._held else ():
            lazy.prepare()

    def _after(self) -> None:
        if self._held:
            self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        for lazy in list(self.exporters):
            lazy.after_fork()


_loading = _Loading()


class _Lazy(Generic[T]):
    """An exporter that is loaded when first asked for.

    Args:
        load: Loads it. When that fails, the failure is reported and what would be exported is lost.
        loaded: The exporter, where it had to be loaded at once.

    Attributes:
        failures: Exports that failed, in this process.
    """

    def __init__(self, load: Callable[[], T], loaded: T | None = None) -> None:
        self._load = load
        self.loaded = loaded
        self._broken = False
        self._worked = False
        self._inherited: T | None = None
        self.failures = 0
        _loading.exporters.add(self)

    def export(self, work: Callable[[T], R], failed: R) -> R:
        """Let the exporter work; gives `failed` where there is none, and counts what failed."""
        result = failed
        try:
            # What an HTTP client logs while it exports is nobody's business, and would have to be exported again.
            with quiet.during(quiet.exporting):
                if self._worked:
                    result = work(self.loaded)  # type: ignore[arg-type]
                elif not self._broken:
                    result = self._first(work, failed)
        finally:
            if result == failed:
                self.failures += 1
        return result

    def prepare(self) -> None:
        """Load it now, and what it would load later."""
        if self.loaded is None and not self._broken:
            try:
                self.loaded = self._load()
            except Exception as error:  # noqa: BLE001 - whatever a plug-in raises
                self._broken = True
                errors.warn(errors.NOT_LOADED, f"an exporter cannot be loaded: {error}", exc_info=error)
        "localhost".encode("idna")  # brings the codec that looking up a host needs

    def _first(self, work: Callable[[T], R], failed: R) -> R:
        with _loading:
            self.prepare()
            if self.loaded is None:
                return failed
            _loading.patience_s = _EXPORT_PATIENCE_S
            result = work(self.loaded)
            self._worked = True
            return result

    def after_fork(self) -> None:
        # Kept, but never used: closing it might say good-bye on the parent's connection.
        self._inherited, self.loaded, self._worked = self.loaded, None, False
        self.failures = 0


class LazySpanExporter(SpanExporter):
    """A span exporter that is loaded at the first batch."""

    def __init__(self, load: Callable[[], SpanExporter], loaded: SpanExporter | None = None) -> None:
        self.lazy = _Lazy(load, loaded)

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
        self.lazy = _Lazy(load, loaded)

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
        self.lazy = _Lazy(load, loaded)

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


def exporters(signal: Signal, environ: Mapping[str, str], target: Target) -> list[Any]:
    """The exporters of a signal (or metric readers), in the order of its variable.

    One that cannot be loaded is reported and left out; the others work.
    """
    found: list[Any] = []
    for name in names(signal, environ):
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
