"""How OTLP leaves: the spool of this process, the courier that empties it, and the count of both.

    processors, exporters ──append──▶ spool ──▶ courier ──▶ the endpoint of each lane
                                        │          │
                                        └─▶ tally ◀┘

One `Delivery` serves all signals of a service. Where exporters of the same signal send to several places, each place
but the first gets one of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import MeterProvider

from otelweir import errors
from otelweir.distro.destinations import Destination
from otelweir.distro.late import Late
from otelweir.pipeline.spool.disk_thread import DiskThread
from otelweir.pipeline.spool.otlp import join
from otelweir.pipeline.spool.place import ELSEWHERE, default_folder
from otelweir.pipeline.spool.spool import Spool
from otelweir.pipeline.transmit.breaker import Change
from otelweir.pipeline.transmit.courier import MAX_RECORDS, Courier, CourierThread, Gate, Route
from otelweir.pipeline.transmit.outcome import Outcome, RetryAfter
from otelweir.pipeline.transmit.sizing import Sizing
from otelweir.selfmetrics.debuglog import DebugLog
from otelweir.selfmetrics.exchanges import Exchanges
from otelweir.selfmetrics.flushed import Flushed
from otelweir.selfmetrics.otel import instruments
from otelweir.selfmetrics.tally import Count, Tally
from otelweir.settings import Settings
from otelweir.signals import Lane, Loss

INTERVAL_S: Final = 1.0
"""How long records wait for company; what OpenTelemetry's batch processor for logs takes."""

ADOPT_S: Final = 10.0
"""How often it is looked for what dead processes of the service left."""

PUBLISH_S: Final = 2.0
"""How often a process tells, in its folder, how it goes."""

_SHARE: Final = 0.85
"""The part of a deadline that sending may take; the rest is for closing."""

_LEARNT: Final = "learnt.json"
_NOT_LOADED: Final[Outcome] = RetryAfter(None, "what sends cannot be loaded")


class LateSender:
    """The sender of a destination, loaded with the first request, and again after a fork."""

    def __init__(self, destination: Destination) -> None:
        self._late = Late(destination.sender)
        self.raw_bytes = self.wire_bytes = 0

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        def work(sender: Any) -> Outcome:
            # Whoever traces HTTP or gRPC clients must not trace this one.
            with suppress_instrumentation():
                outcome: Outcome = sender.send(body, lane, deadline, frames)
            self.raw_bytes, self.wire_bytes = sender.raw_bytes, sender.wire_bytes
            return outcome

        return self._late.export(work, _NOT_LOADED)

    def close(self) -> None:
        if self._late.loaded is not None:
            self._late.loaded.close()


