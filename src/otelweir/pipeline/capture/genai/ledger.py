"""What the calls below a local root cost in all, which calls were counted already, and a budget."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from otelweir.pipeline.capture.genai.usage import CALLS, EMBEDDINGS, Usage, models_of, operation_of

_MAX_LIVE: Final = 100_000
_RECENT: Final = 64
_MAX_DEPTH: Final = 64


Known = Literal["same", "below"]


class Totals:
    """The sums below one local root."""

    __slots__ = ("amount", "calls", "input", "output", "unpriced")

    def __init__(self) -> None:
        self.amount = 0.0
        self.calls = 0
        self.input = 0
        self.output = 0
        self.unpriced = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A call that was counted: model, the provider's id, when it ran, its tokens, what it did, who made its span."""

    model: str
    response: str
    start: int
    end: int
    usage: Usage
    operation: str = "chat"
    scope: str = ""


class Live:
    """A span that has not ended.

    Attributes:
        above: Its parent, where that is of this process.
        totals: The sums that its calls are added to.
        call: Gives the attributes of the span, where it is an instrumentation's for a call; None once it is gone.
        called: The sorts of calls below it that have a model's span of their own.
        counted: The sorts of calls below it that were counted.
        found: What spans below it, of the same call, know about it.
    """

    __slots__ = ("above", "call", "called", "counted", "found", "totals")

    def __init__(self, above: Live | None, totals: Totals) -> None:
        self.above = above
        self.totals = totals
        self.call: Callable[[], Mapping[str, Any] | None] | None = None
        self.called = 0
        self.counted = 0
        self.found: Mapping[str, Any] | None = None


class Ledger:
    """The live spans, and the sums of their local roots. Bounded: beyond 100,000 the oldest are forgotten."""

    def __init__(self) -> None:
        self._live: dict[int, Live] = {}
        self._roots: dict[int, Totals] = {}
        self._recent: deque[Seen] = deque(maxlen=_RECENT)
        # Reentrant: the end of an abandoned stream, or a signal's handler, may come in between in the same thread.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Ledger {len(self._live)} spans live in {len(self._roots)} traces>"

    def after_fork(self) -> None:
        """In the child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def begin(self, trace: int, span: int, parent: int | None) -> Live:
        """A span began.

        Args:
            trace: Its trace.
            span: Its id.
            parent: Its parent's, None at a local root.
        """
        above = self._live.get(parent) if parent is not None else None
        if above is not None:
            totals = above.totals
        elif parent is None:
            totals = self._roots[trace] = Totals()
        else:  # the parent has ended, or was forgotten
            totals = self._roots.get(trace) or Totals()
        live = self._live[span] = Live(above, totals)
        if len(self._live) > _MAX_LIVE:
            self._forget()
        return live

    def end(self, trace: int, span: int, *, root: bool) -> Live | None:
        """A span ended; None if it was forgotten."""
        live = self._live.pop(span, None)
        if root and live is not None and self._roots.get(trace) is live.totals:
            del self._roots[trace]
        return live

    def called(self, live: Live | None, operation: str) -> None:
        """A call has a model's span: what is around it is a step that makes the call, and no other call."""
        sort = sort_of(operation)
        with self._lock:
            for above in _above(live):
                above.called |= sort

    def known(self, live: Live | None, seen: Seen) -> Known | None:
        """Whether a call was counted already: by a span below this one, or by one beside it for the same call.

        None if it was not; then it is from now on.
        """
        sort = sort_of(seen.operation)
        if live is None:
            return None
        with self._lock:
            for earlier in tuple(self._recent):
                if _same(earlier, seen):
                    if not (earlier.response and seen.response):
                        # Without an id it may be any of several that are alike: each is met once.
                        self._recent.remove(earlier)
                    return "same"
            if live.counted & sort:
                return "below"
            self._recent.append(seen)
            for above in _above(live):
                above.counted |= sort
        return None

    def add(self, live: Live | None, usage: Usage, amount: float | None, *, final: bool = True) -> None:
        """Count a call.

        Args:
            live: Its span.
            usage: Its tokens.
            amount: What it cost; None where nobody knows.
            final: Whether the tokens are all that there were.
        """
        if live is None:
            return
        totals = live.totals
        with self._lock:
            totals.calls += 1
            totals.input += usage.input
            totals.output += usage.output
            if amount is None or not final:
                totals.unpriced += 1
            if amount is not None:
                totals.amount += amount

    def _forget(self) -> None:
        with self._lock:
            for forgotten in (self._live, self._roots):
                while len(forgotten) > _MAX_LIVE:
                    forgotten.pop(next(iter(forgotten)), None)


def is_part_of(above: Live | None, attributes: Mapping[str, Any]) -> bool:
    """Whether a call with these attributes is the one that an instrumentation's span right above it stands for."""
    theirs = above.call() if above is not None and above.call is not None else None
    if theirs is None or (operation := operation_of(theirs)) not in CALLS:
        return False
    asked, _ = models_of(theirs)
    return sort_of(operation) == sort_of(operation_of(attributes)) and asked in ("", models_of(attributes)[0])


def sort_of(operation: str) -> int:
    """Calls that answer with text, and those that answer with vectors: a call of one sort is none of the other's."""
    return 2 if operation == EMBEDDINGS else 1


def _above(live: Live | None) -> Iterator[Live]:
    """The spans above one, the nearest first; not all, where there are very many."""
    for _ in range(_MAX_DEPTH):
        live = live.above if live is not None else None
        if live is None:
            return
        yield live


def _same(earlier: Seen, later: Seen) -> bool:
    """Whether two spans tell of one call.

    They have the provider's id of it, and overlap in time, as there are servers that give all their answers one id. Or
    one of them has no id, and the time of the one is within that of the other; where none has one, they also have to be
    of two instrumentations, as each tells of a call once.
    """
    if (earlier.model, earlier.usage.input, earlier.usage.output) != (
        later.model,
        later.usage.input,
        later.usage.output,
    ):
        return False
    if earlier.response and later.response:
        return earlier.response == later.response and later.start <= earlier.end and earlier.start <= later.end
    within = later.start <= earlier.start and earlier.end <= later.end
    return within and (bool(earlier.response or later.response) or earlier.scope != later.scope)


class Budget:
    """Says when the calls of a window have cost more than they may.

    Args:
        limit: What they may cost.
        window_s: How long a window lasts; it begins with the first call that costs something.
        clock: Seconds, never going back.
    """

    def __init__(self, limit: float, window_s: float, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.window_s = window_s
        self.spent = 0.0
        self.windows = 0
        self._clock = clock
        self._until = float("-inf")
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Budget {self.spent:g} of {self.limit:g}>"

    def after_fork(self) -> None:
        """In the child: it has a budget of its own."""
        self._lock = threading.RLock()
        self._until = float("-inf")

    def spend(self, amount: float) -> bool:
        """Add what a call cost; True with the one that exceeds the budget of its window."""
        if amount <= 0:
            return False
        with self._lock:
            now = self._clock()
            if now >= self._until:
                self._until = now + self.window_s
                self.spent = 0.0
                self.windows += 1
            before = self.spent
            self.spent += amount
            return before <= self.limit < self.spent
