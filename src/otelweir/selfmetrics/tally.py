"""Where every record is: accepted = delivered + lost (by reason) + waiting, for each lane, at any moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from otelweir.signals import LANES, Lane, Loss


@dataclass(frozen=True, slots=True)
class Count:
    """The records of a lane since this process began, those it took over from others included.

    Attributes:
        delivered: Acknowledged by the server.
        lost: Will not arrive, by reason.
        waiting: In the spool, or on their way.
    """

    delivered: int = 0
    lost: Mapping[Loss, int] = field(default_factory=dict)
    waiting: int = 0

    @property
    def accepted(self) -> int:
        """All that was taken."""
        return self.delivered + sum(self.lost.values()) + self.waiting


class Tally:
    """Counts, for each lane, what became of the records that were accepted. Any thread may count."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        # Re-entrant: a signal handler may count while the thread it interrupts does.
        self._lock = threading.RLock()
        self._accepted: Counter[Lane] = Counter()
        self._delivered: Counter[Lane] = Counter()
        self._lost: dict[Lane, Counter[Loss]] = {lane: Counter() for lane in LANES}

    def after_fork(self) -> None:
        """In the child: the parent counts its own, and no lock is held by a thread that is gone."""
        self._begin()

    def accepted(self, lane: Lane, records: int) -> None:
        """Records were taken: from the application, or over from a process that is gone."""
        with self._lock:
            self._accepted[lane] += records

    def delivered(self, lane: Lane, records: int) -> None:
        """A server acknowledged records."""
        with self._lock:
            self._delivered[lane] += records

    def lost(self, lane: Lane, why: Loss, records: int) -> None:
        """Records will not arrive."""
        with self._lock:
            self._lost[lane][why] += records

    def of(self, lane: Lane) -> Count:
        """The lane's count, all numbers of one moment."""
        with self._lock:
            lost = dict(+self._lost[lane])
            delivered = self._delivered[lane]
            return Count(delivered, lost, self._accepted[lane] - delivered - sum(lost.values()))

    def __repr__(self) -> str:
        parts = []
        for lane in LANES:
            count = self.of(lane)
            parts.append(f"{lane} {count.delivered} delivered {sum(count.lost.values())} lost {count.waiting} waiting")
        return f"<Tally {', '.join(parts)}>"
