"""One stream of records, of one pattern and severity, and the decision on each of them.

In each window the first records are kept; beyond them, one in every 1/rate, spread evenly: the rate is added up and a
record is kept whenever the sum passes a whole number. The sum starts at a random place, so each record is kept with a
probability of exactly the rate, and the weights, 1 for a first record and 1/rate for one kept by rate, add up without
bias (systematic sampling with a random start: Cochran, Sampling Techniques, chapter 8).

Counters are only ever added to, each in straight-line bytecode without a call between reading and writing, where an
interpreter with a GIL does not switch threads. Without a GIL, `decide` takes a lock.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from otelweir.pipeline.sample.logs.pattern import Pattern
from otelweir.pipeline.sample.logs.threshold import threshold_of
from otelweir.signals import AnyValue, Severity, Verdict

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.rules import Ruling

GIL: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether threads take turns, so that straight-line bytecode is not interrupted."""

WEIGHT: Final = "weir.sample.weight"
REASON: Final = "weir.sample.reason"
RULE: Final = "weir.sample.rule"
DECISION: Final = "weir.sample.decision"
THRESHOLD: Final = "sampling.threshold"
PATTERN_ID: Final = "weir.pattern.id"
PATTERN_NEW: Final = "weir.pattern.new"
TEMPLATE: Final = "log.record.template"

HISTORY: Final = 0.7
"""How much of the usual count stays from window to window."""

SPIKE_LEAST: Final = 100
"""Records in a window below which nothing counts as a spike."""

SPIKE_WINDOWS: Final = 3
"""Windows of history that a spike is measured against."""

SPIKE_BOOST: Final = 5.0
"""How much more of a spike is kept."""

SPIKE_RECORDS: Final = 1000
"""Records of a spike for which more is kept: the boost shows the change without becoming a flood."""


