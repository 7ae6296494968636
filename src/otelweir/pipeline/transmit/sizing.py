"""How many bytes a request should have: many while answers are quick, fewer when they are not, and never more than the
server has shown to take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

MIN_BYTES: Final = 16 * 2**10
MAX_BYTES: Final = 2**20
START_BYTES: Final = 256 * 2**10
FACTOR: Final = 2.0
QUICK_S: Final = 2.0
SLOW_S: Final = 5.0

PROBE_S: Final = 600.0
"""How long a limit is believed, before one request tries whether it still holds."""

CAUTION_S: Final = 60.0
"""How long after a failure requests stay at the size of the last one that was quick: perhaps the next was too much."""

_CLOSE_ENOUGH: Final = 0.9
_BEYOND: Final = 1.25


class Sizing:
    """The target size of the next request, learnt from the last ones.

    Sizes are those before compression, and so is what servers limit, as a rule. Not locked: one thread uses it.

    Args:
        min_bytes: The target does not shrink below this, unless the server takes less.
        max_bytes: It does not grow above this.
        start_bytes: Where it begins.
        factor: By how much it grows and shrinks; above 1.
        quick_s: An answer within this time lets it grow.
        slow_s: One that took longer makes it shrink.
        limit: What was learnt before: the smallest request that was too large; None when none was.
        probe_s: How long a limit is believed, before one request tries whether it still holds.
        clock: Seconds that do not go back.
    """

    def __init__(
        self,
        *,
        min_bytes: int = MIN_BYTES,
        max_bytes: int = MAX_BYTES,
        start_bytes: int = START_BYTES,
        factor: float = FACTOR,
        quick_s: float = QUICK_S,
        slow_s: float = SLOW_S,
        limit: int | None = None,
        probe_s: float = PROBE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._min = max(1, min_bytes)
        self._max = max(self._min, max_bytes)
        self._factor = max(1.01, factor)
        self._quick_s = quick_s
        self._slow_s = max(quick_s, slow_s)
        self._limit = limit
        self._probe_s = probe_s
        self._clock = clock
        self._learnt_at = clock()
        self._probing = False
        self._passed = 0
        # The last request that was quick and worth the name, and until when none is to be larger.
        self._quick = 0
        self._caution_until = -math.inf
        self._target = float(start_bytes)
        self._fit(self._target)

    def __repr__(self) -> str:
        limit = "" if self._limit is None else f", {self._limit} is too large"
        return f"<Sizing {self.target} bytes{limit}>"

    @property
    def target(self) -> int:
        """Bytes that the next request should not exceed; at least 1. A single record may be larger, of course."""
        return int(self._target)

    @property
    def limit(self) -> int | None:
        """The smallest request that was too large; worth keeping for the next process."""
        return self._limit

    def answered(self, sent_bytes: int, took_s: float) -> None:
        """A request was taken.

        Args:
            sent_bytes: Its size. A small one says nothing about larger ones.
            took_s: From the first byte sent to the answer.
        """
        self._passed = max(self._passed, sent_bytes)
        if self._limit is not None and sent_bytes >= self._limit:
            # What was too large once has passed: another limit now, or one on the compressed size. Only where we tried
            # on purpose, nothing is known any more.
            self._limit = None if self._probing else sent_bytes + 1
            self._probing = False
            self._learnt_at = self._clock()
        if took_s > self._slow_s:
            self._fit(self._target / self._factor)
        elif took_s <= self._quick_s and self._limit is not None and self._due(self._limit):
            self._probing = True
            self._target = float(min(self._max, int(self._limit * _BEYOND) + 1))
        elif took_s <= self._quick_s and sent_bytes * 2 >= self._target:
            grown = self._target * self._factor
            if self._clock() < self._caution_until:
                grown = max(self._target, min(grown, self._quick))
            else:
                self._quick = sent_bytes
            self._fit(grown)

    def too_large(self, sent_bytes: int) -> None:
        """A request was too large for the server. The next has half its bytes at most."""
        self._limit = max(2, sent_bytes) if self._limit is None else max(2, min(self._limit, sent_bytes))
        self._passed = min(self._passed, self._limit - 1)
        self._probing = False
        self._learnt_at = self._clock()
        self._fit(min(self._target, sent_bytes / 2))

    def failed(self) -> None:
        """A request failed. Perhaps it was too much at once: a server that gives up does not always say why."""
        if self._quick:
            self._caution_until = self._clock() + CAUTION_S
        self._fit(self._target / self._factor)

    def _due(self, limit: int) -> bool:
        """Whether the limit is to be tried now; only where it is what keeps requests small."""
        if limit > self._max or self._target * self._factor < limit:
            return False
        return self._probing or self._clock() - self._learnt_at >= self._probe_s

    def _fit(self, target: float) -> None:
        """Bring a target between the bounds."""
        floor, ceiling = float(self._min), float(self._max)
        if self._limit is not None:
            # Between what passed and what did not, search by halves; close to the limit, stay with what passed,
            # because every attempt above it costs a request for nothing.
            known = self._passed >= self._limit * _CLOSE_ENOUGH
            ceiling = min(ceiling, self._passed if known else (self._passed + self._limit) / 2)
            # A server that takes less than the minimum wins over it.
            floor = min(floor, self._limit / 2)
        self._target = max(1.0, min(max(target, floor), ceiling))