class Delivery:
    """The spool, the courier and the tally of a process. Lanes are opened, filled, flushed, and released.

    Args:
        settings: Of spool and transmit.
        folder: The service's; None keeps everything in memory.
        service: The service's name.
        elsewhere: Where it sends to, if that is not where the service's other records go; whoever drains the folder has
            to know.
        environ: Where the `OTEL_BSP_*` and `OTEL_BLRP_*` variables stand that mean something here.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path | None,
        *,
        service: str = "",
        environ: Mapping[str, str] = os.environ,
        elsewhere: str = "",
    ) -> None:
        self._elsewhere = elsewhere
        self.settings = settings
        self.folder = folder
        self._service = service
        self._environ = environ
        self._debug = DebugLog(settings.debug_log, hide=self._secrets)
        self.exchanges = Exchanges()
        if self._debug.on:
            self.exchanges.listen(self._debug.request)
        self.spool = Spool(
            folder,
            max_bytes=settings.spool_max_bytes,
            min_free_bytes=settings.spool_min_free_bytes,
            memory_bytes=settings.spool_memory_bytes,
            fsync_s=settings.spool_fsync,
            when_full=settings.spool_when_full,
            lost=self._lost,
        )
        self.tally = Tally(self.spool.accepted)
        self.append = self.spool.append
        self.courier = Courier(
            self.spool,
            {},
            join=join,
            counts=self.tally,
            backlog_bytes_s=settings.backlog_rate,
            observe=self.exchanges,
        )
        self._status: Late[Callable[..., Mapping[str, object]]] = Late(_load_status)
        self._gates: dict[str, Gate] = {}
        self._senders: list[LateSender] = []
        self._destinations: dict[Lane, Destination] = {}
        self._users: dict[Lane, int] = {}
        self._thread: CourierThread | None = None
        self._disk: DiskThread | None = None
        self._begin()
        _deliveries.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._ended = False
        self._together = False
        self._adopt_at = self._publish_at = -math.inf
        self._published: object = None
        self._started = time.time()

    def __repr__(self) -> str:
        return f"<Delivery {self.spool!r}, {self.courier!r}>"

    # --- lanes ------------------------------------------------------------------------------------------------------

    def open(self, lane: Lane, destination: Destination) -> bool:
        """Send a lane to a destination from now on; False when it already goes somewhere else."""
        with self._lock:
            there = self._destinations.get(lane)
            if self._ended or (there is not None and there != destination):
                return False
            self._users[lane] = self._users.get(lane, 0) + 1
            if there is None:
                self._destinations[lane] = destination
                gate = self._gates.get(destination.key) or Gate(destination.key, told=self._breaker)
                self._gates[destination.key] = gate
                sender = LateSender(destination)
                self._senders.append(sender)
                settings = self.settings
                sizing = Sizing(
                    min_bytes=settings.batch_min_bytes,
                    max_bytes=settings.batch_max_bytes,
                    factor=settings.batch_factor,
                    limit=self._learnt().get(_name(lane, destination)),
                )
                self.courier.add(lane, Route(sender, gate, sizing, max_records(lane, self._environ)))
            if self._thread is None:
                self._disk = DiskThread(self.spool, self.settings.spool_fsync)
                self._thread = CourierThread(self.courier, interval_s(self._environ), self._waits, chores=self._chores)
            return True

    def release(self, lane: Lane, timeout_s: float) -> None:
        """No more records come for a lane from one of those who opened it; with the last of all, the delivery ends."""
        with self._lock:
            self._users[lane] = max(0, self._users.get(lane, 0) - 1)
            over = not any(self._users.values())
        if self._together:
            return
        if over:
            self.end(timeout_s)
        else:
            self.flush_lane(lane, timeout_s)

    # --- sending ----------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float) -> Flushed:
        """Send what waits, and wait for it. Says how much was delivered meanwhile, waits still, was lost and why.

        Returns early when it is known that no endpoint will be asked within the time.
        """
        before = self.tally.now()
        if self._thread is not None:
            self._thread.flush(timeout_s)
        return self._flushed(before, sent=before)

    def flush_lane(self, lane: Lane, timeout_s: float) -> bool:
        """Send what waits; whether all of a lane arrived that waited at the beginning."""
        if self._together:
            return True
        return self.flush(timeout_s).complete(lane)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """While the providers are flushed or shut down one after the other: wait for none of them, but for all at once
        afterwards."""
        before, self._together = self._together, True
        try:
            yield
        finally:
            self._together = before

    def end(self, timeout_s: float) -> Flushed:
        """Send what waits, once more even where nobody answered lately, and stop; what is not sent stays on disk."""
        before = self.tally.now()
        with self._lock:
            if self._ended:
                return self._flushed(before)
            self._ended = True
        # What children of this process left that ended a moment ago is nobody else's to send, perhaps.
        self._adopt()
        if self._thread is not None:
            self._thread.flush(timeout_s * _SHARE, last=True)
        result = self._flushed(before)
        # Before what may take the rest of the time: whoever waits for this may leave then.
        self._say_what_waits(result)
        if self._thread is not None:
            self._thread.stop(timeout_s * (1 - _SHARE) / 2)
        if self._disk is not None:
            self._disk.stop()
        self._remember()
        self.spool.close()
        for sender in self._senders:
            sender.close()
        return result

    def _flushed(self, before: Mapping[Lane, Count], sent: Mapping[Lane, Count] | None = None) -> Flushed:
        return Flushed.between(before, self.tally.now(), self.folder, sent=sent)

    def _say_what_waits(self, result: Flushed) -> None:
        if result.waiting:
            what = ", ".join(f"{count.waiting} {lane}" for lane, count in result.lanes.items() if count.waiting)
            where = self.folder if self.folder is not None else "memory, and are lost"
            errors.warn(errors.STILL_WAITING, f"{what} in {where}")

    def _lost(self, lane: Lane, why: Loss, records: int) -> None:
        self.tally.lost(lane, why, records)
        self._debug.event("lost", lane=lane, why=why.value, records=records)

    def _secrets(self) -> list[str]:
        return [secret for destination in self._destinations.values() for secret in destination.secrets()]

    def _breaker(self, change: Change) -> None:
        self._debug.event("breaker", change=str(change))

    def report(self, provider: MeterProvider, *, sdk_names: bool) -> None:
        """Make the metrics of the delivery.

        Args:
            provider: Gets them.
            sdk_names: Whether those with names of OpenTelemetry's are among them.
        """
        instruments(
            provider,
            self.tally,
            self.spool,
            self.courier,
            self.exchanges,
            max_bytes=self.settings.spool_max_bytes,
            protocols={lane: to.protocol for lane, to in self._destinations.items()},
            sdk_names=sdk_names,
        )

    def _waits(self) -> bool:
        return any(self.spool.waiting(lane).records for lane in self._destinations)

    # --- on the courier's thread ------------------------------------------------------------------------------------

    def _chores(self) -> None:
        now = time.monotonic()
        if now >= self._adopt_at:
            self._adopt_at = now + ADOPT_S
            self._adopt()
            self._remember()
        if now >= self._publish_at:
            self._publish_at = now + PUBLISH_S
            self._publish()

    def _adopt(self) -> None:
        if records := self.spool.adopt():
            self._debug.event("adopted", records=records, folder=str(self.folder))

    def _publish(self) -> None:
        """Tell whoever looks at the folder how it goes, if that has changed."""
        if self.spool.home is None:
            return
        states = self.courier.state()
        now = (self.tally.now(), {lane: (state.breaker, state.failing) for lane, state in states.items()})
        if now == self._published:
            return
        self._published = now
        found = self._status.export(
            lambda status: status(
                self.tally,
                self.spool,
                self.courier,
                self.exchanges,
                service=self._service,
                started=self._started,
                time=time.time(),
                max_bytes=self.settings.spool_max_bytes,
            ),
            None,
        )
        if found is not None:
            self.spool.publish(found)

    def _write(self, name: str, text: str) -> None:
        """Write a file of the service's folder, as a whole or not at all."""
        if self.folder is not None and self.spool.home is not None:
            with contextlib.suppress(OSError):
                begun = self.folder / f".{name}-{os.getpid()}"
                begun.unlink(missing_ok=True)
                begun.touch(0o600, exist_ok=False)
                begun.write_text(text, encoding="utf-8")
                begun.replace(self.folder / name)

    def _learnt(self) -> dict[str, int]:
        """What servers were found not to take, by lane and endpoint."""
        try:
            read = json.loads((self.folder / _LEARNT).read_bytes()) if self.folder is not None else {}
            return {name: limit for name, limit in read.items() if isinstance(limit, int) and limit > 1}
        except (OSError, ValueError, AttributeError):
            return {}

    def _remember(self) -> None:
        """Keep what servers do not take for the next process, and where this folder's records go."""
        if self._elsewhere:
            self._write(ELSEWHERE, self._elsewhere)
        known = self._learnt()
        now = dict(known)
        for lane, state in self.courier.state().items():
            name = _name(lane, self._destinations[lane])
            if state.limit is not None:
                now[name] = state.limit
            else:
                now.pop(name, None)
        if now != known:
            self._write(_LEARNT, json.dumps(now))

    # --- fork -------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In the child: the spool is empty, the counts begin at 0, and a courier of its own runs."""
        ended = self._ended
        self._begin()
        self._ended = ended
        self.tally.after_fork()
        self.exchanges.after_fork()
        if self._thread is not None and self._disk is not None and not ended:
            self._disk.after_fork()
            self._thread.after_fork()