class Stream:
    """The state of one stream.

    Attributes:
        pattern: Of all its records.
        severity: Of all its records.
        seen: Records so far.
        kept: Of these, the ones kept; in a dry run, the ones that would have been.
    """

    __slots__ = (
        "_always",
        "_dropped",
        "_dry",
        "_first_kept",
        "_new",
        "_rate_kept",
        "_share",
        "_spike_at",
        "_spike_factor",
        "_spiking",
        "_turn_at",
        "_usual",
        "_window_s",
        "_window_seen",
        "_windows",
        "began",
        "kept",
        "last",
        "left",
        "pattern",
        "rate",
        "reported_kept",
        "reported_seen",
        "ruling",
        "seen",
        "severity",
        "ticked_seen",
        "usual_per_s",
    )

    def __init__(
        self,
        pattern: Pattern,
        severity: Severity,
        ruling: Ruling,
        *,
        always: str | None,
        dry: bool,
        new: bool,
        window_s: float,
        spike_factor: float,
        start: float,
    ) -> None:
        """
        Args:
            pattern: Of all its records.
            severity: Of all its records.
            ruling: What the policy says.
            always: Why every record is kept (`error`, `event`), or None.
            dry: Whether records that are not kept go out all the same.
            new: Whether the pattern was not seen before.
            window_s: Length of the window of first records.
            spike_factor: How many times the usual count is a spike.
            start: From 0 to 1, where the sum of rates begins.
        """
        self.pattern = pattern
        self.severity = severity
        self.seen = self.kept = self.reported_seen = self.reported_kept = self.ticked_seen = 0
        self.began = self.last = 0.0
        self.left = 0
        self.usual_per_s = 0.0
        self._always = always
        self._new = new
        self._share = start
        self._turn_at = float("-inf")
        self._usual = 0.0
        self._windows = 0
        self._window_seen = 0
        self._spike_at = float("inf")
        self._spiking = False
        self.rule(ruling, dry=dry, window_s=window_s, spike_factor=spike_factor)

    def __repr__(self) -> str:
        return f"<Stream {self.pattern.id} {self.severity} {self.kept} of {self.seen} kept, rate {self.rate:g}>"

    def rule(self, ruling: Ruling, *, dry: bool, window_s: float, spike_factor: float) -> None:
        """Take over a ruling."""
        self.ruling = ruling
        self._dry = dry
        self._window_s = window_s
        self._spike_factor = spike_factor
        self._dropped: Verdict = self._attributes(1.0, "dropped") if dry else None
        self._first_kept = self._attributes(1.0, self._always or "first")
        self.set_rate(ruling.rate, self.reason)

    @property
    def reason(self) -> str:
        """Why a record beyond the first ones is kept, when nothing special is going on."""
        return self._always or ("rule" if self.ruling.rule is not None else "rate")

    def set_rate(self, rate: float, reason: str) -> None:
        """Keep this share beyond the first records."""
        self._rate_kept = self._attributes(1.0 / rate if rate > 0 else 0.0, reason, rate)
        self.rate = rate

    def decide(self, now: float) -> Verdict:
        """Whether to keep the next record.

        Args:
            now: Monotonic time in seconds.
        """
        # Keep this in straight lines: between two lines that use the same counter, nothing may be called.
        self.seen += 1
        if now >= self._turn_at:
            self._turn(now)
        self.last = now
        if not self.began:
            self.began = now
        if self.left > 0:
            self.left -= 1
            self.kept += 1
            if self._new:
                self._new = False
                return {**self._first_kept, PATTERN_NEW: True}
            return self._first_kept
        if self.seen >= self._spike_at:
            self._spike()
        share = self._share + self.rate
        if share >= 1.0:
            self._share = share - 1.0
            self.kept += 1
            return self._rate_kept
        self._share = share
        return self._dropped

    def begin_anew(self, start: float) -> None:
        """Count from here, from another random start; for a forked child, whose parent reports what was before.

        Siblings with the same start would keep the same records, or none.
        """
        self.reported_seen, self.reported_kept = self.seen, self.kept
        self.began = 0.0
        self._share = start

    def _turn(self, now: float) -> None:
        """Begin a window."""
        if self._windows:
            ended = 1 + int((now - self._turn_at) / self._window_s)
            count = self.seen - 1 - self._window_seen
            usual = self._usual
            self._usual = (count if self._windows == 1 else HISTORY * usual + (1 - HISTORY) * count) * HISTORY ** (
                ended - 1
            )
            self._windows += ended
        else:
            self._windows = 1
        self._window_seen = self.seen - 1
        self._turn_at = now + self._window_s
        self.left = self.ruling.first
        if self._spiking:
            self._calm()
        self._spike_at = (
            self._window_seen + max(SPIKE_LEAST, self._spike_factor * self._usual)
            if self._windows > SPIKE_WINDOWS and self._always is None
            else float("inf")
        )

    def _spike(self) -> None:
        """Keep more for a while, then as before."""
        if self._spiking:
            self._calm()
            self._spike_at = float("inf")
        elif 0 < self.rate < 1:
            self._spiking = True
            self._spike_at = self.seen + SPIKE_RECORDS
            self.set_rate(min(1.0, SPIKE_BOOST * self.rate), "spike")
        else:
            self._spike_at = float("inf")

    def _calm(self) -> None:
        self._spiking = False
        self.set_rate(self.ruling.rate, self.reason)

    def _attributes(self, weight: float, reason: str, rate: float | None = None) -> Mapping[str, AnyValue]:
        """What a kept record carries. One mapping serves many records: nobody may write to it."""
        attributes: dict[str, AnyValue] = {
            WEIGHT: 1.0 if self._dry else weight,
            TEMPLATE: self.pattern.template,
            PATTERN_ID: self.pattern.id,
            REASON: reason,
        }
        if self._dry:
            attributes[DECISION] = "drop" if reason == "dropped" else "keep"
        elif rate and self._always is None:
            attributes[THRESHOLD] = threshold_of(rate)
        if rate is not None and self.ruling.rule is not None:
            attributes[RULE] = self.ruling.rule
        return attributes


if not GIL:  # pragma: no cover - a free-threaded build
    _lock = threading.RLock()
    _unlocked = Stream.decide

    def _locked(self: Stream, now: float) -> Verdict:
        with _lock:
            return _unlocked(self, now)

    Stream.decide = _locked  # type: ignore[method-assign]
