"""Secrets and personal data out, before anything is kept or sent."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.redact.otel import (
        LogRedaction,
        MetricRedaction,
        RedactingLogProcessor,
        RedactingMetricExporter,
        RedactingSpanProcessor,
        SpanRedaction,
    )
    from otelweir.pipeline.redact.plan import Own, Plan
    from otelweir.pipeline.redact.redactor import Redactor, Scrubber

__all__ = [
    "LogRedaction",
    "MetricRedaction",
    "Own",
    "Plan",
    "RedactingLogProcessor",
    "RedactingMetricExporter",
    "RedactingSpanProcessor",
    "Redactor",
    "Scrubber",
    "SpanRedaction",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "LogRedaction": "otel",
        "MetricRedaction": "otel",
        "Own": "plan",
        "Plan": "plan",
        "RedactingLogProcessor": "otel",
        "RedactingMetricExporter": "otel",
        "RedactingSpanProcessor": "otel",
        "Redactor": "redactor",
        "Scrubber": "redactor",
        "SpanRedaction": "otel",
    },
)
