"""What delivery does, a JSON line for each request and event, in a file of its own or on standard error.

    {"time": "2026-01-31T12:00:00.123456Z", "pid": 7, "event": "request", "lane": "logs", "records": 100, ...}

Nothing of it goes through `logging`, so that it cannot enter the pipeline it speaks of. A line is one write, so
processes may share the file; whoever finds it full renames it and begins another.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from otelweir import errors
from otelweir.errors import Problem
from otelweir.selfmetrics.exchanges import Sent, outcome_of, words_of
from otelweir.variables import scrubbed

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - not everywhere
    fcntl = None

MAX_BYTES: Final = 10 * 2**20
STDERR: Final = "stderr"

_MAX_TEXT: Final = 1000
_MAX_DEPTH: Final = 4
_MAX_ITEMS: Final = 50
_MAX_PENDING: Final = 1000
_MIN_SECRET: Final = 4
"""Shorter ones would be found in every second word."""

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_NAME: Final = r"[\w-]*(?:authorization|api[-_]?key|token|passw(?:or)?d|secret|credential|cookie)[\w-]*"


@cache
def _secret_name() -> re.Pattern[str]:
    # When it is first used: most processes write no debug log, and compiling costs a millisecond at their start.
    return re.compile(_NAME, re.IGNORECASE)


@cache
def _secrets() -> re.Pattern[str]:
    """A name that says it and what follows, a scheme with its credentials, or a JWT."""
    return re.compile(
        rf"(?P<before>\b{_NAME}[\"']?\s*[:=]\s*)(?:\"[^\"]*\"?|'[^']*'?|(?:(?:bearer|basic)\s+)?[^\s,;&\"']+)"
        r"|(?P<scheme>\b(?:bearer|basic)\s+)[^\s,;&\"']+|\beyJ[\w-]+\.[\w-]+\.?[\w-]*",
        re.IGNORECASE,
    )


class DebugLog:
    """Writes the lines. Never raises; any thread may write, a signal handler too.

    What Weir warns of in this process is written without being told.

    Args:
        where: The path of a file, which only its owner will be able to read, or `stderr`; None writes nothing.
        max_bytes: How large the file may become. Then it is renamed to the same with `.1`, and another one begun.
        hide: Gives texts that must not appear, such as the values of headers.
        warn: Told, once, that the file cannot be written; as `errors.warn`.
        clock: Unix time.
    """

    def __init__(
        self,
        where: str | None,
        *,
        max_bytes: int = MAX_BYTES,
        hide: Callable[[], Iterable[str]] = tuple,
        warn: Callable[[Problem, str], None] = errors.warn,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stderr = where == STDERR
        self._path = None if where is None or self._stderr else _absolute(where)
        self._max_bytes = max_bytes
        self._hide = hide
        self._warn = warn
        self._clock = clock
        self._fd = -1
        self._whole = True
        self._pending: deque[bytes] = deque(maxlen=_MAX_PENDING)
        self._begin()
        _logs.add(self)

    def _begin(self) -> None:
        # Re-entrant: a signal handler may write while the thread it interrupts does.
        self._lock = threading.RLock()
        self._writing = False

    @property
    def on(self) -> bool:
        """Whether anything is written."""
        return self._stderr or self._path is not None

    def __repr__(self) -> str:
        return f"<DebugLog {'stderr' if self._stderr else self._path or 'off'}>"

    def request(self, sent: Sent) -> None:
        """One request and what became of it; made to be told by `Exchanges`."""
        if not self.on:
            return
        try:
            self.event(
                "request",
                lane=sent.lane,
                records=sent.records,
                bytes=sent.bytes,
                wire_bytes=sent.wire_bytes,
                took_s=round(sent.took_s, 6),
                outcome=outcome_of(sent),
                rejected=getattr(sent.outcome, "rejected", 0) or None,
                after_s=getattr(sent.outcome, "after_s", None),
                server=words_of(sent) or None,
            )
        except Exception:  # noqa: BLE001 - whatever it is that was told
            pass

    def event(self, name: str, /, **fields: object) -> None:
        """Something that happened: `breaker`, `adopted`, `lost`, ...

        Args:
            name: What happened.
            fields: More about it; None is left out. Credentials are replaced by `***`.
        """
        if not self.on:
            return
        try:
            self._pending.append(self._line(name, fields))
            self._write_pending()
        except Exception:  # noqa: BLE001 - the application must not notice
            pass

    def close(self) -> None:
        """Give the file back; a later line opens it again."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def after_fork(self) -> None:
        """In the child: no lock is held by a thread that is gone, and what waits is the parent's to write."""
        self._begin()
        self._pending.clear()
        # A lock on the file would be shared with the parent.
        self.close()

    # --- lines ------------------------------------------------------------------------------------------------------

    def _line(self, name: str, fields: Mapping[str, object]) -> bytes:
        hidden = sorted(self._hidden(), key=len, reverse=True)
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="microseconds")
        line: dict[str, object] = {"time": moment.replace("+00:00", "Z"), "pid": os.getpid(), "event": name}
        for key, value in fields.items():
            if value is not None and key not in line:
                line[key] = "***" if _secret_name().fullmatch(key) else _shown(value, hidden, 0)
        return json.dumps(line).encode() + b"\n"

    def _hidden(self) -> set[str]:
        found: set[str] = set()
        for secret in self._hide():
            # Servers repeat the key without the scheme that it came with.
            found |= {secret, *secret.split()}
        return {secret for secret in found if len(secret) >= _MIN_SECRET}

    # --- the file ---------------------------------------------------------------------------------------------------

    def _write_pending(self) -> None:
        failed = None
        with self._lock:
            if self._writing:  # a signal handler that interrupted this thread below; it goes on there
                return
            self._writing = True
            try:
                while self._pending:
                    self._write(self._pending.popleft())
            except OSError as error:
                self.close()
                failed = error
            finally:
                self._writing = False
        if failed is not None:
            # Not while the lock is held: who listens may write here, and hold another lock that the warning needs.
            why = failed.strerror or failed
            self._warn(errors.BAD_VALUE, f"WEIR_DEBUG_LOG={str(self._path or STDERR)!r} cannot be written: {why}")

    def _write(self, line: bytes) -> None:
        if self._stderr:
            os.write(2, line)
            return
        fd = self._file(len(line))
        text = line if self._whole else b"\n" + line
        self._whole = os.write(fd, text) == len(text)

    def _file(self, more: int) -> int:
        """The file, with room for so many bytes."""
        if self._fd < 0:
            self._fd = self._open()
        elif not self._is_there():  # renamed by another process, or deleted
            self.close()
            self._fd = self._open()
        if os.fstat(self._fd).st_size + more > self._max_bytes:
            self._rename()
            self.close()
            self._fd = self._open()
        return self._fd

    def _open(self) -> int:
        assert self._path is not None
        fd = os.open(self._path, _FLAGS, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError("is no regular file")
            if status.st_mode & 0o077:
                os.fchmod(fd, 0o600)
            self._whole = True
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _is_there(self) -> bool:
        assert self._path is not None
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._fd))
        except OSError:
            return False

    def _rename(self) -> None:
        """Put the full file away, unless another process just did."""
        assert self._path is not None
        if fcntl is not None:
            fcntl.flock(self._fd, fcntl.LOCK_EX)  # given back when the file is closed
        if self._is_there():
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def _absolute(where: str) -> Path:
    try:
        return Path(where).expanduser().absolute()
    except RuntimeError:  # nobody has this home
        return Path(where).absolute()


