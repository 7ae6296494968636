"""What `@otelweir.track` costs, against `start_as_current_span` with the same attributes set by hand.

    python benchmarks/track.py [--rounds 15] [--times 5000] [--json]

CPU time of the calling thread, on SDK providers without an exporter: what comes after the end of a span is the same for
both. What is tracked pays for the distribution's processor, too. By hand means: `json.dumps` of the arguments and of
the result, and four attributes set. Then the bytes of traces that have begun and not ended: what the SDK's own spans
take, whoever begins them, and what is ours. The promise, 1 MB for a thousand of them, is for ours.
"""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from benchmarks.harness import arguments, by_turns, ratio, report, timed
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import otelweir

QUESTION = "How many swallows make a summer?"
TRACES = 1000

provider = TracerProvider(shutdown_on_exit=False)
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("bench")
never = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("bench")


def _work(question: str, limit: int) -> dict[str, Any]:
    return {"answer": question, "used": limit}


tracked = otelweir.track(_work)
tool = otelweir.track(kind="tool", name="work")(_work)


def by_hand(question: str, limit: int) -> dict[str, Any]:
    with tracer.start_as_current_span("work") as span:
        span.set_attribute("input.value", json.dumps({"question": question, "limit": limit}))
        span.set_attribute("input.mime_type", "application/json")
        result = _work(question, limit)
        span.set_attribute("output.value", json.dumps(result))
        span.set_attribute("output.mime_type", "application/json")
        return result


def tool_by_hand(question: str, limit: int) -> dict[str, Any]:
    with tracer.start_as_current_span("work") as span:
        span.set_attribute("gen_ai.operation.name", "execute_tool")
        span.set_attribute("gen_ai.tool.name", "work")
        span.set_attribute("gen_ai.tool.type", "function")
        given = json.dumps({"question": question, "limit": limit})
        span.set_attribute("input.value", given)
        span.set_attribute("input.mime_type", "application/json")
        span.set_attribute("gen_ai.tool.call.arguments", given)
        result = _work(question, limit)
        text = json.dumps(result)
        span.set_attribute("output.value", text)
        span.set_attribute("output.mime_type", "application/json")
        span.set_attribute("gen_ai.tool.call.result", text)
        return result


@otelweir.track
async def tracked_coroutine(question: str, limit: int) -> dict[str, Any]:
    return _work(question, limit)


async def coroutine_by_hand(question: str, limit: int) -> dict[str, Any]:
    with tracer.start_as_current_span("work") as span:
        span.set_attribute("input.value", json.dumps({"question": question, "limit": limit}))
        span.set_attribute("input.mime_type", "application/json")
        result = _work(question, limit)
        span.set_attribute("output.value", json.dumps(result))
        span.set_attribute("output.mime_type", "application/json")
        return result


def block(question: str, limit: int) -> dict[str, Any]:
    with otelweir.span("work") as span:
        span.set_input({"question": question, "limit": limit})
        result = _work(question, limit)
        span.set_output(result)
        return result


@otelweir.track
def tracked_stream(parts: int) -> Iterator[str]:
    for _ in range(parts):
        yield "token "


def stream_by_hand(parts: int) -> Iterator[str]:
    span = tracer.start_span("stream")
    kept = []
    span.set_attribute("input.value", json.dumps({"parts": parts}))
    span.set_attribute("input.mime_type", "application/json")
    for _ in range(parts):
        with trace_api.use_span(span):
            part = "token "
        kept.append(part)
        yield part
    span.set_attribute("output.value", json.dumps("".join(kept)))
    span.set_attribute("output.mime_type", "application/json")
    span.end()


@otelweir.track
async def tracked_async_stream(parts: int) -> AsyncIterator[str]:
    for _ in range(parts):
        yield "token "


def calls(function: Callable[[str, int], object], times: int) -> float:
    """So many calls."""

    def work() -> None:
        for _ in range(times):
            function(QUESTION, 3)

    return timed(work)


