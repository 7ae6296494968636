"""Attributes that every log record of the current context carries, such as a request's route and id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Final, Protocol

from otelweir.signals import AnyValue

_EMPTY: Final[Mapping[str, AnyValue]] = {}
_attributes: ContextVar[Mapping[str, AnyValue]] = ContextVar("otelweir_log_attributes", default=_EMPTY)


class Source(Protocol):
    """Attributes that become known bit by bit, such as a request's: asked for each kept record.

    Attributes:
        trace: The OpenTelemetry context of the work, for records made when its span is no longer the current one.
    """

    trace: object | None

    def __call__(self) -> Mapping[str, AnyValue]: ...


_source: ContextVar[Source | None] = ContextVar("otelweir_log_source", default=None)


def current(error: BaseException | None = None) -> Mapping[str, AnyValue]:
    """The attributes of the current context; outside of any request, those of the one that `error` came from."""
    source = _source.get() or _origin(error)
    return _attributes.get() if source is None else {**source(), **_attributes.get()}


def trace(error: BaseException | None = None) -> object | None:
    """The OpenTelemetry context to use for a record that is made while no span is current; None when there is none."""
    source = _source.get() or _origin(error)
    return None if source is None else source.trace


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


def following() -> Source | None:
    """The source that the current context asks."""
    return _source.get()


def follow(source: Source | None) -> Source | None:
    """Ask this source in the current context from now on; returns the one asked before.

    To stop, follow the earlier one again. There is no token, because a web framework may end a request in a copy of
    the context that it began in.
    """
    before = _source.get()
    _source.set(source)
    return before


def remember(error: BaseException, source: Source) -> None:
    """Let the record that a server logs about this exception, outside of the request, find the request."""
    try:
        error.__weir_source__ = source  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        pass  # it has slots or refuses


def _origin(error: BaseException | None) -> Source | None:
    return getattr(error, "__weir_source__", None)
