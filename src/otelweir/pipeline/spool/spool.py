"""The process's spool: what was accepted and is not yet delivered, in a folder that outlives the process.

    <folder>/                       of the service; 0700
        <pid>-<random>/             of one process; 0700
            lock                    held (flock) as long as the process lives
            status.json             what the process says of itself, if it does; gone when the folder is left
            <lane>-<number>-<identity>.seg
        aside/                      what will not be sent: `.aside` with records and reasons,
                                    `.corrupt` with a `.json` that says what was found

Invariants:

- Only the process that holds a folder's lock touches its files; a folder whose lock is free is an orphan.
- A record whose `append` returned True is handed out until it is done, set aside or counted as lost, by this process or
  by one that adopts its folder. It is out at one taker at a time; after a crash it may be handed out again.
- The files of a service never take more than `max_bytes`, whoever wrote them.
- Nothing is raised, whatever the disk does. Nothing is said or counted while the lock is held: whoever listens may log,
  and the logging call may be one that waits for this lock.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import math
import os
import stat
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from otelweir import errors
from otelweir.errors import Problem
from otelweir.pipeline.spool.otlp import Encoded, Group
from otelweir.pipeline.spool.segment import ASIDE, DELIVERED, FLAGS, HEAD, SPARE, START, Segment
from otelweir.signals import LANES, Lane, Loss

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - not everywhere
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

_LOCK: Final = "lock"
_ASIDE: Final = "aside"
_STATUS: Final = "status.json"
_FRESH_S: Final = 10.0
"""How long ago this process began a file whose records count as fresh."""

_FULL_FOR_S: Final = 0.1
"""How long a full spool refuses without looking at the disk again."""

_MAX_PENDING: Final = 10_000
_STALE_S: Final = 60.0
"""How old a folder must be that was begun and never got its name, to be swept away."""

_SLICE: Final = 256
"""Records that are handled at a time, about half a millisecond: whoever appends may be waiting."""

_SPARE_FROM: Final = 0.25
"""How full a file is when the next one is made."""

_ROOM_FROM: Final = 0.5
"""How full a file is when room is made for the next one, if the quota leaves none."""

_MAX_SPARES: Final = 2
_SPARE_FOR_S: Final = 60.0
"""How long a spare file is kept that nobody needs."""

_MAX_MAPPED: Final = 2
"""Full files that may stay in memory until they are closed."""

_MAX_STOPPED: Final = 16
"""Full files that may wait to be closed."""

_ADOPTING_S: Final = 2.0
"""How long to wait for another thread that is taking over what dead processes left."""

_LOOK_AFTER: Final = 4
"""Files that a process makes before it looks again what the others take."""


Part = Literal["all", "fresh", "backlog"]
"""Which records of a lane: of files that this process began in the last ten seconds or writes to, of all others, or of
both."""


class Frame(NamedTuple):
    """A record that was handed out."""

    id: str
    """Names the record across processes and restarts, so that a doubled delivery can be told. (An error that is carried
    over when the oldest records are dropped gets a new one.)"""

    group: Group
    record: bytes


_frame: Final[Callable[[tuple[str, Group, bytes]], Frame]] = functools.partial(tuple.__new__, Frame)
"""A frame, for half the price: one is made for every record."""


class Waiting(NamedTuple):
    """What is neither delivered nor lost, handed out or not."""

    records: int
    bytes: int
    oldest_age_s: float


def _ignore_loss(lane: Lane, loss: Loss, records: int) -> None:
    pass


class Spool:
    """Records of all lanes, on their way out.

    `append` is for any thread and for signal handlers; the rest is meant for the courier, but any thread may call it.

    Args:
        folder: The service's; processes of the same service share it. None keeps everything in memory.
        max_bytes: What the files of the service may take.
        min_free_bytes: What must stay free on the disk.
        segment_bytes: The size of a file; at most an eighth of `max_bytes`.
        fsync_s: How often `sync` has the disk confirm what was written: what a power failure can take. `inf` for never.
        when_full: Whether the oldest records go, or new ones are refused. Urgent ones go last.
        memory_bytes: What may wait in memory where the disk cannot be used.
        lost: Told of every loss, with its reason.
        warn: Told of problems; as `errors.warn`.
        clock: Unix time.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        max_bytes: int = 512 * 2**20,
        min_free_bytes: int = 64 * 2**20,
        segment_bytes: int = 2**20,
        fsync_s: float = 1.0,
        when_full: Literal["drop_oldest", "refuse_newest"] = "drop_oldest",
        memory_bytes: int = 8 * 2**20,
        lost: Callable[[Lane, Loss, int], None] = _ignore_loss,
        warn: Callable[[Problem, str], None] = errors.warn,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._segment_bytes = max(4096, min(segment_bytes, max_bytes // 8))
        self._fsync_s = fsync_s
        self._when_full = when_full
        self._memory_bytes = memory_bytes
        self._lost = lost
        self._warn = warn
        self._clock = clock
        self._mapped = True
        self._begin()
        _spools.add(self)

    def _begin(self) -> None:
        """The state of a process that has written nothing."""
        self._lock = threading.RLock()
        self._adopting = threading.RLock()
        self._busy = False
        self._closed = False
        self._home: Path | None = None
        self._lock_fd = -1
        self._lanes: dict[Lane, list[Segment]] = {lane: [] for lane in LANES}
        self._active: dict[Lane, Segment] = {}
        self._by_identity: dict[int, Segment] = {}
        self._aside: dict[Lane, Segment] = {}
        self._spares: dict[Lane, list[Segment]] = {lane: [] for lane in LANES}
        self._changes: Counter[Lane] = Counter()
        self._changes_seen: Counter[Lane] = Counter()
        self._changed: dict[Lane, float] = {}
        self._stopped: deque[Segment] = deque()
        self._buried: deque[Segment] = deque()
        self._others_bytes = 0
        self._made_since = _LOOK_AFTER
        self._disk_bytes = 0
        self._status_bytes = 0
        self._numbers = itertools.count(1)
        self._full_until: dict[bool, tuple[float, Loss]] = {}
        self._pending: deque[tuple[Lane, Encoded, bool, int]] = deque()
        self._losses: deque[tuple[Lane, Loss, int]] = deque()
        self._over: Counter[Lane] = Counter()
        self._left: dict[Lane, Waiting] = {}
        self._problems: deque[tuple[Problem, str]] = deque()
        self._said: set[str] = set()
        self._synced = 0.0
        self._unsynced: list[Path] = []

    def __repr__(self) -> str:
        counts = ", ".join(f"{lane} {waiting.records}" for lane in LANES if (waiting := self.waiting(lane)).records)
        return f"<Spool {self._home or self._folder or 'in memory'}: {counts or 'nothing'} waiting>"

    @property
    def folder(self) -> Path | None:
        """The service's; None where everything is kept in memory."""
        return self._folder

    @property
    def home(self) -> Path | None:
        """This process's folder; None as long as it has none."""
        return self._home

    # --- appending --------------------------------------------------------------------------------------------------

    def append(self, lane: Lane, encoded: Encoded, *, urgent: bool = False) -> bool:
        """Keep a record; False when it was refused, and counted.

        When this returns, the record is in the operating system's hands: no end of the process loses it. (One exception
        is a signal handler that interrupts the change from one file to the next: its record waits in memory until the
        change, a fraction of a millisecond later, is complete.)
        """
        group, record = encoded
        now = int(self._clock()) & 0xFFFFFFFF
        try:
            if self._active[lane].append(group, record, urgent, now):
                return True
        except (LookupError, OSError, ValueError, TypeError):
            pass  # no segment yet, or it cannot be written to any more: another is made
        with self._lock:
            if self._busy:  # in a signal handler that interrupted this thread here
                if len(self._pending) < _MAX_PENDING:
                    self._pending.append((lane, encoded, urgent, now))
                    return True
                self._lose(lane, Loss.NO_MEMORY, 1)
                return False
            with self._at_work():
                kept = self._append_elsewhere(lane, encoded, urgent, now)
        self._tell()
        return kept

    def _append_elsewhere(self, lane: Lane, encoded: Encoded, urgent: bool, now: int) -> bool:
        group, record = encoded
        if self._closed:
            self._lose(lane, Loss.ENDED, 1)
            return False
        until, loss = self._full_until.get(urgent, (-math.inf, Loss.SPOOL_FULL))
        if until - _FULL_FOR_S <= self._clock() < until:
            self._lose(lane, loss, 1)
            return False
        need = START + 3 * HEAD + len(group.resource) + len(group.scope) + len(record) + 16
        writable = True
        for _ in range(3):  # a new segment may fail, too
            active = self._active.get(lane)
            if active is not None:
                try:
                    if active.append(group, record, urgent, now):
                        return True
                except OSError as error:
                    # It may have been the end of this file alone; but a file that fails at once is the disk's failure.
                    if active.records == 0:
                        self._problem(errors.SPOOL_IN_MEMORY, f"{self._folder}: {error.strerror or error}")
                        writable = False
                except (ValueError, TypeError):
                    pass
                self._stop(lane)
            segment = (self._new_segment if writable else self._new_in_memory)(lane, need, urgent)
            if segment is None:
                return False
            self._add(segment)
            self._active[lane] = segment
        self._lose(lane, Loss.SPOOL_FULL, 1)
        return False

    def _add(self, segment: Segment, index: int | None = None) -> None:
        segments = self._lanes[segment.lane]
        segments.insert(len(segments) if index is None else index, segment)
        self._by_identity[segment.identity] = segment

    def _stop(self, lane: Lane) -> None:
        """Have no active segment. Closing its file is left to `sync`, as it takes a while."""
        segment = self._active.pop(lane, None)
        if segment is None:
            return
        segment.stop()
        self._changes[lane] += 1
        self._stopped.append(segment)
        if len(self._stopped) > _MAX_MAPPED:
            self._stopped[-1 - _MAX_MAPPED].unmap()
        while len(self._stopped) > _MAX_STOPPED:
            self._close(self._stopped.popleft())()

    def _close(self, segment: Segment) -> Callable[[], None]:
        """Close a file that is full; what is given is to be called, without the lock where possible."""
        if segment.path is not None and segment.detached:
            self._problem(errors.SPOOL_IN_MEMORY, f"{self._home}: the folder was deleted")
            with contextlib.suppress(OSError):
                segment.move_to_memory()
        if not segment.waiting:
            self._retire(segment)
            return lambda: None
        if segment.path is not None:
            self._unsynced.append(segment.path)
        return segment.detach()

    # --- room -------------------------------------------------------------------------------------------------------

    def _new_segment(self, lane: Lane, need: int, urgent: bool) -> Segment | None:
        """A segment with room for a record; None when there is none, which is then counted."""
        if self._folder is None:
            return self._new_in_memory(lane, need, urgent)
        spares = self._spares[lane]
        while spares:
            spare = spares.pop()
            if spare.size >= need:
                spare.begin(self._clock())
                return spare
            self._discard(spare)
        # The first is small: most services need no more in a second.
        size = max(self._segment_bytes if self._changes[lane] else max(4096, self._segment_bytes // 4), need)
        while True:
            over_quota = self._over_quota(size)
            obstacle = over_quota or self._short_of_disk(size)
            if obstacle is None:
                try:
                    return self._new_file(lane, size)
                except OSError as error:
                    # A full disk, too: memory costs nothing of what was written before it was full.
                    self._problem(errors.SPOOL_IN_MEMORY, f"{self._folder}: {error.strerror or error}")
                    return self._new_in_memory(lane, need, urgent)
            may_drop = self._when_full == "drop_oldest" or urgent
            if may_drop and size <= self._max_bytes // 2 and self._make_room(urgent, on_disk=True):
                self._problem(errors.SPOOL_FULL, obstacle)
                continue
            if over_quota is None:
                self._problem(errors.SPOOL_IN_MEMORY, obstacle)
                return self._new_in_memory(lane, need, urgent)
            self._problem(errors.SPOOL_FULL, obstacle)
            self._refuse(lane, urgent, Loss.SPOOL_FULL)
            return None

    def _new_in_memory(self, lane: Lane, need: int, urgent: bool) -> Segment | None:
        # Small ones, because the disk is tried again whenever one is full.
        size = max(need, min(self._segment_bytes, self._memory_bytes // 8))
        while True:
            taken = sum(segment.size for segment in self._segments() if segment.path is None)
            if taken + size <= self._memory_bytes:
                return Segment.in_memory(lane, size, next(self._numbers), self._clock())
            may_drop = self._when_full == "drop_oldest" or urgent
            if not (may_drop and size <= self._memory_bytes // 2 and self._make_room(urgent, on_disk=False)):
                self._refuse(lane, urgent, Loss.NO_MEMORY)
                return None

    def _refuse(self, lane: Lane, urgent: bool, loss: Loss) -> None:
        self._full_until[urgent] = (self._clock() + _FULL_FOR_S, loss)
        self._lose(lane, loss, 1)

    def _over_quota(self, size: int) -> str | None:
        """What the quota has against a file of this size."""
        # Half a segment stays free for the urgent records of one that is dropped.
        room = self._max_bytes - self._segment_bytes // 2 - size
        if self._made_since >= _LOOK_AFTER or self._own_bytes() + self._others_bytes > room:
            self._look()
        self._made_since += 1
        if self._own_bytes() + self._others_bytes > room:
            return f"{self._folder} has reached its quota of {self._max_bytes} bytes"
        return None

    def _short_of_disk(self, size: int) -> str | None:
        """What the free-disk floor has against a file of this size."""
        assert self._folder is not None
        if not hasattr(os, "statvfs"):
            return None
        self._disk_bytes -= size
        if self._disk_bytes < self._min_free_bytes + _LOOK_AFTER * self._segment_bytes:
            place = self._home or self._folder
            while _is_gone(place) and place != place.parent:
                place = place.parent
            try:
                disk = os.statvfs(place)
            except OSError:
                return None  # making the file will tell
            self._disk_bytes = disk.f_bavail * disk.f_frsize - size
        if self._disk_bytes < self._min_free_bytes:
            return f"{self._folder}: less than {self._min_free_bytes} bytes would be left on the disk"
        return None

    def _own_bytes(self) -> int:
        """Bytes that this process's files may come to."""
        with self._lock:
            spares = itertools.chain.from_iterable(self._spares.values())
            segments = itertools.chain(self._segments(), spares, list(self._buried), list(self._aside.values()))
            return self._status_bytes + sum(segment.size for segment in segments if segment.path is not None)

    def _look(self) -> None:
        """Find out what other processes of the service take, what was set aside, and (soon) what the disk has left."""
        self._others_bytes = self._taken(of_others=True)
        self._made_since = 0
        self._disk_bytes = 0

    def _taken(self, *, of_others: bool = False) -> int:
        """Bytes of the files of the service, with or without this process's."""
        assert self._folder is not None
        total = 0
        writing = {str(keeper.path) for keeper in list(self._aside.values())} if of_others else set()
        for folder in _folders(self._folder):
            if of_others and folder == self._home:
                continue
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        total += 0 if entry.path in writing else entry.stat(follow_symlinks=False).st_size
        return total

    def _make_room(self, urgent: bool, *, on_disk: bool) -> bool:
        """Drop the oldest records of which none is out; those that are not urgent first. False when there are none.

        Args:
            urgent: Whether the record that needs the room is; only for such a one other urgent records go.
        """
        victims = sorted(
            (
                segment
                for segment in self._segments()
                if segment.sealed and not segment.out and (segment.path is not None) == on_disk
            ),
            key=lambda segment: segment.created,
        )
        for segment in victims:
            if not segment.urgent:
                self._drop(segment, segment.waiting)
                return True
            if self._compact(segment):
                return True
        if urgent and victims:
            self._drop(victims[0], victims[0].waiting)
            return True
        return False

    def _drop(self, segment: Segment, records: int) -> None:
        if records > 0:
            self._lose(segment.lane, Loss.SPOOL_FULL if segment.path else Loss.NO_MEMORY, records)
        self._retire(segment)
        self._bury()  # at once: the room is needed

    def _compact(self, segment: Segment) -> bool:
        """Drop what is not urgent; False where that gains too little."""
        if segment.urgent * 2 > segment.records:
            return False
        try:
            kept = segment.urgent_ones(segment.size // 2)
        except OSError:
            self._give_up(segment)
            return True
        if kept is None:
            segment.urgent = segment.records  # not looked at again
            return False
        groups = {group for group, _, _ in kept}
        size = START + sum(len(record) + HEAD + 4 for _, record, _ in kept)
        size += sum(len(group.resource) + len(group.scope) + HEAD + 8 for group in groups)
        if kept:
            fresh = Segment.in_memory(segment.lane, size, segment.number, segment.created)
            for group, record, when in kept:
                if not fresh.append(group, record, True, when):
                    return False
            fresh.seal()
            if segment.path is not None:
                try:
                    fresh.move_to_disk(segment.path.parent)
                except OSError:
                    return False
            fresh.adopted = segment.adopted
            self._add(fresh, self._lanes[segment.lane].index(segment))
        self._drop(segment, segment.waiting - len(kept))
        return True

    def _retire(self, segment: Segment) -> None:
        """Forget a segment. Its file is deleted by `_bury`, or kept, if it is damaged."""
        if segment in self._lanes[segment.lane]:
            self._lanes[segment.lane].remove(segment)
        self._by_identity.pop(segment.identity, None)
        if self._active.get(segment.lane) is segment:
            del self._active[segment.lane]
        if segment in self._stopped:
            self._stopped.remove(segment)
        self._full_until.clear()
        segment.stop()
        # From here on it is whoever takes it from there who closes it, and nobody else.
        self._buried.append(segment)

    def _bury(self) -> None:
        """Delete the files of forgotten segments. Needs no lock, as nobody else knows them any more."""
        while self._buried:
            try:
                segment = self._buried.popleft()
            except IndexError:  # another thread had it
                break
            if not self._reuse(segment):
                self._discard(segment)

    def _reuse(self, segment: Segment) -> bool:
        """Make the lane's next file of a forgotten segment."""
        spares = self._spares[segment.lane]
        if segment.size != self._segment_bytes or len(spares) >= _MAX_SPARES or self._closed or not segment.records:
            return False
        home = self._home
        fresh = segment.reuse(next(self._numbers))
        if fresh is None:
            return False
        self._keep_spare(fresh, home)
        return True

    def _discard(self, segment: Segment) -> None:
        """Delete a segment's file."""
        segment.seal()
        path = segment.path
        with contextlib.suppress(OSError):
            if path is None:
                pass
            elif segment.damage:
                path.rename((folder := self._aside_folder()) / path.with_suffix(".corrupt").name)
                self._limit_aside(folder, 0)
                self._made_since = _LOOK_AFTER
            else:
                path.unlink()

    def _give_up(self, segment: Segment) -> None:
        """A file that cannot be read: what waits in it and is not out is lost."""
        segment.stop()
        lost = segment.waiting - segment.out
        segment.records -= lost
        self._lose(segment.lane, Loss.CORRUPT, lost)
        name = segment.path.name if segment.path else "memory"
        self._problem(errors.SPOOL_DAMAGED, f"{name} cannot be read")
        if self._active.get(segment.lane) is segment:
            self._stop(segment.lane)
        if segment.out:  # what is out may still be acknowledged
            self._lanes[segment.lane].remove(segment)
            self._lanes[segment.lane].insert(0, segment)
        else:
            self._retire(segment)

    def _segments(self) -> Iterator[Segment]:
        return itertools.chain.from_iterable(self._lanes.values())

    # --- handing out ------------------------------------------------------------------------------------------------

    def take(self, lane: Lane, max_bytes: int, max_records: int = 10_000, *, part: Part = "all") -> list[Frame]:
        """The oldest records that are neither finished nor out, in their order; [] when there are none.

        Args:
            max_bytes: Of records, together; a single larger one comes alone.
            part: "fresh" for those in files that this process writes to or began in the last ten seconds, "backlog" for
                all others, "all" for both.
        """
        taken: list[Frame] = []
        left = max_bytes
        more = True
        while more and len(taken) < max_records and (not taken or left > 0):
            if taken:
                time.sleep(0)  # others may want the lock, or the GIL
            with self._lock:
                if self._busy:
                    break
                with self._at_work():
                    some, more = self._take_some(lane, left, min(_SLICE, max_records - len(taken)), part, not taken)
            left -= sum(len(frame.record) for frame in some)
            taken += some
        self._bury()
        self._tell()
        return taken

    def _take_some(
        self, lane: Lane, max_bytes: int, max_records: int, part: Part, first: bool
    ) -> tuple[list[Frame], bool]:
        """A slice of what is taken, and whether there may be more.

        Args:
            first: Whether a record that is larger than `max_bytes` may come.
        """
        taken: list[Frame] = []
        left = max_bytes
        for segment in self._part(lane, part):
            try:
                found = segment.take(left, max_records - len(taken))
            except (OSError, ValueError):
                self._give_up(segment)
                continue
            self._look_for_missing(segment)
            size = sum(len(record) for _, _, record in found)
            if size > left and (taken or not first):
                segment.give_back(at for at, _, _ in found)
                return taken, False
            left -= size
            before = f"{segment.identity:016x}"
            taken += [_frame((f"{before}{at:08x}", group, record)) for at, group, record in found]
            if len(taken) >= max_records:
                return taken, True
            if (taken and left <= 0) or segment.waiting > segment.out:
                return taken, False  # what is larger than the room that is left comes next time, before what follows it
        return taken, False

    def _part(self, lane: Lane, part: Part) -> list[Segment]:
        segments = self._lanes[lane]
        if part == "all":
            return list(segments)
        since, active = self._clock() - _FRESH_S, self._active.get(lane)
        fresh = part == "fresh"
        return [
            segment
            for segment in segments
            if fresh == (segment is active or (not segment.adopted and segment.created >= since))
        ]

    def _look_for_missing(self, segment: Segment) -> None:
        missing = segment.missing()
        if missing:
            self._lose(segment.lane, Loss.CORRUPT, missing)
            name = segment.path.name if segment.path else "memory"
            self._problem(errors.SPOOL_DAMAGED, f"{name}: {missing} records cannot be read")
            if segment.path is not None:
                segment.examine()
                self._note(segment, f"{missing} records cannot be read")
        if segment.sealed and not segment.waiting:
            self._retire(segment)

    def done(self, frames: Iterable[Frame]) -> None:
        """They were delivered. They are not handed out again, not after a restart either."""
        self._finish(frames, DELIVERED)

    def set_aside(self, frames: Iterable[Frame], reason: str) -> None:
        """They will never be sent; they are kept, with the reason, in the service's folder `aside`.

        What is kept there takes at most a quarter of the quota; then the oldest files go.
        """
        now = int(self._clock()) & 0xFFFFFFFF
        for some in _slices(frames, _SLICE // 8):
            with self._lock, self._at_work():
                for frame in some if self._folder is not None else ():
                    for segment, _ in self._places([frame]):
                        self._keep_aside(segment.lane, frame, reason, now)
                self._finish_some(some, ASIDE)
        self._bury()
        self._tell()

    def _keep_aside(self, lane: Lane, frame: Frame, reason: str, now: int) -> None:
        reason = reason[:2000]
        for _ in range(2):
            keeper = self._aside.get(lane)
            try:
                if keeper is None:
                    need = START + 4 * HEAD + sum(map(len, frame.group)) + len(frame.record) + 4 * len(reason) + 32
                    size = max(self._segment_bytes, need)
                    if self._over_quota(size) or self._short_of_disk(size):
                        return
                    folder = self._aside_folder()
                    self._limit_aside(folder, size)
                    keeper = Segment.create(
                        folder, lane, size, next(self._numbers), self._clock(), mapped=False, suffix=".aside"
                    )
                    self._aside[lane] = keeper
                    self._made_since = _LOOK_AFTER
                if keeper.keep(frame.group, frame.record, reason, now):
                    return
            except (OSError, ValueError) as error:
                self._problem(errors.SPOOL_IN_MEMORY, f"{self._folder}/{_ASIDE}: {error}")
            old = self._aside.pop(lane, None)
            if old is not None:
                old.seal()
                self._made_since = _LOOK_AFTER

    def _limit_aside(self, folder: Path, size: int) -> None:
        """Delete the oldest files of what was set aside, so that one more has room."""
        ours = {keeper.path for keeper in list(self._aside.values())}
        files = sorted((path for path in folder.iterdir() if path not in ours), key=lambda path: path.lstat().st_mtime)
        taken = size + sum(path.lstat().st_size for path in folder.iterdir())
        for path in files:
            if taken <= self._max_bytes // 4:
                break
            taken -= path.lstat().st_size
            path.unlink()
            self._problem(errors.SPOOL_ASIDE_FULL, f"{folder}: more than a quarter of {self._max_bytes} bytes")

    def _finish(self, frames: Iterable[Frame], state: int) -> None:
        for some in _slices(frames, _SLICE):
            with self._lock, self._at_work():
                self._finish_some(some, state)
        self._bury()
        self._tell()

    def _finish_some(self, frames: Iterable[Frame], state: int) -> None:
        for segment, found in self._places(frames):
            finished = segment.finish(found)
            self._over[segment.lane] += len(finished)
            if segment.sealed and not segment.waiting:
                self._retire(segment)
                continue
            try:
                segment.mark(finished, state)
            except (OSError, ValueError):
                pass  # after a restart they are handed out again: rather twice than never

    def give_back(self, frames: Iterable[Frame]) -> None:
        """They were not delivered; they are handed out again, before what came after them."""
        for some in _slices(frames, _SLICE):
            with self._lock, self._at_work():
                for segment, found in self._places(some):
                    segment.give_back(found)
        self._tell()

    def _places(self, frames: Iterable[Frame]) -> list[tuple[Segment, list[int]]]:
        """Where frames stand, by segment."""
        places: dict[str, list[int]] = {}
        last, add = "", [0].append  # replaced before it is used
        for frame in frames:
            identity = frame.id[:16]
            if identity != last:
                last, add = identity, places.setdefault(identity, []).append
            try:
                add(int(frame.id[16:], 16))
            except ValueError:
                pass
        found = []
        for identity, of_segment in places.items():
            with contextlib.suppress(ValueError):
                if segment := self._by_identity.get(int(identity, 16)):
                    found.append((segment, of_segment))
        return found

    def accepted(self, lane: Lane) -> int:
        """Records that came to this process: appended, refused (which counts them as lost), or taken over from others.

        Whatever happened to them, they are either finished, lost or waiting; never does the sum differ.
        """
        with self._lock:
            over = self._over[lane] + (self._left[lane].records if lane in self._left else 0)
            pending = sum(entry[0] == lane for entry in list(self._pending))
            return over + pending + sum(segment.waiting for segment in self._lanes[lane])

    def disk_bytes(self) -> int:
        """Bytes of all files of the service, those of its other processes included."""
        return self._taken() if self._folder is not None else 0

    def waiting(self, lane: Lane) -> Waiting:
        """What waits in a lane; the age is that of the oldest record, or of its file where that was not read yet.

        After the end: what was left on disk.
        """
        with self._lock:
            if lane in self._left:
                return self._left[lane]
            segments = [segment for segment in self._lanes[lane] if segment.waiting > 0]
            age = self._clock() - min(segment.oldest for segment in segments) if segments else 0.0
            return Waiting(
                sum(segment.waiting for segment in segments),
                sum(segment.waiting_bytes for segment in segments),
                max(0.0, age),
            )

    # --- orphans ----------------------------------------------------------------------------------------------------

    def adopt(self) -> int:
        """Take over the folders of dead processes of this service; gives how many records of theirs wait.

        When it returns, what another thread was taking over is here, too: who is about to end sends it. (Unless that
        takes more than two seconds; then it is found on disk by the next start.)
        """
        if self._folder is None or (fcntl is None and msvcrt is None) or self._closed:
            return 0
        if not self._adopting.acquire(timeout=_ADOPTING_S):
            return 0
        try:
            return self._adopt(self._folder)
        finally:
            self._adopting.release()

    def _adopt(self, of_service: Path) -> int:
        # Nobody else knows these files, so the lock is only for what becomes ours.
        paths: list[Path] = []
        try:
            for folder in _folders(of_service):
                if folder.name != _ASIDE and folder != self._home:
                    paths += self._adopt_folder(folder)
        except OSError as error:
            self._problem(errors.SPOOL_IN_MEMORY, f"{of_service}: {error.strerror or error}")
        records = 0
        for path in paths:
            try:
                segment = Segment.open(path)
            except OSError as error:
                self._problem(errors.SPOOL_DAMAGED, f"{path.name}: {error.strerror or error}")
                continue
            with self._lock, self._at_work():
                records += self._welcome(segment)
            self._bury()
        self._tell()
        return records

    def _adopt_folder(self, folder: Path) -> list[Path]:
        """Move the files of a folder whose lock is free into ours."""
        lock = folder / _LOCK
        try:
            status = folder.lstat()
        except FileNotFoundError:
            return []  # somebody else was quicker
        if not _is_ours(status):
            return []
        if (folder.name.startswith(".") or _is_gone(lock)) and time.time() - status.st_mtime < _STALE_S:
            return []  # being made
        moved: list[Path] = []
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | FLAGS, 0o600)
        except OSError:
            return moved
        try:
            _hold(fd)
            # Another adopter may have been here between the two: then this lock has no name any more.
            if os.fstat(fd).st_ino != lock.stat().st_ino:
                return moved
            files = sorted(file for file in folder.iterdir() if file.suffix == ".seg")
            if files:
                with self._lock:
                    if self._closed:
                        return moved
                    home = self._make_home()
                moved.extend(file.rename(home / file.name) for file in files)
            _remove_rest(folder)
            if fcntl is None:
                # An open file cannot be deleted there; two who hold it one after the other do no harm.
                os.close(fd)
                fd = -1
            lock.unlink()
            folder.rmdir()
        except OSError:
            pass  # it lives, or the rest is left to the next one
        finally:
            if fd >= 0:
                os.close(fd)
        return moved

    def _welcome(self, segment: Segment) -> int:
        assert segment.path is not None
        if segment.identity in self._by_identity:
            segment.damage = segment.damage or []
            self._note(segment, "a copy of a file that is in use")
            with contextlib.suppress(OSError):
                segment.path.rename(self._aside_folder() / f"{os.urandom(4).hex()}-{segment.path.stem}.corrupt")
            return 0
        if segment.damage:
            size = sum(damage.end - damage.start for damage in segment.damage)
            stretches = len(segment.damage)
            reason = f"{stretches} damaged stretch{'es' if stretches > 1 else ''}, {size} bytes"
            # How many records a stretch held is not known: at least one, unless it is the file's header.
            lost = sum(damage.start >= START for damage in segment.damage)
            if self._note(segment, reason) and lost:
                self._lose(segment.lane, Loss.CORRUPT, lost)
            self._problem(errors.SPOOL_DAMAGED, f"{segment.path.name}: {reason}")
        segments = self._lanes[segment.lane]
        index = next((at for at, other in enumerate(segments) if other.created > segment.created), len(segments))
        self._add(segment, index)
        if not segment.waiting:
            self._retire(segment)
        return segment.waiting

    def _note(self, segment: Segment, reason: str) -> bool:
        """Write down what was found in a damaged file; False when it was written down before."""
        assert segment.path is not None
        note = {
            "file": segment.path.name,
            "lane": segment.lane,
            "reason": reason,
            "damaged": [list(damage) for damage in segment.damage],
            "whole_records": segment.records,
            "lost_records_at_least": sum(damage.start >= START for damage in segment.damage),
        }
        try:
            path = self._aside_folder() / f"{segment.path.stem}.json"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        except FileExistsError:
            return False
        except OSError:
            return True
        self._made_since = _LOOK_AFTER
        with os.fdopen(fd, "w", encoding="utf-8") as file, contextlib.suppress(OSError):
            json.dump(note, file, indent=2)
        return True

    # --- the folder -------------------------------------------------------------------------------------------------

    def _new_file(self, lane: Lane, size: int) -> Segment:
        for attempt in range(2):
            home = self._home or self._make_home()
            number, now = next(self._numbers), self._clock()
            try:
                if self._mapped:
                    try:
                        return Segment.create(home, lane, size, number, now, mapped=True)
                    except NotImplementedError as error:
                        self._mapped = False
                        self._problem(errors.SPOOL_WRITES, f"{self._folder}: {error}")
                return Segment.create(home, lane, size, number, now, mapped=False)
            except FileNotFoundError:  # deleted under us
                if attempt:
                    raise
                self._leave_home()
        raise AssertionError

    def _make_home(self) -> Path:
        """This process's folder, with its lock."""
        if self._home is not None and not _is_gone(self._home):
            return self._home
        self._leave_home()
        assert self._folder is not None
        _make_private(self._folder)
        name = f"{os.getpid()}-{os.urandom(4).hex()}"
        # It gets its name when it is locked: nobody may find it without. Where there is no flock, open files cannot be
        # renamed either; there it has its name from the beginning.
        begun = self._folder / (f".{name}" if fcntl is not None else name)
        begun.mkdir(0o700)
        fd = os.open(begun / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        with contextlib.suppress(OSError):  # no locks here: then nobody else gets one either, and none adopts
            _hold(fd)
        self._lock_fd = fd
        self._home = begun.rename(self._folder / name) if begun.name != name else begun
        return self._home

    def _leave_home(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd, self._home = -1, None

    def _aside_folder(self) -> Path:
        assert self._folder is not None
        folder = self._folder / _ASIDE
        _make_private(folder)
        return folder

    # --- what the process says of itself ----------------------------------------------------------------------------

    def publish(self, status: Mapping[str, object]) -> None:
        """Leave word about this process in its folder, as JSON, for whoever looks; nothing happens where there is none.

        Whoever reads it finds the whole of it, or that of before.
        """
        home = self._home
        if home is None or self._closed:
            return
        fresh = home / f".{_STATUS}"
        try:
            text = json.dumps(status, default=str)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FLAGS, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
            self._status_bytes = 2 * len(text)  # while it is replaced there are two
            fresh.replace(home / _STATUS)
        except (OSError, ValueError, TypeError, RecursionError):
            with contextlib.suppress(OSError):
                fresh.unlink()

    # --- time, fork, end --------------------------------------------------------------------------------------------

    def sync(self, *, now: bool = False) -> None:
        """Have the disk confirm what was written, if the last time is `fsync_s` ago. Call it often.

        It also does what appending then need not wait for: the next file is made, and full ones are closed. It notices
        when the folder was deleted under us, and brings to disk what had to wait in memory.

        Args:
            now: Whenever the last time was.
        """
        self._close_stopped()
        self._bury()
        if not self._closed and self._folder is not None:
            self._prepare()
        if not now and self._synced + self._fsync_s > time.monotonic():
            self._tell()
            return
        self._synced = time.monotonic()
        if self._made_since and self._folder is not None:
            self._look()
        with self._lock, self._at_work():
            for lane, segment in list(self._active.items()):
                if segment.path is not None and segment.detached:
                    self._stop(lane)
            if self._home is not None and _is_gone(self._home):
                self._rescue()
        self._close_stopped()
        self._bury()
        self._return_to_disk()
        fds: list[int] = []
        with self._lock, self._at_work():
            with contextlib.suppress(OSError):
                fds += [fd for segment in self._active.values() if (fd := segment.duplicate_fd()) >= 0]
            paths, self._unsynced = self._unsynced, []
            for path in paths:
                with contextlib.suppress(OSError):
                    fds.append(os.open(path, os.O_RDWR | FLAGS))
        # Without the lock: a disk may take its time. fsync also writes what was changed through a mapping, and does not
        # hold the GIL while it waits, as mmap.flush does.
        for fd in fds:
            with contextlib.suppress(OSError):
                os.fsync(fd)
            os.close(fd)
        self._tell()

    def _close_stopped(self) -> None:
        while self._stopped:
            with self._lock, self._at_work():
                if not self._stopped:
                    break
                release = self._close(self._stopped.popleft())
            release()

    def _rescue(self) -> None:
        """The folder was deleted: keep in memory what is not lost with it."""
        self._problem(errors.SPOOL_IN_MEMORY, f"{self._home}: the folder was deleted")
        for segment in list(self._segments()):
            if segment.path is not None and segment not in self._stopped and _is_gone(segment.path):
                try:
                    segment.move_to_memory()
                except OSError:
                    self._give_up(segment)

    def _prepare(self) -> None:
        """Make the next file of each lane that will soon need one."""
        for lane in LANES:
            with self._lock, self._at_work():
                active, spares = self._active.get(lane), self._spares[lane]
                changes = self._changes[lane] - self._changes_seen[lane]
                self._changes_seen[lane] += changes
                moment = time.monotonic()
                if changes:
                    self._changed[lane] = moment
                for spare in list(spares):
                    if spare.detached or moment - self._changed.get(lane, moment) > _SPARE_FOR_S:
                        spares.remove(spare)
                        self._buried.append(spare)
                wanted = min(_MAX_SPARES, max(changes, active is not None and active.used >= _SPARE_FROM)) - len(spares)
                if active is None or active.path is None or not self._mapped:
                    wanted = 0
                soon = changes > 1 or (active is not None and active.used >= _ROOM_FROM)
            for _ in range(wanted):
                if not self._make_spare(lane, active, soon=soon):
                    return

    def _make_spare(self, lane: Lane, active: Segment | None, *, soon: bool) -> bool:
        size, home = self._segment_bytes, self._home
        if home is None or self._short_of_disk(2 * size):
            return False
        if obstacle := self._over_quota(2 * size):
            # It must not be the reason why records go; but those that would go in a moment better go here than while
            # somebody waits for it.
            if not soon or self._when_full != "drop_oldest":
                return False
            with self._lock, self._at_work():
                made = self._make_room(urgent=False, on_disk=True)
            if made:
                self._problem(errors.SPOOL_FULL, obstacle)
            return made
        try:
            spare = Segment.create(home, lane, size, next(self._numbers), self._clock(), mapped=True)
        except (OSError, NotImplementedError):
            return False
        spare.touch()
        self._keep_spare(spare, home)
        self._bury()
        return True

    def _keep_spare(self, spare: Segment, home: Path | None) -> None:
        with self._lock:
            if self._closed or self._home != home or spare.lane not in self._active:
                self._buried.append(spare)
            else:
                self._spares[spare.lane].append(spare)

    def _return_to_disk(self) -> None:
        """Bring what waits in memory to disk, if that is possible again."""
        if self._folder is None or not any(segment.path is None for segment in self._segments()):
            return
        for segment in [segment for segment in list(self._segments()) if segment.path is None]:
            with self._lock, self._at_work():
                if segment.path is not None or segment.identity not in self._by_identity:
                    continue
                if self._over_quota(segment.size) or self._short_of_disk(segment.size):
                    return
                try:
                    path = segment.move_to_disk(self._make_home())
                except OSError:
                    return
                if self._active.get(segment.lane) is segment:
                    self._stop(segment.lane)
                self._unsynced.append(path)

    def after_fork(self) -> None:
        """In the child: what was written is the parent's. The child begins anew, with its first record.

        Called of itself where the system can fork; calling it again does no harm.
        """
        spares = itertools.chain.from_iterable(self._spares.values())
        for segment in [*self._segments(), *self._aside.values(), *spares, *self._buried]:
            segment.abandon()
        # The lock belongs to the open file that both share; it is free when both have closed it. So closing it here
        # leaves it to the parent, and the parent's end frees it.
        self._leave_home()
        closed = self._closed
        self._begin()
        self._closed = closed

    def close(self) -> None:
        """Leave what waits on disk, and release the lock. What waits in memory is lost now, and counted."""
        with self._lock, self._at_work():
            if self._closed:
                return
            self._return_to_disk()
            self._closed = True
            for segment in list(self._segments()):
                segment.seal()
                if segment.path is None and segment.waiting:
                    self._lose(segment.lane, Loss.NO_MEMORY, segment.waiting)
                if segment.path is None or not segment.waiting:
                    self._retire(segment)
                elif segment is self._active.get(segment.lane) or segment in self._stopped:
                    self._unsynced.append(segment.path)
            self._active.clear()
            self._stopped.clear()
            for spares in self._spares.values():
                self._buried += spares
                spares.clear()
            for keeper in self._aside.values():
                keeper.seal()
            self._aside.clear()
        self._bury()
        if self._fsync_s < math.inf:
            self.sync(now=True)
        with self._lock, self._at_work():
            home = self._home
            self._leave_home()
            if home is not None:
                _remove_rest(home)
                if not any(self._segments()):
                    with contextlib.suppress(OSError):
                        (home / _LOCK).unlink()
                        home.rmdir()
            self._left = {lane: self.waiting(lane) for lane in LANES}
            for segments in self._lanes.values():
                segments.clear()
            self._by_identity.clear()
        self._tell()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """While the lock is held: a signal handler that runs in between finds `_busy`, and leaves its record behind."""
        if self._busy:
            yield
            return
        self._busy = True
        try:
            yield
        finally:
            while self._pending:
                lane, encoded, urgent, now = self._pending.popleft()
                self._append_elsewhere(lane, encoded, urgent, now)
            self._busy = False

    def _lose(self, lane: Lane, loss: Loss, records: int) -> None:
        """Count records that are in no segment (any more), and say so when the lock is free."""
        self._over[lane] += records
        self._losses.append((lane, loss, records))

    def _problem(self, problem: Problem, detail: str) -> None:
        """Say it when the lock is free; each problem once while the process lives, as its numbers change."""
        if problem.code not in self._said:
            self._said.add(problem.code)
            self._problems.append((problem, detail))

    def _tell(self) -> None:
        if self._busy:
            return
        while self._losses:
            try:
                lane, loss, records = self._losses.popleft()
            except IndexError:  # another thread had it
                break
            self._lost(lane, loss, records)
        while self._problems:
            try:
                problem, detail = self._problems.popleft()
            except IndexError:
                break
            self._warn(problem, detail)


def _is_gone(path: Path) -> bool:
    """Whether there is certainly nothing; whoever may not look does not know."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _slices(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Some at a time; in between, others may have the GIL."""
    frames = list(frames)
    for start in range(0, len(frames), size):
        if start:
            time.sleep(0)
        yield frames[start : start + size]


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, without links; [] where there is none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _remove_rest(folder: Path) -> None:
    """Delete what a process leaves beside its records."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if path.name in {_STATUS, f".{_STATUS}"} or path.suffix == SPARE:
                path.unlink()


def _hold(fd: int) -> None:
    """Lock an open file, until it is closed or the process ends.

    Raises:
        OSError: Another has it, or there are no locks here.
    """
    if fcntl is not None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)


def _is_ours(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner may use.

    Raises:
        OSError: It cannot be made, or what is there is a link, no folder, or somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is a symbolic link or no folder", str(folder))
    if not _is_ours(status):
        raise PermissionError(errno.EPERM, "belongs to another user", str(folder))
    if status.st_mode & 0o077:
        folder.chmod(0o700)


_spools: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()


def _after_fork() -> None:
    for spool in list(_spools):
        spool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