def awaits(function: Callable[[str, int], Any], times: int) -> float:
    """So many calls of a coroutine, in one task."""

    async def work() -> None:
        for _ in range(times):
            await function(QUESTION, 3)

    return timed(lambda: asyncio.run(work()))


def streams(function: Callable[[int], Iterator[str]], times: int) -> float:
    """So many parts, in streams of a hundred."""

    def work() -> None:
        for _ in range(max(1, times // 100)):
            for _ in function(100):
                pass

    return timed(work)


def held(make: Callable[[], object]) -> float:
    """Bytes that each of a thousand things takes while all of them are there."""
    make()
    gc.collect()
    tracemalloc.start()
    kept = [make() for _ in range(TRACES)]
    gc.collect()
    found = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return found


def bare() -> object:
    """A trace of the SDK's that has begun, with nothing on it."""
    return tracer.start_span("work")


def not_sampled() -> object:
    """The same, where nobody wants it."""
    return never.start_span("work")


def unfinished_by_hand() -> object:
    """A trace of the SDK's that has begun, with an input."""
    span = tracer.start_span("work")
    span.set_attribute("input.value", json.dumps({"question": QUESTION, "limit": 3}))
    span.set_attribute("input.mime_type", "application/json")
    return span


def unfinished() -> object:
    """A trace of ours that has begun, with an input."""
    return otelweir.span("work").start().set_input({"question": QUESTION, "limit": 3})


@otelweir.track
def endless(question: str, limit: int) -> Iterator[int]:
    while True:
        yield limit


def unfinished_stream() -> object:
    """A tracked stream that has begun."""
    stream = endless(QUESTION, 3)
    next(stream)
    return stream


def unfinished_stream_by_hand() -> object:
    """The same by hand."""
    stream = stream_by_hand(100)
    next(stream)
    return stream


def main() -> None:
    options = arguments(__doc__, rounds=15, times=5000)
    unset = by_turns(
        {
            "without track": lambda times: calls(_work, times),
            "nobody wants spans": lambda times: calls(tracked, times),
            "by hand": lambda times: calls(by_hand, times),
        },
        options.rounds,
        options.times,
    )
    trace_api.set_tracer_provider(provider)
    provider.add_span_processor(otelweir.TrackProcessor())
    found = by_turns(
        {
            "by hand": lambda times: calls(by_hand, times),
            "tracked function": lambda times: calls(tracked, times),
            "span block": lambda times: calls(block, times),
            "tool by hand": lambda times: calls(tool_by_hand, times),
            "tracked tool": lambda times: calls(tool, times),
            "coroutine by hand": lambda times: awaits(coroutine_by_hand, times),
            "tracked coroutine": lambda times: awaits(tracked_coroutine, times),
            "part of a stream by hand": lambda times: streams(stream_by_hand, times),
            "part of a tracked stream": lambda times: streams(tracked_stream, times),
        },
        options.rounds,
        options.times,
    )
    rows = [
        ratio(unset, "nobody wants spans", "by hand", 1.25),
        ratio(found, "tracked function", "by hand", 1.25),
        ratio(found, "span block", "by hand", 1.25),
        ratio(found, "tracked tool", "tool by hand", 1.25),
        ratio(found, "tracked coroutine", "coroutine by hand", 1.25),
        ratio(found, "part of a tracked stream", "part of a stream by hand", 1.25),
    ]
    report(rows, options.json)
    if not options.json:
        spans = held(unfinished_by_hand), held(unfinished)
        stream = held(unfinished_stream_by_hand), held(unfinished_stream)
        sdk = {"bare": held(bare), "with an input": spans[0], "not sampled": held(not_sampled)}
        print(f"\n{TRACES} unfinished traces, in MB")
        print("  the SDK's own:", ", ".join(f"{name} {each * TRACES / 1e6:.2f}" for name, each in sdk.items()))
        for name, (theirs, ours) in (("spans", spans), ("streams", stream)):
            print(f"  ours beyond that, as {name}: {(ours - theirs) * TRACES / 1e6:.2f}, at most 1.00")


if __name__ == "__main__":
    main()
