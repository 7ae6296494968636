"""OpenTelemetry's own member of the W3C tracestate, `ot`: the threshold of a sampling decision, and its randomness.

The value is a list such as `th:c;rv:0123456789abcd`, of at most 256 characters:

- `th`, one to fourteen hexadecimal digits in lower case: the share that was rejected, as a fraction of 2**56, without
  trailing zeros. A span stands for `1 / (1 - th)` spans.
- `rv`, exactly fourteen such digits: the randomness of the trace, where it is not the last 56 bits of the trace id.
- keys of others, which are passed on as they are.

A trace is kept if its randomness is not below the threshold. Whatever is malformed counts as absent.

Source: https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

KEY: Final = "ot"
"""The key of the member in the tracestate."""

SCALE: Final = 1 << 56
"""Thresholds and randomness are below it."""

MASK: Final = SCALE - 1
"""The bits of a trace id that are its randomness."""

MAX_LENGTH: Final = 256
"""Characters of the member's value."""

_THRESHOLD: Final = re.compile(r"[0-9a-f]{1,14}")
_RANDOMNESS: Final = re.compile(r"[0-9a-f]{14}")


class OtState(NamedTuple):
    """What the member says.

    Attributes:
        threshold: From 0 to below 2**56; None when it is absent or malformed.
        randomness: From 0 to below 2**56; None when it is absent or malformed.
        rest: The value without any threshold.
    """

    threshold: int | None
    randomness: int | None
    rest: str


@lru_cache(maxsize=1024)  # the same few thresholds come again and again
def parse(value: str) -> OtState:
    """Read the member's value. What stands first wins where a key is given twice.

    >>> parse("rv:0000000000000f;th:8")[:2] == (1 << 55, 15), parse("th:;rv:x")
    (True, OtState(threshold=None, randomness=None, rest='rv:x'))
    """
    threshold = randomness = None
    for part in value.split(";"):
        key, _, given = part.partition(":")
        if key == "th" and threshold is None and _THRESHOLD.fullmatch(given):
            threshold = int(given.ljust(14, "0"), 16)
        elif key == "rv" and randomness is None and _RANDOMNESS.fullmatch(given):
            randomness = int(given, 16)
    return OtState(threshold, randomness, _without_threshold(value))


@lru_cache(maxsize=1024)
def with_threshold(value: str, threshold: int | None) -> str:
    """The member's value with another threshold, all else as it was.

    Args:
        value: The value as it came; empty for none.
        threshold: From 0 to below 2**56; None for no threshold.

    Returns:
        The value; empty when nothing is left in it. Where there is no room for the threshold, it is left out: no
        threshold says that the count is not known, and that is then true.

    >>> with_threshold("xy:1;th:4", 1 << 55), with_threshold("th:8", None)
    ('th:8;xy:1', '')
    """
    rest = _without_threshold(value)
    if threshold is not None:
        found = f"th:{digits(threshold)};{rest}" if rest else f"th:{digits(threshold)}"
        if len(found) <= MAX_LENGTH:
            return found
    return rest


def _without_threshold(value: str) -> str:
    return ";".join(part for part in value.split(";") if part and part != "th" and not part.startswith("th:"))


def digits(threshold: int) -> str:
    """A threshold as it is written.

    >>> digits(0), digits(1 << 55)
    ('0', '8')
    """
    return f"{threshold:014x}".rstrip("0") or "0"


def probability(threshold: int) -> float:
    """The share that a threshold keeps.

    >>> probability(1 << 55)
    0.5
    """
    return 1 - threshold / SCALE
