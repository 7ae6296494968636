"""The demo from beginning to end: backend, service, customers, what arrived of what was logged; then the assistant."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from otelweir.demo.ask import Answers, ask, missing
from otelweir.demo.comparison import Comparison, LogFile, Received, compare, weight_bound
from otelweir.demo.launch import Interrupted, Service
from otelweir.demo.load import Load, drive
from otelweir.devserver import DevServer, Pattern, Record, Span, Store
from otelweir.errors import NO_TEMPORARY_FOLDER, MissingExtra, ServerError
from otelweir.pipeline.sample.logs.settings import DEFAULT_RATES

Stage = Literal["backend", "service", "customers", "stop", "compare", "assistant", "done"]

NEEDS: Final = ("uvicorn", "starlette", "fastapi", "opentelemetry.instrumentation.fastapi")
_ARRIVAL_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1
_ALL: Final = 10**6


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the demo is, for whoever watches.

    Attributes:
        seconds: Since the customers came.
        requests: Requests answered.
        logged: Records in the service's log file.
        arrived: Log records at the backend.
    """

    stage: Stage
    url: str = ""
    seconds: float = 0.0
    requests: int = 0
    logged: int = 0
    arrived: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What the demo found.

    Attributes:
        patterns: The largest first.
        trace: The spans of one trace with an error, as trees; [] where none arrived.
        trace_records: The log records of that trace that arrived.
        total_s: How long all of it took.
        problems: What else went wrong.
        kept_in: Where the service's output and log file are, if something went wrong.
        answers: What was found out about the assistant; None where it was left out.
        missing: The package for want of which it was; "" for none.
    """

    comparison: Comparison
    load: Load
    patterns: tuple[Pattern, ...]
    trace: list[Span]
    trace_records: tuple[Record, ...]
    traces: int
    spans: int
    total_s: float
    problems: tuple[str, ...] = ()
    kept_in: Path | None = None
    answers: Answers | None = None
    missing: str = ""

    @property
    def ok(self) -> bool:
        return self.comparison.ok and not self.problems and (self.answers is None or self.answers.ok)


def run_demo(
    seconds: float,
    *,
    port: int = 0,
    db: Path | None = None,
    tell: Callable[[Moment], None] = lambda moment: None,
    told: threading.Event | None = None,
) -> Report:
    """Run the demo; nothing of it is left running.

    Args:
        seconds: How long customers come.
        port: The backend's; 0 takes any that is free.
        db: A new file to keep what arrives in.
        tell: Called now and then with how far it is.
        told: Set it to end the demo early.

    Raises:
        MissingExtra: Something that the demo needs is not installed.
        ServerError: The backend cannot be started, or there is no folder for temporary files.
        DemoError: The service does not start or does not stay up.
        Interrupted: `told` was set.
    """
    _need(*NEEDS)
    started = time.monotonic()
    told = told or threading.Event()
    try:
        folder = Path(tempfile.mkdtemp(prefix="weir-demo-"))
    except OSError as error:
        raise ServerError(NO_TEMPORARY_FOLDER, str(error)) from None
    keep = False
    try:
        report = _run(seconds, port, db, tell, told, folder, started)
        keep = not report.ok
        return replace(report, kept_in=folder) if keep else report
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _run(
    seconds: float,
    port: int,
    db: Path | None,
    tell: Callable[[Moment], None],
    told: threading.Event,
    folder: Path,
    started: float,
) -> Report:
    tell(Moment("backend"))
    with DevServer(port=port, db=db) as server, Service(folder, server.url) as service:
        moment = Moment("service", server.url)
        tell(moment)
        service.start(told)

        def look(load: Load) -> None:
            nonlocal moment
            if told.is_set():
                raise Interrupted
            service.check()
            moment = Moment(
                "customers",
                server.url,
                load.seconds,
                load.answered,
                service.log.read_on().logged,
                server.store.totals().received,
            )
            tell(moment)

        load = drive(service.port, seconds, look)
        tell(replace(moment, stage="stop", requests=load.answered))
        problems = [] if service.stop(told) else ["the service did not end well when it was asked to"]
        if not load.answered:
            problems.append("the service answered no request")
        tell(replace(moment, stage="compare", requests=load.answered))
        comparison = _compare_in_time(service.log, server.store, told)
        trace, records = _trace_with_error(server.store)
        totals = server.store.totals()
        patterns = server.store.patterns(_ALL)
        if not (wanted := missing()):
            tell(replace(moment, stage="assistant", requests=load.answered))
            # After all that is told of the shop: what the assistant sends goes into the same store.
            answers = ask(folder / "assistant", told, received, keep=server.store)
        else:
            answers = None
        tell(Moment("done", server.url, load.seconds, load.answered, comparison.truth.logged, comparison.received.sent))
        return Report(
            comparison=comparison,
            load=load,
            patterns=patterns,
            trace=trace,
            trace_records=records,
            traces=totals.traces,
            spans=totals.spans,
            total_s=time.monotonic() - started,
            problems=tuple(problems),
            answers=answers,
            missing=wanted,
        )


def _compare_in_time(log: LogFile, store: Store, told: threading.Event) -> Comparison:
    """Compare, again and again until it fits or nothing can be expected any more."""
    deadline = time.monotonic() + _ARRIVAL_TIMEOUT_S
    while not (comparison := compare(log.read_on(), received(store))).ok and time.monotonic() < deadline:
        if told.wait(_POLL_S):
            raise Interrupted
    return comparison


def received(store: Store) -> Received:
    """What the backend has."""
    totals = store.log_totals()
    return Received(
        records={severity: total.received for severity, total in totals.items() if total.received},
        rolled_up={severity: total.rolled_up for severity, total in totals.items() if total.rolled_up},
        kept={severity: total.kept for severity, total in totals.items() if not total.estimated},
        weights={severity: total.weight for severity, total in totals.items()},
        rollups=store.totals().rollups,
        error_ids=[str(record.attributes.get("incident", "")) for record in store.recent_errors(_ALL)],
        weight_bound=weight_bound([pattern.severity for pattern in store.patterns(_ALL)], DEFAULT_RATES),
    )


def _trace_with_error(store: Store) -> tuple[list[Span], tuple[Record, ...]]:
    """A trace that logged an error, the one with most to see: of the newest, that with most spans."""
    candidates = {record.trace_id: record for record in store.recent_errors(50) if record.trace_id}
    best: list[Span] = []
    for trace_id in candidates:
        spans = store.trace(trace_id)
        # With one root only: of the others, something is still missing.
        if len(spans) == 1 and _size(spans) > _size(best):
            best = spans
    return best, store.trace_records(best[0].trace_id) if best else ()


def _size(spans: list[Span]) -> int:
    return sum(1 + _size(span.children) for span in spans)


def _need(*modules: str) -> None:
    for module in modules:
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # a package above it
            found = None
        if found is None:
            raise MissingExtra("demo", module)
