"""Batches that adapt against batches of a fixed size, over a slow line and before a slow server, in the same run.

    python -m benchmarks.batches [--rounds N] [--records N]

Records have 300 bytes and are not compressed. The line has a latency of 100 ms for each request and takes 2 MB a second
on each connection; fixed batches have 512 records, as OpenTelemetry's processors do, or the bytes with which adaptive
ones begin. The slow server takes 400 kB a second, and the client waits 2 s for it, so that it never sees the end of a
request that is too large; there the fixed batches have 2 MiB, which adaptive ones come from, too.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.harness import arguments, by_turns, ratio, report

from otelweir.pipeline.spool import Group, Spool, join
from otelweir.pipeline.transmit import Backoff, Courier, Gate, HttpSender, Route, Sizing
from otelweir.pipeline.transmit.sizing import START_BYTES
from otelweir.selfmetrics import Tally

GROUP = Group(b"r" * 400, b"s" * 40)
RECORD = os.urandom(300)
LARGE = 2 * 2**20
PATIENCE_S = 12.0


@dataclass(frozen=True)
class Line:
    """What a request costs: a latency, and time for each byte."""

    latency_s: float
    bytes_s: float

    def serve(self) -> ThreadingHTTPServer:
        """A server at the end of the line, running."""
        line = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                self.rfile.read(length)
                time.sleep(line.latency_s + length / line.bytes_s)
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def send(line: Line, route: Callable[[HttpSender, Gate], Route], records: int, timeout_s: float) -> tuple[float, int]:
    """Send so many records; the seconds it took, or `PATIENCE_S` at most where requests fail, and how many arrived."""
    spool = Spool(None, memory_bytes=2**29)
    tally = Tally(spool.accepted)
    for _ in range(records):
        spool.append("logs", (GROUP, RECORD))
    server = line.serve()
    sender = HttpSender(f"http://127.0.0.1:{server.server_address[1]}/v1/logs", timeout_s=timeout_s, environ={})
    gate = Gate("line", backoff=Backoff(0.1, 0.5))
    courier = Courier(spool, {"logs": route(sender, gate)}, join=join, counts=tally)
    began = time.perf_counter()
    while spool.waiting("logs").records and (timeout_s > PATIENCE_S or time.perf_counter() - began < PATIENCE_S):
        if not courier.turn():
            time.sleep(min(courier.wait_s(), 1.0))
    took_s = time.perf_counter() - began
    sender.close()
    server.shutdown()
    server.server_close()
    spool.close()
    return took_s, tally.of("logs").delivered


def fixed(size: int) -> Sizing:
    return Sizing(min_bytes=size, max_bytes=size, start_bytes=size)


def main() -> None:
    options = arguments(__doc__, rounds=3, records=33_000)
    routes: dict[str, Callable[[HttpSender, Gate], Route]] = {
        "adaptive": Route,
        "512 records": lambda sender, gate: Route(sender, gate, fixed(LARGE), max_records=512),
        f"{START_BYTES // 1024} KiB": lambda sender, gate: Route(sender, gate, fixed(START_BYTES)),
    }
    line = Line(latency_s=0.1, bytes_s=2e6)
    contenders: dict[str, Callable[[int], float]] = {
        name: lambda times, route=route: send(line, route, times, timeout_s=60.0)[0]  # type: ignore[misc]
        for name, route in routes.items()
    }
    found = by_turns(contenders, options.rounds, options.records)
    rows = [ratio(found, "adaptive", name, 1 / 1.3) for name in routes if name != "adaptive"]

    slow = Line(latency_s=0.0, bytes_s=4e5)
    large: dict[str, Callable[[HttpSender, Gate], Route]] = {
        "adaptive, slow server": lambda sender, gate: Route(sender, gate, Sizing(start_bytes=LARGE)),
        "2 MiB, slow server": lambda sender, gate: Route(sender, gate, fixed(LARGE)),
    }
    # Microseconds for each record that arrived; one at least, so that there is a number where none did.
    waited = {
        name: [took / max(1, arrived) * 1e6 for took, arrived in [send(slow, route, 15_000, timeout_s=2.0)]]
        for name, route in large.items()
    }
    rows.append(ratio(waited, "adaptive, slow server", "2 MiB, slow server", 1 / 1.3))
    report(rows, options.json)


if __name__ == "__main__":
    main()
