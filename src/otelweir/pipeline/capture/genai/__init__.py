"""Calls of language models: their tokens, what they cost, and what a trace of them cost in all."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.capture.genai.otel import (
        GenAILogProcessor,
        GenAISampler,
        GenAISpanProcessor,
        batch_results,
    )

__all__ = ["GenAILogProcessor", "GenAISampler", "GenAISpanProcessor", "batch_results"]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "otel"))