def _shown(value: object, hidden: Iterable[str], depth: int) -> object:
    """A value as JSON has it, without credentials, of bounded size."""
    match value:
        case float():
            return value if math.isfinite(value) else str(value)
        case bool() | int() | None:
            return value
        case Mapping() if depth < _MAX_DEPTH:
            return {
                str(key)[:_MAX_TEXT]: "***" if _secret_name().fullmatch(str(key)) else _shown(one, hidden, depth + 1)
                for key, one in list(value.items())[:_MAX_ITEMS]
            }
        case list() | tuple() | set() | frozenset() if depth < _MAX_DEPTH:
            return [_shown(one, hidden, depth + 1) for one in list(value)[:_MAX_ITEMS]]
    return without_secrets(str(value)[: 4 * _MAX_TEXT], hidden)[:_MAX_TEXT]


def without_secrets(text: str, hidden: Iterable[str] = ()) -> str:
    """A text with `***` for what is hidden, and for what looks like credentials.

    >>> without_secrets("Authorization: Bearer abc for https://me:pw@host")
    'Authorization: *** for https://***@host'
    """
    for secret in hidden:
        text = text.replace(secret, "***")

    def replaced(found: re.Match[str]) -> str:
        return f"{found['before'] or found['scheme'] or ''}***"

    return scrubbed(_secrets().sub(replaced, text))


_logs: Final[weakref.WeakSet[DebugLog]] = weakref.WeakSet()


def _after_fork() -> None:
    for log in list(_logs):
        log.after_fork()


def _warned(problem: Problem, detail: str) -> None:
    told = set()
    for log in list(_logs):
        where = repr(log)
        if log.on and where not in told:
            told.add(where)
            log.event("warning", code=problem.code, detail=detail)


errors.listen(_warned)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
