"""What the application says of its own work: tracked functions, spans, and the context below which they lie."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.capture.track.calls.decorator import track
    from otelweir.pipeline.capture.track.otel import Span, current_span, current_trace_id, span, trace, update_trace
    from otelweir.pipeline.capture.track.scoped.otel import (
        TrackLogProcessor,
        TrackProcessor,
        carry,
        context,
        local_root,
    )

__all__ = [
    "Span",
    "TrackLogProcessor",
    "TrackProcessor",
    "carry",
    "context",
    "current_span",
    "current_trace_id",
    "local_root",
    "span",
    "trace",
    "track",
    "update_trace",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Span": "otel",
        "TrackLogProcessor": "scoped.otel",
        "TrackProcessor": "scoped.otel",
        "carry": "scoped.otel",
        "context": "scoped.otel",
        "current_span": "otel",
        "current_trace_id": "otel",
        "local_root": "scoped.otel",
        "span": "otel",
        "trace": "otel",
        "track": "calls.decorator",
        "update_trace": "otel",
    },
)
