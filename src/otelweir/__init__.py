"""Weir: an OpenTelemetry distribution for Python."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.distro.assemble import Handle
    from otelweir.distro.configuration import configure
    from otelweir.distro.genai import langchain_handler, track_anthropic, track_openai
    from otelweir.distro.weir_exporters import WeirLogExporter, WeirMetricExporter, WeirSpanExporter
    from otelweir.errors import WeirError
    from otelweir.pipeline.capture.context import log_attributes
    from otelweir.pipeline.capture.genai.otel import (
        GenAILogProcessor,
        GenAISampler,
        GenAISpanProcessor,
        batch_results,
    )
    from otelweir.pipeline.capture.track import (
        Span,
        TrackLogProcessor,
        TrackProcessor,
        carry,
        context,
        current_span,
        current_trace_id,
        span,
        trace,
        track,
        update_trace,
    )
    from otelweir.pipeline.sample.logs.otel import PatternSamplingProcessor

__all__ = [
    "GenAILogProcessor",
    "GenAISampler",
    "GenAISpanProcessor",
    "Handle",
    "PatternSamplingProcessor",
    "Span",
    "TrackLogProcessor",
    "TrackProcessor",
    "WeirError",
    "WeirLogExporter",
    "WeirMetricExporter",
    "WeirSpanExporter",
    "batch_results",
    "carry",
    "configure",
    "context",
    "current_span",
    "current_trace_id",
    "langchain_handler",
    "log_attributes",
    "span",
    "trace",
    "track",
    "track_anthropic",
    "track_openai",
    "update_trace",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "GenAILogProcessor": "pipeline.capture.genai.otel",
        "GenAISampler": "pipeline.capture.genai.otel",
        "GenAISpanProcessor": "pipeline.capture.genai.otel",
        "Handle": "distro.assemble",
        "PatternSamplingProcessor": "pipeline.sample.logs.otel",
        "Span": "pipeline.capture.track.otel",
        "TrackLogProcessor": "pipeline.capture.track.scoped.otel",
        "TrackProcessor": "pipeline.capture.track.scoped.otel",
        "WeirError": "errors",
        "WeirLogExporter": "distro.weir_exporters",
        "WeirMetricExporter": "distro.weir_exporters",
        "WeirSpanExporter": "distro.weir_exporters",
        "batch_results": "pipeline.capture.genai.otel",
        "carry": "pipeline.capture.track.scoped.otel",
        "configure": "distro.configuration",
        "context": "pipeline.capture.track.scoped.otel",
        "current_span": "pipeline.capture.track.otel",
        "current_trace_id": "pipeline.capture.track.otel",
        "log_attributes": "pipeline.capture.context",
        "span": "pipeline.capture.track.otel",
        "trace": "pipeline.capture.track.otel",
        "track": "pipeline.capture.track.calls.decorator",
        "update_trace": "pipeline.capture.track.otel",
        "langchain_handler": "distro.genai",
        "track_anthropic": "distro.genai",
        "track_openai": "distro.genai",
    },
)
