"""What an adapter of another logging library needs of the capture: a decision, then a way in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from otelweir.signals import AnyValue, Verdict

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]


class Port(Protocol):
    """The part of `otel.LogCapture` that adapters use.

    Attributes:
        recorder: Not None where records that are not kept are to be held.
    """

    @property
    def recorder(self) -> object | None: ...

    def decide(
        self,
        logger: str,
        levelno: int,
        msg: object,
        args: tuple[object, ...],
        *,
        pathname: str | None,
        lineno: int,
        function: str | None,
    ) -> Verdict: ...

    def hold(
        self,
        logger: str,
        levelno: int,
        msg: object,
        args: Any,
        extra: Mapping[Any, object] | None = None,
        *,
        timestamp_ns: int,
        pathname: str | None = None,
        lineno: int = 0,
        function: str | None = None,
    ) -> None: ...

    def emit(
        self,
        logger: str,
        levelno: int,
        body: object,
        attributes: Mapping[Any, object],
        verdict: Mapping[str, AnyValue],
        *,
        timestamp_ns: int,
        levelname: str | None = None,
        exc_info: ExcInfo | None = None,
        pathname: str | None = None,
        lineno: int = 0,
        function: str | None = None,
        event_name: str | None = None,
    ) -> None: ...


FindPort: TypeAlias = Callable[[], Port | None]
"""Gives the capture of this process; None while Weir is not configured or logs are off."""
