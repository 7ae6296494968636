"""Memory of a process after many records of many patterns: Weir against OpenTelemetry's usual handler.

    python benchmarks/memory.py [--records 1000000] [--patterns 1000] [--json]

Each runs in a process of its own with the real OTLP exporter and a server on this machine. What counts is the largest
resident memory of the process (`VmHWM`, so this needs Linux); the promise is 10 MB beyond the usual pipeline.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import arguments

from otelweir.testing import Backend

PROMISE_MB = 10.0


def flood(kind: str, endpoint: str, records: int, patterns: int) -> None:
    """Log, and print the largest resident memory in MB."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs")))
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    if kind == "weir":
        from otelweir.pipeline.capture import logging_bridge
        from otelweir.pipeline.capture.otel import LogCapture
        from otelweir.pipeline.sample.logs.rules import Rules
        from otelweir.pipeline.sample.logs.sampler import LogSampler

        log.addHandler(logging.NullHandler())
        logging_bridge.install(LogCapture(provider, LogSampler(Rules("on", {"info": 0.2}, 10, 60.0))))
    else:
        from opentelemetry.instrumentation.logging.handler import LoggingHandler

        log.addHandler(LoggingHandler(logger_provider=provider))
    formats = [f"{'abcdefghij'[number % 10] * (1 + number // 10)} did %s" for number in range(patterns)]
    for number in range(records):
        log.info(formats[number % patterns], number)
    provider.shutdown()
    # Not getrusage: its figure begins with that of the parent before exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def measured(kind: str, records: int, patterns: int) -> float:
    with Backend() as backend:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", kind, backend.endpoint, str(records), str(patterns)],
            cwd=Path(__file__).resolve().parents[1],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return float(done.stdout)


def main() -> None:
    if len(sys.argv) == 5 and sys.argv[1] in ("weir", "usual"):
        flood(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    options = arguments(__doc__, records=1_000_000, patterns=1000)
    found = {kind: measured(kind, options.records, options.patterns) for kind in ("usual", "weir")}
    beyond = found["weir"] - found["usual"]
    if options.json:
        print(json.dumps({**found, "beyond_mb": beyond, "promise_mb": PROMISE_MB}))
    else:
        for kind, megabytes in found.items():
            print(f"{kind:6} {megabytes:7.1f} MB")
        print(f"beyond the usual pipeline: {beyond:.1f} MB, at most {PROMISE_MB:g}")


if __name__ == "__main__":
    main()
