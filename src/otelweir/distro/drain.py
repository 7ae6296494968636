"""Sending what dead processes left, from outside: what `weir spool drain` does.

What a running process holds is never touched: it sends its own. Whatever ends this leaves on disk what was not
delivered, under a lock that is free then, for the next one who looks.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from otelweir import errors
from otelweir.distro.destinations import destination
from otelweir.errors import Problem
from otelweir.pipeline.spool import Spool, join
from otelweir.pipeline.spool.aside import delete_spent, hand_over
from otelweir.pipeline.spool.inspect import Record, aside_in, contents, processes_in
from otelweir.pipeline.transmit import Courier, Delivered, Gate, Outcome, RetryAfter, Route, Sizing, Unauthorised
from otelweir.pipeline.transmit.courier import Sent
from otelweir.settings import Settings
from otelweir.signals import LANES, Lane, Loss

ADOPT_S: Final = 2.0
"""How often it is looked for more."""

_TRIES: Final = 5
_MOMENT_S: Final = 0.02


class Stop:
    """Ctrl-C and a request to end. They interrupt what waits, for an answer or for the time; the second, anything.

    Args:
        last_round: Whether the first request to end (SIGTERM) interrupts nothing, and only says that it came.

    Attributes:
        number: Of the signal that came; 0 as long as none did.
        asked: Whether a request to end came that interrupted nothing.
    """

    def __init__(self, *, last_round: bool = False) -> None:
        self.number = 0
        self.asked = False
        self._last_round = last_round
        self._waits = False

    def __enter__(self) -> Stop:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _tell(self, number: int, _: object) -> None:
        if number == signal.SIGTERM and self._last_round and not (self.asked or self.number):
            self.asked = True
            return
        again, self.number = self.told(), number
        if self._waits or again:
            raise KeyboardInterrupt

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While this thread does nothing but wait."""
        self._waits = True
        try:
            if self.number:
                raise KeyboardInterrupt
            yield
        finally:
            self._waits = False

    def told(self) -> bool:
        """Whether one of them came."""
        return self.number != 0

    def pause(self, seconds: float) -> None:
        with self.waiting():
            time.sleep(seconds)


class _Sender:
    """Sends; made when there is something to send, and interrupted when we are to stop."""

    def __init__(self, make: Callable[[], Any], stop: Stop) -> None:
        self._make = make
        self._stop = stop
        self._sender: Any = None
        self.raw_bytes = self.wire_bytes = 0

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        if self._sender is None:
            try:
                self._sender = self._make()
            except (ValueError, ImportError, OSError) as error:
                return RetryAfter(None, f"what sends cannot be made: {error}")
        with self._stop.waiting():
            outcome: Outcome = self._sender.send(body, lane, deadline, frames)
        self.raw_bytes, self.wire_bytes = self._sender.raw_bytes, self._sender.wire_bytes
        return outcome

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()


class _Counts:
    """Records by what became of them, as the courier tells it."""

    def __init__(self) -> None:
        self.taken: Counter[Lane] = Counter()
        self.turned_down: Counter[Lane] = Counter()

    def delivered(self, lane: Lane, records: int) -> None:
        self.taken[lane] += records

    def lost(self, lane: Lane, why: Loss, records: int) -> None:
        self.turned_down[lane] += records


class Ways:
    """Where each lane goes; services that are drained at once share endpoints and their waits.

    Args:
        environ: Whose `OTEL_EXPORTER_OTLP_*` say it.
        endpoint: Base URL for all signals, instead.

    Attributes:
        endpoints: Of each lane, fit to be shown.
    """

    def __init__(self, environ: Mapping[str, str], settings: Settings, endpoint: str | None, stop: Stop) -> None:
        self.settings = settings
        self.stop = stop
        self.endpoints: dict[Lane, str] = {}
        self._gates: dict[Lane, Gate] = {}
        self._senders: dict[Lane, _Sender] = {}
        by_key: dict[str, Gate] = {}
        for lane in LANES:
            there = destination(lane, environ, endpoint=endpoint, settings=settings)
            self.endpoints[lane] = there.endpoint
            self._gates[lane] = by_key.setdefault(there.key, Gate(there.endpoint))
            self._senders[lane] = _Sender(there.sender, stop)

    def routes(self) -> dict[Lane, Route]:
        s = self.settings
        sizing = {"min_bytes": s.batch_min_bytes, "max_bytes": s.batch_max_bytes, "factor": s.batch_factor}
        return {lane: Route(self._senders[lane], self._gates[lane], Sizing(**sizing)) for lane in LANES}  # type: ignore[arg-type]

    def close(self) -> None:
        for sender in self._senders.values():
            sender.close()


