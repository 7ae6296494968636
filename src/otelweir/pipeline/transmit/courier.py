"""The one thread that sends: takes what waits, lane by lane, and acts on what the servers answer.

    store ──take──▶ join ──▶ send ──▶ Delivered      done, counted
                                      RetryAfter     given back; the whole endpoint is left alone for a while
                                      Unauthorised   the same, and said once: keys rotate
                                      TooLarge       halved until it passes; a single record is set aside
                                      Rejected       halved to find the bad ones, which are set aside (`isolation.py`)

The store keeps everything until it is `done` or set aside, so whatever happens here, nothing is forgotten.

What is new goes first; what waits from before follows at a bounded pace, so that the end of an outage is no flood. A
flush knows no pace and sends the oldest first.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from otelweir import errors
from otelweir.pipeline.transmit.breaker import Breaker, Change, State
from otelweir.pipeline.transmit.frames import header
from otelweir.pipeline.transmit.isolation import PATIENCE, WARY, Search, Suspects
from otelweir.pipeline.transmit.outcome import Delivered, Outcome, Rejected, RetryAfter, TooLarge, Unauthorised
from otelweir.pipeline.transmit.retry import Backoff
from otelweir.pipeline.transmit.sizing import Sizing
from otelweir.signals import LANES, Lane, Loss

MAX_RECORDS: Final = 8192
"""Records in a request; a request of more would make a receiver's memory jump."""

SUSPECT_AFTER: Final = 3
"""Failures of a server over the same batch until the batch is taken apart; four times that where it was in vain."""

_MOMENT_S: Final = 0.01
_SLICE: Final = 256
"""Records that are handled in one go. Then whoever waits for the interpreter gets it."""

_GIVE_WAY_S: Final = 1e-6
_HOLD_S: Final = 0.5e-3
"""How long the interpreter may be kept without giving way. Doing so costs a change of threads, and on a busy machine
the wait for a processor."""

_BURST_S: Final = 1.0
_MOST_ALONE: Final = 4
"""Suspects that are sent after a batch."""

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
    def id(self) -> Any: ...

    @property
    def group(self) -> Any: ...

    @property
    def record(self) -> bytes: ...


