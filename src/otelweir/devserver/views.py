"""What the local backend can tell: questions to the database, each a function of a connection.

No question sums raw rows: counts come from the tables that the writer keeps, single rows from an index.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from otelweir.devserver.rows import ERROR, SEVERITIES


@dataclass(frozen=True, slots=True)
class LogTotal:
    """The log records of one severity, without roll-ups.

    Attributes:
        severity: Such as "info".
        received: Records that arrived.
        weight: The sum of their weights, an estimate of what was logged.
        seen: What was logged: exact as far as roll-ups tell, then the weights of what came after them.
        kept: What the sampler kept of these.
        rolled_up: The part of `seen` that roll-ups told: exact.
        estimated: Whether `seen` holds an estimated part.
    """

    severity: str
    received: int = 0
    weight: float = 0.0
    seen: int = 0
    kept: int = 0
    rolled_up: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """A log pattern over all processes; the counts as in `LogTotal`.

    Attributes:
        first_ns: When it was first logged, in unix nanoseconds; `last_ns` likewise.
        is_new: Whether the sampler marked one of its records as the first of a new pattern.
    """

    pattern_id: str
    template: str
    severity: str
    logger: str
    services: tuple[str, ...]
    received: int
    weight: float
    seen: int
    kept: int
    rolled_up: int
    estimated: bool
    is_new: bool
    first_ns: int
    last_ns: int

    @property
    def saved(self) -> float:
        return saved(self.seen, self.kept)


@dataclass(frozen=True, slots=True)
class Intake:
    """What came over the wire for one signal."""

    requests: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything that arrived, in numbers.

    Attributes:
        received: Log records that arrived, without roll-ups.
        logged: Log records these stand for; exact unless `estimated`.
        errors: Log records of severity ERROR and above that arrived.
        unpatterned: Log records that carried no pattern: they did not pass Weir's sampler.
        failed_spans: Spans with the status "error".
        intake: Requests and bytes by signal.
    """

    received: int
    logged: int
    estimated: bool
    errors: int
    unpatterned: int
    rollups: int
    patterns: int
    spans: int
    failed_spans: int
    traces: int
    points: int
    metrics: int
    intake: dict[str, Intake]

    @property
    def saved(self) -> float:
        return saved(self.logged, self.received)


@dataclass(frozen=True, slots=True)
class Record:
    """One log record as received."""

    id: int
    time_ns: int
    severity: str
    body: str
    event: str
    service: str
    scope: str
    trace_id: str
    span_id: str
    pattern_id: str
    template: str
    weight: float
    reason: str
    attributes: dict[str, Any]

    @property
    def exception(self) -> str:
        """`Type: message`, or what is known of it; "" where the record carries no exception."""
        kind, text = self.attributes.get("exception.type"), self.attributes.get("exception.message")
        return ": ".join(str(part) for part in (kind, text) if part)


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace at a glance; the name is its root span's, "" while that has not arrived."""

    trace_id: str
    name: str
    service: str
    start_ns: int
    duration_ns: int
    spans: int
    errors: int


@dataclass(slots=True)
class Span:
    """One span and those below it, by start time."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    duration_ns: int
    status: str
    status_message: str
    service: str
    scope: str
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    children: list[Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Several answers of the same moment."""

    totals: Totals
    severities: tuple[LogTotal, ...]
    patterns: tuple[Pattern, ...]
    errors: tuple[Record, ...]


def saved(seen: int, kept: int) -> float:
    """The share of `seen` that is not among `kept`, from 0 to 1."""
    return max(0.0, 1 - kept / seen) if seen > 0 else 0.0


def totals(db: sqlite3.Connection) -> Totals:
    by_severity = log_totals(db)
    spans, failed, traces = _one(
        db, "SELECT total(spans), total(errors), (SELECT count(*) FROM traces) FROM span_minutes"
    )
    points, metrics = _one(db, "SELECT total(points), count(DISTINCT name) FROM metrics")
    patterns, unpatterned = _one(
        db,
        "SELECT count(DISTINCT nullif(pattern_id, '')), total(received) FILTER (WHERE pattern_id = '') FROM patterns",
    )
    (rollups,) = _one(db, "SELECT total(rollups) FROM patterns")
    return Totals(
        received=sum(one.received for one in by_severity),
        logged=sum(one.seen for one in by_severity),
        estimated=any(one.estimated for one in by_severity),
        errors=sum(one.received for one in by_severity if one.severity in ("error", "fatal")),
        unpatterned=int(unpatterned),
        rollups=int(rollups),
        patterns=int(patterns),
        spans=int(spans),
        failed_spans=int(failed),
        traces=int(traces),
        points=int(points),
        metrics=int(metrics),
        intake={signal: Intake(requests, size) for signal, requests, size in db.execute("SELECT * FROM intake")},
    )


def log_totals(db: sqlite3.Connection) -> tuple[LogTotal, ...]:
    """By severity, the mildest first; only severities that occurred."""
    found = db.execute(
        """
        SELECT severity, sum(received), sum(weight), sum(seen), sum(kept), sum(late), sum(late_weight),
               sum(CASE WHEN pattern_id = '' THEN 0 ELSE late END)
        FROM patterns GROUP BY severity ORDER BY severity
        """
    )
    return tuple(
        LogTotal(
            severity=SEVERITIES[severity],
            received=received,
            weight=weight,
            seen=seen + round(late_weight),
            kept=kept + late,
            rolled_up=seen,
            estimated=late_patterned > 0,
        )
        for severity, received, weight, seen, kept, late, late_weight, late_patterned in found
    )


