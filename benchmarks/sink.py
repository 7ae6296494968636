"""A server in a process of its own that takes OTLP over HTTP and does next to nothing with it.

    with Sink() as sink:
        ...  # send to sink.endpoint
        assert sink.records() == sent

Requests are answered first and counted later, by the lengths of their fields alone.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
_HELD_BYTES = 32 * 2**20


class Sink:
    """The server, running."""

    def __enter__(self) -> Sink:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sink"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate()

    def records(self) -> dict[str, int]:
        """How many records came since the last time, by path."""
        found: dict[str, int] = self._ask("GET", "/records")
        return found

    def serve(self, yes: bool) -> None:
        """Whether requests are taken, or answered with 503."""
        self._ask("PUT", "/up" if yes else "/down")

    def _ask(self, method: str, path: str) -> Any:
        with urlopen(Request(self.endpoint + path, method=method)) as answer:
            return json.load(answer)


def records_in(request: bytes) -> int:
    """How many records an OTLP request for traces or logs has: fields 1, in these fields 2, in these fields 2."""
    return sum(
        1
        for resource in _fields(request, 0, len(request), 1)
        for scope in _fields(request, *resource, 2)
        for _ in _fields(request, *scope, 2)
    )


def _fields(data: bytes, at: int, end: int, number: int) -> list[tuple[int, int]]:
    """Where the contents of a message's fields with this number are; all fields have to be of bytes."""
    found = []
    while at < end:
        tag, at = data[at], at + 1
        length = shift = 0
        while True:
            byte, at = data[at], at + 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if tag == number << 3 | 2:
            found.append((at, at + length))
        at += length
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    up = True
    lock = threading.Lock()
    held: ClassVar[list[tuple[str, bool, bytes]]] = []
    held_bytes = 0
    counted: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not _Handler.up:
            self._answer(b"", 503)
            return
        with self.lock:
            self.held.append((self.path, self.headers["Content-Encoding"] == "gzip", body))
            _Handler.held_bytes += len(body)
        self._answer(b"")
        if _Handler.held_bytes > _HELD_BYTES:
            self._count()

    def do_PUT(self) -> None:
        _Handler.up = self.path == "/up"
        self._answer(b"{}")

    def do_GET(self) -> None:
        self._count()
        with self.lock:
            found = json.dumps(self.counted).encode()
            self.counted.clear()
        self._answer(found)

    def _count(self) -> None:
        with self.lock:
            for path, zipped, body in self.held:
                self.counted[path] += records_in(gzip.decompress(body) if zipped else body)
            self.held.clear()
            _Handler.held_bytes = 0

    def _answer(self, content: bytes, status: int = 200) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
