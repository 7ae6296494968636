"""The database of the local backend: SQLite, one writing thread, any number of readers.

Tables. Times are unix nanoseconds, ids hexadecimal text, attributes JSON, minutes unix minutes::

    resources        who sent it, by digest of its attributes
    logs             log records as received, without roll-ups          ┐ raw rows: the newest
    spans            spans as received                                  │ `keep_rows` of each
    points           metric data points as received                     │
    rollups          the sampler's roll-ups as received                 ┘
    patterns         per process, pattern and severity: counts over all time
    log_minutes      per minute, service and severity: records, sum of weights
    pattern_minutes  per minute, pattern and severity: records, sum of weights, and the seen and kept of roll-ups
    span_minutes     per minute and service: spans, failed ones, summed duration
    metric_minutes   per minute, service and name: points
    metrics          per name and service: what it is, points, the last value
    traces           per trace: its root, extent, spans, errors
    intake           per signal: requests, bytes on the wire

Invariants:

- One batch is one transaction: its rows and all counts that follow from them, or nothing.
- Counts are kept while writing, so that no question sums raw rows, and stay when raw rows are dropped.
- In `patterns`, `seen` and `kept` are exact up to `rolled_ns`, as roll-ups tell. Records of a later time are `late`,
  their weights `late_weight`, until the next roll-up covers them. A roll-up that is sent twice counts once.
- `pattern_id` is "" for records that carry none; they stand for themselves and are always `late`.

The journal is a write-ahead log: what was committed survives the death of the process, and readers never wait for
the writer.
"""

from __future__ import annotations

import queue
import sqlite3
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from otelweir.devserver import views
from otelweir.devserver.rows import SIGNALS, Batch, LogRow, PointRow, RollupRow, SpanRow
from otelweir.errors import DATABASE_UNUSABLE, ServerError

