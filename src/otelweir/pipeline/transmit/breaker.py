"""A circuit breaker: who does not answer is left alone, but for a probe now and then.

    closed ──threshold failures in a row──▶ open ──the wait is over──▶ half-open (one probe)
       ▲                                     ▲                            │        │
       │                                     └────────── failed ──────────┘        │
       └────────────────────────────── succeeded ──────────────────────────────────┘

The first probe comes early, after a part of the recovery time, because most outages are short; each probe that fails
doubles the wait, up to the recovery time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["closed", "open", "half-open"]

THRESHOLD: Final = 5
RECOVERY_S: Final = 60.0
EARLY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """The breaker went from one state to another; `str` of it is a log line.

    Attributes:
        failures: Failures in a row so far.
        next_s: Seconds until the next probe; 0 unless open.
        why: Of the last failure.
    """

    old: State
    new: State
    failures: int
    next_s: float
    why: str

    def __str__(self) -> str:
        match self.new:
            case "open":
                return f"sending pauses after {self.failures} failures; next try in {self.next_s:.0f} s ({self.why})"
            case "half-open":
                return "one request tries whether sending works again"
            case _:
                return "sending works again"


class Breaker:
    """Who asks it before each request and tells it the end of each, sends no more than it allows.

    It has no clock and no lock: times are arguments, in seconds of any clock that does not go back, and one thread
    uses it.

    Args:
        threshold: Failures in a row that open it.
        recovery_s: The longest wait between two probes.
        early_s: The wait before the first probe.
        listener: Gets each change of state, after it happened.
    """

    def __init__(
        self,
        *,
        threshold: int = THRESHOLD,
        recovery_s: float = RECOVERY_S,
        early_s: float = EARLY_S,
        listener: Callable[[Change], object] = lambda _: None,
    ) -> None:
        self._threshold = max(1, threshold)
        self._recovery_s = recovery_s
        self._early_s = min(early_s, recovery_s)
        self._listener = listener
        self._state: State = "closed"
        self._failures = 0
        self._wait_s = self._early_s
        self._next = 0.0
        self._why = ""

    def __repr__(self) -> str:
        return f"<Breaker {self._state}, {self._failures} failures>"

    @property
    def state(self) -> State:
        return self._state

    @property
    def next_at(self) -> float | None:
        """When `allows` will next say yes, by the caller's clock; None when it does so at once."""
        return None if self._state == "closed" else self._next

    def allows(self, now: float, *, anyway: bool = False) -> bool:
        """Whether a request may be sent. A yes while it is not closed is for one request, the probe.

        A probe of which nothing was heard for the recovery time is taken for lost, and another is allowed.

        Args:
            anyway: Do not wait for the time of the next probe.
        """
        if self._state == "closed":
            return True
        if now < self._next and not anyway:
            return False
        self._next = now + self._recovery_s
        self._go("half-open")
        return True

    def forget_probe(self) -> None:
        """Nothing will be heard of the probe, if one is on its way: another is allowed."""
        if self._state == "half-open":
            self._next = -math.inf

    def succeeded(self) -> None:
        """A server answered, whatever the answer: it is there, and works."""
        self._failures = 0
        self._wait_s = self._early_s
        self._go("closed")

    def failed(self, now: float, why: str = "") -> None:
        """No server answered, or one that says it cannot work now."""
        self._failures += 1
        self._why = why
        if self._state == "half-open":
            self._wait_s = min(self._recovery_s, self._wait_s * 2)
        elif self._state == "open" or self._failures < self._threshold:
            # Open already: a request that was on its way when it opened. It says nothing new.
            return
        self._next = now + self._wait_s
        self._go("open")

    def _go(self, new: State) -> None:
        old, self._state = self._state, new
        if old != new:
            self._listener(Change(old, new, self._failures, self._wait_s if new == "open" else 0.0, self._why))
