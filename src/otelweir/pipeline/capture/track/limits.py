"""What is captured of what is tracked, for the whole process."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 64 * 1024
"""Bytes of one value's JSON, where nobody says otherwise."""


class Limits:
    """What is captured, for the whole process; the distribution sets it from the settings.

    Attributes:
        content: Whether input and output are captured at all.
        max_bytes: Bytes of one value's JSON.
        baggage: Whether `context` tells other services, and hears from them.
    """

    __slots__ = ("baggage", "content", "max_bytes")

    def __init__(self) -> None:
        self.content = True
        self.max_bytes = MAX_BYTES
        self.baggage = False


limits: Final = Limits()
