"""What the distribution sets where the environment says nothing: OpenTelemetry's own variables, no new names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OTEL_DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        # Merged from left to right, the later one wins. `otel` (OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME) is not
        # listed, because the SDK appends it at the end: what the user says wins over all that is detected.
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "service_instance,host,os,process,weir",
    }
)
"""Variable and value. Each applies only where the variable is unset or empty."""
