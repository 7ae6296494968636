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
    from otelweir.pipeline.capture.genai.otel import GenAISpanProcessor
    from otelweir.pipeline.sample.logs.otel import PatternSamplingProcessor

__all__ = [
    "GenAISpanProcessor",
    "Handle",
    "PatternSamplingProcessor",
    "WeirError",
    "WeirLogExporter",
    "WeirMetricExporter",
    "WeirSpanExporter",
    "configure",
    "langchain_handler",
    "log_attributes",
    "track_anthropic",
    "track_openai",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "GenAISpanProcessor": "pipeline.capture.genai.otel",
        "Handle": "distro.assemble",
        "PatternSamplingProcessor": "pipeline.sample.logs.otel",
        "WeirError": "errors",
        "WeirLogExporter": "distro.weir_exporters",
        "WeirMetricExporter": "distro.weir_exporters",
        "WeirSpanExporter": "distro.weir_exporters",
        "configure": "distro.configuration",
        "langchain_handler": "distro.genai",
        "log_attributes": "pipeline.capture.context",
        "track_anthropic": "distro.genai",
        "track_openai": "distro.genai",
    },
)
