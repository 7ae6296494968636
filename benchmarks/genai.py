"""What the step that prices calls of models adds to a span, in the same run.

    python -m benchmarks.genai [--json] [--rounds N]

A span with five attributes, begun and ended below a local root and encoded as the spool does; without and with the
step. The second pair is a span of a call, with tokens, that gets its price. The third is a whole call by OpenAI's
client to a provider on this machine, as OpenTelemetry's instrumentation traces it: what the caller's thread computes,
without and with the step (and, to compare, without any instrumentation). The last is a decision of a sampler that
drops, without and with what lets the step see the calls among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
from benchmarks.harness import arguments, by_turns, ratio, report, timed
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_OFF, Sampler
from opentelemetry.trace import SpanKind, Tracer

import otelweir
from otelweir.demo.provider import ModelProvider, Reply
from otelweir.pipeline.capture.genai import GenAISampler, GenAISpanProcessor
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


def provider_with(processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def tracer(processor: SpanProcessor) -> Tracer:
    return provider_with(processor).get_tracer("benchmark")


def calls(url: str, processor: SpanProcessor | None) -> Callable[[int], float]:
    client = openai.OpenAI(base_url=url, api_key="none")
    if processor is not None:
        meters = MeterProvider(shutdown_on_exit=False)
        client = otelweir.track_openai(client, tracer_provider=provider_with(processor), meter_provider=meters)

    def work(times: int) -> None:
        for _ in range(times):
            client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "What is a weir?"}]
            )

    return lambda times: timed(lambda: work(times))


def decisions(sampler: Sampler) -> Callable[[int], float]:
    def work(times: int) -> None:
        for _ in range(times):
            sampler.should_sample(None, 7, "GET", SpanKind.CLIENT, ORDINARY)

    return lambda times: timed(lambda: work(times))


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
    with ModelProvider(lambda asked: Reply("A weir holds back the flood.")) as provider:
        clients = {
            "a client's call, traced": calls(provider.openai_url, SpoolSpanProcessor(Nowhere())),
            "a client's call, with the step": calls(
                provider.openai_url, GenAISpanProcessor(SpoolSpanProcessor(Nowhere()), GenAISettings())
            ),
            "a client's call, not traced": calls(provider.openai_url, None),
        }
        found |= by_turns(clients, options.rounds, max(1, options.times // 30))
    samplers = {
        "a span dropped": decisions(DEFAULT_OFF),
        "a span dropped, looked at": decisions(GenAISampler(DEFAULT_OFF)),
    }
    found |= by_turns(samplers, options.rounds, options.times)
    report(
        [
            ratio(found, "a span, with the step", "a span"),
            ratio(found, "a call, with its price", "a call"),
            ratio(found, "a client's call, with the step", "a client's call, traced"),
            ratio(found, "a client's call, traced", "a client's call, not traced"),
            ratio(found, "a span dropped, looked at", "a span dropped"),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
