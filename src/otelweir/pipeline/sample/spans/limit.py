"""A rate limit that tells the truth: it lowers the probability, so that few traces are refused for want of room.

A token bucket alone keeps the first traces of each second and none of the others; no probability describes that, and
no count can be extrapolated from it. So the probability follows what has come lately, and is known before a trace is
looked at: a trace that passes is one of so many. The bucket stands behind it and bounds what is kept when a burst
comes that nobody could know of. While it refuses traces, those that are kept are of unknown probability, and say so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

TICK_S: Final = 1.0
"""How often the probability is fitted to what came."""

BURST_S: Final = 2.0
"""Seconds' worth of traces that the bucket holds."""

LEAST_BURST: Final = 10.0
"""Traces that the bucket holds however low the limit is."""

AIM: Final = 0.9
"""The part of the limit that the probability aims at: at all of it, chance alone would empty the bucket."""

_PAST: Final = 0.5
"""How much of the past counts: a burst counts at once, and a pause does not open the gate at once."""

LEAST_RATE: Final = 1e-6
"""The probability never falls below it: what is never kept cannot be counted."""


class RateLimit:
    """At most so many a second, in the long run, with a probability that is known beforehand. Safe for threads.

    Args:
        per_second: How many are kept at most; above 0.
        rate: The share that is kept where there is room, above 0 and at most 1.
        changed: Told the probability from now on, whenever it changes.
        now: Monotonic time in seconds.

    Attributes:
        rate: The probability in force.
        refused: How many passed by their probability and found no room.
    """

    def __init__(self, per_second: float, rate: float, changed: Callable[[float], None], now: float) -> None:
        self._per_second = per_second
        self._most = rate
        self._changed = changed
        self._room = max(LEAST_BURST, BURST_S * per_second)
        self.refused = 0
        self.begin_anew(now)

    def __repr__(self) -> str:
        return f"<RateLimit {self._per_second:g} a second, rate {self.rate:.3g}, {self.refused} refused>"

    def begin_anew(self, now: float) -> None:
        """Forget what came; for a forked child, too, where the lock may be held by a thread that is gone."""
        # Reentrant, for signal handlers and finalizers that run in between.
        self._lock = threading.RLock()
        self.rate = self._most
        self._seen = 0
        self._usual_per_s: float | None = None
        self._tokens = self._room
        self._filled_at = self._ticked_at = now
        self._strained_until = now
        self.due_at = now + TICK_S
        self._changed(self.rate)

    def came(self, now: float) -> None:
        """Count a trace that is about to be decided, whatever becomes of it."""
        # Without the lock: two threads may count one trace for two, which hardly changes an estimate.
        self._seen += 1
        if now >= self.due_at:
            self._tick(now)

    def take(self, now: float) -> bool | None:
        """Whether there is room for a trace that has passed: True; None for yes, but by no known probability; False."""
        with self._lock:
            tokens = min(self._room, self._tokens + max(0.0, now - self._filled_at) * self._per_second)
            self._filled_at = now
            if tokens < 1.0:
                self._tokens = tokens
                self.refused += 1
                self._strained_until = now + TICK_S
                return False
            self._tokens = tokens - 1.0
            return True if now >= self._strained_until else None

    def _tick(self, now: float) -> None:
        with self._lock:
            passed = now - self._ticked_at
            if now < self.due_at or passed <= 0:
                return
            came_per_s = self._seen / passed
            usual = came_per_s if self._usual_per_s is None else self._usual_per_s
            self._usual_per_s = per_s = max(came_per_s, usual + (came_per_s - usual) * (1 - _PAST))
            self._seen, self._ticked_at, self.due_at = 0, now, now + TICK_S
            fitting = AIM * self._per_second / per_s if per_s > 0 else 1.0
            rate = min(self._most, max(LEAST_RATE, fitting))
            if abs(rate - self.rate) <= 0.02 * self.rate and rate != self._most:
                return
            self.rate = rate
            self._changed(rate)
