"""The decision at the beginning of a trace: consistent, by probability, by rule, within a limit.

Consistent: whoever decides by the same probability keeps the same traces, because the randomness is the trace's own.
The decision leaves its threshold in the tracestate, from which everybody downstream can tell how many traces a span
stands for.

Source: https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from otelweir.pipeline.sample.logs.threshold import threshold_of
from otelweir.pipeline.sample.spans.limit import RateLimit
from otelweir.pipeline.sample.spans.rules import LEAST_RATE, Kind, SpanRule, TraceRules
from otelweir.pipeline.sample.spans.tracestate import SCALE

S = TypeVar("S")

MAX_NAMES: Final = 1024
"""Names of spans for which the rules are remembered; beyond, all are forgotten and looked up again."""

NEVER: Final = SCALE
"""A threshold that no trace reaches."""


def threshold_for(rate: float) -> int:
    """The threshold of a rate from 0 to 1, exactly as the tracestate will say it.

    >>> threshold_for(1.0), threshold_for(0.5) == 1 << 55, threshold_for(0.0) == NEVER
    (0, True, True)
    """
    return int(threshold_of(rate).ljust(14, "0"), 16) if rate >= LEAST_RATE else NEVER


class Arm(Generic[S]):
    """One way to decide: by the rule's probability and limit.

    Attributes:
        rule: What the policy says.
        threshold: Below it a trace is not kept.
        kept: What a trace gets that is kept by this probability.
    """

    __slots__ = ("_by_threshold", "chance", "limit", "rule")

    def __init__(self, rule: SpanRule, by_threshold: Callable[[int], S], now: float) -> None:
        """
        Args:
            rule: What the policy says.
            by_threshold: Makes what kept traces get.
            now: Monotonic time in seconds.
        """
        self.rule = rule
        self._by_threshold = by_threshold
        # One pair, replaced as a whole: whoever reads it in another thread never sees half of a change.
        self.chance: tuple[int, S] = self._chance(rule.rate)
        self.limit: RateLimit | None = None
        if rule.per_second is not None and rule.rate >= LEAST_RATE:
            self.limit = RateLimit(rule.per_second, rule.rate, self._set, now)

    def __repr__(self) -> str:
        return f"<Arm {self.rule.name or 'otherwise'!r} rate {self.rule.rate:g}, limit {self.limit!r}>"

    def _chance(self, rate: float) -> tuple[int, S]:
        threshold = threshold_for(rate)
        return threshold, self._by_threshold(min(threshold, SCALE - 1))

    def _set(self, rate: float) -> None:
        self.chance = self._chance(rate)


class Head(Generic[S]):
    """Decides on traces that begin here. Safe to use from many threads.

    Args:
        rules: The policy.
        by_threshold: Makes what kept traces get, of their threshold; made once for each probability.
        unknown: What kept traces get whose probability is not known.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        rules: TraceRules,
        by_threshold: Callable[[int], S],
        unknown: S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self._unknown = unknown
        self._clock = clock
        now = clock()
        self._arms = [Arm(rule, by_threshold, now) for rule in (*rules.rules, rules.otherwise)]
        self._only = self._arms[0] if not rules.rules else None
        self._names: dict[tuple[str, object], tuple[Arm[S], ...]] = {}

    def __repr__(self) -> str:
        return f"<Head {len(self.rules.rules)} rules, {self._arms[-1]!r}>"

    def decide(self, name: str, kind: Kind, attributes: Mapping[str, object] | None, randomness: int) -> S | None:
        """Whether a trace is kept: what it gets, or None.

        Args:
            name: Of its first span.
            kind: Of its first span.
            attributes: Which its first span is begun with.
            randomness: Of the trace, from 0 to below 2**56.
        """
        arm = self._only or self._arm(name, kind, attributes)
        limit = arm.limit
        if limit is None:
            threshold, kept = arm.chance
            return kept if randomness >= threshold else None
        now = self._clock()
        limit.came(now)
        threshold, kept = arm.chance
        if randomness < threshold:
            return None
        room = limit.take(now)
        return kept if room else self._unknown if room is None else None

    def refused(self) -> int:
        """Traces that found no room within a limit, so far."""
        return sum(arm.limit.refused for arm in self._arms if arm.limit is not None)

    def after_fork(self) -> None:
        """In the child: its limits are its own, and no lock is held by a thread that is gone."""
        now = self._clock()
        for arm in self._arms:
            if arm.limit is not None:
                arm.limit.begin_anew(now)

    def _arm(self, name: str, kind: Kind, attributes: Mapping[str, object] | None) -> Arm[S]:
        key = (name, kind)
        arms = self._names.get(key)
        if arms is None:
            arms = tuple(self._arms[place] for place in self.rules.candidates(name, kind))
            # Names may be made of input (a path with an id in it); starting over is cheap and bounds the memory.
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[key] = arms
        for arm in arms:
            if arm.rule.fits_attributes(attributes):
                return arm
        return self._arms[-1]
