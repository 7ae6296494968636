"""Compression of requests, where it is worth its time."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Final, Literal, TypeAlias

Compression: TypeAlias = Literal["none", "gzip", "deflate", "zstd"]
"""The names that `OTEL_EXPORTER_OTLP_COMPRESSION` knows, and zstd."""

MIN_BYTES: Final = 1024
"""Smaller bodies go as they are: they fit one packet anyway."""

MIN_SAVING: Final = 0.2
"""The part that has to be saved, else the receiver would decompress for little."""

LEVEL: Final = 1
"""Of zlib. Telemetry repeats itself so much that the quickest level saves nearly as much as the best."""


def compressed(body: bytes, compression: Compression) -> tuple[bytes, str | None]:
    """The body as it goes out, and the `Content-Encoding` that says so; None when it goes as it is.

    With zstd where no library for it is installed, gzip takes its place, which every OTLP server has to understand.
    """
    if compression == "none" or len(body) < MIN_BYTES:
        return body, None
    zstd = _zstd() if compression == "zstd" else None
    if zstd is not None:
        name, small = "zstd", zstd(body)
    elif compression == "deflate":
        name, small = "deflate", zlib.compress(body, LEVEL)
    else:
        # wbits 31 is gzip, with no time in its header: the same body gives the same bytes.
        name, small = "gzip", zlib.compress(body, LEVEL, wbits=31)
    return (small, name) if len(small) <= len(body) * (1 - MIN_SAVING) else (body, None)


def decompressed(body: bytes, encoding: str, most: int) -> bytes:
    """The first bytes of what a gzip or deflate body holds; memory and time are bounded whatever it holds.

    Args:
        body: As it came; may be cut short.
        encoding: Its `Content-Encoding`; one that is not known gives nothing, none gives the body.
        most: Bytes to decode at most.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body[:most]
        case "gzip" | "x-gzip":
            wbits = 31
        case "deflate":
            wbits = 15
        case _:
            return b""
    try:
        return zlib.decompressobj(wbits).decompress(body, max(1, most))
    except zlib.error:
        return b""


def zstd_is_installed() -> bool:
    """Whether zstd can be used: from Python 3.14 on, or where the package `zstandard` is installed."""
    return _zstd() is not None


@cache
def _zstd() -> Callable[[bytes], bytes] | None:
    for module in ("compression.zstd", "zstandard"):
        try:
            return import_module(module).compress  # type: ignore[no-any-return]
        except (ImportError, AttributeError):
            continue
    return None
