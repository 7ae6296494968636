"""Attributes that every log record of the current context carries, such as a request's route and id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Final

from otelweir.signals import AnyValue

_EMPTY: Final[Mapping[str, AnyValue]] = {}
_attributes: ContextVar[Mapping[str, AnyValue]] = ContextVar("otelweir_log_attributes", default=_EMPTY)

current = _attributes.get
"""The attributes of the current context. Read only."""


def attach(attributes: Mapping[str, AnyValue]) -> Token[Mapping[str, AnyValue]]:
    """Add attributes to the current context, until `detach` gets the token."""
    return _attributes.set({**_attributes.get(), **attributes})


def detach(token: Token[Mapping[str, AnyValue]]) -> None:
    """Undo `attach`. In another context than the one that attached, where there is nothing to undo, do nothing."""
    try:
        _attributes.reset(token)
    except ValueError:
        pass


@contextmanager
def log_attributes(attributes: Mapping[str, AnyValue]) -> Iterator[None]:
    """Add attributes to every log record made inside the block."""
    token = attach(attributes)
    try:
        yield
    finally:
        detach(token)
