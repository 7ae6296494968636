"""Words that every stage shares: severities, what a decision is, lanes, and why something is lost."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
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


Lane = Literal["traces", "logs", "metrics"]
"""A signal on its way out. Each has a lane of its own in the spool, and requests of its own."""

LANES: Final[tuple[Lane, ...]] = get_args(Lane)


class Loss(StrEnum):
    """Why records that were accepted will not arrive. Every one of them is counted under one of these."""

    SPOOL_FULL = "spool_full"
    """The quota or the free-disk floor was reached, and the policy chose these to go."""

    CORRUPT = "corrupt"
    """The disk gave back something else than what was written."""

    REJECTED = "rejected"
    """The server will never take them: it said so for the request, or for some of its records."""

    TOO_LARGE = "too_large"
    """A single record is larger than what the server takes."""

    NO_MEMORY = "no_memory"
    """No disk can be written, and the place in memory for this case is full."""

    ENDED = "ended"
    """They came after the pipeline had ended."""