class Store(Protocol):
    """Where records wait. Every frame that was taken comes back by one of the last three."""

    def take(self, lane: Lane, max_bytes: int, max_records: int, *, part: Part = "all") -> Sequence[Any]: ...

    def waiting(self, lane: Lane) -> Any:
        """Its attribute `records` says how many wait, those that are out included."""

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
        told: Told of each change of state that is logged.
    """

    def __init__(
        self,
        name: str,
        *,
        breaker: Breaker | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        told: Callable[[Change], None] | None = None,
    ) -> None:
        self.name = name
        self._told = told
        self.breaker = breaker if breaker is not None else Breaker(listener=self._log)
        self._backoff = backoff
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._not_before = self._asked_until = -math.inf

    def __repr__(self) -> str:
        return f"<Gate {self.name} {self.breaker.state}, {self._failures} failures>"

    @property
    def failures(self) -> int:
        """In a row, so far."""
        return self._failures

    def wait_s(self) -> float:
        """Seconds until the endpoint may be asked; 0 when it may be now."""
        probe_at = self.breaker.next_at
        until = max(self._not_before, self._asked_until, -math.inf if probe_at is None else probe_at)
        return max(0.0, until - self._clock())

    def asked_s(self) -> float:
        """Seconds for which the server itself wants to be left alone still."""
        return max(0.0, self._asked_until - self._clock())

    def opens(self, *, anyway: bool = False) -> bool:
        """Whether one request may be sent now. A yes is for one request: its outcome has to be told.

        Args:
            anyway: Wait for nothing but what the server asked for.
        """
        if (self.asked_s() if anyway else self.wait_s()) > 0:
            return False
        return self.breaker.allows(self._clock(), anyway=anyway)

    def backoff_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return self._backoff.wait_s(failures, self._chance())

    def heard(self, outcome: Outcome) -> None:
        """The endpoint answered, or did not."""
        now = self._clock()
        match outcome:
            case RetryAfter(after_s) if after_s:
                self._failures += 1
                self._asked_until = now + self._backoff.wait_s(self._failures, self._chance(), after_s)
                # It said when to come back, so it is there.
                self.breaker.succeeded()
            case RetryAfter(_, why):
                self._failures += 1
                self._not_before = now + self.backoff_s(self._failures)
                self.breaker.failed(now, why)
            case Unauthorised(why):
                self._failures += 1
                self._not_before = now + self.backoff_s(self._failures)
                self.breaker.succeeded()
                errors.warn(errors.UNAUTHORISED, f"{self.name}: {why}")
            case _:
                self._failures = 0
                self._not_before = self._asked_until = -math.inf
                self.breaker.succeeded()

    def _log(self, change: Change) -> None:
        # An outage is one line for who reads warnings, however many probes fail.
        level = logging.WARNING if change.old == "closed" else logging.INFO
        _logger.log(level, "%s: %s", self.name, change)
        if self._told is not None:
            self._told(change)


@dataclass(slots=True)
class Route:
    """The way of a lane.

    Attributes:
        sender: To the lane's endpoint.
        gate: Of the endpoint.
        sizing: How large the lane's requests are.
        max_records: How many records a request has at most.
    """

    sender: Sender
    gate: Gate
    sizing: Sizing = field(default_factory=Sizing)
    max_records: int = MAX_RECORDS


@dataclass(slots=True, eq=False)
class _Way:
    """A lane, its route, and how it goes there.

    Attributes:
        failures: In a row, on this lane: another lane's success at the endpoint does not end them.
        not_before: When this lane may be tried again.
        blocked: Something waits, and may not be sent yet.
        paced: Something may wait from before, and the pace does not allow it yet.
        failing: The last failure in words.
        skip: While nothing passes, the place of the one record that is tried; 0 for whole batches.
        wary: The last batch that was taken apart was so in vain.
        suspects: Records over which the server fails.
    """

    lane: Lane
    route: Route
    failures: int = 0
    not_before: float = -math.inf
    blocked: bool = False
    paced: bool = False
    failing: str = ""
    skip: int = 0
    wary: bool = False
    suspects: Suspects = field(default_factory=Suspects)


class Hurry:
    """A flush: what waits when it begins is to go, as far as there is time.

    Args:
        until: When its time is over, by `time.monotonic`.
        last: Nothing comes after it.

    Attributes:
        due: Records of each lane that are still to go; None before it has begun.
        no_way: Whether something waits on a lane that has no route.
        tried: Which endpoints and lanes were asked in spite of the breaker and of our own waits.
        over: Whether it has ended.
    """

    def __init__(self, until: float, *, last: bool = False) -> None:
        self.until = until
        self.last = last
        self.due: dict[Lane, int] | None = None
        self.no_way = False
        self.tried: set[object] = set()
        self.over = False

    def __repr__(self) -> str:
        return f"<Hurry {'last, ' * self.last}{self.left_s():.1f} s left, {self.due} due>"

    @property
    def clean(self) -> bool:
        """Whether all that waited when it began has come to an end."""
        return self.due == {} and not self.no_way

    def left_s(self) -> float:
        """Seconds until its time is over."""
        return self.until - time.monotonic()

    def ended(self, lane: Lane, records: int) -> None:
        """Records of a lane came to an end."""
        if self.due is not None and lane in self.due:
            self.due[lane] -= records
            if self.due[lane] <= 0:
                del self.due[lane]

    def empty(self, lane: Lane) -> None:
        """Nothing waits on a lane."""
        if self.due is not None:
            self.due.pop(lane, None)


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

    Attributes:
        stopping: Once set, no further request begins; the one under way comes to its end.
        between: Called before each request, with the flush it is for; True leaves the rest of a batch for later.
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
        self._ways: dict[Lane, _Way] = {lane: _Way(lane, route) for lane, route in routes.items()}
        self._failed_last: Lane | None = None
        self._join = join
        self._counts = counts
        self._clock = clock
        self._rate = backlog_bytes_s if backlog_bytes_s > 0 else math.inf
        # What may be sent of the backlog now; below zero after a request that was larger.
        self._allowance = self._rate * _BURST_S
        self._allowed_at = clock()
        self._observe = observe
        self._manners = _Manners()
        self.stopping = False
        self.between: Callable[[Hurry | None], bool] = lambda _: False

    def __repr__(self) -> str:
        gates = {id(way.route.gate): way.route.gate for way in self._ways.values()}
        return f"<Courier {', '.join(self._ways)} to {', '.join(map(repr, gates.values()))}>"

    def add(self, lane: Lane, route: Route) -> None:
        """Give a lane its way, now or later; another one takes the place of the old."""
        # A new mapping, because another thread may be going through the old one.
        self._ways = {**self._ways, lane: _Way(lane, route)}

    def state(self) -> Mapping[Lane, LaneState]:
        """How it goes, for each lane that has a way. Any thread may ask."""
        return {
            lane: LaneState(
                way.route.gate.name,
                way.route.gate.breaker.state,
                way.route.sizing.target,
                way.route.sizing.limit,
                self._wait_s(way),
                way.failing,
            )
            for lane, way in self._ways.items()
        }

    def turn(self, *, new: bool = True, hurry: Hurry | None = None) -> bool:
        """Send a batch of every lane whose endpoint may be asked; True when something came to an end.

        True says that it is worth the while to call again at once: there may be more.

        Args:
            new: Whether what is new is to go, too; else only what waits from before, and what could not go.
            hurry: Send what that is about, the oldest first and at no pace.
        """
        went = False
        ways = list(self._ways.values())
        # The lane that failed last has its turn last: when an endpoint may be tried again, another one tries.
        first = next((place for place, way in enumerate(ways, 1) if way.lane == self._failed_last), 0)
        for way in ways[first:] + ways[:first]:
            if self._is_over(hurry):
                return False
            if hurry is None or hurry.due is None or way.lane in hurry.due:
                went = self._turn(way, new, hurry) or went
        return went

    def begin(self, hurry: Hurry) -> None:
        """Note what waits, for a flush that begins."""
        waiting = {lane: self._store.waiting(lane).records for lane in LANES}
        hurry.due = {lane: records for lane, records in waiting.items() if records > 0 and lane in self._ways}
        hurry.no_way = any(records > 0 for lane, records in waiting.items() if lane not in self._ways)

    def wait_s(self) -> float:
        """Seconds until the first endpoint may be asked; 0 when one may be now."""
        return min(map(self._wait_s, self._ways.values()), default=0.0)

    def idle_s(self, hurry: Hurry | None = None) -> float:
        """Seconds until something may be sent that could not be in the last turn; infinite when there is nothing."""
        lanes = None if hurry is None else hurry.due
        ways = [way for way in self._ways.values() if lanes is None or way.lane in lanes]
        waits = [self._wait_s(way) for way in ways if way.blocked]
        if any(way.paced for way in ways):
            waits.append(-self._refilled() / self._rate)
        return max(_MOMENT_S, min(waits)) if waits else math.inf

    def after_fork(self) -> None:
        """In the child: of the parent's requests it will hear nothing."""
        for way in self._ways.values():
            way.route.gate.breaker.forget_probe()

    # --- when -------------------------------------------------------------------------------------------------------

    def _wait_s(self, way: _Way) -> float:
        return max(way.route.gate.wait_s(), way.not_before - self._clock())

    def _opens(self, way: _Way, hurry: Hurry | None) -> bool:
        """Whether one request may be sent now, or is, because it is the last time."""
        gate = way.route.gate
        if self._wait_s(way) <= 0:
            return gate.opens()
        if hurry is None or not hurry.last:
            return False
        # Once for an endpoint, and once for a lane of an endpoint that is there for others.
        tried: object = id(gate) if gate.wait_s() > 0 else way.lane
        if tried in hurry.tried or not gate.opens(anyway=True):
            return False
        hurry.tried.add(tried)
        return True

    def _refilled(self) -> float:
        """Bytes of the backlog that the pace allows now."""
        if self._rate == math.inf:
            return math.inf
        now = self._clock()
        earned = max(0.0, now - self._allowed_at) * self._rate
        self._allowance = min(self._rate * _BURST_S, self._allowance + earned)
        self._allowed_at = now
        return self._allowance

    def _turn(self, way: _Way, new: bool, hurry: Hurry | None) -> bool:
        new = new or way.blocked
        way.blocked = way.paced = False
        target = way.route.sizing.target
        if hurry is not None or self._rate == math.inf:
            return self._batch(way, "all", target, hurry)
        went = new and self._batch(way, "fresh", target, None)
        if way.blocked:
            return False
        if self._refilled() <= 0:
            way.paced = True
            return went
        # Not cut to what is left of the allowance: small requests would be slower, not gentler.
        most = min(target, int(self._rate * _BURST_S) + 1)
        return self._batch(way, "backlog", most, None) or went

    # --- what -------------------------------------------------------------------------------------------------------

    def _batch(self, way: _Way, part: Part, max_bytes: int, hurry: Hurry | None) -> bool:
        """Take a batch and send it; True when a part of it came to an end, and nothing is in the way of the next."""
        if self._wait_s(way) > 0 and (hurry is None or not hurry.last):
            way.blocked = True
            return False
        suspects = way.suspects
        most = (way.skip or way.route.max_records) + len(suspects)
        frames = self._take(way.lane, max_bytes + suspects.bytes, most, part)
        if not frames:
            if hurry is not None:
                hurry.empty(way.lane)
            return False
        if part == "backlog":
            self._allowance -= sum(len(frame.record) for frame in frames)
        back: list[Any] = []
        ended = 0
        try:
            alone = [frame for frame in frames if frame.id in suspects] if suspects else []
            others = [frame for frame in frames if frame.id not in suspects] if alone else frames
            if way.skip and others:
                back, others = [*others[:-1]], others[-1:]
            back += alone
            if others:
                ended += self._send(way, others, hurry)
            for frame in alone[:_MOST_ALONE]:
                if way.blocked or not self._send_alone(way, frame, bool(others), hurry):
                    break
                back = [other for other in back if other is not frame]
                ended += 1
        finally:
            self._give_back(back)
        if hurry is not None:
            hurry.ended(way.lane, ended)
        return ended > 0 and not way.blocked

    def _send(self, way: _Way, frames: Sequence[Any], hurry: Hurry | None) -> int:
        """Send a batch, taken apart where that helps; how many of its records came to an end."""
        search = Search(frames, WARY if way.wary else PATIENCE)
        fault: RetryAfter | None = None
        ended = 0
        back: list[Any] = []
        try:
            while (part := search.next()) is not None:
                # Of a search for what a server fails over, its gate hears at the end.
                if self._is_over(hurry) or (fault is None and not self._opens(way, hurry)):
                    way.blocked = True
                    break
                outcome, size, took_s = self._request(way, part, hurry)
                match outcome:
                    case Delivered() | TooLarge() | Rejected():
                        ended += self._settle(way, search, part, outcome, size, took_s)
                    case RetryAfter(None | 0, why, suspect=True) if fault or self._takes_apart(way, frames, hurry):
                        fault = outcome
                        search.refused(None)
                        if len(part) > 1:
                            way.suspects.others_fail()
                        elif way.suspects.failed(part[0].id, size):
                            self._set_aside(way, part, Loss.REJECTED, why)
                            ended += 1
                        else:
                            back += part
                    case _:
                        way.suspects.others_fail()
                        self._failed(way, outcome)
                        break
            if search.fruitless:
                for part, words in search.settle():
                    self._set_aside(way, part, Loss.REJECTED, words)
                    ended += len(part)
            way.wary = (way.wary or search.fruitless or fault is not None) and not search.taken
            if fault is not None and not search.taken and not way.blocked:
                self._failed(way, fault)
        finally:
            self._give_back([*back, *(frame for part in search.left() for frame in part)])
        return ended

    def _send_alone(self, way: _Way, frame: Any, others_passed: bool, hurry: Hurry | None) -> bool:
        """Send a record over which the server has failed before; True when it came to an end."""
        if self._is_over(hurry) or not self._opens(way, hurry):
            way.blocked = True
            return False
        outcome, size, took_s = self._request(way, [frame], hurry)
        match outcome:
            case Delivered() | TooLarge() | Rejected():
                self._settle(way, Search([frame]), [frame], outcome, size, took_s)
                return True
            case RetryAfter(None | 0, why, suspect=True):
                proven = way.suspects.failed(frame.id, size)
                if proven:
                    self._set_aside(way, [frame], Loss.REJECTED, why)
                if not others_passed:
                    self._failed(way, outcome)
                return proven
        self._failed(way, outcome)
        return False

    def _settle(
        self,
        way: _Way,
        search: Search,
        part: Sequence[Any],
        outcome: Delivered | TooLarge | Rejected,
        size: int,
        took_s: float,
    ) -> int:
        """Act on an answer about the records; how many of them came to an end."""
        single = len(part) == 1
        self._answered(way, outcome)
        match outcome:
            case Delivered(rejected, message):
                self._done(part)
                search.delivered()
                way.route.sizing.answered(size, took_s)
                way.skip = 0
                way.suspects.forget(part[0].id)
                way.suspects.others_pass()
                self._delivered(way.lane, part, rejected, message)
                return len(part)
            case TooLarge(why) if single:
                self._set_aside(way, part, Loss.TOO_LARGE, why)
                search.ended()
            case TooLarge():
                way.route.sizing.too_large(size)
                search.too_large()
            case Rejected(why):
                if single:
                    self._set_aside(way, part, Loss.REJECTED, why)
                search.refused(why)
        return int(single)

    def _takes_apart(self, way: _Way, frames: Sequence[Any], hurry: Hurry | None) -> bool:
        """Whether a batch over which the server failed is to be taken apart now."""
        faults = way.suspects.batch_failed(frames[0].id)
        enough = faults >= SUSPECT_AFTER * (4 if way.wary else 1) or (hurry is not None and hurry.last)
        # While the breaker is not closed, nothing goes but the probe.
        return enough and way.route.gate.breaker.state == "closed"

    def _is_over(self, hurry: Hurry | None) -> bool:
        return self.between(hurry) or self.stopping or (hurry is not None and hurry.left_s() <= 0)

    def _request(self, way: _Way, part: Sequence[Any], hurry: Hurry | None) -> tuple[Outcome, int, float]:
        """Send one request; its outcome, the bytes of its records, and the seconds it took."""
        lane, sender = way.lane, way.route.sender
        each = self._manners.each
        body = self._join((frame.group, frame.record) for frame in each(part))
        # In the unit of `take`: what comes on top of the records, the sizing learns with them.
        size = sum(len(frame.record) for frame in each(part))
        names = header(frame.id for frame in each(part))
        began = self._clock()
        try:
            outcome = sender.send(body, lane, self._deadline(hurry), names)
        except BaseException:
            way.route.gate.breaker.forget_probe()
            raise
        took_s = self._clock() - began
        way.failing = "" if isinstance(outcome, Delivered) else outcome.why
        if self._observe is not None:
            try:
                self._observe(Sent(lane, len(part), sender.raw_bytes, sender.wire_bytes, took_s, outcome))
            except Exception as error:  # noqa: BLE001 - what was sent is sent, whoever fails to note it
                errors.warn(errors.COURIER_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
        return outcome, size, took_s

    def _deadline(self, hurry: Hurry | None) -> float | None:
        """By when a request has to be over: the last time, each endpoint gets its part of what is left."""
        if hurry is None or not hurry.last:
            return None
        lanes = hurry.due or {}
        endpoints = {id(way.route.gate) for way in self._ways.values() if way.lane in lanes}
        return time.monotonic() + max(0.0, hurry.left_s()) / max(1, len(endpoints - hurry.tried))

    # --- what became of it ------------------------------------------------------------------------------------------

    def _answered(self, way: _Way, outcome: Outcome) -> None:
        way.route.gate.heard(outcome)
        way.failures = 0
        way.not_before = -math.inf

    def _failed(self, way: _Way, outcome: Outcome) -> None:
        gate = way.route.gate
        gate.heard(outcome)
        self._failed_last = way.lane
        way.blocked = True
        way.failures += 1
        if way.failures > gate.failures:
            # Another lane's success has ended the endpoint's wait; this lane keeps to its own.
            way.not_before = self._clock() + gate.backoff_s(way.failures)
        if isinstance(outcome, RetryAfter) and not outcome.after_s:
            way.route.sizing.failed()
            if outcome.suspect and gate.breaker.state != "closed":
                # Nobody knows what it fails over, and one request is allowed: each time another record.
                way.skip = way.skip * 2 if 0 < way.skip < MAX_RECORDS else 1

    def _delivered(self, lane: Lane, part: Sequence[Any], rejected: int, message: str) -> None:
        # A server may say more than it was sent, and of metrics it counts data points, of which a record has many; the
        # counts of records have to add up all the same.
        refused = max(0, min(rejected, len(part)))
        self._counts.delivered(lane, len(part) - refused)
        if refused:
            self._counts.lost(lane, Loss.REJECTED, refused)
        if rejected or message:
            of = "data points" if lane == "metrics" else f"of {len(part)} records"
            errors.warn(errors.PARTLY_REJECTED, f"{rejected} {of} ({lane}): {message or 'no reason'}")

    def _set_aside(self, way: _Way, part: Sequence[Any], loss: Loss, why: str) -> None:
        for some in self._manners.slices(part):
            self._store.set_aside(some, why)
        for frame in part:
            way.suspects.forget(frame.id)
        self._counts.lost(way.lane, loss, len(part))
        errors.warn(errors.SET_ASIDE, f"{len(part)} records ({way.lane}): {why}")

    def _take(self, lane: Lane, max_bytes: int, max_records: int, part: Part) -> list[Any]:
        """As the store's, but a slice at a time."""
        frames: list[Any] = []
        left = max_bytes
        while left > 0 and len(frames) < max_records:
            some = self._store.take(lane, left, min(_SLICE, max_records - len(frames)), part=part)
            size = sum(len(frame.record) for frame in some)
            if frames and size > left:
                # A single one that is larger than what is left.
                self._store.give_back(some)
                break
            frames += some
            left -= size
            if len(some) < _SLICE:
                break
            self._manners.give_way()
        return frames

    def _done(self, part: Sequence[Any]) -> None:
        for some in self._manners.slices(part):
            self._store.done(some)

    def _give_back(self, frames: Sequence[Any]) -> None:
        for some in self._manners.slices(frames):
            self._store.give_back(some)


class _Manners:
    """Goes through frames a slice at a time, and gives way to other threads in between where it is time to."""

    def __init__(self) -> None:
        self._since = -math.inf

    def give_way(self) -> None:
        if time.perf_counter() - self._since >= _HOLD_S:
            time.sleep(_GIVE_WAY_S)
            self._since = time.perf_counter()

    def slices(self, frames: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(frames), _SLICE):
            if start:
                self.give_way()
            yield frames[start : start + _SLICE]

    def each(self, frames: Sequence[Any]) -> Iterator[Any]:
        for some in self.slices(frames):
            yield from some


class CourierThread:
    """Runs a courier: a turn every `interval_s`, and at once where there is more.

    Args:
        courier: What to run.
        interval_s: How long records wait for company.
        more: Whether anything waits, for a flush that wants to know when it is over.
        chores: Called on the thread about every `interval_s`, whatever else is going on.
    """

    def __init__(
        self,
        courier: Courier,
        interval_s: float,
        more: Callable[[], bool],
        *,
        chores: Callable[[], None] = lambda: None,
    ) -> None:
        self._courier = courier
        self._interval_s = interval_s
        self._more = more
        self._chores = chores
        self._ended = courier.stopping = False
        courier.between = self._between
        self._begin()

    def __repr__(self) -> str:
        return f"<CourierThread {'alive' if self._thread.is_alive() else 'ended'}, {self._courier!r}>"

    def _begin(self) -> None:
        # A bare lock that is released to wake the thread: that needs no second lock, which a signal handler could find
        # held by what it interrupts.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._news = threading.Condition()
        self._hurries: list[Hurry] = []
        self._chores_at = self._turn_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="otelweir-courier", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # No more threads, or the interpreter is ending: what waits stays in the store.
            errors.warn(errors.COURIER_FAILED, f"{type(error).__name__}: {error}")

    def after_fork(self) -> None:
        """In the child, where no thread but the current one lives: start again."""
        if not self._ended:
            self._courier.after_fork()
            self._begin()

    def wake(self) -> None:
        """Have a turn soon. Cheap, for any thread and for signal handlers."""
        self._turn_at = -math.inf
        self._ring()

    def flush(self, timeout_s: float, *, last: bool = False) -> bool:
        """Send what waits now, at no bounded pace; True when nothing of it waits any more.

        Returns as soon as it is known that no endpoint will be asked within the time.

        Args:
            timeout_s: How long it may take. A request that is under way by then is left alone.
            last: Nothing comes after this: ask once more in spite of the breaker and of our own waits, but never in
                spite of a server that said when to come back; and let no request take longer than what is left.
        """
        if not self._more():
            return True
        if not self._thread.is_alive() or threading.current_thread() is self._thread:
            return False
        hurry = Hurry(time.monotonic() + timeout_s, last=last)
        with self._news:
            self._hurries.append(hurry)
            self._ring()
            self._news.wait_for(lambda: hurry.over or self._ended, max(0.0, hurry.left_s()))
            hurry.over = True
            if hurry in self._hurries:
                self._hurries.remove(hurry)
        return hurry.clean or not self._more()

    def stop(self, timeout_s: float) -> None:
        """End the thread after the request it is at. What waits stays in the store."""
        self._ended = self._courier.stopping = True
        with self._news:
            self._news.notify_all()
        self._ring()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            pass  # it rings already

    def _run(self) -> None:
        pause_s = 0.0
        while not self._ended:
            self._bell.acquire(timeout=max(0.0, min(pause_s, threading.TIMEOUT_MAX)))
            self._do_chores()
            try:
                pause_s = self._work()
            except Exception as error:  # noqa: BLE001 - the thread must live on
                errors.warn(errors.COURIER_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
                pause_s = min(self._interval_s, 10 * _MOMENT_S if self._hurries else math.inf)

    def _work(self) -> float:
        """Do what there is to do; seconds until there may be more."""
        hurry = self._hurry()
        if hurry is not None:
            return self._flush(hurry)
        now = time.monotonic()
        new = now >= self._turn_at
        if new:
            self._turn_at = now + self._interval_s
        while self._courier.turn(new=new) and not self._ended and self._hurry() is None:
            pass
        # What was blocked or paced comes when it may; else the next turn.
        return max(0.0, min(self._courier.idle_s(), self._turn_at - time.monotonic()))

    def _flush(self, hurry: Hurry) -> float:
        if hurry.due is None:
            self._courier.begin(hurry)
            self._turn_at = time.monotonic() + self._interval_s
        while hurry.due and not hurry.over and self._courier.turn(hurry=hurry) and not self._ended:
            pass
        if self._hurry() not in (hurry, None):
            return 0.0
        idle_s = self._courier.idle_s(hurry)
        if hurry.due and not hurry.over and not self._ended and idle_s < hurry.left_s():
            return idle_s
        with self._news:
            hurry.over = True
            if hurry in self._hurries:
                self._hurries.remove(hurry)
            self._news.notify_all()
        return 0.0

    def _hurry(self) -> Hurry | None:
        """The flush that comes first: the last one, if there is one."""
        with self._news:
            return next((hurry for hurry in self._hurries if hurry.last), self._hurries[0] if self._hurries else None)

    def _between(self, hurry: Hurry | None) -> bool:
        """A batch in many parts keeps neither the chores waiting nor a flush that begins."""
        self._do_chores()
        return self._hurry() is not hurry

    def _do_chores(self) -> None:
        if time.monotonic() < self._chores_at:
            return
        self._chores_at = time.monotonic() + self._interval_s
        try:
            self._chores()
        except Exception as error:  # noqa: BLE001 - the thread must live on
            errors.warn(errors.COURIER_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
