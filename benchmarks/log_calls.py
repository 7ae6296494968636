"""What a logging call costs with Weir, against the standard library and against OpenTelemetry's usual handler.

    python benchmarks/log_calls.py [--rounds 15] [--times 20000] [--json]

CPU time of the calling thread. `NullHandler` is a call into `logging.NullHandler` without Weir; `usual` is a call
through the handler of `opentelemetry-instrumentation-logging` and the batch processor. Both pipelines end in the real
OTLP exporter, which sends to a server on this machine from the processor's thread.
"""

from __future__ import annotations

import logging
import sys

from benchmarks.harness import arguments, by_turns, ratio, report, timed
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.sampler import LogSampler
from otelweir.testing import Backend

NONE_KEPT = Rules("on", {"info": 1e-6}, first=1, window_s=1e9)
ALL_KEPT = Rules("on", {"info": 1.0}, first=1, window_s=1e9)


class Wanting(logging.NullHandler):
    """A handler of the application's own: it wants every record, and costs nothing."""


class Bench:
    """One logger, whose handlers and bridge each contender sets as it needs them."""

    def __init__(self, endpoint: str) -> None:
        self.log = logging.getLogger("bench.module")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self.provider = LoggerProvider(shutdown_on_exit=False)
        exporter = OTLPLogExporter(endpoint=f"{endpoint}/v1/logs")
        self.provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=100_000))
        self.usual_handler = LoggingHandler(logger_provider=self.provider)
        self.captures = {
            rules: LogCapture(self.provider, LogSampler(on)) for rules, on in (("none", NONE_KEPT), ("all", ALL_KEPT))
        }

    def with_args(self, times: int, handler: logging.Handler, rules: str | None) -> float:
        """Calls with an argument."""
        return self._run(handler, rules, lambda: self._with_args(times))

    def f_string(self, times: int, handler: logging.Handler, rules: str | None) -> float:
        """Calls with an f-string."""
        return self._run(handler, rules, lambda: self._f_string(times))

    def _with_args(self, times: int) -> None:
        info = self.log.info
        for number in range(times):
            info("order %s placed", number)

    def _f_string(self, times: int) -> None:
        info = self.log.info
        for number in range(times):
            info(f"order {number} placed")

    def _run(self, handler: logging.Handler, rules: str | None, work: object) -> float:
        self.log.handlers = [handler]
        if rules is not None:
            logging_bridge.install(self.captures[rules])
        try:
            seconds = timed(work)  # type: ignore[arg-type]
        finally:
            logging_bridge.uninstall()
        self.provider.force_flush()
        return seconds


def identity(times: int, message: str, args: tuple[object, ...]) -> float:
    """Decisions alone, on a call site that is known."""
    sampler = LogSampler(NONE_KEPT)
    frame = sys._getframe()
    code, at = frame.f_code, frame.f_lasti

    def work() -> None:
        call = sampler.call
        for _ in range(times):
            call("bench.module", 20, message, args, code, at)

    return timed(work)


def decision(times: int) -> float:
    """Decisions of a stream that is found already."""
    sampler = LogSampler(NONE_KEPT)
    frame = sys._getframe()
    sampler.call("bench.module", 20, "order %s placed", (1,), frame.f_code, frame.f_lasti)
    (stream,) = sampler._streams.values()

    def work() -> None:
        decide, now = stream.decide, sampler._clock
        for _ in range(times):
            decide(now())

    return timed(work)


def main() -> None:
    options = arguments(__doc__, rounds=15, times=20_000)
    with Backend() as backend:
        bench = Bench(backend.endpoint)
        null, wanting = logging.NullHandler(), Wanting()
        found = by_turns(
            {
                "NullHandler": lambda times: bench.with_args(times, null, None),
                "NullHandler, f-string": lambda times: bench.f_string(times, null, None),
                "usual": lambda times: bench.with_args(times, bench.usual_handler, None),
                "not kept, another handler wants it": lambda times: bench.with_args(times, wanting, "none"),
                "not kept, ended before the LogRecord": lambda times: bench.with_args(times, null, "none"),
                "the same, f-string": lambda times: bench.f_string(times, null, "none"),
                "kept": lambda times: bench.with_args(times, null, "all"),
                "kept, another handler wants it": lambda times: bench.with_args(times, wanting, "all"),
                "decision": decision,
                "identity and decision": lambda times: identity(times, "order %s placed", (1,)),
            },
            options.rounds,
            options.times,
        )
        bench.provider.shutdown()
    rows = [
        ratio(found, "NullHandler", "NullHandler"),
        ratio(found, "usual", "NullHandler"),
        ratio(found, "not kept, another handler wants it", "NullHandler", 1.3),
        ratio(found, "not kept, another handler wants it", "usual", 0.3),
        ratio(found, "not kept, ended before the LogRecord", "NullHandler", 0.4),
        ratio(found, "not kept, ended before the LogRecord", "usual", 0.3),
        ratio(found, "the same, f-string", "NullHandler, f-string", 0.4),
        ratio(found, "kept", "usual", 1.15),
        ratio(found, "kept, another handler wants it", "usual", 1.15),
        ratio(found, "identity and decision", "decision"),
    ]
    report(rows, options.json)
    if not options.json:
        beyond = rows[-1].median_us - ratio(found, "decision", "decision").median_us
        print(f"identity alone: {beyond:.2f} µs beyond the call, at most 0.30")


if __name__ == "__main__":
    main()
