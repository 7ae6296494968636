"""Where every record is: accepted = delivered + lost (by reason) + waiting, for each lane, at any moment."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from otelweir.signals import LANES, Lane, Loss

_TRIES: Final = 16


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
    """Counts, for each lane, what became of the records that were accepted. Any thread may count, a signal handler too.

    What waits is what is left of the accepted, so that the sum holds whatever is forgotten.

    Args:
        accepted: Says how many records of a lane were taken since this process began: from the application, refused
            ones included, and over from processes that are gone. A record has to be in it before it is counted here.
    """

    def __init__(self, accepted: Callable[[Lane], int]) -> None:
        self._accepted = accepted
        self._begin()

    def _begin(self) -> None:
        # Re-entrant: a signal handler may count while the thread it interrupts does.
        self._lock = threading.RLock()
        self._adding = False
        self._pending: deque[tuple[Lane, Loss | None, int]] = deque()
        self._version = 0
        self._delivered: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._lost: dict[Lane, dict[Loss, int]] = {lane: {} for lane in LANES}

    def after_fork(self) -> None:
        """In the child: the parent counts its own, and no lock is held by a thread that is gone."""
        self._begin()

    def delivered(self, lane: Lane, records: int) -> None:
        """A server acknowledged records."""
        self._add(lane, None, records)

    def lost(self, lane: Lane, why: Loss, records: int) -> None:
        """Records will not arrive."""
        self._add(lane, why, records)

    def _add(self, lane: Lane, why: Loss | None, records: int) -> None:
        self._pending.append((lane, why, records))
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            if self._adding:  # a signal handler that interrupted this thread below; it goes on there
                return
            self._adding = True
            try:
                while self._pending:
                    lane, why, records = self._pending.popleft()
                    if why is None:
                        self._delivered[lane] += records
                    else:
                        self._lost[lane][why] = self._lost[lane].get(why, 0) + records
                    self._version += 1
            finally:
                self._adding = False

    def of(self, lane: Lane) -> Count:
        """The lane's count, all numbers of one moment.

        (While others count without a pause, what is delivered as this looks may still be among the waiting.)
        """
        delivered = accepted = 0
        lost: dict[Loss, int] = {}
        for _ in range(_TRIES):
            self._settle()
            with self._lock:
                version = self._version
                delivered = self._delivered[lane]
                lost = {why: records for why, records in self._lost[lane].items() if records}
            # Read last, as records are accepted first; and without the lock, as who answers may have one of its own.
            accepted = self._accepted(lane)
            if version == self._version:
                break
        return Count(delivered, lost, max(0, accepted - delivered - sum(lost.values())))

    def now(self) -> dict[Lane, Count]:
        """The count of each lane."""
        return {lane: self.of(lane) for lane in LANES}

    def __repr__(self) -> str:
        parts = []
        for lane in LANES:
            count = self.of(lane)
            parts.append(f"{lane} {count.delivered} delivered {sum(count.lost.values())} lost {count.waiting} waiting")
        return f"<Tally {', '.join(parts)}>"