def patterns(db: sqlite3.Connection, limit: int = 20) -> tuple[Pattern, ...]:
    """The patterns logged most, the largest first."""
    found = db.execute(
        """
        SELECT *, (SELECT json_group_array(DISTINCT service) FROM patterns JOIN resources ON key = resource
                   WHERE pattern_id = top.pattern_id)
        FROM (SELECT pattern_id, max(template), max(severity), max(logger), sum(received), sum(weight),
                     sum(seen) AS seen, sum(kept), sum(late), sum(late_weight) AS late_weight, max(is_new),
                     min(first_ns), max(last_ns)
              FROM patterns WHERE pattern_id <> ''
              GROUP BY pattern_id ORDER BY sum(seen) + sum(late_weight) DESC, pattern_id LIMIT ?) AS top
        ORDER BY seen + late_weight DESC, pattern_id
        """,
        (limit,),
    )
    return tuple(
        Pattern(
            pattern_id=pattern_id,
            template=template,
            severity=SEVERITIES[severity],
            logger=logger,
            services=tuple(sorted(json.loads(services))),
            received=received,
            weight=weight,
            seen=seen + round(late_weight),
            kept=kept + late,
            rolled_up=seen,
            estimated=late > 0,
            is_new=bool(is_new),
            first_ns=first_ns,
            last_ns=last_ns,
        )
        for (
            pattern_id, template, severity, logger, received, weight, seen, kept, late, late_weight, is_new, first_ns,
            last_ns, services,
        ) in found
    )  # fmt: skip


_RECORD = """
    SELECT id, time_ns, severity, body, event, service, scope, trace_id, span_id, pattern_id, template, weight, reason,
           logs.attributes
    FROM logs JOIN resources ON key = resource
"""


def recent_records(db: sqlite3.Connection, limit: int = 20) -> tuple[Record, ...]:
    """The log records that arrived last, the newest first."""
    return _records(db.execute(f"{_RECORD} ORDER BY id DESC LIMIT ?", (limit,)))


def recent_errors(db: sqlite3.Connection, limit: int = 20) -> tuple[Record, ...]:
    """The log records of severity ERROR and above that arrived last, the newest first."""
    # The number stands in the text, or SQLite would not see that the partial index serves.
    return _records(db.execute(f"{_RECORD} WHERE severity >= {ERROR} ORDER BY id DESC LIMIT ?", (limit,)))


def trace_records(db: sqlite3.Connection, trace_id: str, limit: int = 1000) -> tuple[Record, ...]:
    """The log records of a trace, by time."""
    query = f"{_RECORD} WHERE trace_id = ? AND trace_id <> '' ORDER BY time_ns, id LIMIT ?"
    return _records(db.execute(query, (trace_id, limit)))


def traces(db: sqlite3.Connection, limit: int = 20) -> tuple[Trace, ...]:
    """The traces whose spans arrived last, the newest first."""
    found = db.execute(
        """
        SELECT trace_id, name, service, start_ns, max(0, end_ns - start_ns), spans, errors
        FROM traces ORDER BY newest DESC, trace_id LIMIT ?
        """,
        (limit,),
    )
    return tuple(Trace(*row) for row in found)


def trace(db: sqlite3.Connection, trace_id: str) -> list[Span]:
    """The spans of a trace as trees: those without a parent here, each with its children; [] for an unknown trace."""
    found = db.execute(
        """
        SELECT trace_id, span_id, parent_id, name, kind, start_ns, max(0, end_ns - start_ns), status, status_message,
               service, scope, spans.attributes, events
        FROM spans JOIN resources ON key = resource
        WHERE trace_id = ? AND trace_id <> '' ORDER BY start_ns, id
        """,
        (trace_id,),
    )
    return _tree(Span(*_read_json(row, 2)) for row in found)


def snapshot(db: sqlite3.Connection, patterns_limit: int, errors_limit: int) -> Snapshot:
    """Totals, patterns and errors of the same moment."""
    db.execute("BEGIN")
    try:
        return Snapshot(totals(db), log_totals(db), patterns(db, patterns_limit), recent_errors(db, errors_limit))
    finally:
        db.execute("ROLLBACK")


def _tree(spans: Iterable[Span]) -> list[Span]:
    # A span that was sent twice counts once.
    by_id = {span.span_id: span for span in spans}
    roots: list[Span] = []
    for span in by_id.values():
        parent = by_id.get(span.parent_id)
        (roots if parent is None else parent.children).append(span)
    reached: set[str] = set()
    _reach(roots, reached)
    for span in by_id.values():
        # Whatever no root leads to hangs on a ring of parents; it is opened at its earliest span.
        if span.span_id not in reached:
            by_id[span.parent_id].children.remove(span)
            roots.append(span)
            _reach([span], reached)
    return roots


def _reach(roots: Iterable[Span], reached: set[str]) -> None:
    todo = list(roots)
    while todo:
        span = todo.pop()
        reached.add(span.span_id)
        todo.extend(span.children)


def _records(found: Iterable[tuple[Any, ...]]) -> tuple[Record, ...]:
    return tuple(Record(row[0], row[1], SEVERITIES[row[2]], *_read_json(row[3:], 1)) for row in found)


def _read_json(row: tuple[Any, ...], columns: int) -> tuple[Any, ...]:
    """The row with its last columns read."""
    return (*row[:-columns], *map(json.loads, row[-columns:]))


def _one(db: sqlite3.Connection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = db.execute(query).fetchone()
    return row
