"""The effective policy as the sampler uses it, and which of its rules decides.

Three sources lie over each other: the settings, above them the policy file, above it the policy from the URL. Single
values (`first`, `budget`, the rate of one severity, ...) come from the highest source that gives them. Rules are
gathered from all sources, and among those that match, the most specific decides:

1. a rule for a pattern id,
2. a rule for an event,
3. a rule for a template; more literal characters are more specific,
4. a rule for a logger; more literal characters are more specific,
5. a rule for severities only,
6. the rate of the severity.

A rule that restricts more beats the same rule that restricts less: the words above are compared in turn, and where
one is equal the next decides; fewer severities are more specific than many. Where all are equal, the rule of the
higher source wins, and within a source the later one.

A rule may give the rate, the number of first records, or both; what the deciding rule leaves out comes from the next
one that matches. Two things no rule can change: errors are kept, and Weir's own events are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.settings import LogSamplingSettings, Mode
    from otelweir.signals import Severity

ALWAYS_KEPT: Final[frozenset[str]] = frozenset({"error", "fatal"})
"""Severities whose records are kept whatever a policy says."""

OWN_EVENTS: Final = "weir."
"""How the names of Weir's own events begin; they carry the exact counts and are kept whatever a policy says."""

# A star is a wildcard, except within `<*>`, which stands for itself: so a template can be copied into a rule.
_STAR: Final = re.compile(r"\*(?!(?<=<\*)>)")

_MAX_LOGGERS: Final = 4096


