"""Words that every stage shares: severities, and what a decision is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

AnyValue: TypeAlias = "str | bool | int | float | bytes | list[AnyValue] | dict[str, AnyValue] | None"
"""A value of the OTLP data model."""

Severity = Literal["unspecified", "trace", "debug", "info", "warn", "error", "fatal"]
"""The ranges of severity numbers that OpenTelemetry's logs data model names, in lower case."""

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""From low to high; `unspecified` (number 0) first."""

ERROR: Final = 17
"""The lowest severity number of an error."""


def severity_of(number: int) -> Severity:
    """The range that an OpenTelemetry severity number (0 to 24) lies in.

    >>> severity_of(9), severity_of(0)
    ('info', 'unspecified')
    """
    return SEVERITIES[min(6, (number + 3) // 4)] if number > 0 else "unspecified"


def severity_number(levelno: int) -> int:
    """The OpenTelemetry severity number of a level of Python's `logging`.

    The named levels go to the first number of their range, those between to the next numbers; levels from 1 to 9 are
    TRACE, 0 is unspecified.

    Source: https://opentelemetry.io/docs/specs/otel/logs/data-model-appendix/#appendix-b-severitynumber-example-mappings
    """
    if levelno <= 0:
        return 0
    if levelno < 10:
        return 1 + min(3, (levelno - 1) // 2)
    base, step = divmod(min(levelno, 59), 10)
    return 4 * base + 1 + min(3, step)


Verdict: TypeAlias = Mapping[str, AnyValue] | None
"""A sampler's word on one log record: None when it is not kept, else the attributes that the kept record gets."""
