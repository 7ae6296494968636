"""ClickHouse's engine behind its HTTP interface, as far as the collector's exporter and a query need that.

A program: `python clickhouse.py FOLDER PORT`. What is inserted is in tables in the folder when the request is answered.
Statements, types and rows are the engine's own to parse; only the way to it is made here. In an answer, the exporter
expects a later revision of the Native format than the engine writes: a block begins with an info, and each column has a
flag.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from chdb.session import Session

_INFO: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_SIZES: Final = {"UInt8": 1, "UInt32": 4, "UInt64": 8}


def of_later_revision(text: bytes) -> Iterator[bytes]:
    """An answer's blocks, of columns of strings and whole numbers, in the pieces that clients expect."""
    at = 0

    def string() -> str:
        nonlocal at
        size = number()
        at += size
        return text[at - size : at].decode()

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = text[at]
            at += 1
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7

    while at < len(text):
        yield _INFO
        start = at
        columns, rows = number(), number()
        for _ in range(columns):
            _, kind = string(), string()
            yield text[start:at] + b"\x00"
            start = at
            if kind == "String":
                for _ in range(rows):
                    string()
            else:
                at += rows * _SIZES[kind]
        yield text[start:at]


class Interface(BaseHTTPRequestHandler):
    """A request carries its statement in the address or the body, and rows for an insert in the body."""

    protocol_version = "HTTP/1.1"
    session: Any
    folder: Path
    _lock = threading.Lock()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        body = self._body()
        statement = asked.get("query", [""])[0]
        try:
            with self._lock:
                if statement.lstrip().upper().startswith("INSERT"):
                    rows = self.folder / "rows.native"
                    rows.write_bytes(body)
                    head = statement[: statement.upper().rindex("FORMAT NATIVE")]
                    self.session.query(f"{head} FROM INFILE '{rows}' FORMAT Native")
                    found = b""
                else:
                    found = self.session.query(
                        statement or body.decode(), asked.get("default_format", ["TabSeparated"])[0]
                    ).bytes()
            self._send(200, b"".join(of_later_revision(found)) if "client_protocol_version" in asked else found)
        except Exception as error:
            self._send(500, str(error).encode())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("X-ClickHouse-Exception-Code", "1000")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        print(self.requestline[:500], file=sys.stderr)


def main() -> None:
    Interface.folder = Path(sys.argv[1])
    engine: Any = Session
    Interface.session = engine(str(Interface.folder / "tables"))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Interface).serve_forever()


if __name__ == "__main__":
    main()