def _load_status() -> Callable[..., Mapping[str, object]]:
    # Most processes end before they need it.
    from otelweir.selfmetrics.status import status

    return status


def _name(lane: Lane, destination: Destination) -> str:
    return f"{lane} {destination.endpoint}"


_deliveries: Final[weakref.WeakSet[Delivery]] = weakref.WeakSet()


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.RLock()
    for delivery in list(_deliveries):
        delivery.after_fork()


if hasattr(os, "register_at_fork"):
    # After the hook of the spool, which was registered when it was imported.
    os.register_at_fork(after_in_child=_after_fork)


def interval_s(environ: Mapping[str, str]) -> float:
    """How long records wait for company: the shortest that `OTEL_BSP_SCHEDULE_DELAY` and `OTEL_BLRP_SCHEDULE_DELAY`
    (milliseconds) ask for, where they are set."""
    given: list[float] = []
    for name in ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"):
        with contextlib.suppress(ValueError):
            given.append(max(0.01, float(environ.get(name, "")) / 1000))
    return min(given, default=INTERVAL_S)


def max_records(lane: Lane, environ: Mapping[str, str]) -> int:
    """How many records a request has at most: what `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` or `OTEL_BLRP_…` asks for."""
    name = {"traces": "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "logs": "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"}.get(lane, "")
    try:
        return max(1, min(MAX_RECORDS, int(environ.get(name, ""))))
    except ValueError:
        return MAX_RECORDS


def service_folder(settings: Settings, service_name: str, environ: Mapping[str, str]) -> Path | None:
    """The folder of a service's spool: `WEIR_SPOOL_DIR`, else the usual place; None where the user has no home."""
    try:
        if settings.spool_dir is not None:
            return Path(settings.spool_dir).expanduser().absolute()
        return default_folder(service_name, environ)
    except RuntimeError:
        return None


_shared: Final[dict[Path | None, Delivery]] = {}
_shared_lock = threading.RLock()


def shared(
    lane: Lane, destination: Destination, settings: Settings, service: str, environ: Mapping[str, str]
) -> Delivery:
    """The delivery of a service in this process, with a lane opened to a destination. Made when there is none."""
    folder = service_folder(settings, service, environ)
    with _shared_lock:
        delivery = _shared.get(folder)
        if delivery is None or delivery._ended:
            delivery = _shared[folder] = Delivery(settings, folder, service=service, environ=environ)
        if delivery.open(lane, destination):
            return delivery
        # The same signal to another place as well: records of the two must not be mixed.
        mark = hashlib.sha256(f"{destination.protocol} {destination.endpoint}".encode()).hexdigest()[:8]
        other = folder.with_name(f"{folder.name}-{mark}") if folder is not None else None
        if other in _shared and not _shared[other]._ended and _shared[other].open(lane, destination):
            return _shared[other]
        delivery = Delivery(settings, other, service=service, environ=environ, elsewhere=destination.endpoint)
        if other is not None:
            _shared[other] = delivery
        delivery.open(lane, destination)
        return delivery
