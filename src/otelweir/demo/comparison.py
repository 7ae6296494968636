"""What the service wrote into its own log file, and what arrived: the same, or what differs.

Nothing here asks Weir what it thinks it did: one side is counted from the lines of a file, the other from what a
backend received.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SEVERITY_OF_LEVEL: Final = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error", "CRITICAL": "fatal"}
SEVERITIES: Final = tuple(SEVERITY_OF_LEVEL.values())
_ERRORS: Final = ("error", "fatal")
_SHOWN_IDS: Final = 5

TOLERANCE: Final = 0.01
"""The share of the records by which the sum of weights may be off, beyond what `weight_bound` explains."""

OWN_LOGGERS: Final = ("opentelemetry", "otelweir")
"""What the pipeline says of itself goes to the service's log file too, and is never exported."""


@dataclass(slots=True)
class Truth:
    """What was logged, counted from the service's log file.

    Attributes:
        by_severity: Records by OpenTelemetry's name of their severity.
        error_ids: The id of each error.
        own: What the pipeline had to say.
    """

    by_severity: Counter[str] = field(default_factory=Counter)
    error_ids: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    @property
    def logged(self) -> int:
        return self.by_severity.total()

    @property
    def errors(self) -> int:
        return sum(self.by_severity[severity] for severity in _ERRORS)


class LogFile:
    """The service's log file, read on as it grows.

    Attributes:
        truth: What was read so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truth = Truth()
        self._at = 0

    def read_on(self) -> Truth:
        """Count the whole lines that have come since the last time."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return self.truth
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            self._count(json.loads(line))
        return self.truth

    def _count(self, line: Mapping[str, str]) -> None:
        if line["logger"].partition(".")[0] in OWN_LOGGERS:
            self.truth.own.append(f"{line['level']} {line['logger']}: {line['message']}")
            return
        severity = SEVERITY_OF_LEVEL[line["level"]]
        self.truth.by_severity[severity] += 1
        if severity in _ERRORS:
            self.truth.error_ids.append(line["incident"])


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived.

    Attributes:
        records: Log records by severity, without roll-ups.
        rolled_up: By severity, what roll-ups say was logged.
        kept: By severity, what roll-ups say was kept; a severity where they do not say all is missing.
        weights: By severity, the sum of the weights of the records.
        rollups: Roll-up events.
        error_ids: The id on each error record; "" where it carries none.
        weight_bound: How far the sum of weights may be off by chance, in records.
    """

    records: Mapping[str, int]
    rolled_up: Mapping[str, int]
    kept: Mapping[str, int]
    weights: Mapping[str, float]
    rollups: int
    error_ids: Sequence[str]
    weight_bound: float

    @property
    def sent(self) -> int:
        """Everything that went over the wire as a log record: the roll-ups count too."""
        return sum(self.records.values()) + self.rollups

    @property
    def weight(self) -> float:
        return sum(self.weights.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Truth and what arrived, side by side.

    Attributes:
        errors: What is wrong with the errors, each a sentence; likewise `counts` and `weights`.
    """

    truth: Truth
    received: Received
    errors: tuple[str, ...]
    counts: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        return self.errors + self.counts + self.weights

    @property
    def ok(self) -> bool:
        return not self.differences

    @property
    def share_saved(self) -> float:
        return max(0.0, 1 - self.received.sent / self.truth.logged) if self.truth.logged else 0.0

    @property
    def weight_deviation(self) -> float:
        """How far the sum of weights is off, as a share of what was logged."""
        return self.received.weight / self.truth.logged - 1 if self.truth.logged else 0.0


def compare(truth: Truth, received: Received) -> Comparison:
    """Hold what arrived against the truth: errors one by one, counts exactly, weights within reason."""
    return Comparison(
        truth,
        received,
        errors=tuple(_errors(truth, received)),
        counts=tuple(_counts(truth, received)),
        weights=tuple(_weights(truth, received)),
    )


def weight_bound(patterns: Sequence[str], rates: Mapping[str, float]) -> float:
    """How far the sum of weights can be off by chance.

    Beyond the first records of a pattern, which weigh 1, one in every 1/rate is kept and weighs 1/rate, evenly spread.
    So whatever the length of the run, a pattern's weights are off by less than 1/rate records: 20 at a rate of 5 %.
    The patterns' deviations are independent and mostly cancel; their sum is the worst case.

    Args:
        patterns: The severity of each pattern.
        rates: The share kept, by severity; all of it where none is given.
    """
    return sum(1 / rates.get(severity, 1.0) for severity in patterns)


def _errors(truth: Truth, received: Received) -> list[str]:
    logged, arrived = Counter(truth.error_ids), Counter(received.error_ids)
    nameless = arrived.pop("", 0)
    missing = [one for one in logged if one not in arrived]
    repeated = [one for one, number in arrived.items() if number > 1 and one in logged]
    foreign = [one for one in arrived if one not in logged]
    found = []
    if not truth.errors:
        found.append("the service logged no error, so there was nothing to compare")
    if missing:
        found.append(f"{_plural(len(missing), 'error')} did not arrive: {_some(missing)}")
    if repeated:
        found.append(f"{_plural(len(repeated), 'error')} arrived more than once: {_some(repeated)}")
    if foreign or nameless:
        found.append(f"{_plural(len(foreign) + nameless, 'error')} arrived that the log file does not have")
    return found


def _counts(truth: Truth, received: Received) -> list[str]:
    found = []
    if not truth.logged:
        found.append("the service logged nothing")
    for severity in sorted({*truth.by_severity, *received.rolled_up, *received.records}, key=_rank):
        logged, told = truth.by_severity[severity], received.rolled_up.get(severity, 0)
        if logged != told:
            found.append(f"{severity.upper()}: {logged:,} logged, but roll-ups count {told:,}")
        kept, arrived = received.kept.get(severity), received.records.get(severity, 0)
        if kept is not None and arrived < kept:
            found.append(f"{severity.upper()}: {kept:,} records were kept, but {arrived:,} arrived")
    return found


def _weights(truth: Truth, received: Received) -> list[str]:
    off = abs(received.weight - truth.logged)
    # The share on top is for long runs: a pattern that spikes changes its rate, and each change may cost as much again.
    allowed = received.weight_bound + TOLERANCE * truth.logged
    if off <= allowed:
        return []
    return [f"the weights add up to {received.weight:,.0f}, further from {truth.logged:,} than chance explains"]


def _rank(severity: str) -> tuple[int, str]:
    return (SEVERITIES.index(severity) if severity in SEVERITIES else -1, severity)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN_IDS]) + (", …" if len(ids) > _SHOWN_IDS else "")


def _plural(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
