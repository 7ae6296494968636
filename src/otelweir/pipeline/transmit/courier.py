"""The one thread that sends: takes what waits, lane by lane, and acts on what the servers answer.

    store ──take──▶ join ──▶ send ──▶ Delivered      done, counted
                                      RetryAfter     given back; the whole endpoint is left alone for a while
                                      Unauthorised   the same, and said once: keys rotate
                                      TooLarge       halved until it passes; a single record is set aside
                                      Rejected       set aside, with the server's words

The store keeps everything until it is `done` or set aside, so whatever happens here, nothing is forgotten.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from otelweir import errors
from otelweir.pipeline.transmit.breaker import Breaker, Change, State
from otelweir.pipeline.transmit.outcome import Delivered, Outcome, Rejected, RetryAfter, TooLarge, Unauthorised
from otelweir.pipeline.transmit.retry import Backoff
from otelweir.pipeline.transmit.sizing import Sizing
from otelweir.signals import Lane, Loss

MAX_RECORDS: Final = 8192
"""Records in a request; a request of more would make a receiver's memory jump."""

_MOMENT_S: Final = 0.01

_logger = logging.getLogger("otelweir.transmit")


Part = Literal["all", "fresh", "backlog"]
"""Which of the records that wait: `fresh` are those of the last seconds, `backlog` the others."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request, and what became of it.

    Attributes:
        lane: The signal it held.
        records: How many records.
        bytes: Of the body, before compression.
        wire_bytes: Of the body, as it was sent.
        took_s: Until the answer, or the end of waiting for it.
        outcome: What became of it.
    """

    lane: Lane
    records: int
    bytes: int
    wire_bytes: int
    took_s: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LaneState:
    """How it goes on a lane now.

    Attributes:
        endpoint: The name of its gate.
        breaker: `closed`, `open` or `half-open`.
        target_bytes: How large requests are, before compression.
        limit: The smallest request that was too large; None when none was.
        wait_s: Seconds until the endpoint may be asked.
        failing: The last failure in words; empty when the last request was taken.
    """

    endpoint: str
    breaker: State
    target_bytes: int
    limit: int | None
    wait_s: float
    failing: str


class Frame(Protocol):
    """A record that waits. Frames are the store's; the courier hands them back as they came."""

    @property
    def group(self) -> Any: ...

    @property
    def record(self) -> bytes: ...


class Store(Protocol):
    """Where records wait. Every frame that was taken comes back by one of the other three."""

    def take(self, lane: Lane, max_bytes: int, max_records: int, *, part: Part = "all") -> Sequence[Any]: ...

    def done(self, frames: Sequence[Any]) -> None: ...

    def give_back(self, frames: Sequence[Any]) -> None: ...

    def set_aside(self, frames: Sequence[Any], reason: str) -> None: ...


class Sender(Protocol):
    """Sends one request and reads its answer, in a time of its own. Never raises."""

    raw_bytes: int
    """Bytes of the last request's body, before compression."""

    wire_bytes: int
    """The same after compression."""

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome: ...


class Counts(Protocol):
    """Who is told what became of records."""

    def delivered(self, lane: Lane, records: int) -> None: ...

    def lost(self, lane: Lane, why: Loss, records: int) -> None: ...


