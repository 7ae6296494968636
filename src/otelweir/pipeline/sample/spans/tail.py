"""The decision at the end of a trace: what is held, what becomes of it, and for how many traces it then stands.

A trace is held from the beginning of its local root (the span without a parent in this process) until all its local
roots have ended. Then it is kept for cause (`error`, `slow`, `cost`, `score`) or by rate. The rate is consistent: a
trace is kept by it if its randomness is not below the threshold, so every service with the same rate keeps the same
traces, and a trace that the head kept with the same randomness is not diluted twice.

A cause is certain as soon as it is there, so from then on nothing of the trace is held: what was, is handed out at
once. Only what may yet be thrown away is held, so what a crash can take is what is not known to matter.

Weights stay true because the probability of each trace follows from what it is, never from its randomness: for cause
it is the head's, by rate the smaller one of head's and tail's (Horvitz and Thompson's estimator). Two exceptions,
both counted: a trace that is decided early, for want of room, is judged by what was known; and what ends after the
decision follows it.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from otelweir.pipeline.sample.spans.head import threshold_for
from otelweir.pipeline.sample.spans.quantile import Usual
from otelweir.pipeline.sample.spans.tracestate import probability

S = TypeVar("S")

Reason = Literal["error", "slow", "cost", "score", "rate"]

_NO_TRACE: Final = -1
"""At work, but at no trace in particular."""

MAX_DECIDED: Final = 10_000
"""Decisions that are remembered for spans that end late; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class TailRules:
    """What is kept, and how much may be held.

    Attributes:
        rate: Share kept of traces without a cause, from 0 to 1.
        slow_s: Traces that take at least so long are kept; None for no such limit.
        slow_quantile: Traces beyond this quantile of their own route's history are kept; None for no such limit.
        cost: Traces that cost more are kept; None for no such limit.
        score: Traces with a score below are kept; None for no such limit.
        max_traces: Held at once.
        max_spans: Held at once.
        max_bytes: Held at once, about.
        max_age_s: How long a trace is held.
    """

    rate: float = 0.1
    slow_s: float | None = None
    slow_quantile: float | None = None
    cost: float | None = None
    score: float | None = None
    max_traces: int = 2000
    max_spans: int = 20_000
    max_bytes: int = 32 * 2**20
    max_age_s: float = 60.0


class Facts(NamedTuple):
    """What a span that has ended tells about its trace.

    Attributes:
        root: Whether it is a local root.
        error: Whether it failed.
        duration_s: How long it took.
        route: What it is compared with, if it is a local root.
        cost: What it cost.
        score: The lowest evaluation score on it; infinite for none.
        size: Bytes it takes, about.
    """

    root: bool
    error: bool
    duration_s: float
    route: str
    cost: float
    score: float
    size: int


class Chance(NamedTuple):
    """What the head has decided by.

    Attributes:
        threshold: Of its decision; None where it is not known.
        randomness: Of the trace.
    """

    threshold: int | None
    randomness: int


class Ruling(NamedTuple):
    """What becomes of a trace.

    Attributes:
        kept: Whether it goes out.
        reason: Why it is kept; `rate` where it is not.
        threshold: What its spans' tracestate is to say; None where the probability is not known.
        weight: For how many traces it stands.
    """

    kept: bool
    reason: Reason
    threshold: int | None
    weight: float


_DROPPED: Final = Ruling(False, "rate", None, 0.0)


@dataclass(frozen=True, slots=True)
class Release(Generic[S]):
    """Spans of a trace that has been decided.

    Attributes:
        trace_id: Of the trace.
        ruling: What becomes of it.
        spans: Those that were held, in the order in which they ended.
        late: Whether the decision was there before.
    """

    trace_id: int
    ruling: Ruling
    spans: list[S]
    late: bool = False


class _Held(Generic[S]):
    __slots__ = ("began", "chance", "cost", "roots", "score", "size", "slow", "spans")

    def __init__(self, began: float, chance: Chance) -> None:
        self.began = began
        self.chance = chance
        self.roots = 0
        self.spans: list[S] = []
        self.size = 0
        self.cost = 0.0
        self.score = math.inf
        self.slow = False


