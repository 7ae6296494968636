"""Log sampling by pattern: which records are kept, and what each kept one stands for."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.otel import PatternSamplingProcessor, Processors
    from otelweir.pipeline.sample.logs.pattern import Pattern
    from otelweir.pipeline.sample.logs.rules import Rule, Rules
    from otelweir.pipeline.sample.logs.sampler import LogSampler
    from otelweir.pipeline.sample.logs.text import TextPatterns

__all__ = ["LogSampler", "Pattern", "PatternSamplingProcessor", "Processors", "Rule", "Rules", "TextPatterns"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "LogSampler": "sampler",
        "Pattern": "pattern",
        "PatternSamplingProcessor": "otel",
        "Processors": "otel",
        "Rule": "rules",
        "Rules": "rules",
        "TextPatterns": "text",
    },
)