class Gate:
    """When an endpoint may be asked again; all lanes that go there share it.

    Args:
        name: Of the endpoint, for log lines; without a password.
        breaker: Leaves alone who does not answer; None makes one that logs each change of state.
        backoff: How long after a failure.
        clock: Seconds that do not go back.
        chance: Gives a random number from 0 to 1.
    """

    def __init__(
        self,
        name: str,
        *,
        breaker: Breaker | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.breaker = breaker if breaker is not None else Breaker(listener=self._log)
        self._backoff = backoff
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<Gate {self.name} {self.breaker.state}, {self._failures} failures>"

    def wait_s(self) -> float:
        """Seconds until the endpoint may be asked; 0 when it may be now."""
        now = self._clock()
        return max(0.0, self._not_before - now, (self.breaker.next_at or 0.0) - now)

    def opens(self) -> bool:
        """Whether one request may be sent now. A yes is for one request: its outcome has to be told."""
        return self.wait_s() == 0 and self.breaker.allows(self._clock())

    def heard(self, outcome: Outcome) -> None:
        """The endpoint answered, or did not."""
        match outcome:
            case RetryAfter(after_s, why):
                self._failures += 1
                now = self._clock()
                self._not_before = now + self._backoff.wait_s(self._failures, self._chance(), after_s)
                if after_s:
                    # It said when to come back, so it is there.
                    self.breaker.succeeded()
                else:
                    self.breaker.failed(now, why)
            case Unauthorised(why):
                self._failures += 1
                self._not_before = self._clock() + self._backoff.wait_s(self._failures, self._chance())
                self.breaker.succeeded()
                errors.warn(errors.UNAUTHORISED, f"{self.name}: {why}")
            case _:
                self._failures = 0
                self._not_before = 0.0
                self.breaker.succeeded()

    def _log(self, change: Change) -> None:
        level = logging.WARNING if change.new == "open" else logging.INFO
        _logger.log(level, "%s: %s", self.name, change)


@dataclass(slots=True)
class Route:
    """The way of a lane.

    Attributes:
        sender: To the lane's endpoint.
        gate: Of the endpoint.
        sizing: How large the lane's requests are.
    """

    sender: Sender
    gate: Gate
    sizing: Sizing = field(default_factory=Sizing)


class Courier:
    """Sends what waits in a store. One thread at a time: `turn` is not to be called while another one runs it.

    Args:
        store: Where records wait.
        routes: The way of each lane that has one.
        join: Makes a request of frames' groups and records.
        counts: Who is told.
        clock: Seconds that do not go back.
        backlog_bytes_s: How fast what waits from before is sent beside what is new; no limit during a flush.
        observe: Told of each request, on the thread that sends.
    """

    def __init__(
        self,
        store: Store,
        routes: Mapping[Lane, Route],
        *,
        join: Callable[[Iterable[tuple[Any, bytes]]], bytes],
        counts: Counts,
        clock: Callable[[], float] = time.monotonic,
        backlog_bytes_s: float = math.inf,
        observe: Callable[[Sent], None] | None = None,
    ) -> None:
        self._store = store
        self._routes = dict(routes)
        self._observe = observe
        self._failing: dict[Lane, str] = {}
        self._join = join
        self._counts = counts
        self._clock = clock

    def __repr__(self) -> str:
        gates = {id(route.gate): route.gate for route in self._routes.values()}
        return f"<Courier {', '.join(self._routes)} to {', '.join(map(repr, gates.values()))}>"

    def add(self, lane: Lane, route: Route) -> None:
        """Give a lane its way, now or later; another one takes the place of the old."""
        self._routes = {**self._routes, lane: route}

    def state(self) -> Mapping[Lane, LaneState]:
        """How it goes, for each lane that has a way. Any thread may ask."""
        return {
            lane: LaneState(
                route.gate.name,
                route.gate.breaker.state,
                route.sizing.target,
                route.sizing.limit,
                route.gate.wait_s(),
                self._failing.get(lane, ""),
            )
            for lane, route in self._routes.items()
        }

    def turn(self) -> bool:
        """Send one batch of every lane whose endpoint may be asked; True when something was taken from the store.

        True says that it is worth the while to call again at once: there may be more.
        """
        went = False
        for lane, route in self._routes.items():
            if route.gate.wait_s() > 0:
                continue
            frames = self._store.take(lane, route.sizing.target, MAX_RECORDS)
            if frames:
                went = self._send(lane, route, frames) or went
        return went

    def wait_s(self) -> float:
        """Seconds until the first endpoint may be asked; 0 when one may be now."""
        return min((route.gate.wait_s() for route in self._routes.values()), default=0.0)

    def _send(self, lane: Lane, route: Route, frames: Sequence[Any]) -> bool:
        """Send frames, halved as often as it takes; True when all of them came to an end."""
        # The next part is the last; each is in the order of its records.
        parts = [frames]
        try:
            while parts:
                if not route.gate.opens():
                    return False
                part = parts[-1]
                body = self._join((frame.group, frame.record) for frame in part)
                # In the unit of `take`: what comes on top of the records, the sizing learns with them.
                size = sum(len(frame.record) for frame in part)
                began = self._clock()
                outcome = route.sender.send(body, lane, None, "")
                self._heard(lane, route, part, began, outcome)
                match outcome:
                    case Delivered(rejected, message):
                        route.sizing.answered(size, self._clock() - began)
                        self._delivered(lane, part, rejected, message)
                    case TooLarge(why) if len(part) == 1:
                        self._set_aside(lane, part, Loss.TOO_LARGE, why)
                    case TooLarge():
                        route.sizing.too_large(size)
                        middle = (len(part) + 1) // 2
                        parts[-1:] = [part[middle:], part[:middle]]
                        continue
                    case Rejected(why):
                        self._set_aside(lane, part, Loss.REJECTED, why)
                    case RetryAfter():
                        route.sizing.failed()
                        return False
                    case Unauthorised():
                        return False
                parts.pop()
            return True
        finally:
            for part in reversed(parts):
                self._store.give_back(part)

    def _heard(self, lane: Lane, route: Route, part: Sequence[Any], began: float, outcome: Outcome) -> None:
        route.gate.heard(outcome)
        self._failing[lane] = "" if isinstance(outcome, Delivered) else outcome.why
        if self._observe is not None:
            sender, took_s = route.sender, self._clock() - began
            self._observe(Sent(lane, len(part), sender.raw_bytes, sender.wire_bytes, took_s, outcome))

    def _delivered(self, lane: Lane, part: Sequence[Any], rejected: int, message: str) -> None:
        self._store.done(part)
        # A server may say more than it was sent; the counts have to add up all the same.
        refused = max(0, min(rejected, len(part)))
        self._counts.delivered(lane, len(part) - refused)
        if refused:
            self._counts.lost(lane, Loss.REJECTED, refused)
        if refused or message:
            errors.warn(errors.PARTLY_REJECTED, f"{refused} of {len(part)} records ({lane}): {message or 'no reason'}")

    def _set_aside(self, lane: Lane, part: Sequence[Any], loss: Loss, why: str) -> None:
        self._store.set_aside(part, why)
        self._counts.lost(lane, loss, len(part))
        errors.warn(errors.SET_ASIDE, f"{len(part)} records ({lane}): {why}")


class CourierThread:
    """Runs a courier: a turn every `interval_s`, and at once where there is more.

    Args:
        courier: What to run.
        interval_s: How long records wait for company.
        more: Whether anything waits, for a flush that wants to know when it is over.
        chores: Called on the thread about every `interval_s`.
    """

    def __init__(
        self,
        courier: Courier,
        interval_s: float,
        more: Callable[[], bool],
        *,
        chores: Callable[[], None] = lambda: None,
    ) -> None:
        self._chores = chores
        self._courier = courier
        self._interval_s = interval_s
        self._more = more
        self._begin()

    def _begin(self) -> None:
        self._news = threading.Condition(threading.Lock())
        self._wanted = self._served = 0
        self._ended = False
        self._woken = False
        self._thread = threading.Thread(target=self._run, name="otelweir-courier", daemon=True)
        self._thread.start()

    def after_fork(self) -> None:
        """In the child, where no thread but the current one lives: start again."""
        if not self._ended:
            self._begin()

    def wake(self) -> None:
        """Have a turn soon. Cheap, for any thread and for signal handlers."""
        self._woken = True

    def flush(self, timeout_s: float, *, last: bool = False) -> bool:
        """Send what waits now, at no bounded pace; True when nothing of it waits any more.

        Returns as soon as it is known that no endpoint will be asked within the time.

        Args:
            timeout_s: How long it may take. A request that is under way then is left alone.
            last: Nothing comes after this: ask once more in spite of the breaker and of our own waits, but never in
                spite of a server that said when to come back; and let no request take longer than what is left.
        """
        until = time.monotonic() + timeout_s
        while self._more():
            with self._news:
                if not self._thread.is_alive():
                    return False
                self._wanted += 1
                mine = self._wanted
                self._news.notify_all()
                self._news.wait_for(lambda mine=mine: self._served >= mine, max(0.0, until - time.monotonic()))  # type: ignore[misc]
            left_s = until - time.monotonic()
            pause_s = self._courier.wait_s()
            if left_s <= 0 or pause_s >= left_s:
                break
            # At least a moment: what waits may have no way to go.
            time.sleep(max(pause_s, _MOMENT_S))
        return not self._more()

    def stop(self, timeout_s: float) -> None:
        """End the thread after the request it is at. What waits stays in the store."""
        with self._news:
            self._ended = True
            self._news.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._ended or self._wanted > self._served, self._interval_s)
                if self._ended:
                    return
                wanted = self._wanted
            try:
                self._chores()
                while self._courier.turn() and not self._ended:
                    pass
            except Exception as error:  # noqa: BLE001 - the thread must live on
                errors.warn(errors.COURIER_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
            with self._news:
                self._served = wanted
                self._news.notify_all()
