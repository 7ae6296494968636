"""What was accepted, as bytes that outlive the process."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.spool.otlp import Encoded, Group, encode_log, encode_span, join

__all__ = ["Encoded", "Group", "encode_log", "encode_span", "join"]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "otlp"))
