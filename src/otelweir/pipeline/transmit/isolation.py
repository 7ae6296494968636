"""Which records of a batch a server does not take: found by halves, with a bound on requests for nothing.

A batch that is refused is halved, level by level: first both halves, then what was refused of them, and so on. One bad
record of n costs about 2 log2(n) small requests, and all others are delivered. A server that refuses everything gets
`PATIENCE` requests and no more: the batch, its halves, quarters and eighths.

A refusal may be an answer about the records (400), or the server's own fault (500). The former is believed at once. For
the latter nothing is given up before a record has failed `STRIKES` times alone, each time with other records going
through next; a server that fails for everything, or now for this and now for that, proves nothing against any record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

PATIENCE: Final = 15
"""Refusals in a row, before anything was taken, until a batch counts as refused altogether."""

WARY: Final = 3
"""The same after a batch for which all of them were for nothing: the batch and its halves."""

PERSISTENCE: Final = 64
"""Refusals in a row once a part was taken."""

MOST_REQUESTS: Final = 128
"""Requests for a batch; what is left then waits for another turn."""

STRIKES: Final = 8
"""Failures of a record alone, others being delivered in between, until it is set aside."""

_MOST_SUSPECTS: Final = 1024
_MOST_HEADS: Final = 16


class Search:
    """One batch on its way through the halves. It has no notion of sending: it says what is next, and is told.

    Args:
        records: The batch.
        patience: Refusals in a row, before anything was taken, until the search ends.
    """

    def __init__(self, records: Sequence[Any], patience: int = PATIENCE) -> None:
        self._parts: deque[tuple[Sequence[Any], str | None]] = deque([(records, None)])
        self._patience = patience
        self._in_vain = 0
        self._requests = 0
        self.taken = False
        """Whether a part was delivered."""

    def __repr__(self) -> str:
        return f"<Search {len(self._parts)} parts, {self._in_vain} refused in a row>"

    @property
    def fruitless(self) -> bool:
        """Whether there were so many refusals in a row that what is left counts as refused."""
        return self._in_vain >= (PERSISTENCE if self.taken else self._patience)

    def next(self) -> Sequence[Any] | None:
        """What to send next; None when the search is over."""
        over = not self._parts or self.fruitless or self._requests >= MOST_REQUESTS
        return None if over else self._parts[0][0]

    def delivered(self) -> None:
        """It was taken."""
        self.taken = True
        self._in_vain = 0
        self.ended()

    def ended(self) -> None:
        """It needs no more attention, whatever became of it."""
        self._requests += 1
        self._parts.popleft()

    def refused(self, why: str | None) -> None:
        """It was refused. A single record ends here; it is the caller's to keep.

        Args:
            why: The words, if the server spoke of the records; None if it failed.
        """
        self._requests += 1
        self._in_vain += 1
        part, _ = self._parts.popleft()
        if len(part) > 1:
            self._parts.extend((half, why) for half in _halves(part))

    def too_large(self) -> None:
        """It has to go in smaller parts, next; that is no refusal."""
        part, why = self._parts.popleft()
        self._parts.extendleft((half, why) for half in reversed(_halves(part)))

    def settle(self) -> list[tuple[Sequence[Any], str]]:
        """After a fruitless search: the parts that count as refused, each with the server's words; they are `left` no
        more. A server's own fault counts for nothing."""
        settled = [(part, why) for part, why in self._parts if why is not None]
        self._parts = deque((part, why) for part, why in self._parts if why is None)
        return settled

    def left(self) -> list[Sequence[Any]]:
        """Parts that did not come to an end."""
        return [part for part, _ in self._parts]


def _halves(part: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    middle = (len(part) + 1) // 2
    return part[:middle], part[middle:]


class Suspects:
    """Records over which a server fails, as it seems; each is sent alone until it passes or that is proven."""

    def __init__(self) -> None:
        self._strikes: dict[Any, int] = {}
        self._sizes: dict[Any, int] = {}
        self._pending: set[Any] = set()
        self._heads: dict[Any, int] = {}

    def __repr__(self) -> str:
        return f"<Suspects {self._strikes}>"

    def __contains__(self, identity: object) -> bool:
        return identity in self._strikes

    def __len__(self) -> int:
        return len(self._strikes)

    @property
    def bytes(self) -> int:
        """Of their records, together."""
        return sum(self._sizes.values())

    def batch_failed(self, head: Any) -> int:
        """The server failed over a batch that begins with this record; how often now."""
        if head not in self._heads and len(self._heads) >= _MOST_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[head] = self._heads.get(head, 0) + 1
        return self._heads[head]

    def failed(self, identity: Any, size: int) -> bool:
        """A request with nothing but this record failed; True when that is proof enough."""
        if identity not in self._strikes and len(self._strikes) >= _MOST_SUSPECTS:
            self.forget(next(iter(self._strikes)))
        strikes = self._strikes.setdefault(identity, 0)
        self._sizes[identity] = size
        self._pending.add(identity)
        return strikes + 1 >= STRIKES

    def others_pass(self) -> None:
        """Another record was delivered, so those that failed before it did not fail with everything else."""
        for identity in self._pending:
            self._strikes[identity] += 1
        self._pending.clear()

    def others_fail(self) -> None:
        """Another request failed, too: what failed before it did so with everything else, perhaps."""
        self._pending.clear()

    def forget(self, identity: Any) -> None:
        """It was delivered or set aside."""
        self._strikes.pop(identity, None)
        self._sizes.pop(identity, None)
        self._pending.discard(identity)
        self._heads.pop(identity, None)
