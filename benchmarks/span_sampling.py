"""A decision of the trace sampler beside the SDK's own, and what the tail and the flight recorder add.

    python -m benchmarks.span_sampling

The promise: at most 1.5 µs a decision, at most 1 µs for a log record that is held. Then what the tail takes of memory.
"""

from __future__ import annotations

import gc
import logging
import random
import statistics
import tracemalloc
from collections.abc import Callable

from benchmarks.harness import arguments, by_turns, ratio, report, timed
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.sample.logs import LogSampler, Rules
from otelweir.pipeline.sample.logs.flight import FlightRecorder
from otelweir.pipeline.sample.spans import SpanRule, TailSamplingProcessor, TraceRules, WeirSampler
from otelweir.pipeline.sample.spans.settings import TraceSamplingSettings

_IDS = [random.Random(1).getrandbits(128) for _ in range(1000)]
_ATTRIBUTES: dict[str, AttributeValue] = {"http.request.method": "GET", "url.path": "/cart", "server.port": 8080}
_RULES = tuple(
    SpanRule(
        f"rule {place}", rate=0.5, span=f"GET /route{place}*", attributes={"url.path": "/x*"} if place % 2 else None
    )
    for place in range(20)
)


def decisions(sampler: Sampler, context: Context) -> Callable[[int], float]:
    """Decides so many times, on the traces in turn."""
    ask = sampler.should_sample

    def run(times: int) -> float:
        def work() -> None:
            for _ in range(times // len(_IDS) or 1):
                for trace_id in _IDS:
                    ask(context, trace_id, "GET /cart", SpanKind.SERVER, _ATTRIBUTES, ())

        return timed(work) / max(1, times // len(_IDS)) / len(_IDS) * times

    return run


def _below(*, remote: bool, state: TraceState) -> Context:
    parent = SpanContext(_IDS[0], 1, remote, TraceFlags(TraceFlags.SAMPLED), state)
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


class _Nowhere(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        pass


def spans(processor: SpanProcessor) -> Callable[[int], float]:
    """Traces of one root and three children, per span."""
    provider = TracerProvider(sampler=WeirSampler(), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")

    def run(times: int) -> float:
        def work() -> None:
            for _ in range(times // 4 or 1):
                with tracer.start_as_current_span("GET /cart", attributes=_ATTRIBUTES):
                    for _ in range(3):
                        with tracer.start_as_current_span("query", attributes=_ATTRIBUTES):
                            pass

        return timed(work)

    return run


def bytes_held(*processors: SpanProcessor) -> float:
    """Bytes for each of a thousand traces that have begun."""
    provider = TracerProvider(sampler=WeirSampler(), shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    tracer.start_span("GET /cart").end()
    gc.collect()
    tracemalloc.start()
    kept = [tracer.start_span("GET /cart", Context()) for _ in range(1000)]
    gc.collect()
    found = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return found


def unkept(recorder: FlightRecorder | None, *, span: bool) -> Callable[[int], float]:
    """Logging calls of a logger that no handler listens to and whose records are not kept."""
    rules = Rules("on", {"info": 0.0}, first=1, window_s=1e9)
    provider = LoggerProvider(shutdown_on_exit=False)
    capture = LogCapture(provider, LogSampler(rules), recorder=recorder)
    log = logging.getLogger("benchmark.flight")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.NullHandler()]
    tracer = TracerProvider(sampler=WeirSampler(), shutdown_on_exit=False).get_tracer("benchmark")

    def run(times: int) -> float:
        def work() -> None:
            for number in range(times):
                log.info("item %d of %s", number, "cart")

        logging_bridge.install(capture)
        try:
            if not span:
                return timed(work)
            with tracer.start_as_current_span("GET /cart"):
                return timed(work)
        finally:
            logging_bridge.uninstall()

    return run


def main() -> None:
    options = arguments(__doc__, rounds=7, times=100_000)
    ratio_based = TraceIdRatioBased(0.1)
    root, member = Context(), TraceState([("ot", "th:0"), ("vendor", "x")])
    child, remote = _below(remote=False, state=member), _below(remote=True, state=member)
    upstream = ParentBased(ratio_based)
    contenders = {
        "SDK: ParentBased(TraceIdRatioBased), root": decisions(upstream, root),
        "SDK: local parent": decisions(upstream, child),
        "SDK: remote parent": decisions(upstream, remote),
        "Weir: rate, root": decisions(WeirSampler(TraceRules(rate=0.1)), root),
        "Weir: rate and limit, root": decisions(WeirSampler(TraceRules(rate=0.1, per_second=50)), root),
        "Weir: 20 rules, root": decisions(WeirSampler(TraceRules(rate=0.1, rules=_RULES)), root),
        "Weir: local parent": decisions(WeirSampler(TraceRules(rate=0.1)), child),
        "Weir: remote parent with a threshold": decisions(WeirSampler(TraceRules(rate=0.1)), remote),
        "Weir: remote=ignore": decisions(WeirSampler(TraceRules(rate=0.1, remote="ignore")), remote),
    }
    found = by_turns(contenders, options.rounds, options.times)
    roots, children, remotes = list(contenders)[:3]
    rows = [ratio(found, name, name) for name in (roots, children, remotes)]
    rows += [ratio(found, name, roots) for name in contenders if name.endswith(", root") and name != roots]
    rows += [
        ratio(found, "Weir: local parent", children),
        ratio(found, "Weir: remote parent with a threshold", remotes),
        ratio(found, "Weir: remote=ignore", remotes),
    ]
    settings = TraceSamplingSettings(trace_tail=True, trace_tail_rate=0.1, trace_tail_slow_quantile=0.99)
    tail = TailSamplingProcessor(_Nowhere(), settings)
    ends = {"span without a tail": spans(_Nowhere()), "span with a tail": spans(tail)}
    found = by_turns(ends, options.rounds, options.times // 5)
    rows += [ratio(found, name, "span without a tail") for name in ends]
    calls = {
        "record not kept": unkept(None, span=True),
        "record not kept, held for its trace": unkept(FlightRecorder(), span=True),
        "record not kept, held for its thread": unkept(FlightRecorder(), span=False),
    }
    found = by_turns(calls, options.rounds, options.times // 2)
    rows += [ratio(found, name, "record not kept") for name in calls]
    report(rows, options.json)
    base = found["record not kept"]
    for name in list(calls)[1:]:
        beyond = statistics.median(mine - theirs for mine, theirs in zip(found[name], base, strict=True))
        if not options.json:
            print(f"{name}: {beyond:.2f} µs beyond the decision")
    if not options.json:
        sdk, both = bytes_held(), bytes_held(TailSamplingProcessor(_Nowhere(), settings))
        print(f"1000 unfinished traces: {sdk / 1e3:.2f} MB of the SDK, {(both - sdk) / 1e3:.2f} MB of the tail")


if __name__ == "__main__":
    main()
