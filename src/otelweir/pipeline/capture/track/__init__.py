"""What the application says of its own work: tracked functions, spans, and the context below which they lie."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.capture.track.decorator import track
    from otelweir.pipeline.capture.track.otel import (
        Span,
        TrackLogProcessor,
        TrackProcessor,
        carry,
        context,
        current_span,
        current_trace_id,
        local_root,
        span,
        trace,
        update_trace,
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

__getattr__, __dir__ = lazily(__name__, {name: "decorator" if name == "track" else "otel" for name in __all__})
