"""Threads that are busy for us: what they log meanwhile would not have been logged without us.

Such a log call ends at once where it can only be our doing: by the text of a value that nobody but us wants right now,
or by the HTTP or gRPC client of an exporter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Final

rendering: Final[set[int]] = set()
"""Threads on which a value's own code runs, because we want its text."""

exporting: Final[set[int]] = set()
"""Threads that export."""

TRANSPORTS: Final = frozenset({"urllib3", "requests", "charset_normalizer", "grpc", "httpx", "httpcore", "h2"})
"""Top names of the loggers of HTTP and gRPC clients."""


@contextmanager
def during(busy: set[int]) -> Iterator[None]:
    """Inside the block, this thread renders, or exports."""
    thread = get_ident()
    outer = thread in busy
    busy.add(thread)
    try:
        yield
    finally:
        if not outer:
            busy.discard(thread)


def ours(logger: str) -> bool:
    """Whether what this thread logs right now, with a logger of this name, is our doing."""
    thread = get_ident()
    return thread in rendering or (thread in exporting and logger.partition(".")[0] in TRANSPORTS)


def after_fork() -> None:
    """In the child: forget what threads were doing that are gone."""
    rendering.clear()
    exporting.clear()