class Tail(Generic[S]):
    """Holds traces until they are decided. Safe to use from many threads, signal handlers and finalizers.

    Python may run a signal handler or the end of an abandoned generator between any two steps, in the thread that is at
    work here. What such a one brings is done when that work is done.

    Args:
        rules: What is kept, and how much may be held.
        clock: Monotonic time in seconds.
    """

    def __init__(self, rules: TailRules, clock: Callable[[], float]) -> None:
        self.rules = rules
        self._clock = clock
        self._threshold = threshold_for(rules.rate)
        self.after_fork()

    def after_fork(self) -> None:
        """In the child: what is held is the parent's to decide. Also how it all begins."""
        self._lock = threading.RLock()
        self._work: deque[tuple[Callable[..., list[Release[S]]], tuple[Any, ...]]] = deque()
        self._at: int | None = None
        self._held: OrderedDict[int, _Held[S]] = OrderedDict()
        self._decided: OrderedDict[int, Ruling] = OrderedDict()
        self._usual = Usual(self.rules.slow_quantile) if self.rules.slow_quantile is not None else None
        self._spans = self._bytes = 0
        self._counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Tail holds {len(self._held)} traces, {self._spans} spans, {self._bytes} bytes>"

    def counts(self) -> dict[str, int]:
        """Traces so far: kept, by reason; `dropped`; of both, those decided `early`; and `late` spans of no trace."""
        with self._lock:
            return dict(self._counts)

    def begin(self, trace_id: int, chance: Chance) -> list[Release[S]]:
        """A local root begins. What is decided by that: others, for want of room."""
        return self._do(self._begin, trace_id, self._clock(), chance)

    def end(self, trace_id: int, span: S, facts: Facts, chance: Callable[[], Chance]) -> list[Release[S]]:
        """A span has ended. What is decided by that, in the order in which it is to go out.

        Args:
            trace_id: Of the span.
            span: To be held.
            facts: What it tells.
            chance: What the head has decided by; asked where nothing of the trace is known.
        """
        return self._do(self._end, trace_id, self._clock(), span, facts, chance)

    def scored(self, trace_id: int, score: float) -> list[Release[S]]:
        """An evaluation of a trace has come by another way. What is decided by that."""
        return self._do(self._scored, trace_id, score)

    def grow_old(self) -> list[Release[S]]:
        """Time has passed. What is decided by that: traces that are too old to be held."""
        return self._do(self._grow_old, None, self._clock())

    def decide_all(self) -> list[Release[S]]:
        """Decide on everything that is held, by what is known so far."""
        now = self._clock()
        with self._lock:
            if self._at is None:
                return self._do(self._decide_all, None, now)
            # From a signal handler, after which the process may be over: all but what was being worked at.
            found = [self._early(trace_id, now) for trace_id in list(self._held) if trace_id != self._at]
            self._work.append((self._decide_all, (None, now)))
            return [release for release in found if release is not None]

    def _do(self, work: Callable[..., list[Release[S]]], trace_id: int | None, *given: Any) -> list[Release[S]]:
        with self._lock:
            self._work.append((work, (trace_id, *given)))
            found: list[Release[S]] = []
            if self._at is not None:
                return found
            try:
                while self._work:
                    work, given = self._work.popleft()
                    self._at = _NO_TRACE if given[0] is None else given[0]
                    found += work(*given)
            finally:
                self._at = None
            return found

    # --- all below: with the lock held

    def _begin(self, trace_id: int, now: float, chance: Chance) -> list[Release[S]]:
        held = self._held.get(trace_id)
        if held is None:
            ruling = self._decided.get(trace_id)
            if ruling is not None and ruling.kept and ruling.reason != "rate":
                return []  # it is kept for certain, so nothing of it need be held
            held = self._held[trace_id] = _Held(now, chance)
        held.roots += 1
        return self._make_room(now)

    def _end(self, trace_id: int, now: float, span: S, facts: Facts, chance: Callable[[], Chance]) -> list[Release[S]]:
        held = self._held.get(trace_id)
        if held is None:
            return [Release(trace_id, self._late(trace_id, facts, chance), [span], late=True)]
        held.spans.append(span)
        held.size += facts.size
        self._spans += 1
        self._bytes += facts.size
        held.cost += facts.cost
        held.score = min(held.score, facts.score)
        if facts.root:
            held.roots -= 1
            held.slow = self._slow(facts) or held.slow
        cause = "error" if facts.error else self._cause(held)
        decided = self._decide(trace_id, cause) if cause is not None or held.roots <= 0 else None
        released = self._make_room(now)
        return released if decided is None else [decided, *released]

    def _scored(self, trace_id: int, score: float) -> list[Release[S]]:
        held = self._held.get(trace_id)
        if held is None:
            return []
        held.score = min(held.score, score)
        cause = self._cause(held) if held.spans else None
        decided = self._decide(trace_id, cause) if cause is not None else None
        return [] if decided is None else [decided]

    def _grow_old(self, _: None, now: float) -> list[Release[S]]:
        return self._make_room(now)

    def _decide_all(self, _: None, now: float) -> list[Release[S]]:
        found = [self._early(trace_id, now) for trace_id in list(self._held)]
        # All is out, whatever an interruption in the middle of a sum has made of it.
        self._spans = self._bytes = 0
        return [release for release in found if release is not None]

    def _slow(self, facts: Facts) -> bool:
        rules = self.rules
        beyond = self._usual is not None and self._usual.is_slow(facts.route, facts.duration_s)
        return beyond or (rules.slow_s is not None and facts.duration_s >= rules.slow_s)

    def _cause(self, held: _Held[S]) -> Reason | None:
        rules = self.rules
        if held.slow:
            return "slow"
        if rules.cost is not None and held.cost > rules.cost:
            return "cost"
        if rules.score is not None and held.score < rules.score:
            return "score"
        return None

    def _decide(self, trace_id: int, cause: Reason | None) -> Release[S] | None:
        held = self._held.pop(trace_id, None)
        if held is None:
            return None  # somebody who came in between was first
        self._spans -= len(held.spans)
        self._bytes -= held.size
        ruling = self._ruling(held.chance, cause)
        before = self._decided.pop(trace_id, None)
        if before is not None and before.kept and not ruling.kept:
            ruling = before  # a part of it went out, so the rest follows
        if held.spans:
            self._count(ruling.reason if ruling.kept else "dropped")
        self._remember(trace_id, ruling)
        return Release(trace_id, ruling, held.spans)

    def _ruling(self, chance: Chance, cause: Reason | None) -> Ruling:
        threshold, randomness = chance
        if cause is not None:
            return Ruling(True, cause, threshold, 1.0 if threshold is None else 1 / probability(threshold))
        if randomness < self._threshold:
            return _DROPPED
        both = max(threshold or 0, self._threshold)
        return Ruling(True, "rate", None if threshold is None else both, 1 / probability(both))

    def _late(self, trace_id: int, facts: Facts, chance: Callable[[], Chance]) -> Ruling:
        """What becomes of a span whose trace is not held: what became of its trace, if that is remembered."""
        ruling = self._decided.get(trace_id)
        if ruling is None:
            self._count("late")
            ruling = self._ruling(chance(), "error" if facts.error else None)
            self._remember(trace_id, ruling)
        return ruling

    def _remember(self, trace_id: int, ruling: Ruling) -> None:
        if len(self._decided) >= MAX_DECIDED:
            self._decided.popitem(last=False)
        self._decided[trace_id] = ruling

    def _make_room(self, now: float) -> list[Release[S]]:
        rules = self.rules
        found: list[Release[S]] = []
        while (oldest := next(iter(self._held.items()), None)) is not None:
            trace_id, held = oldest
            if (
                len(self._held) <= rules.max_traces
                and self._spans <= rules.max_spans
                and self._bytes <= rules.max_bytes
                and now - held.began <= rules.max_age_s
            ):
                break
            if (release := self._early(trace_id, now)) is not None:
                found.append(release)
        return found

    def _early(self, trace_id: int, now: float) -> Release[S] | None:
        held = self._held.get(trace_id)
        if held is None:
            return None
        if self.rules.slow_s is not None and now - held.began >= self.rules.slow_s:
            held.slow = True  # it has taken that long already
        if held.spans:
            self._count("early")
        return self._decide(trace_id, self._cause(held))

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
