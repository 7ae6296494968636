"""Exporters that leave through the spool, for any set-up of the SDK.

`OTEL_TRACES_EXPORTER=weir` (and so on) finds them by name; in code::

    provider.add_span_processor(BatchSpanProcessor(WeirSpanExporter("http://localhost:4318")))

They share one spool and one courier in a process. Records that still wait in the batch processor are not yet safe; the
distribution's own processors (`otelweir.pipeline.spool.otel`) keep each one as soon as it is finished.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from opentelemetry.sdk.metrics.export import MetricsData

from otelweir.distro.delivery import Delivery, shared
from otelweir.distro.destinations import destination
from otelweir.distro.late import Late
from otelweir.distro.redaction import log_encoder, redactor_of, span_encoder
from otelweir.pipeline.redact.otel import MetricRedaction
from otelweir.pipeline.spool.otel import SpoolLogExporter, SpoolMetricExporter, SpoolSpanExporter, encode_metrics
from otelweir.pipeline.spool.otlp import Encoded
from otelweir.settings import load
from otelweir.signals import Lane


class WeirSpanExporter(SpoolSpanExporter):
    """Sends spans through the spool.

    Args:
        endpoint: Base URL of the OTLP backend, such as `http://localhost:4318`; None for what `OTEL_EXPORTER_OTLP_*`
            say, which also decide on protocol, TLS, time-out and compression.
        headers: Headers of every request, instead of those of the variables.
        delivery: Where to put the spans; None for the one that the exporters of this process share.
        settings: Settings of Weir by their variable's name without `WEIR_`, in lower case, such as
            `spool_dir="/var/spool/shop"`.

    Raises:
        TypeError: `settings` has a name that is no setting.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        delivery: Delivery | None = None,
        **settings: Any,
    ) -> None:
        self.delivery = delivery or _shared("traces", endpoint, headers, settings)
        # Whoever brings a delivery hides the secrets himself.
        redactor = redactor_of(self.delivery.settings) if delivery is None else None
        encode = {"encode": span_encoder(redactor)} if redactor is not None else {}
        super().__init__(self.delivery, self.delivery.settings.shutdown_timeout, **encode)


class WeirLogExporter(SpoolLogExporter):
    """Sends log records through the spool. As `WeirSpanExporter`."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        delivery: Delivery | None = None,
        **settings: Any,
    ) -> None:
        self.delivery = delivery or _shared("logs", endpoint, headers, settings)
        # Whoever brings a delivery hides the secrets himself.
        redactor = redactor_of(self.delivery.settings) if delivery is None else None
        encode = {"encode": log_encoder(redactor)} if redactor is not None else {}
        super().__init__(self.delivery, self.delivery.settings.shutdown_timeout, **encode)


class WeirMetricExporter(SpoolMetricExporter):
    """Sends metrics through the spool. As `WeirSpanExporter`."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        delivery: Delivery | None = None,
        **settings: Any,
    ) -> None:
        self.delivery = delivery or _shared("metrics", endpoint, headers, settings)
        encoder = Late(_load_encoder)
        redactor = redactor_of(self.delivery.settings) if delivery is None else None
        redact = MetricRedaction(redactor.of("metrics")) if redactor is not None else None

        def encode(data: MetricsData) -> list[Encoded]:
            return encoder.export(lambda _: encode_metrics(data if redact is None else redact(data)), [])

        super().__init__(self.delivery, self.delivery.settings.shutdown_timeout, encode=encode)


def _load_encoder() -> object:
    return import_module("opentelemetry.exporter.otlp.proto.common.metrics_encoder")


def _shared(lane: Lane, endpoint: str | None, headers: Mapping[str, str] | None, given: Mapping[str, Any]) -> Delivery:
    environ = os.environ
    settings = load(environ, **given).settings
    to = destination(lane, environ, endpoint=endpoint, headers=headers, settings=settings)
    return shared(lane, to, settings, service_name(environ), environ)


def service_name(environ: Mapping[str, str]) -> str:
    """The name of the service as the variables have it."""
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        return name
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name" and value.strip():
            return unquote(value.strip())
    return "unknown_service"