class Ruling(NamedTuple):
    """What the policy says about a stream of records.

    Attributes:
        rate: Share of the records to keep beyond the first ones, from 0 to 1.
        first: How many records to keep in each window before the rate applies; at least 1.
        rule: Name of the rule that gave the rate; None when no rule did.
    """

    rate: float
    first: int
    rule: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy: which records it is for, and what it gives them.

    Attributes:
        name: What to call it in answers: its own name, or its place such as `policy.yaml rules[2]`.
        rate: Share to keep beyond the first records, from 0 to 1; None leaves it to the next rule.
        first: Records to keep in each window before the rate applies, 1 or more; None leaves it to the next rule.
        pattern: A pattern id.
        template: A template in which `*` stands for anything; `<*>` stands for itself.
        logger: A logger name in which `*` stands for anything; covers the loggers below it too.
        event: The name of an event. Without it the rule is not for events.
        severities: Empty for all.
    """

    name: str
    rate: float | None = None
    first: int | None = None
    pattern: str | None = None
    template: str | None = None
    logger: str | None = None
    event: str | None = None
    severities: frozenset[Severity] = frozenset()

    def specificity(self) -> tuple[int, ...]:
        """Grows with how narrow the rule is; the rule with the greatest decides."""
        return (
            self.pattern is not None,
            self.event is not None,
            _literal_characters(self.template),
            _literal_characters(self.logger),
            -(len(self.severities) or 99),  # one severity is narrower than two, and any number than all
        )

    def mismatch(
        self, pattern_id: str, template: str, severity: Severity, logger: str, event_name: str | None
    ) -> str | None:
        """Why the rule is not for these records, in words; None when it is."""
        if self.event != event_name:
            return "is not for events" if self.event is None else f"is for the event {self.event}"
        if self.pattern is not None and self.pattern != pattern_id:
            return f"is for the pattern {self.pattern}"
        if self.template is not None and not matches(self.template, template):
            return f"its template {self.template!r} does not match"
        if self.logger is not None and not covers(self.logger, logger):
            return f"is for the logger {self.logger}"
        if self.severities and severity not in self.severities:
            return f"is for the severity {' or '.join(sorted(self.severities))}"
        return None


@dataclass(frozen=True, slots=True)
class Rules:
    """The effective policy. Immutable; a changed policy is a new object.

    Attributes:
        mode: `on`, `dry-run` or `off`.
        rates: Share to keep by severity; a severity that is missing is kept.
        first: Records of each pattern to keep in each window before the rate applies.
        window_s: Length of that window.
        budget_per_s: Records that the process may keep per second; None for no limit.
        rules: Of all sources, the lowest source first.
        redact: The section of redaction, which the sampler does not look at.
    """

    mode: Mode
    rates: Mapping[str, float]
    first: int
    window_s: float
    budget_per_s: float | None = None
    rules: tuple[Rule, ...] = ()
    redact: Any = None
    _logger_keys: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, settings: LogSamplingSettings) -> Rules:
        """The policy that the settings alone make."""
        return cls(
            mode=settings.log_sampling,
            rates=dict(settings.log_rates),
            first=settings.log_first,
            window_s=settings.log_window,
            budget_per_s=settings.log_budget,
        )

    def ruling(
        self, pattern_id: str, template: str, severity: Severity, logger: str, event_name: str | None = None
    ) -> Ruling:
        """What the policy says about one stream of records; to be asked once per stream and kept."""
        rate: float | None = None
        first: int | None = None
        name: str | None = None
        always = severity in ALWAYS_KEPT or (event_name is not None and event_name.startswith(OWN_EVENTS))
        for rule in self.candidates(pattern_id, template, severity, logger, event_name):
            if rate is None and rule.rate is not None and not always:
                rate, name = rule.rate, rule.name
            if first is None:
                first = rule.first
        if rate is None:
            rate = 1.0 if always or event_name is not None else self.rates.get(severity, 1.0)
        return Ruling(rate, first or self.first, name)

    def candidates(
        self, pattern_id: str, template: str, severity: Severity, logger: str, event_name: str | None = None
    ) -> list[Rule]:
        """The rules that match these records, the deciding one first."""
        found = [
            (rule.specificity(), place, rule)
            for place, rule in enumerate(self.rules)
            if rule.mismatch(pattern_id, template, severity, logger, event_name) is None
        ]
        return [rule for _, _, rule in sorted(found, key=lambda entry: entry[:2], reverse=True)]

    def logger_key(self, logger: str) -> int:
        """Equal for two loggers when no rule tells them apart, so that their streams can be one.

        Holds within one policy only: a new policy gives new keys.
        """
        key = self._logger_keys.get(logger)
        if key is None:
            key = 0
            for place, rule in enumerate(self.rules):
                if rule.logger is not None and covers(rule.logger, logger):
                    key |= 1 << place
            # Logger names can be made of input (one a request); starting over is cheap and bounds the memory.
            if len(self._logger_keys) >= _MAX_LOGGERS:
                self._logger_keys.clear()
            self._logger_keys[logger] = key
        return key


@dataclass(frozen=True, slots=True)
class Overlay:
    """What one policy document sets; None and empty for what it leaves to the source below.

    Attributes:
        budget_per_s: Infinite for "no limit".
        redact: The section of redaction, in plain values; the sampler does not look at it.
    """

    mode: Mode | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    first: int | None = None
    window_s: float | None = None
    budget_per_s: float | None = None
    rules: tuple[Rule, ...] = ()
    redact: Any = None

    def over(self, base: Rules) -> Rules:
        """The policy in which this document lies over a base."""
        budget = base.budget_per_s if self.budget_per_s is None else self.budget_per_s
        return Rules(
            mode=self.mode or base.mode,
            rates={**base.rates, **self.rates},
            first=self.first or base.first,
            window_s=self.window_s or base.window_s,
            budget_per_s=None if budget == math.inf else budget,
            rules=base.rules + self.rules,
            redact=base.redact if self.redact is None else self.redact,
        )


def matches(glob: str, text: str) -> bool:
    """Whether a text has the form of a glob: `*` stands for anything, `<*>` for itself, all else for itself.

    Takes time in proportion to the text and the glob, whatever they hold; a regular expression would not.

    >>> matches("GET /health*", "GET /health/live <*>"), matches("user <*>", "user <*>"), matches("user <*>", "user x")
    (True, True, False)
    """
    head, *rest = _STAR.split(glob)
    if not rest:
        return head == text
    *middle, tail = rest
    if len(text) < len(head) + len(tail) or not text.startswith(head) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def covers(glob: str, logger: str) -> bool:
    """Whether a rule's logger name covers a logger: the logger itself or one it is below.

    >>> covers("urllib3", "urllib3.connectionpool"), covers("urllib3", "urllib30"), covers("*.access", "unit.access")
    (True, False, True)
    """
    return matches(glob, logger) or matches(f"{glob}.*", logger)


def _literal_characters(glob: str | None) -> int:
    return -1 if glob is None else len(_STAR.sub("", glob))