class Drain:
    """A service whose dead processes' records are sent.

    Attributes:
        adopted: Records that were taken over, or back from those set aside.
        refused: Refused within a request that was taken, by lane; they are gone.
        lost: By reason, for what was damaged or had no room.
        bytes: Delivered, before compression.
        failing: The last failure of each lane in words; without those that work.
        unreadable: Files of what was set aside that cannot be taken back, and why.
        home: After the end, the name of the folder that holds what was not sent.
    """

    def __init__(self, folder: Path, ways: Ways, warn: Callable[[Problem, str], None] = errors.warn) -> None:
        self.folder = folder
        self._ways = ways
        self._warn = warn
        self.adopted = 0
        self._counts = _Counts()
        self.refused: Counter[Lane] = Counter()
        self.lost: Counter[Loss] = Counter()
        self.bytes = 0
        self.failing: dict[Lane, str] = {}
        self.unreadable: list[str] = []
        self.home = ""
        self._left: dict[Lane, int] = {}
        self._taking_back = False
        self._paths: list[Path] | None = None
        settings = ways.settings
        self._spool = Spool(
            folder,
            max_bytes=settings.spool_max_bytes,
            min_free_bytes=0,  # it makes room
            when_full="refuse_newest",  # what is taken back must not drive out what waits
            memory_bytes=0,
            fsync_s=settings.spool_fsync,
            lost=self._lose,
            warn=warn,
        )
        self._courier = Courier(self._spool, ways.routes(), join=join, counts=self._counts, observe=self._observe)

    def __repr__(self) -> str:
        return f"<Drain {self.folder}: {self.delivered.total()} of {self.adopted} delivered>"

    @property
    def delivered(self) -> Counter[Lane]:
        """By lane."""
        return +self._counts.taken

    @property
    def aside(self) -> Counter[Lane]:
        """Refused by the server and set aside, by lane."""
        return self._counts.turned_down - self.refused

    # --- taking over ------------------------------------------------------------------------------------------------

    def adopt(self) -> int:
        """Take over what dead processes left; how many records of theirs there were."""
        found = 0
        for _ in range(_TRIES):
            found += self._spool.adopt()
            if not self.left_behind():
                break
            time.sleep(_MOMENT_S)  # somebody looked at the lock just now
        self.adopted += found
        return found

    def left_behind(self) -> list[Path]:
        """Folders of dead processes that could not be taken over."""
        return [path for path, state in processes_in(self.folder).items() if state == "orphan"]

    def running(self) -> int:
        """How many other processes send their own, or may."""
        return sum(state != "orphan" and path != self._spool.home for path, state in processes_in(self.folder).items())

    def take_back(self) -> int:
        """Have what was set aside before the first call wait again, as far as there is room; how many records."""
        found = 0
        if self._paths is None:
            self._paths = aside_in(self.folder)
        self._taking_back = True
        self.unreadable = []
        for path in self._paths:
            try:
                found += hand_over(path, self._keep, lambda: self._spool.sync(now=True))
            except FileNotFoundError:
                pass
            except OSError as error:
                self.unreadable.append(f"{path}: {error.strerror or error}")
        if not self.running():
            delete_spent(self._paths)
        self._taking_back = False
        self.adopted += found
        return found

    def not_taken_back(self) -> int:
        """Records that lie where they were set aside, though they were asked for."""
        left = 0
        for path in self._paths or ():
            with suppress(OSError):
                left += contents(path, live=True).waiting
        return left

    def _keep(self, record: Record) -> bool:
        return self._spool.append(record.lane, (record.group, record.record))

    def _lose(self, lane: Lane, why: Loss, records: int) -> None:
        if not self._taking_back:  # what is refused then stays where it lay
            self.lost[why] += records

    # --- sending ----------------------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Send a request of every lane that may; whether there may be more."""
        self._spool.sync()
        return self._courier.turn()

    def waiting(self) -> dict[Lane, int]:
        """Records that were taken over and wait, of lanes that have some."""
        return {lane: records for lane in LANES if (records := self._spool.waiting(lane).records)}

    def waiting_bytes(self) -> int:
        return sum(self._spool.waiting(lane).bytes for lane in LANES)

    def wait_s(self) -> float:
        """Seconds until something of what waits may be sent."""
        states = self._courier.state()
        return min((states[lane].wait_s for lane in self.waiting()), default=0.0)

    def _observe(self, sent: Sent) -> None:
        lane = sent.lane
        self.failing.pop(lane, None)
        match sent.outcome:
            case Delivered(rejected, _):
                self.refused[lane] += max(0, min(rejected, sent.records))
                self.bytes += sent.bytes
            case RetryAfter(_, why) | Unauthorised(why):
                self.failing[lane] = why

    def close(self) -> None:
        """Leave what waits on disk."""
        self._left = self.waiting()
        self.home = self._spool.home.name if self._spool.home is not None else ""
        self._spool.close()

    def left(self) -> dict[Lane, int]:
        """After the end: what waits still."""
        return self._left


def run(drains: list[Drain], stop: Stop, timeout_s: float, told: Callable[[], None]) -> bool:
    """Send until nothing waits any more, or nothing was delivered for a while; True when nothing waits.

    It ends at once when no endpoint is to be asked within the time.

    Args:
        timeout_s: How long to go on without a delivery.
        told: Called again and again.
    """
    worked = time.monotonic()
    delivered = -1
    while not stop.told():
        went = False
        for drain in drains:
            went = drain.turn() or went
            told()
            if stop.told():
                return False
        waiting = [drain for drain in drains if drain.waiting()]
        if not waiting:
            return True
        now = sum(drain.delivered.total() + drain.aside.total() + drain.refused.total() for drain in drains)
        if now != delivered:
            delivered, worked = now, time.monotonic()
        if went:
            continue
        pause_s = max(_MOMENT_S, min(drain.wait_s() for drain in waiting))
        if time.monotonic() + pause_s > worked + timeout_s:
            return False
        stop.pause(pause_s)
    return False
