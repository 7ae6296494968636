"""What the numbers come from, as far as this folder needs it: the spool and the courier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from otelweir.signals import Lane


class Waiting(Protocol):
    """What is neither delivered nor lost."""

    @property
    def records(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    @property
    def oldest_age_s(self) -> float: ...


class SpoolSource(Protocol):
    """The spool."""

    @property
    def folder(self) -> Path | None: ...

    def waiting(self, lane: Lane) -> Waiting: ...

    def disk_bytes(self) -> int: ...


class LaneState(Protocol):
    """How it goes on a lane now; as the courier's `LaneState`."""

    @property
    def endpoint(self) -> str: ...

    @property
    def breaker(self) -> str: ...

    @property
    def target_bytes(self) -> int: ...

    @property
    def wait_s(self) -> float: ...

    @property
    def failing(self) -> str: ...


class CourierSource(Protocol):
    """The courier."""

    def state(self) -> Mapping[Lane, LaneState]: ...
