"""What the step that prices calls of models adds to a span, in the same run.

    python -m benchmarks.genai [--json] [--rounds N]

A span with five attributes, begun and ended below a local root and encoded as the spool does; without and with the
step. The second pair is a span of a call, with tokens, that gets its price; such a call takes a model thousands of
times longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.harness import arguments, by_turns, ratio, report, timed
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from otelweir.pipeline.capture.genai import GenAISpanProcessor
from otelweir.pipeline.capture.genai.settings import GenAISettings
from otelweir.pipeline.spool.otel import SpoolSpanProcessor

ORDINARY: dict[str, Any] = {
    "http.request.method": "GET",
    "http.route": "/orders/{order}",
    "url.path": "/orders/7",
    "http.response.status_code": 200,
    "server.address": "shop",
}
CALL: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 300,
}


class Nowhere:
    """A spool that keeps nothing."""

    def append(self, *_: object, **__: object) -> bool:
        return True

    def flush_lane(self, *_: object) -> bool:
        return True

    def release(self, *_: object) -> None:
        return None


def tracer(processor: SpanProcessor) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("benchmark")


def spans(of: Tracer, attributes: dict[str, Any]) -> Callable[[int], float]:
    def run(times: int) -> float:
        def work() -> None:
            for _ in range(times):
                of.start_span("span", kind=SpanKind.CLIENT, attributes=attributes).end()

        with of.start_as_current_span("root"):
            return timed(work)

    return run


def main() -> None:
    options = arguments(__doc__, rounds=9, times=3000)
    without = tracer(SpoolSpanProcessor(Nowhere()))
    with_step = tracer(GenAISpanProcessor(SpoolSpanProcessor(Nowhere()), GenAISettings()))
    contenders = {
        "a span": spans(without, ORDINARY),
        "a span, with the step": spans(with_step, ORDINARY),
        "a call": spans(without, CALL),
        "a call, with its price": spans(with_step, CALL),
    }
    found = by_turns(contenders, options.rounds, options.times)
    report(
        [
            ratio(found, "a span, with the step", "a span"),
            ratio(found, "a call, with its price", "a call"),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
