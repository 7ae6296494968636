"""Calls of language models: their tokens, what they cost, and what a trace of them cost in all."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.capture.genai.otel import GenAISpanProcessor

__all__ = ["GenAISpanProcessor"]

__getattr__, __dir__ = lazily(__name__, {"GenAISpanProcessor": "otel"})
