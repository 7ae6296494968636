"""What a flush came to, as the difference of two looks at the tally."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from otelweir.selfmetrics.tally import Count
from otelweir.signals import LANES, Lane, Loss


@dataclass(frozen=True, slots=True)
class Flushed:
    """The result of a flush. True only if nothing waits that was there to be sent, and nothing was lost since it began.

    Attributes:
        lanes: For each lane what was delivered and lost since the flush began, and what waits at its end.
        where: The folder in which it waits; None where that is memory.
        others: Whether exporters that keep no count, such as OpenTelemetry's own, took all that they were given.
        newer: How many of those that wait came when sending had begun; the next flush is for them.
    """

    lanes: Mapping[Lane, Count] = field(default_factory=dict)
    where: Path | None = None
    others: bool = True
    newer: Mapping[Lane, int] = field(default_factory=dict)

    @classmethod
    def between(
        cls,
        before: Mapping[Lane, Count],
        after: Mapping[Lane, Count],
        where: Path | None = None,
        *,
        others: bool = True,
        sent: Mapping[Lane, Count] | None = None,
    ) -> Flushed:
        """From two looks at the tally (`Tally.now`), one as the flush began and one at its end.

        Args:
            before: The look as it began.
            after: The look at its end.
            where: The folder in which it waits; None where that is memory.
            others: Whether exporters that keep no count took all that they were given.
            sent: A look as sending began, the oldest first. Other threads may have added to a lane since, and that is
                no failure of the flush. None where all that waits at the end should have arrived.
        """
        lanes = {lane: _since(before.get(lane, Count()), after[lane]) for lane in LANES if lane in after}
        newer = {} if sent is None else {lane: _newer(sent.get(lane, Count()), after[lane]) for lane in lanes}
        return cls(lanes, where, others, newer)

    @property
    def delivered(self) -> int:
        """Records of all lanes that a server acknowledged since the flush began."""
        return sum(count.delivered for count in self.lanes.values())

    @property
    def lost(self) -> int:
        """Records of all lanes that were lost since the flush began."""
        return sum(sum(count.lost.values()) for count in self.lanes.values())

    @property
    def waiting(self) -> int:
        """Records of all lanes that still wait."""
        return sum(count.waiting for count in self.lanes.values())

    def complete(self, lane: Lane) -> bool:
        """Whether nothing of a lane waits that was there to be sent, and none of it was lost since the flush began."""
        count = self.lanes.get(lane, Count())
        return count.waiting <= self.newer.get(lane, 0) and not count.lost

    def __bool__(self) -> bool:
        return self.others and all(map(self.complete, self.lanes))

    def __str__(self) -> str:
        """One sentence, fit for a log line.

        >>> str(Flushed({"logs": Count(120, {Loss.REJECTED: 3}, 40)}, Path("/var/lib/shop")))
        'logs: 120 delivered, 3 lost (rejected 3), 40 wait in /var/lib/shop'
        """
        parts = [f"{lane}: {words}" for lane, count in self.lanes.items() if (words := self._words(count))]
        return "; ".join(parts) or "nothing had to be sent"

    def _words(self, count: Count) -> str:
        words = [f"{count.delivered} delivered"] if count.delivered else []
        if lost := sum(count.lost.values()):
            why = ", ".join(f"{loss.replace('_', ' ')} {records}" for loss, records in count.lost.items())
            words.append(f"{lost} lost ({why})")
        if count.waiting:
            verb = "waits" if count.waiting == 1 else "wait"
            words.append(f"{count.waiting} {verb} in {self.where or 'memory'}")
        return ", ".join(words)


def _since(before: Count, after: Count) -> Count:
    # Never below zero: a process that was forked meanwhile began to count anew.
    lost: dict[Loss, int] = {}
    for why, records in after.lost.items():
        if (more := records - before.lost.get(why, 0)) > 0:
            lost[why] = more
    return Count(max(0, after.delivered - before.delivered), lost, after.waiting)


def _newer(sent: Count, after: Count) -> int:
    """How many of those that wait came after a look: what was taken by then and has not come to an end is older."""
    older = sent.accepted - (after.accepted - after.waiting)
    return after.waiting - min(after.waiting, max(0, older))
