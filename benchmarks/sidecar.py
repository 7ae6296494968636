"""What a core of a collector carries: Weir's configurations beside a bare one, in CPU of the collector's own process.

    python -m benchmarks.sidecar [--records N] [--rounds N] [--json]

The collector has to be there: `make collector`. Requests as Weir makes them (log records and spans of one service,
half and half) are made beforehand and sent over four connections, as fast as the collector takes them; a sink takes
what leaves. By turns, each a process that is started anew:

- bare: an OTLP receiver and an OTLP/HTTP exporter, its queue in memory;
- sidecar: `collector-config/sidecar.yaml`, every request on the disk before it is answered;
- balancer: `collector-config/gateway-balancer.yaml`, before two gateways that are bare ones;
- gateway: `collector-config/gateway.yaml`, which measures, and holds every trace for a second before it keeps it.

Printed are the CPU seconds of the collector's process for a million records, and how often as much that is as the bare
one's of the same round; records and MB a second of one core, which is the inverse; and its peak memory.
"""

from __future__ import annotations

import gc
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import arguments
from benchmarks.sink import ROOT, Sink

COLLECTOR = ROOT / "collector-config" / "bin" / "otelcol"
CONNECTIONS = 4
IN_A_REQUEST = 1_000
CONFIGS = {"sidecar": "sidecar", "balancer": "gateway-balancer", "gateway": "gateway"}

