"""What enters the pipeline: log calls of every kind, and where the service runs."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.capture.context import log_attributes
    from otelweir.pipeline.capture.otel import LogCapture

__all__ = ["LogCapture", "log_attributes"]

__getattr__, __dir__ = lazily(__name__, {"LogCapture": "otel", "log_attributes": "context"})
