"""Sampling of traces: at their beginning, consistently, and at their end, by what became of them."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.sample.spans.otel import TailSamplingProcessor, WeirSampler
    from otelweir.pipeline.sample.spans.rules import SpanRule, TraceRules
    from otelweir.pipeline.sample.spans.tail import TailRules

__all__ = ["SpanRule", "TailRules", "TailSamplingProcessor", "TraceRules", "WeirSampler"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "SpanRule": "rules",
        "TailRules": "tail",
        "TailSamplingProcessor": "otel",
        "TraceRules": "rules",
        "WeirSampler": "otel",
    },
)