BARE = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}, grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters: {{otlp_http: {{endpoint: "{to}", sending_queue: {{queue_size: 10000, block_on_overflow: true}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [otlp_http]}}
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
"""

Request = tuple[str, bytes]
"""A path and a body."""


class Took(NamedTuple):
    """What a collector took for the records of one turn.

    Attributes:
        cpu_s: Seconds of CPU for a million records.
        mb: Megabytes of OTLP that these were.
        memory_mb: The most memory that its process had.
    """

    cpu_s: float
    mb: float
    memory_mb: float


def requests(records: int) -> list[Request]:
    """Requests of so many records, half of them spans, each with a log record of its own."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

    from otelweir.pipeline.spool.otlp import Encoded, encode_log, encode_span, join

    spans: list[Encoded] = []
    logs: list[Encoded] = []

    class Spans(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            spans.append(encode_span(span))

    class Logs(LogRecordProcessor):
        def on_emit(self, log_record: ReadWriteLogRecord) -> None:
            logs.append(encode_log(log_record))

        def shutdown(self) -> None: ...

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return True

    resource = Resource.create({"service.name": "shop", "service.version": "1.4.2", "host.name": "shop-7d9f"})
    tracers, loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    tracers.add_span_processor(Spans())
    loggers.add_log_record_processor(Logs())
    tracer, logger = tracers.get_tracer("shop.orders", "1.0"), loggers.get_logger("shop.orders")
    for number in range(records // 8):
        with tracer.start_as_current_span("POST /orders", attributes=_attributes(number)):
            for step in ("reserve", "charge", "ship"):
                with tracer.start_as_current_span(step, attributes=_attributes(number)):
                    logger.emit(_log(LogRecord, SeverityNumber, number, step))
            logger.emit(_log(LogRecord, SeverityNumber, number, "order"))
    bodies = [("/v1/traces", join(part)) for part in _parts(spans)] + [
        ("/v1/logs", join(part)) for part in _parts(logs)
    ]
    gc.collect()
    # One of each in turn.
    half = len(bodies) // 2
    return list(itertools.chain.from_iterable(zip(bodies[:half], bodies[half:], strict=False)))


def _attributes(number: int) -> dict[str, Any]:
    return {
        "http.request.method": "POST",
        "http.route": "/orders/{id}",
        "url.path": f"/orders/{number}",
        "http.response.status_code": 500 if number % 50 == 0 else 200,
        "server.address": "shop.example",
        "order.items": number % 17,
    }


def _log(record: Any, severity: Any, number: int, step: str) -> Any:
    return record(
        timestamp=time.time_ns(),
        severity_number=severity.INFO,
        severity_text="INFO",
        body=f"{step} of order {number} took {number / 7:.1f} ms",
        attributes={
            "log.record.template": f"{step} of order <*> took <*> ms",
            "weir.pattern.id": "5f0c3b1a9d7e2468",
            "weir.sample.weight": 10,
            "weir.sample.reason": "rate",
            "order.items": number % 17,
        },
    )


def _parts(records: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(records), IN_A_REQUEST):
        yield records[start : start + IN_A_REQUEST]


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Collector:
    """A collector in a process of its own, ready when it is entered.

    Args:
        config: Its configuration.
        port: Where it takes OTLP over HTTP.
        environ: Variables of the configuration.
    """

    def __init__(self, config: Path, port: int, environ: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._port = port
        self._process = subprocess.Popen(
            [COLLECTOR, "--config", config], env={**os.environ, **environ}, stdout=self._log, stderr=self._log
        )

    def __enter__(self) -> Collector:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self._log.seek(0)
                    raise SystemExit(f"the collector does not start:\n{self._log.read()[-3000:]}") from None
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def cpu_s(self) -> float:
        """Seconds of CPU since it began."""
        spent = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """The most memory it had so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


def send(port: int, bodies: Iterable[Request]) -> None:
    """Send all requests, over several connections; a refusal is sent again."""
    left, lock, failures = iter(bodies), threading.Lock(), []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/x-protobuf"}
        try:
            while True:
                with lock:
                    request = next(left, None)
                if request is None:
                    return
                path, body = request
                while True:
                    connection.request("POST", path, body, headers)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 200:
                        break
                    if answer.status not in (429, 503):
                        raise OSError(f"{path}: {answer.status}")
                    time.sleep(0.05)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"sending failed: {failures[0]}")


def turn(name: str, bodies: Sequence[Request], records: int) -> Took:
    """Start a contender, send it everything, and wait until all of it has left."""
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, grpc, health, metrics = free_ports(4)
        environ: dict[str, str] = {}
        if name == "bare":
            config = _bare(folder / "bare.yaml", port, grpc, sink)
        else:
            config = ROOT / "collector-config" / f"{CONFIGS[name]}.yaml"
            gateways = []
            for number in range(2 if name == "balancer" else 0):
                of_http, of_grpc = free_ports(2)
                bare = _bare(folder / f"{number}.yaml", of_http, of_grpc, sink)
                stack.enter_context(Collector(bare, of_http, {}))
                gateways.append(f"127.0.0.1:{of_grpc}")
            own = {
                "HTTP_ENDPOINT": f"127.0.0.1:{port}",
                "GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
                "HEALTH_ENDPOINT": f"127.0.0.1:{health}",
                "METRICS_PORT": str(metrics),
                "STORAGE_DIR": str(folder / "queue"),
                "EXPORT_ENDPOINT": sink.endpoint,
                "RESOLVER": json.dumps({"static": {"hostnames": gateways}}),
                "DECISION_WAIT": "1s",
            }
            environ = {f"{name.upper()}_{variable}": value for variable, value in own.items()}
        collector = stack.enter_context(Collector(config, port, environ))
        before = collector.cpu_s()
        send(port, bodies)
        arrived, until = 0, time.monotonic() + 120
        while arrived < records:
            came = sink.records()
            arrived += came.get("/v1/traces", 0) + came.get("/v1/logs", 0)
            if time.monotonic() > until:
                raise SystemExit(f"{name}: {arrived} of {records} records arrived")
            time.sleep(0.2)
        cpu_s = collector.cpu_s() - before
        mb = sum(len(body) for _, body in bodies) / 1e6
        return Took(cpu_s / records * 1e6, mb / records * 1e6, collector.memory_mb())


def _bare(path: Path, port: int, grpc: int, sink: Sink) -> Path:
    path.write_text(BARE.format(port=port, grpc=grpc, to=sink.endpoint), encoding="utf-8")
    return path


def main() -> None:
    """Run all by turns, and print."""
    options = arguments(__doc__, records=200_000, rounds=3)
    if not COLLECTOR.exists():
        raise SystemExit(f"{COLLECTOR.relative_to(ROOT)} is not there: make collector")
    bodies = requests(options.records)
    records = options.records // 8 * 8
    names = ("bare", *CONFIGS)
    found: dict[str, list[Took]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found[name].append(turn(name, bodies, records))
    rows = []
    for name in names:
        pairs = zip(found[name], found["bare"], strict=True)
        cpu_s = statistics.median(took.cpu_s for took in found[name])
        rows.append(
            {
                "name": name,
                "cpu_s_a_million": cpu_s,
                "ratio": statistics.median(mine.cpu_s / theirs.cpu_s for mine, theirs in pairs),
                "records_s_a_core": 1e6 / cpu_s,
                "mb_s_a_core": found[name][0].mb / cpu_s,
                "memory_mb": statistics.median(took.memory_mb for took in found[name]),
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'':10}  CPU s a million  × bare  records/s a core  MB/s a core  peak MB")
    for row in rows:
        print(
            f"{row['name']:10}  {row['cpu_s_a_million']:15.2f}  {row['ratio']:6.2f}  {row['records_s_a_core']:16,.0f}"
            f"  {row['mb_s_a_core']:11.1f}  {row['memory_mb']:7.0f}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
