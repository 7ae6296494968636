"""The flight recorder: what sampling did not keep waits a while, in case something goes wrong.

The last records of each trace, and outside traces of each thread, wait in a ring. When the trace logs an error, ends
with one, or is kept for cause, they go out as context: with weight 0, so that every sum of weights stays what it was.

Whoever holds a record decides what an entry is. It is a tuple that begins with a function, which sends it, and the time
in Unix nanoseconds::

    (send, timestamp_ns, ...)        send(entry, attributes)

Nothing here is a promise: rings are bounded in number and length, what goes out is bounded a second, and two threads
that meet in one ring may lose what follows. What is lost here was not kept, and is counted as not kept, anyway.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from otelweir import errors
from otelweir.pipeline.sample.logs.stream import REASON, WEIGHT
from otelweir.signals import AnyValue

Entry: TypeAlias = tuple[Any, ...]
Send: TypeAlias = Callable[[Entry, Mapping[str, AnyValue]], None]

MAX_AGE_NS: Final = 300 * 10**9
"""What waited longer is no context any more."""

BURST_S: Final = 5.0
"""Seconds' worth of records that may go out at once."""

CONTEXT: Final[Mapping[str, AnyValue]] = {WEIGHT: 0.0, REASON: "flight_recorder"}
"""What a record carries that goes out as context of something that went wrong."""

OF_TRACE: Final[Mapping[str, AnyValue]] = {WEIGHT: 0.0, REASON: "trace"}
"""What a record carries that goes out because its trace is kept."""


_NOTHING: Final = (object(), None, None)


class FlightRecorder:
    """Rings of records that were not kept. Safe to use from many threads.

    Args:
        records: The length of a ring.
        rings: How many there are at once; beyond, the one that was begun first goes.
        per_second: Records that may go out a second, in the long run.
        whole_traces: Whether what belongs to a kept trace goes out, too, whatever the trace is kept for.
        clock: Monotonic time in seconds.

    Attributes:
        rings: By key; to be read only.
        recent: For whoever holds records, to find a ring again: anything, and the ring. Forgotten when a ring goes.
        whole_traces: As given.
        of_trace: What a record carries that goes out because its trace is kept.
        held_by_tail: Whether it is only known at the end of a trace whether it is kept.
        sent: Records that went out so far.
        skipped: Records that should have, and found no room within the limit.
    """

    of_trace: Final = OF_TRACE

    def __init__(
        self,
        *,
        records: int = 20,
        rings: int = 256,
        per_second: float = 100.0,
        whole_traces: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._most = rings
        self._per_second = per_second
        self._clock = clock
        self.whole_traces = whole_traces
        self.held_by_tail = False
        self.after_fork()

    def __repr__(self) -> str:
        return f"<FlightRecorder {len(self.rings)} rings, {self.sent} sent>"

    def after_fork(self) -> None:
        """In the child: what waits is the parent's. Also how it all begins."""
        # Reentrant, for signal handlers and finalizers that run in between.
        self._lock = threading.RLock()
        self.recent: tuple[Any, Any, Any] = _NOTHING
        self.rings: OrderedDict[int, deque[Entry]] = OrderedDict()
        self._tokens = max(float(self._records), BURST_S * self._per_second)
        self._filled_at = self._clock()
        self.sent = self.skipped = 0

    def hold(self, key: int, entry: Entry) -> None:
        """Let a record wait.

        Args:
            key: The trace's id, or minus the thread's.
            entry: See the file's beginning. It must not change any more.
        """
        ring = self.rings.get(key)
        if ring is None:
            ring = self.begin(key)
        ring.append(entry)

    def release(self, key: int, attributes: Mapping[str, AnyValue] = CONTEXT) -> None:
        """Send what waits under a key, oldest first. Never raises."""
        if key not in self.rings:
            return
        with self._lock:
            ring = self.rings.pop(key, None)
            self.recent = _NOTHING
            if ring is None:
                return
            too_old = time.time_ns() - MAX_AGE_NS
            entries = [entry for entry in _emptied(ring) if entry[1] >= too_old]
            room = self._room(len(entries))
            self.sent += room
            self.skipped += len(entries) - room
        for entry in entries[len(entries) - room :]:
            try:
                entry[0](entry, attributes)
            except Exception as error:  # noqa: BLE001 - our bug must not become the host's
                errors.warn(errors.CAPTURE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)

    def forget(self, key: int) -> None:
        """Nothing went wrong: let what waits under a key go."""
        if key in self.rings:
            with self._lock:
                self.rings.pop(key, None)
                self.recent = _NOTHING

    def decided(self, trace_id: int, kept: bool, reason: str) -> None:
        """A trace was decided when it had ended; `reason` is `rate` where nothing special happened in it."""
        if kept and reason != "rate":
            self.release(trace_id)
        elif kept and self.whole_traces:
            self.release(trace_id, OF_TRACE)
        else:
            self.forget(trace_id)

    def begin(self, key: int) -> deque[Entry]:
        """The ring of a key that has none yet."""
        with self._lock:
            if len(self.rings) >= self._most:
                self.rings.popitem(last=False)
                self.recent = _NOTHING
            return self.rings.setdefault(key, deque(maxlen=self._records))

    def _room(self, wanted: int) -> int:
        """How many of these may go out now."""
        now = self._clock()
        most = max(float(self._records), BURST_S * self._per_second)
        self._tokens = min(most, self._tokens + max(0.0, now - self._filled_at) * self._per_second)
        self._filled_at = now
        room = min(wanted, int(self._tokens))
        self._tokens -= room
        return room


def _emptied(ring: deque[Entry]) -> list[Entry]:
    """All that is in a ring, which others may still write to."""
    found: list[Entry] = []
    try:
        for _ in range(ring.maxlen or 0):
            found.append(ring.popleft())  # noqa: PERF401 - it ends where the ring is empty
    except IndexError:
        pass
    return found