# "Weir" in ASCII: tells our databases from anybody else's. The version counts changes of the tables.
APPLICATION_ID: Final = 0x57656972
VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE resources (key TEXT PRIMARY KEY, service TEXT NOT NULL, attributes TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE logs (
    id INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, severity INTEGER NOT NULL, severity_text TEXT NOT NULL,
    body TEXT NOT NULL, event TEXT NOT NULL, trace_id TEXT NOT NULL, span_id TEXT NOT NULL, resource TEXT NOT NULL,
    scope TEXT NOT NULL, pattern_id TEXT NOT NULL, template TEXT NOT NULL, weight REAL NOT NULL, reason TEXT NOT NULL,
    is_new INTEGER NOT NULL, attributes TEXT NOT NULL
);
CREATE INDEX logs_of_trace ON logs (trace_id) WHERE trace_id <> '';
CREATE INDEX logs_of_errors ON logs (id) WHERE severity >= 17;

CREATE TABLE spans (
    id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, status TEXT NOT NULL,
    status_message TEXT NOT NULL, resource TEXT NOT NULL, scope TEXT NOT NULL, attributes TEXT NOT NULL,
    events TEXT NOT NULL, links TEXT NOT NULL
);
CREATE INDEX spans_of_trace ON spans (trace_id) WHERE trace_id <> '';

CREATE TABLE points (
    id INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, start_ns INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    temporality TEXT NOT NULL, monotonic INTEGER NOT NULL, value, measurements INTEGER, resource TEXT NOT NULL,
    scope TEXT NOT NULL, attributes TEXT NOT NULL, detail TEXT NOT NULL
);

CREATE TABLE rollups (
    id INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, resource TEXT NOT NULL, pattern_id TEXT NOT NULL,
    severity INTEGER NOT NULL, seen INTEGER NOT NULL, kept INTEGER NOT NULL, first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL, UNIQUE (resource, pattern_id, severity, time_ns, first_ns, last_ns)
);

CREATE TABLE patterns (
    resource TEXT NOT NULL, pattern_id TEXT NOT NULL, severity INTEGER NOT NULL,
    template TEXT NOT NULL DEFAULT '', logger TEXT NOT NULL DEFAULT '', is_new INTEGER NOT NULL DEFAULT 0,
    received INTEGER NOT NULL DEFAULT 0, weight REAL NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0, rollups INTEGER NOT NULL DEFAULT 0,
    late INTEGER NOT NULL DEFAULT 0, late_weight REAL NOT NULL DEFAULT 0, rolled_ns INTEGER NOT NULL DEFAULT -1,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    PRIMARY KEY (pattern_id, severity, resource)
) WITHOUT ROWID;

CREATE TABLE log_minutes (
    minute INTEGER, service TEXT, severity INTEGER, received INTEGER NOT NULL, weight REAL NOT NULL,
    PRIMARY KEY (minute, service, severity)
) WITHOUT ROWID;
CREATE TABLE pattern_minutes (
    minute INTEGER, pattern_id TEXT, severity INTEGER, received INTEGER NOT NULL DEFAULT 0,
    weight REAL NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (minute, pattern_id, severity)
) WITHOUT ROWID;
CREATE TABLE span_minutes (
    minute INTEGER, service TEXT, spans INTEGER NOT NULL, errors INTEGER NOT NULL, duration_ns INTEGER NOT NULL,
    PRIMARY KEY (minute, service)
) WITHOUT ROWID;
CREATE TABLE metric_minutes (
    minute INTEGER, service TEXT, name TEXT, points INTEGER NOT NULL, PRIMARY KEY (minute, service, name)
) WITHOUT ROWID;
CREATE TABLE metrics (
    name TEXT, service TEXT, kind TEXT NOT NULL, unit TEXT NOT NULL, description TEXT NOT NULL, points INTEGER NOT NULL,
    last_ns INTEGER NOT NULL, last_value, PRIMARY KEY (name, service)
) WITHOUT ROWID;
CREATE TABLE traces (
    trace_id TEXT PRIMARY KEY, name TEXT NOT NULL, service TEXT NOT NULL, start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL, spans INTEGER NOT NULL, errors INTEGER NOT NULL, newest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX traces_by_age ON traces (newest);
CREATE TABLE intake (signal TEXT PRIMARY KEY, requests INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""

_MINUTE_NS = 60 * 10**9
_RAW_TABLES = ("logs", "spans", "points", "rollups")
_T = TypeVar("_T")


class StoreBusy(Exception):
    """The queue is full, or the store is closed: nothing was taken, try again later."""


class Store:
    """Keeps batches and answers questions about them.

    Args:
        path: The database; made when missing, continued when it is one of ours. None keeps a temporary one that
            goes when the store is closed.
        queue_size: Batches that may wait for the writer.
        keep_rows: Raw rows kept of each kind; older ones go, the counts stay.

    Raises:
        ServerError: The file cannot be opened, or is not a database of this version.
    """

    def __init__(self, path: Path | str | None = None, *, queue_size: int = 256, keep_rows: int = 1_000_000) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="weir-dev-") if path is None else None
        self.path = Path(self._folder.name) / "weir.sqlite3" if self._folder else Path(path or "")
        self.revision = 0
        """Goes up with every commit: what has not changed need not be asked again."""
        self._keep_rows = keep_rows
        self._queue: queue.Queue[_Job | None] = queue.Queue(queue_size)
        self._closed = False
        self._closing = threading.Lock()
        try:
            self._db = _open(self.path)
        except BaseException:
            if self._folder:
                self._folder.cleanup()
            raise
        self._thread = threading.Thread(target=self._write_all, name="weir-store", daemon=True)
        self._thread.start()

    @property
    def is_temporary(self) -> bool:
        return self._folder is not None

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, batch: Batch, size_bytes: int = 0) -> Future[None]:
        """Hand a batch to the writer without waiting; the future is done once it is committed.

        Args:
            batch: What a request carried.
            size_bytes: What it weighed on the wire.

        Raises:
            StoreBusy: Nothing was taken.
        """
        job = _Job(batch, size_bytes, Future())
        with self._closing:  # so that nothing enters the queue behind the end mark
            if self._closed:
                raise StoreBusy("the store is closed")
            try:
                self._queue.put_nowait(job)
            except queue.Full:
                raise StoreBusy(f"{self._queue.maxsize} batches are waiting to be written") from None
        return job.done

    def write(self, batch: Batch, size_bytes: int = 0) -> None:
        """Hand a batch to the writer and wait until it is committed; raises what `submit` and SQLite raise."""
        self.submit(batch, size_bytes).result()

    def close(self) -> None:
        """Commit what waits, then close; a temporary database goes."""
        with self._closing:
            already, self._closed = self._closed, True
        if not already:
            self._queue.put(None)
        self._thread.join()
        if self._folder:
            self._folder.cleanup()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def totals(self) -> views.Totals:
        """Everything that arrived, in numbers."""
        return self.ask(views.totals)

    def log_totals(self) -> dict[str, views.LogTotal]:
        """Log records without roll-ups, by severity name; only severities that occurred."""
        return {total.severity: total for total in self.ask(views.log_totals)}

    def patterns(self, limit: int = 20) -> tuple[views.Pattern, ...]:
        """The patterns logged most, the largest first."""
        return self.ask(lambda db: views.patterns(db, limit))

    def recent_errors(self, limit: int = 20) -> tuple[views.Record, ...]:
        """Log records of severity ERROR and above, the newest first."""
        return self.ask(lambda db: views.recent_errors(db, limit))

    def recent_records(self, limit: int = 20) -> tuple[views.Record, ...]:
        """Log records, the newest first."""
        return self.ask(lambda db: views.recent_records(db, limit))

    def traces(self, limit: int = 20) -> tuple[views.Trace, ...]:
        """Traces whose spans arrived last, the newest first."""
        return self.ask(lambda db: views.traces(db, limit))

    def trace(self, trace_id: str) -> list[views.Span]:
        """The spans of a trace as trees, by start time; [] for an unknown trace."""
        return self.ask(lambda db: views.trace(db, trace_id))

    def trace_records(self, trace_id: str, limit: int = 1000) -> tuple[views.Record, ...]:
        """The log records of a trace, by time."""
        return self.ask(lambda db: views.trace_records(db, trace_id, limit))

    def snapshot(self, patterns: int = 20, errors: int = 10) -> views.Snapshot:
        """Totals, patterns and recent errors of one moment."""
        return self.ask(lambda db: views.snapshot(db, patterns, errors))

    def ask(self, question: Callable[[sqlite3.Connection], _T]) -> _T:
        """The answer to a question, on a connection of its own that cannot write."""
        with closing(_connect(self.path)) as db:
            db.execute("PRAGMA query_only = 1")
            return question(db)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.path} revision {self.revision}, {self._queue.qsize()} waiting>"

    # ── the writing thread ───────────────────────────────────────────────────────────────────────────────────────────

    def _write_all(self) -> None:
        rows = 0
        while (job := self._queue.get()) is not None:
            if not job.done.set_running_or_notify_cancel():
                continue
            try:
                with _transaction(self._db):
                    rows += _write(self._db, job.batch, job.size_bytes)
            except Exception as error:  # noqa: BLE001 - the caller gets it, and the next batch may fare better
                job.done.set_exception(error)
            else:
                self.revision += 1
                job.done.set_result(None)
            if rows > self._keep_rows // 10:
                rows = 0
                self._drop_old_rows()
        self._db.close()

    def _drop_old_rows(self) -> None:
        try:
            with _transaction(self._db):
                for table in _RAW_TABLES:
                    old = f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?"  # noqa: S608 - ours
                    self._db.execute(old, (self._keep_rows,))
                self._db.execute("DELETE FROM traces WHERE newest < (SELECT min(id) FROM spans)")
        except sqlite3.Error:
            pass  # such as a lock that another process holds: the next turn drops them


