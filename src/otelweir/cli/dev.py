"""`weir dev`: receive telemetry on this machine and show what arrives."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelweir.errors import WeirError

if TYPE_CHECKING:
    from otelweir.devserver import DevServer, Snapshot

_REFRESH_S = 0.5
# More patterns and errors than any terminal is high.
_MAX_PATTERNS = 200
_MAX_ERRORS = 20


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def _bytes(context: click.Context, parameter: click.Parameter, value: str) -> int:
    match = re.fullmatch(r"(\d{1,15})\s*([kmg]i?|)b?", value.strip().lower())
    if not match or int(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is not a size; write for example 500000, 512KiB or 20MiB")
    return int(match[1]) * _UNITS[match[2]]


@click.command(
    "dev",
    epilog="""
\b
Examples:
  weir dev                          the default address, forget everything at the end
  weir dev --db telemetry.sqlite3   keep it, and go on with it next time
  weir dev --port 0 --plain         any free port, lines instead of a view

\b
Then, in another terminal:
  opentelemetry-instrument python app.py
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=4318,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes one that is free.",
)
@click.option(
    "--db",
    type=click.Path(dir_okay=False, path_type=Path),
    help="SQLite file to keep everything in; continued if it exists. Without it, a temporary one that goes at the end.",
)
@click.option("--plain", is_flag=True, help="Lines instead of a view; the default when the output is not a terminal.")
@click.option(
    "--max-body",
    metavar="SIZE",
    callback=_bytes,
    default="20MiB",
    show_default=True,
    help="Largest request body to take, as sent and as unpacked.",
)
def command(host: str, port: int, db: Path | None, plain: bool, max_body: int) -> None:
    """Receive OpenTelemetry data on this machine and show what arrives.

    Takes OTLP over HTTP, protobuf and JSON: logs, traces and metrics of any OpenTelemetry SDK or collector. Shows
    totals, the log patterns by volume with what was seen, kept and saved, and recent errors. Ctrl-C ends it.
    """
    from otelweir.devserver import DevServer

    try:
        server = DevServer(port=port, host=host, db=db, max_body_bytes=max_body)
    except WeirError as error:
        raise click.ClickException(str(error)) from None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # senders may use signs that the output's encoding does not have
            stream.reconfigure(errors="replace")
    # In a pipe, and in a terminal that cannot redraw.
    plain = plain or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
    with _until_told() as told, server:
        (_print_lines if plain else _draw)(server, told)


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a request to terminate sets; the second time they do what they did before."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told  # signals are the main thread's
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def tell(number: int, _: object) -> None:
        told.set()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    try:
        for number in before:
            signal.signal(number, tell)
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_lines(server: DevServer, told: threading.Event) -> None:
    from otelweir.devserver.terminal import PlainLines, summary

    started = time.monotonic()
    lines = PlainLines(_snapshot(server))
    _say(f"Listening on {server.url}, {_keeps(server)}. Ctrl-C ends.")
    if server.is_exposed:
        _say(_exposed(server))
    shown = 0
    while True:
        ending = told.wait(_REFRESH_S)
        if ending:
            server.drain()
        if server.store.revision != shown:
            shown = server.store.revision
            for line in lines.update(_snapshot(server), datetime.now().astimezone()):
                _say(line)
        if ending:
            break
    _say(summary(server.store.totals(), time.monotonic() - started, _kept(server)))


def _draw(server: DevServer, told: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live

    from otelweir.devserver.terminal import View, summary

    started = time.monotonic()
    console = Console(highlight=False)
    snapshot, shown = _snapshot(server), server.store.revision

    def view(hint: str = "") -> View:
        warning = _exposed(server) if server.is_exposed else ""
        return View(snapshot, server.url, _keeps(server), time.monotonic() - started, hint, warning)

    with Live(view("Ctrl-C ends"), console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while not told.wait(_REFRESH_S):
            if server.store.revision != shown:
                shown = server.store.revision
                snapshot = _snapshot(server)
            live.update(view("Ctrl-C ends"), refresh=True)
        server.drain()
        snapshot = _snapshot(server)
        live.update(view(), refresh=True)
    _say(summary(snapshot.totals, time.monotonic() - started, _kept(server)))


def _snapshot(server: DevServer) -> Snapshot:
    return server.store.snapshot(_MAX_PATTERNS, _MAX_ERRORS)


def _keeps(server: DevServer) -> str:
    return "keeping it until the end" if server.store.is_temporary else f"keeping it in {server.store.path}"


def _exposed(server: DevServer) -> str:
    return f"Bound to {server.host}: other machines can reach it too, and nothing asks who they are."


def _kept(server: DevServer) -> str:
    return "--db FILE would keep it" if server.store.is_temporary else f"kept in {server.store.path}"


def _say(line: str) -> None:
    # Not left in a buffer: whoever reads the pipe waits for it.
    click.echo(line)
    sys.stdout.flush()
