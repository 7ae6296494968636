"""What requests were like: how many, how they ended, how long they took, how large they were."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from otelweir.signals import LANES, Lane

_MAX_LISTENERS: Final = 16
_CODE: Final = re.compile(r"HTTP (\d{3})\b|gRPC ([A-Z_]+)")
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Sent(Protocol):
    """One request, as the courier tells of it."""

    @property
    def lane(self) -> Lane: ...

    @property
    def records(self) -> int: ...

    @property
    def bytes(self) -> int:
        """Of the body, before compression."""

    @property
    def wire_bytes(self) -> int:
        """Of the body, as it was sent."""

    @property
    def took_s(self) -> float: ...

    @property
    def outcome(self) -> object:
        """A value of the class that is named after what became of it; in `why` or `message`, the server's words."""


def outcome_of(sent: Sent) -> str:
    """What became of a request, in a word: `delivered`, `retry_after`, `too_large`, `unauthorised` or `rejected`."""
    return _WORD.sub("_", type(sent.outcome).__name__).lower()


def words_of(sent: Sent) -> str:
    """What the server said, or what is said of its silence; empty when there is nothing to say."""
    return str(getattr(sent.outcome, "why", "") or getattr(sent.outcome, "message", ""))


def error_of(sent: Sent) -> str | None:
    """Why a request is no success, in one of a few words: a status, else the outcome; None when it is one."""
    outcome = outcome_of(sent)
    if outcome == "delivered":
        return "rejected" if getattr(sent.outcome, "rejected", 0) else None
    found = _CODE.match(words_of(sent))
    return found[1] or found[2] if found else outcome


@dataclass(frozen=True, slots=True)
class Summary:
    """The requests of a lane since this process began.

    Attributes:
        outcomes: How many there were, by what became of them.
        records: In all of them.
        bytes: Of their bodies, before compression.
        wire_bytes: Of their bodies, as they were sent.
        last_s: How long the last one took.
        total_s: How long all of them took.
        max_s: How long the slowest one took.
        last_records: In the last one.
    """

    outcomes: Mapping[str, int] = field(default_factory=dict)
    records: int = 0
    bytes: int = 0
    wire_bytes: int = 0
    last_s: float = 0.0
    total_s: float = 0.0
    max_s: float = 0.0
    last_records: int = 0

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())

    @property
    def mean_s(self) -> float:
        """How long a request took, on average."""
        return self.total_s / self.requests if self.outcomes else 0.0

    @property
    def compression_ratio(self) -> float:
        """How many bytes became one; 1 where nothing is compressed."""
        return self.bytes / self.wire_bytes if self.wire_bytes else 1.0

    def plus(self, sent: Sent) -> Summary:
        """With one more."""
        outcome = outcome_of(sent)
        return replace(
            self,
            outcomes={**self.outcomes, outcome: self.outcomes.get(outcome, 0) + 1},
            records=self.records + sent.records,
            bytes=self.bytes + sent.bytes,
            wire_bytes=self.wire_bytes + sent.wire_bytes,
            last_s=sent.took_s,
            total_s=self.total_s + sent.took_s,
            max_s=max(self.max_s, sent.took_s),
            last_records=sent.records,
        )


class Exchanges:
    """Told of each request, on the thread that sends; any thread may ask for the summary.

        courier = Courier(..., observe=exchanges)

    Never raises: what listeners raise is dropped.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[Sent], None]] = []
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[Lane, Summary] = {lane: Summary() for lane in LANES}

    def after_fork(self) -> None:
        """In the child: the parent counts its own."""
        self._begin()

    def listen(self, listener: Callable[[Sent], None]) -> None:
        """Have another one told of each request from now on."""
        with self._lock:
            if len(self._listeners) < _MAX_LISTENERS:
                self._listeners = [*self._listeners, listener]

    def forget(self, listener: Callable[[Sent], None]) -> None:
        """Tell it no more."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other != listener]

    def __call__(self, sent: Sent) -> None:
        with self._lock:
            self._lanes[sent.lane] = self._lanes[sent.lane].plus(sent)
            listeners = self._listeners
        for listener in listeners:
            try:
                listener(sent)
            except Exception:  # noqa: BLE001 - the courier goes on
                pass

    def of(self, lane: Lane) -> Summary:
        """The lane's requests."""
        return self._lanes[lane]

    def __repr__(self) -> str:
        requests = ", ".join(f"{lane} {self._lanes[lane].requests}" for lane in LANES)
        return f"<Exchanges {requests}>"
