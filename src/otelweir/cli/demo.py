"""`weir demo`: small services, launched with Weir, one of them flooded, and what arrived of what they did."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@click.command(
    "demo",
    epilog="""
\b
Examples:
  weir demo                             about fifteen seconds, then a summary
  weir demo --seconds 60                a longer flood
  weir demo --json | jq .share_saved    the same for machines
  weir demo --db demo.sqlite3           keep it; look again with weir dev --db demo.sqlite3

\b
Exit code: 0 if errors, counts, tokens and costs match and no secret left, 1 if not or if something failed, 130 after
Ctrl-C.
""",
)
@click.option(
    "--seconds",
    default=8.0,
    show_default=True,
    type=click.FloatRange(1, 600),
    help="How long the flood lasts.",
)
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535),
    help="Port of the backend; one that is free unless given.",
)
@click.option(
    "--db",
    type=click.Path(dir_okay=False, path_type=Path),
    help="New SQLite file to keep what arrived in. Without it, nothing is left behind.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the standard output, and nothing else.")
def command(seconds: float, port: int, db: Path | None, as_json: bool) -> None:
    """Launch a small service with Weir, flood it and show what arrives.

    Starts a backend on this machine and a small web shop in a process of its own, launched with
    opentelemetry-instrument and environment variables only. Customers make it log by the thousands. Then what arrived
    is compared with the shop's own log file: every error one by one, the counts exactly.

    After that the shop's assistant answers questions with a language model, of which a stand-in runs here too: a trace
    with tokens and cost, an error with the log records that were held until it came, and a secret that did not leave.
    Without OpenAI's client and its instrumentation this part is left out.
    """
    if db is not None and db.exists():
        raise click.BadParameter(f"{db} exists; the demo needs a new file", param_hint="--db")
    from rich.console import Console

    from otelweir.demo import Interrupted, run_demo
    from otelweir.demo.ask import missing
    from otelweir.demo.progress import Progress
    from otelweir.demo.summary import Summary
    from otelweir.demo.summary import as_json as to_json

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a pipe may know fewer signs than a terminal
            stream.reconfigure(errors="replace")
    with _until_told() as (told, signals):
        try:
            with Progress(Console(stderr=True), seconds, ["assistant"] if missing() else []) as progress:
                report = run_demo(seconds, port=port, db=db, tell=progress.tell, told=told)
        except Interrupted:
            if signal.SIGINT in signals:
                raise click.Abort from None
            sys.exit(128 + signals[0])
    if as_json:
        click.echo(json.dumps(to_json(report), indent=2))
    else:
        Console(highlight=False).print(Summary(report, db))
    if not report.ok:
        sys.exit(1)


@contextmanager
def _until_told() -> Iterator[tuple[threading.Event, list[int]]]:
    """An event that a signal to end sets, and the signals that came; the second one does what it did before."""
    told = threading.Event()
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told, came  # signals are the main thread's
        return
    # Not Ctrl-C alone: a closed terminal or a CI job that is cancelled must leave no service running either.
    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}

    def tell(number: int, _: object) -> None:
        came.append(number)
        told.set()
        signal.signal(number, signal.default_int_handler)

    try:
        for number in wanted:
            signal.signal(number, tell)
        yield told, came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