class _Job(NamedTuple):
    batch: Batch
    size_bytes: int
    done: Future[None]


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _connect(path: Path) -> sqlite3.Connection:
    # No isolation level: transactions begin and end where the code says so. The writer's connection is made in one
    # thread and used in another, never in both at once.
    return sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)


def _open(path: Path) -> sqlite3.Connection:
    try:
        db = _connect(path)
    except sqlite3.Error as error:
        raise ServerError(DATABASE_UNUSABLE, f"{path}: {error}") from None
    try:
        with _transaction(db):
            (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if tables == 0:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.executemany("INSERT INTO intake VALUES (?, 0, 0)", [(signal,) for signal in SIGNALS])
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {VERSION}")
            elif application != APPLICATION_ID:
                raise ServerError(DATABASE_UNUSABLE, f"{path} is a database of another program")
            elif version != VERSION:
                raise ServerError(
                    DATABASE_UNUSABLE, f"{path} was made by another version of Weir (tables {version}, not {VERSION})"
                )
        db.execute("PRAGMA journal_mode = WAL")
        # In WAL mode this syncs at checkpoints only: a commit survives the process, not always a power failure.
        db.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error as error:
        db.close()
        raise ServerError(DATABASE_UNUSABLE, f"{path}: {error}") from None
    except ServerError:
        db.close()
        raise
    return db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has rolled back by itself where the disk is full
            db.execute("ROLLBACK")
        raise


# ── one batch ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(db: sqlite3.Connection, batch: Batch, size_bytes: int) -> int:
    """Write a batch within the current transaction; returns the number of raw rows."""
    db.execute(
        "UPDATE intake SET requests = requests + 1, bytes = bytes + ? WHERE signal = ?", (size_bytes, batch.signal)
    )
    db.executemany("INSERT OR IGNORE INTO resources VALUES (?, ?, ?)", batch.resources.values())
    if batch.logs:
        _write_logs(db, batch.logs)
    if batch.rollups:  # after the records, which they cover
        _write_rollups(db, batch.rollups)
    if batch.spans:
        _write_spans(db, batch.spans)
    if batch.points:
        _write_points(db, batch.points)
    return len(batch.logs) + len(batch.rollups) + len(batch.spans) + len(batch.points)


def _write_logs(db: sqlite3.Connection, logs: list[LogRow]) -> None:
    db.executemany(
        "INSERT INTO logs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        # The service is the resource's; a row need not repeat it.
        [(*row[:8], *row[9:]) for row in logs],
    )
    minutes: Counter[tuple[int, str, int]] = Counter()
    minute_weights: defaultdict[tuple[int, str, int], float] = defaultdict(float)
    pattern_minutes: Counter[tuple[int, str, int]] = Counter()
    pattern_weights: defaultdict[tuple[int, str, int], float] = defaultdict(float)
    patterns: defaultdict[tuple[str, int, str], list[LogRow]] = defaultdict(list)
    for row in logs:
        minute = row.time_ns // _MINUTE_NS
        by_service = (minute, row.service, row.severity)
        minutes[by_service] += 1
        minute_weights[by_service] += row.weight
        if row.pattern_id:
            by_pattern = (minute, row.pattern_id, row.severity)
            pattern_minutes[by_pattern] += 1
            pattern_weights[by_pattern] += row.weight
        patterns[row.pattern_id, row.severity, row.resource].append(row)
    db.executemany(
        """
        INSERT INTO log_minutes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
            received = received + excluded.received, weight = weight + excluded.weight
        """,
        [(*key, number, minute_weights[key]) for key, number in minutes.items()],
    )
    db.executemany(
        """
        INSERT INTO pattern_minutes (minute, pattern_id, severity, received, weight) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET received = received + excluded.received, weight = weight + excluded.weight
        """,
        [(*key, number, pattern_weights[key]) for key, number in pattern_minutes.items()],
    )
    db.executemany(
        """
        INSERT INTO patterns
            (pattern_id, severity, resource, template, logger, is_new, received, weight, late, late_weight,
             first_ns, last_ns)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            template = CASE WHEN excluded.template <> '' THEN excluded.template ELSE template END,
            logger = CASE WHEN logger <> '' THEN logger ELSE excluded.logger END,
            is_new = is_new OR excluded.is_new,
            received = received + excluded.received, weight = weight + excluded.weight,
            late = late + excluded.late, late_weight = late_weight + excluded.late_weight,
            first_ns = min(first_ns, excluded.first_ns), last_ns = max(last_ns, excluded.last_ns)
        """,
        [_pattern(db, key, rows) for key, rows in patterns.items()],
    )


def _pattern(db: sqlite3.Connection, key: tuple[str, int, str], rows: list[LogRow]) -> tuple[object, ...]:
    found = db.execute("SELECT rolled_ns FROM patterns WHERE pattern_id = ? AND severity = ? AND resource = ?", key)
    (rolled_ns,) = found.fetchone() or (-1,)
    late = [row.weight for row in rows if row.time_ns > rolled_ns]
    return (
        *key,
        next((row.template for row in rows if row.template), ""),
        rows[0].scope if rows[0].pattern_id else "",
        any(row.is_new for row in rows),
        len(rows),
        sum(row.weight for row in rows),
        len(late),
        sum(late),
        min(row.time_ns for row in rows),
        max(row.time_ns for row in rows),
    )


def _write_rollups(db: sqlite3.Connection, rollups: list[RollupRow]) -> None:
    for row in rollups:
        new = db.execute(
            """
            INSERT OR IGNORE INTO rollups (time_ns, resource, pattern_id, severity, seen, kept, first_ns, last_ns)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (row.time_ns, row.resource, row.pattern_id, row.severity, row.seen, row.kept, row.first_ns, row.last_ns),
        ).rowcount
        if not new:
            continue  # sent again, because the answer to the first time was lost
        db.execute(
            """
            INSERT INTO patterns
                (pattern_id, severity, resource, template, logger, seen, kept, rollups, rolled_ns, first_ns, last_ns)
            VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)
            ON CONFLICT DO UPDATE SET
                template = CASE WHEN excluded.template <> '' THEN excluded.template ELSE template END,
                logger = CASE WHEN excluded.logger <> '' THEN excluded.logger ELSE logger END,
                seen = seen + excluded.seen, kept = kept + excluded.kept, rollups = rollups + 1,
                late = CASE WHEN excluded.rolled_ns >= rolled_ns THEN 0 ELSE late END,
                late_weight = CASE WHEN excluded.rolled_ns >= rolled_ns THEN 0 ELSE late_weight END,
                rolled_ns = max(rolled_ns, excluded.rolled_ns),
                first_ns = min(first_ns, excluded.first_ns), last_ns = max(last_ns, excluded.last_ns)
            """,
            (
                row.pattern_id, row.severity, row.resource, row.template, row.logger, row.seen, row.kept, row.last_ns,
                row.first_ns, row.last_ns,
            ),
        )  # fmt: skip
        db.execute(
            """
            INSERT INTO pattern_minutes (minute, pattern_id, severity, seen, kept) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET seen = seen + excluded.seen, kept = kept + excluded.kept
            """,
            (row.last_ns // _MINUTE_NS, row.pattern_id, row.severity, row.seen, row.kept),
        )


def _write_spans(db: sqlite3.Connection, spans: list[SpanRow]) -> None:
    db.executemany(
        "INSERT INTO spans VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*row[:10], *row[11:]) for row in spans],
    )
    (newest,) = db.execute("SELECT max(id) FROM spans").fetchone()
    minutes: defaultdict[tuple[int, str], list[SpanRow]] = defaultdict(list)
    by_trace: defaultdict[str, list[SpanRow]] = defaultdict(list)
    for row in spans:
        minutes[row.end_ns // _MINUTE_NS, row.service].append(row)
        if row.trace_id:
            by_trace[row.trace_id].append(row)
    db.executemany(
        """
        INSERT INTO span_minutes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
            spans = spans + excluded.spans, errors = errors + excluded.errors,
            duration_ns = duration_ns + excluded.duration_ns
        """,
        [(*key, len(rows), _failed(rows), _duration_ns(rows)) for key, rows in minutes.items()],
    )
    db.executemany(
        """
        INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
            name = CASE WHEN excluded.name <> '' THEN excluded.name ELSE name END,
            service = CASE WHEN excluded.name <> '' THEN excluded.service ELSE service END,
            start_ns = min(start_ns, excluded.start_ns), end_ns = max(end_ns, excluded.end_ns),
            spans = spans + excluded.spans, errors = errors + excluded.errors, newest = excluded.newest
        """,
        [_trace(trace_id, rows, newest) for trace_id, rows in by_trace.items()],
    )


def _trace(trace_id: str, rows: list[SpanRow], newest: int) -> tuple[object, ...]:
    root = next((row for row in rows if not row.parent_id), None)
    return (
        trace_id,
        root.name if root else "",
        root.service if root else rows[0].service,
        min(row.start_ns for row in rows),
        max(row.end_ns for row in rows),
        len(rows),
        _failed(rows),
        newest,
    )


def _failed(rows: Iterable[SpanRow]) -> int:
    return sum(row.status == "error" for row in rows)


def _duration_ns(rows: Iterable[SpanRow]) -> int:
    # Bounded, so that absurd times cannot overflow the sum of years.
    return sum(min(max(0, row.end_ns - row.start_ns), 10**15) for row in rows)


def _write_points(db: sqlite3.Connection, points: list[PointRow]) -> None:
    db.executemany(
        "INSERT INTO points VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row.time_ns, row.start_ns, row.name, row.kind, row.temporality, row.monotonic, row.value,
                row.measurements, row.resource, row.scope, row.attributes, row.detail,
            )
            for row in points
        ],
    )  # fmt: skip
    minutes = Counter((row.time_ns // _MINUTE_NS, row.service, row.name) for row in points)
    db.executemany(
        """
        INSERT INTO metric_minutes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET points = points + excluded.points
        """,
        [(*key, number) for key, number in minutes.items()],
    )
    last = {(row.name, row.service): row for row in points}
    numbers = Counter((row.name, row.service) for row in points)
    db.executemany(
        """
        INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
            kind = excluded.kind, unit = excluded.unit, description = excluded.description,
            points = points + excluded.points, last_ns = excluded.last_ns, last_value = excluded.last_value
        """,
        [
            (*key, row.kind, row.unit, row.description, numbers[key], row.time_ns, row.value)
            for key, row in last.items()
        ],
    )
