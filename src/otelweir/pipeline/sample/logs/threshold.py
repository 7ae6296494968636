"""A sampling rate as the threshold that OpenTelemetry writes, and as the weight of a kept record.

A threshold is the share that is rejected, as a fraction of 2**56, in hexadecimal without trailing zeros. Like the
collector's probabilistic sampler, it is rounded to four significant digits, more where it begins with many `f`.

Source: https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/#sampling-threshold-value-th
and `sampling_precision` of the collector's probabilistic sampler.
"""

from __future__ import annotations

import math
from typing import Final

DIGITS: Final = 14
"""Hexadecimal digits in 56 bits."""

PRECISION: Final = 4


def threshold_of(rate: float) -> str:
    """The threshold of a rate.

    Args:
        rate: Share that is kept, above 0 and at most 1.

    >>> threshold_of(1.0), threshold_of(0.5), threshold_of(0.1)
    ('0', '8', 'e666')
    """
    # A small rate begins with f's, which say nothing: four digits after them.
    digits = min(DIGITS, PRECISION + max(0, -math.frexp(rate)[1]) // 4)
    scale = 1 << 4 * DIGITS
    rejected = scale - round(rate * scale)
    shift = 4 * (DIGITS - digits)
    if shift:
        rejected = (rejected + (1 << (shift - 1))) >> shift << shift
    rejected = min(rejected, scale - (1 << shift))
    return f"{rejected:0{DIGITS}x}".rstrip("0") or "0"


def rate_of(threshold: str) -> float:
    """The rate that a threshold stands for.

    >>> rate_of("8")
    0.5
    """
    return 1 - int(threshold.ljust(DIGITS, "0"), 16) / (1 << 4 * DIGITS)
