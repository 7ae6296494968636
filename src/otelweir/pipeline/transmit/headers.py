"""Headers of a request: which can be sent, and how to keep their values out of texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from otelweir.pipeline.transmit.outcome import Delivered, Outcome

FRAMES: Final = "weir-frames"
"""The header that names what a request holds, so that a doubled delivery can be told."""

_GRPC_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_GRPC_OWN: Final = frozenset({"content-type", "content-length", "host", "te", "user-agent", "connection"})


def check(headers: Mapping[str, str]) -> None:
    """Raise ValueError for a header that HTTP does not take. The error does not repeat it, as `http.client`'s would."""
    for name, value in headers.items():
        if not name or not name.isascii() or not name.isprintable() or " " in name or ":" in name:
            raise ValueError("name")
        value.encode("latin-1")
        if any(letter in value for letter in "\r\n\0"):
            raise ValueError("value")


def metadata(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Headers as gRPC sends them: names in lower case, without those that belong to gRPC itself.

    Raises:
        ValueError: A header is none that gRPC takes. The error does not repeat it.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if key in _GRPC_OWN:
            continue
        if not _GRPC_NAME.fullmatch(key) or key.startswith("grpc-") or key.endswith("-bin"):
            raise ValueError("name")
        if not value.isascii() or not value.isprintable():
            raise ValueError("value")
        found[key] = value
    return list(found.items())


def merged(*layers: Mapping[str, str]) -> dict[str, str]:
    """Headers of all layers, the later ones over the earlier ones, whatever the case of their names; names come out in
    lower case, and an empty value takes a header away."""
    found: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.items():
            found[name.lower()] = value
    return {name: value for name, value in found.items() if value}


def hushed(outcome: Outcome, secrets: Iterable[str]) -> Outcome:
    """The outcome, without the values of headers in its text: a server may well repeat the key that it refuses."""
    text = outcome.message if isinstance(outcome, Delivered) else outcome.why
    words = {word for value in secrets for word in (value, *value.split())} - {"Bearer", "Basic"}
    shown = text
    # The longest first: a word may be part of another. One of a few letters is no secret.
    for word in sorted(words, key=len, reverse=True):
        if len(word) > 3:
            shown = shown.replace(word, "***")
    if shown == text:
        return outcome
    return replace(outcome, message=shown) if isinstance(outcome, Delivered) else replace(outcome, why=shown)
