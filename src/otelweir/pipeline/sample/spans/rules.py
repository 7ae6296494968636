"""What a policy says about traces: the rate of all, and rules for some of them, of which the first that fits decides.

A rule looks at what is known when the first span of a trace begins: its name, its kind, and the attributes it is begun
with. All of its conditions have to hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from otelweir.pipeline.sample.logs.rules import matches

Kind = Literal["internal", "server", "client", "producer", "consumer"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

Remote = Literal["honour", "ignore"]
"""What a sampled flag from another service means: its decision, or nothing."""

LEAST_RATE: Final = 2.0**-56
"""The smallest rate above 0 that a threshold can say."""


@dataclass(frozen=True, slots=True)
class SpanRule:
    """One rule: which traces it is for, and what it gives them.

    Attributes:
        name: What to call it in answers.
        rate: Share of the traces to keep, from 0 to 1.
        per_second: Traces a second that a process keeps at most; None for no limit.
        span: The name of the first span, in which `*` stands for anything; None for any.
        kinds: Kinds of the first span; empty for all.
        attributes: Values by name, in which `*` stands for anything; an attribute that is missing does not fit.
    """

    name: str
    rate: float = 1.0
    per_second: float | None = None
    span: str | None = None
    kinds: frozenset[Kind] = frozenset()
    attributes: Mapping[str, str] | None = None

    def fits(self, name: str, kind: Kind) -> bool:
        """Whether the name and the kind are right."""
        return (not self.kinds or kind in self.kinds) and (self.span is None or matches(self.span, name))

    def fits_attributes(self, attributes: Mapping[str, object] | None) -> bool:
        """Whether the attributes are right."""
        if not self.attributes:
            return True
        return attributes is not None and all(
            (value := attributes.get(name)) is not None and matches(glob, text_of(value))
            for name, glob in self.attributes.items()
        )


@dataclass(frozen=True, slots=True)
class TraceRules:
    """The effective policy for traces that begin here.

    Attributes:
        rate: Share of the traces to keep where no rule fits, from 0 to 1.
        per_second: Traces a second that a process keeps at most, of those that no rule fits; None for no limit.
        remote: `honour`: what another service has decided is kept to. `ignore`: traces that come from elsewhere are
            decided anew.
        rules: The first that fits decides.
    """

    rate: float = 1.0
    per_second: float | None = None
    remote: Remote = "honour"
    rules: tuple[SpanRule, ...] = ()

    def candidates(self, name: str, kind: Kind) -> tuple[int, ...]:
        """The places of the rules that may decide on a span, in their order; the last holds for any attributes.

        To be asked once for each name and kind, and kept. The place after the last rule is that of `otherwise`.
        """
        found: list[int] = []
        for place, rule in enumerate(self.rules):
            if rule.fits(name, kind):
                found.append(place)
                if not rule.attributes:
                    return tuple(found)
        return (*found, len(self.rules))

    @property
    def otherwise(self) -> SpanRule:
        """What holds where no rule fits."""
        return SpanRule("", self.rate, self.per_second)


def text_of(value: object) -> str:
    """An attribute's value as a rule writes it.

    >>> text_of(True), text_of(200), text_of("GET")
    ('true', '200', 'GET')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    return ",".join(text_of(item) for item in value) if isinstance(value, (list, tuple)) else ""
