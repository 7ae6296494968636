"""One file of the spool: frames, one after the other, in a space that was reserved before the first was written.

    file      header, padded to 64 bytes; then frames, each at a multiple of 4; then zeros
    header    "weirspol", u8 version (1), u8 lane, 6 bytes 0, u64 identity, f64 created (Unix time), u32 checksum
    frame     u32 size            of the frame without padding; 0: no frame here (yet). Written last.
              u32 checksum
              u32 time            when it was written, Unix time in seconds
              u8  state           0x00 waiting, 0xFF delivered, 0x0F set aside; changed in place
              u8  kind            1 record, 2 urgent record, 3 group, 4 set-aside record
              u16 group           its number in this file
              u32 mark            "\\xf5WR\\n", to find the next frame beyond a damaged one
              payload             a record; a group: u32 length of the resource, resource, scope;
                                  a set-aside record: u32 length of the reason, reason, record
    All numbers are little-endian. The name is `<lane>-<number>-<identity in hex>.seg` (or `.aside`, `.corrupt`).

Invariants:

- A frame is visible only by the last write to it, that of its size. A process killed between any two instructions
  leaves whole frames and, at most, one place without a size.
- The checksum is CRC-32 of the payload; it starts from identity, place, size, time, kind and group. So a frame is whole
  only where it was written: neither a copy elsewhere, nor a record that looks like a frame, nor an old file passes.
- The state stands outside the checksum, and its values differ by four bits: one flipped bit changes no meaning, and
  what is doubtful counts as waiting (rather twice than never).
- A group's frame stands before the records that refer to it. Damage to it takes its records in this file along.
- Frames never move and never change but for their state, so identity and place name a record as long as the file lives.
- Mapped memory is written only where blocks were reserved. Everything else goes through system calls, which answer with
  an error where a mapping would end the process (SIGBUS). Not covered: another program that shortens the file, and file
  systems that copy on write and run full in spite of the reservation.
"""

from __future__ import annotations

import errno
import heapq
import mmap
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from otelweir.pipeline.spool.otlp import Group
from otelweir.signals import LANES, Lane

VERSION: Final = 1
WAITING: Final = 0x00
DELIVERED: Final = 0xFF
ASIDE: Final = 0x0F

_RECORD: Final = 1
_URGENT: Final = 2
_GROUP: Final = 3
_SET_ASIDE: Final = 4

START: Final = 64
"""Where the first frame stands."""

_MAGIC: Final = b"weirspol"
_MARK: Final = b"\xf5WR\n"
_MARK_WORD: Final = int.from_bytes(_MARK, "little")
_FILE: Final = struct.Struct("<8sBB6xQd")
_U32: Final = struct.Struct("<I")
_TAIL: Final = struct.Struct("<BBH4s")
_BODY: Final = struct.Struct("<III4s")
_HEAD: Final = struct.Struct("<IIIBBH4s")
HEAD: Final = _HEAD.size
_AT_STATE: Final = 12
_AT_MARK: Final = 16
SPARE: Final = ".spare"
"""Ends the name of a file that holds nothing."""

_ZEROS: Final = bytes(2**16)
_CLOSE: Final = 4096
"""Bytes from one frame to the next that are not too many to write between two marks."""

_A_WHILE: Final = 256
"""Frames in about half a millisecond."""

_SEALED: Final = 1 << 62
"""The end of a segment that takes no more: beyond every limit."""

_WORDS: Final = struct.Struct("<IIIII")
_pack_u32: Final = _U32.pack
_unpack_words: Final = _WORDS.unpack_from
_crc32: Final = zlib.crc32
_Tails: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Of a group's records and urgent records: the word of state, kind and group, and what their checksums start from."""


class Found(NamedTuple):
    """A whole frame."""

    at: int
    size: int
    time: int
    state: int
    kind: int
    group: int
    payload: bytes


class Damage(NamedTuple):
    """A stretch between whole frames that is none."""

    start: int
    end: int


class Kept(NamedTuple):
    """A record that was set aside."""

    lane: Lane
    reason: str
    time: int
    group: Group
    record: bytes


def _tail(kind: int, number: int) -> int:
    """State, kind and group of a frame that waits, as one word."""
    return WAITING | kind << 8 | number << 16


def _salt(seed: int, kind: int, number: int) -> int:
    return _crc32(_TAIL.pack(WAITING, kind, number, _MARK), seed)


def _seed(identity: int) -> int:
    return _crc32(identity.to_bytes(8, "little"))


def _meaning(state: int) -> int:
    """The state that a state byte, with a bit flipped or without, stands for."""
    ones = state.bit_count()
    return DELIVERED if ones >= 7 else ASIDE if 3 <= ones <= 5 and (state ^ ASIDE).bit_count() <= 1 else WAITING


_Data: TypeAlias = bytes | bytearray | mmap.mmap


def frame_at(data: _Data, at: int, seed: int) -> Found | None:
    """The frame that stands at a place; None where there is no whole one."""
    if at < START or at + HEAD > len(data):
        return None
    size, crc, time, state, kind, number, mark = _HEAD.unpack_from(data, at)
    if mark != _MARK or size < HEAD or at + size > len(data) or not _RECORD <= kind <= _SET_ASIDE:
        return None
    payload = bytes(data[at + HEAD : at + size])
    if crc != _crc32(payload, _salt(seed, kind, number) ^ at ^ size ^ time):
        return None
    return Found(at, size, time, _meaning(state), kind, number, payload)


def frames(data: _Data, seed: int, at: int = START) -> Iterator[Found | Damage]:
    """Whole frames in their order, and the stretches between them that are none.

    What follows the last whole frame is damage only if a size stands there: without one nothing was promised.
    """
    while True:
        while found := frame_at(data, at, seed):
            yield found
            at = _padded(at + found.size)
        beyond = _next_whole(data, at, seed)
        if beyond is None:
            break
        yield Damage(at, beyond)
        at = beyond
    if at + 4 <= len(data) and data[at : at + 4] != bytes(4):
        yield Damage(at, len(data))


def _next_whole(data: _Data, at: int, seed: int) -> int | None:
    """Where the next whole frame stands, at a place or beyond it."""
    mark = data.find(_MARK, at + _AT_MARK)
    while mark >= 0:
        if mark % 4 == 0 and frame_at(data, mark - _AT_MARK, seed):
            return mark - _AT_MARK
        mark = data.find(_MARK, mark + 1)
    return None


def _runs(places: list[int]) -> Iterator[list[int]]:
    """Places by neighbourhood: those that are close enough to be written together."""
    start = 0
    for index in range(1, len(places)):
        if places[index] - places[index - 1] > _CLOSE:
            yield places[start:index]
            start = index
    if places:
        yield places[start:]


def _padded(size: int) -> int:
    return (size + 3) & -4


class Segment:
    """A file of frames, or a piece of memory with the same content.

    Appending is for any thread and for signal handlers; everything else is for whoever holds the spool's lock.

    Attributes:
        path: The file; None in memory.
        lane: The signal of its records.
        identity: Random, 64 bits.
        created: Unix time; segments of a lane are read in this order.
        end: Where the next frame goes; beyond every limit once it is sealed.
        records: How many were written (or, when it was opened, found whole), without those found missing later.
        urgent: How many of them are urgent; -1 when unknown.
        finished: How many of them are delivered, set aside or dropped.
        damage: What was wrong with the file when it was opened.
        adopted: Whether another process wrote it.
    """

    __slots__ = (
        "_back",
        "_fd",
        "_introduced",
        "_known",
        "_limit",
        "_loaded",
        "_numbers",
        "_out",
        "_read",
        "_seed",
        "_seen",
        "_stop",
        "_tails",
        "_words",
        "adopted",
        "buffer",
        "bytes_finished",
        "created",
        "damage",
        "end",
        "finished",
        "group_bytes",
        "identity",
        "lane",
        "number",
        "path",
        "records",
        "urgent",
    )

    def __init__(self, path: Path | None, lane: Lane, number: int, identity: int, created: float) -> None:
        self.path = path
        self.lane: Lane = lane
        self.number = number
        self.identity = identity
        self.created = created
        self.buffer: mmap.mmap | bytearray | None = None
        self._words: Any = None
        self._fd = -1
        self.end = START
        self._limit = 0
        self._stop = -1
        self.records = self.urgent = self.finished = self.bytes_finished = self.group_bytes = 0
        self.damage: list[Damage] = []
        self.adopted = False
        self._seed = _seed(identity)
        self._numbers = count()
        self._tails: dict[Group, _Tails] = {}
        self._introduced: dict[int, Group] = {}
        self._known: dict[int, tuple[Group, int]] = {}
        self._read = START
        self._seen = 0
        self._back: list[int] = []
        self._out: dict[int, int] = {}  # the size of each
        self._loaded: bytearray | None = None

    def __repr__(self) -> str:
        where = self.path.name if self.path else "in memory"
        return f"<Segment {where}: {self.waiting} waiting of {self.records}, {len(self._out)} out>"

    # --- making one -------------------------------------------------------------------------------------------------

    @classmethod
    def in_memory(cls, lane: Lane, size: int, number: int, created: float) -> Segment:
        segment = _Plain(None, lane, number, int.from_bytes(os.urandom(8)), created)
        segment.buffer = bytearray(_padded(size))
        segment._words = memoryview(segment.buffer).cast("I")
        segment._limit = size
        return segment

    @classmethod
    def create(
        cls,
        folder: Path,
        lane: Lane,
        size: int,
        number: int,
        created: float,
        *,
        mapped: bool,
        suffix: str = ".seg",
    ) -> Segment:
        """A new file.

        Args:
            mapped: Reserve the space and map it; otherwise every frame is written with system calls.
            suffix: Of the file's name.

        Raises:
            NotImplementedError: The space cannot be reserved or mapped here; nothing is left behind.
            OSError: The file cannot be made.
        """
        identity = int.from_bytes(os.urandom(8))
        path = _named(folder, lane, number, identity, suffix)
        segment = (_Plain if mapped else _Locked)(path, lane, number, identity, created)
        size = _padded(size)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        try:
            if mapped:
                _reserve(fd, size)
                try:
                    segment.buffer = mmap.mmap(fd, size)
                except (OSError, ValueError) as error:
                    raise NotImplementedError(f"the file cannot be mapped: {error}") from error
                segment.buffer[:START] = segment._header()
                segment._words = memoryview(segment.buffer).cast("I")
            else:
                _write_at(fd, segment._header(), 0)
        except BaseException:
            segment.unmap()
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        segment._fd = fd
        segment._limit = size
        return segment

    def touch(self) -> None:
        """Have the pages of a mapping that holds no frame yet, so that appending waits for none."""
        if isinstance(self.buffer, mmap.mmap):
            for at in range(0, len(self.buffer) - mmap.PAGESIZE, mmap.PAGESIZE):
                self.buffer[at + mmap.PAGESIZE] = 0

    def reuse(self, number: int) -> Segment | None:
        """A new file in place of a mapped one that nobody needs any more; None where that cannot be.

        It has its pages already: getting new ones costs more than all else about a file. Until it is empty it has a
        name that says so.
        """
        mapping, words, path, size = self.buffer, self._words, self.path, self._limit
        if path is None or not isinstance(mapping, mmap.mmap) or self._fd < 0 or self.damage or self.detached:
            return None
        identity = int.from_bytes(os.urandom(8))
        fresh = _Plain(_named(path.parent, self.lane, number, identity), self.lane, number, identity, self.created)
        assert fresh.path is not None
        spare = fresh.path.with_suffix(SPARE)
        try:
            path.rename(spare)
            self.path = spare
            used = _padded(self._stop)
            for start in range(0, used, len(_ZEROS)):
                mapping[start : min(used, start + len(_ZEROS))] = _ZEROS[: used - start]
            mapping[:START] = fresh._header()
            spare.rename(fresh.path)
            self.path = None  # its file is the fresh one's
        except OSError:
            return None
        fresh.buffer, fresh._words, fresh._fd, fresh._limit = mapping, words, self._fd, size
        self.buffer, self._words, self._fd = None, None, -1
        return fresh

    def begin(self, created: float) -> None:
        """Take a file into use that was made earlier."""
        self.created = created
        if self.buffer is not None:
            self.buffer[:START] = self._header()

    @classmethod
    def open(cls, path: Path) -> Segment:
        """A file that an earlier process left, sealed. Damage is found and skipped, never raised.

        Raises:
            OSError: The file cannot be read.
        """
        data = _read_file(path)
        named_lane, number, named_identity = _from_name(path.name)
        lane, identity, created = named_lane, named_identity, 0.0
        whole = len(data) >= START and data[_FILE.size : _FILE.size + 4] == _pack_u32(_crc32(data[: _FILE.size]))
        damage: list[Damage] = []
        if whole:
            magic, version, lane_number, identity, created = _FILE.unpack_from(data)
            whole = magic == _MAGIC and version == VERSION and lane_number < len(LANES)
            lane = LANES[lane_number] if whole else named_lane
        # A process that was killed while it made the file promised nothing.
        if not whole and (0 < len(data) < START or data[START:].strip(b"\0")):
            damage.append(Damage(0, min(START, len(data))))
        segment = Segment(path, lane, number, identity, created)
        segment.damage = damage
        segment.adopted = True
        segment._limit = len(data)
        last = segment._scan(data)
        segment._stop = last
        segment.end = _SEALED
        return segment

    def _scan(self, data: bytes) -> int:
        """Count what a file holds; gives where its last whole frame ends."""
        at, whole, known, view = START, len(data), self._known, memoryview(data)
        records = urgent = frames_ = 0
        while at + HEAD <= whole:
            frames_ += 1
            if not frames_ % _A_WHILE:
                time.sleep(0)  # others may want the GIL
            # What is seen most, records that wait, without the detour of the general case.
            size, crc, when, tail, mark = _unpack_words(data, at)
            of = known.get(tail)
            if (
                of
                and mark == _MARK_WORD
                and HEAD <= size <= whole - at
                and crc == _crc32(view[at + HEAD : at + size], of[1] ^ at ^ size ^ when)
            ):
                records += 1
                urgent += tail >> 8 & 0xFF == _URGENT
                at += size + 3 & -4
                continue
            found = frame_at(data, at, self._seed)
            if found is None:
                break
            at = self._count(found)
        self.records += records
        self.urgent += urgent
        last = at
        for rest in frames(data, self._seed, at):
            if isinstance(rest, Damage):
                self.damage.append(rest)
            else:
                last = self._count(rest)
        return last

    def _count(self, found: Found) -> int:
        """Count a frame that was found; gives where it ends."""
        end = _padded(found.at + found.size)
        if not self.created:
            self.created = float(found.time)
        if found.kind == _GROUP:
            self.group_bytes += end - found.at
            self._learn(found)
        elif found.group not in self._introduced:
            self.damage.append(Damage(found.at, end))
            self.group_bytes += end - found.at
        else:
            self.records += 1
            self.urgent += found.kind == _URGENT
            if found.state != WAITING:
                self.finished += 1
                self.bytes_finished += end - found.at
        return end

    def _header(self) -> bytes:
        head = _FILE.pack(_MAGIC, VERSION, LANES.index(self.lane), self.identity, self.created)
        return (head + _pack_u32(_crc32(head))).ljust(START, b"\0")

    # --- appending --------------------------------------------------------------------------------------------------

    def append(self, group: Group, record: bytes, urgent: bool, time: int) -> bool:
        """Write a record; False when there is no room.

        No lock: between the comparison below and the return there is no call and no jump backwards, and only there does
        the interpreter let another thread or a signal handler run (it holds the GIL throughout: copying into a mapping
        releases nothing, and the slice is made before, because making one may collect garbage). So nobody sees, and no
        kill leaves, a place that was taken and not filled. What came between the two readings of `end` shows in it, and
        the checksum, which knows the place, is made anew. Where that does not hold, `_Locked` stands in.
        """
        tails = self._tails.get(group) or self._introduce(group, time)
        if tails is None:
            return False
        tail, salt = tails[urgent]
        size = len(record) + HEAD
        salt ^= size ^ time
        while True:
            start = self.end
            end = start + (size + 3 & -4)
            if end > self._limit:
                return False
            checksum = _crc32(record, salt ^ start)
            place = slice(start + HEAD, start + size)
            at = start >> 2
            words = self._words
            buffer = self.buffer
            if self.end == start:
                self.end = end
                self.records += 1
                self.urgent += urgent
                buffer[place] = record  # type: ignore[index]
                words[at + 1] = checksum
                words[at + 2] = time
                words[at + 3] = tail
                words[at + 4] = _MARK_WORD
                words[at] = size
                return True

    def _introduce(self, group: Group, time: int) -> _Tails | None:
        """Write a group, and give what its records' frames need. Twice, by two threads at once, does no harm."""
        number = next(self._numbers)
        payload = _pack_u32(len(group.resource)) + group.resource + group.scope
        if number > 0xFFFF or not self._put(_GROUP, number, payload, time):
            return None
        self._know(number, group)
        plain, urgent = _tail(_RECORD, number), _tail(_URGENT, number)
        tails = ((plain, self._known[plain][1]), (urgent, self._known[urgent][1]))
        self._tails[group] = tails
        return tails

    def _put(self, kind: int, number: int, payload: bytes, time: int) -> bool:
        """Write a frame; False when there is no room. As `append`, for whatever comes seldom."""
        tail, size = _tail(kind, number), len(payload) + HEAD
        salt = _salt(self._seed, kind, number) ^ size ^ time
        padded = _padded(size)
        word = _pack_u32(size)
        while True:
            start = self.end
            end = start + padded
            if end > self._limit:
                return False
            body = _BODY.pack(_crc32(payload, salt ^ start), time, tail, _MARK) + payload
            place, first = slice(start + 4, start + size), slice(start, start + 4)
            buffer = self.buffer
            if self.end == start:
                self.end = end
                self.group_bytes += padded if kind == _GROUP else 0
                if buffer is not None:
                    buffer[place] = body
                    buffer[first] = word
                break
        if buffer is None:
            _write_at(self._fd, body, start + 4)
            _write_at(self._fd, word, start)
        return True

    def keep(self, group: Group, record: bytes, reason: str, time: int) -> bool:
        """Write a record that was set aside, with its reason."""
        if (self._tails.get(group) or self._introduce(group, time)) is None:
            return False
        number = next(number for number, known in self._introduced.items() if known == group)
        why = reason.encode("utf-8", "backslashreplace")
        if not self._put(_SET_ASIDE, number, _pack_u32(len(why)) + why + record, time):
            return False
        self.records += 1
        return True

    def stop(self) -> None:
        """Take no more."""
        if self._stop < 0:
            # Nothing is called between these two, so an append is either before them or sees the segment full.
            stop = self.end
            self.end = _SEALED
            self._stop = stop

    def seal(self) -> None:
        """Take no more, give back the room that is left, and let go of mapping and descriptor."""
        self.detach()()

    def detach(self) -> Callable[[], None]:
        """As `seal`, but what takes time is left to the caller, who needs no lock for it."""
        self.stop()
        words, mapping, fd, stop = self._words, None, self._fd, self._stop
        self._words, self._fd = None, -1
        if isinstance(self.buffer, mmap.mmap):
            mapping, self.buffer = self.buffer, None
        elif self.buffer is not None:
            if words is not None:
                words.release()
            del self.buffer[stop:]
            self._limit = stop

        def release() -> None:
            if mapping is not None:
                words.release()
                mapping.close()
            if fd >= 0:
                try:
                    os.ftruncate(fd, stop)
                    self._limit = stop
                except OSError:
                    pass  # it only stays larger
                os.close(fd)

        return release

    def unmap(self) -> None:
        """Let go of the memory of a file that takes no more."""
        words, self._words = self._words, None
        if words is not None:
            words.release()
        if isinstance(self.buffer, mmap.mmap):
            mapping, self.buffer = self.buffer, None
            mapping.close()

    def move_to_memory(self) -> None:
        """Seal a file that was deleted under us, and keep what it holds, as far as mapping or descriptor have it.

        Raises:
            OSError: It cannot be read any more.
        """
        self.stop()
        if self.buffer is not None:
            data = self.buffer[: self._stop]
        elif self._loaded is not None:
            data = self._loaded
        elif self._fd >= 0:
            data = _read_at(self._fd, self._stop, 0)
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        self.seal()
        self.path, self.buffer, self._loaded = None, bytearray(data), None
        self._limit = len(self.buffer)

    def move_to_disk(self, folder: Path) -> Path:
        """Seal what is kept in memory and keep it in a file; names and places of its records stay.

        Raises:
            OSError: There is no room, or no folder; then nothing has changed.
        """
        path = _named(folder, self.lane, self.number, self.identity)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        try:
            # Sealed only when there is room for it.
            _write_at(fd, bytes(self._limit), 0)
            self.seal()
            assert self.buffer is not None
            self.buffer[:START] = self._header()
            _write_at(fd, bytes(self.buffer), 0)
            os.ftruncate(fd, self._stop)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        os.close(fd)
        self.path, self.buffer = path, None
        return path

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self.end = _SEALED
        self.unmap()
        self.buffer = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def duplicate_fd(self) -> int:
        """A descriptor of its own for a sync without the spool's lock; -1 when there is none."""
        return os.dup(self._fd) if self._fd >= 0 else -1

    @property
    def detached(self) -> bool:
        """Whether the file was deleted by somebody while we write to it."""
        if self._fd < 0:
            return False
        try:
            return os.fstat(self._fd).st_nlink == 0
        except OSError:
            return True

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def sealed(self) -> bool:
        return self._stop >= 0

    @property
    def size(self) -> int:
        """Bytes it takes."""
        return self._limit

    @property
    def used(self) -> float:
        """How full it is, from 0 to 1."""
        return min(1.0, (self.end - START) / max(1, self._limit - START))

    @property
    def waiting(self) -> int:
        return self.records - self.finished

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the frames that wait."""
        end = self._stop if self.sealed else self.end
        return max(0, end - START - self.group_bytes - self.bytes_finished) if self.waiting else 0

    @property
    def out(self) -> int:
        return len(self._out)

    @property
    def oldest(self) -> float:
        """Unix time of the oldest record that waits, as exactly as is known without reading a file."""
        data = self.buffer if self.buffer is not None else self._loaded
        if data is None:
            return self.created
        at = min([self._read, *self._back[:1], *self._out])
        if at + HEAD > len(data) or not _U32.unpack_from(data, at)[0]:
            return self.created
        return float(_U32.unpack_from(data, at + 8)[0])

    def take(self, max_bytes: int, max_records: int) -> list[tuple[int, Group, bytes]]:
        """The oldest records that wait and are not out, with their places; the first whatever its size.

        Raises:
            OSError: The file cannot be read.
        """
        taken: list[tuple[int, Group, bytes]] = []
        left = max_bytes
        stop = self._stop if self.sealed else self.end  # before the data: what comes later is for the next time
        if not self._back and self._read >= stop:
            return taken
        data = self._data()
        while self._back and len(taken) < max_records:
            found = frame_at(data, self._back[0], self._seed)
            if found is None:
                heapq.heappop(self._back)
                self._seen -= 1  # found missing at the end
                continue
            if taken and len(found.payload) > left:
                return taken
            heapq.heappop(self._back)
            left -= len(found.payload)
            self._hand_out(found, taken)
        whole, out, known = len(data), self._out, self._known
        while (at := self._read) < stop and len(taken) < max_records:
            # What is seen most, records that wait, without the detour of the general case below.
            if at + HEAD <= whole:
                size, crc, when, tail, mark = _unpack_words(data, at)
                if mark == _MARK_WORD and HEAD <= size <= whole - at and (of := known.get(tail)):
                    record = bytes(data[at + HEAD : at + size])
                    if crc == _crc32(record, of[1] ^ at ^ size ^ when):
                        if taken and len(record) > left:
                            return taken
                        left -= len(record)
                        out[at] = size + 3 & -4
                        taken.append((at, of[0], record))
                        self._seen += 1
                        self._read = at + (size + 3 & -4)
                        continue
            found = frame_at(data, at, self._seed)
            if found is None:
                if not self.sealed and not any(data[at : at + 4]):
                    break  # being written by another thread
                following = _next_whole(data, self._read, self._seed)
                self._read = stop if following is None or following > stop else following
                continue
            if found.kind in (_RECORD, _URGENT):
                if found.group not in self._introduced:
                    self._read = _padded(found.at + found.size)
                    continue
                if found.state == WAITING:
                    if taken and len(found.payload) > left:
                        return taken
                    left -= len(found.payload)
                    self._hand_out(found, taken)
                self._seen += 1
            elif found.kind == _GROUP:
                self._learn(found)
            self._read = _padded(found.at + found.size)
        return taken

    def _hand_out(self, found: Found, taken: list[tuple[int, Group, bytes]]) -> None:
        self._out[found.at] = _padded(found.size)
        taken.append((found.at, self._introduced[found.group], found.payload))

    def _know(self, number: int, group: Group) -> None:
        """A group was read or written: how its records' frames look."""
        self._introduced[number] = group
        for kind in (_RECORD, _URGENT):
            self._known[_tail(kind, number)] = (group, _salt(self._seed, kind, number))

    def missing(self) -> int:
        """How many records were written here and cannot be read again; they count as written no more."""
        if not self.sealed or self._read < self._stop:
            return 0
        missing, self.records = self.records - self._seen, min(self.records, self._seen)
        if not self._back:
            self._loaded = None
        return max(0, missing)

    def examine(self) -> None:
        """Find the damage in a file in which records are missing."""
        try:
            self.damage = [found for found in frames(self._data(), self._seed) if isinstance(found, Damage)]
        except OSError:
            pass
        self.damage = self.damage or [Damage(START, self._stop)]

    def finish(self, places: Iterable[int]) -> list[int]:
        """Count records that are out as finished; gives those that were."""
        finished = []
        for at in places:
            size = self._out.pop(at, 0)
            if size:
                self.bytes_finished += size
                finished.append(at)
        self.finished += len(finished)
        return finished

    def mark(self, places: Iterable[int], state: int) -> None:
        """Write the state of finished records, so that it is known after a restart.

        Raises:
            OSError: The file cannot be written.
        """
        data = self.buffer if self.buffer is not None else self._loaded
        if data is not None:
            for at in places:
                data[at + _AT_STATE] = state
        if self.buffer is not None:
            return
        assert self.path is not None
        fd = self._fd if self._fd >= 0 else os.open(self.path, os.O_RDWR | FLAGS)
        try:
            whole = os.fstat(fd).st_size if self.sealed else 0
            for run in _runs(sorted(places)):
                first, beyond = run[0] + _AT_STATE, run[-1] + _AT_STATE + 1
                if beyond <= whole:
                    # Nobody else writes to a sealed file; and each system call may cost the interpreter's lock.
                    states = bytearray(_read_at(fd, beyond - first, first))
                    for at in run:
                        states[at + _AT_STATE - first] = state
                    _write_at(fd, bytes(states), first)
                else:
                    for at in run:
                        _write_at(fd, bytes((state,)), at + _AT_STATE)
        finally:
            if fd != self._fd:
                os.close(fd)

    def give_back(self, places: Iterable[int]) -> None:
        for at in places:
            if self._out.pop(at, 0):
                heapq.heappush(self._back, at)

    def urgent_ones(self, max_bytes: int) -> list[tuple[Group, bytes, int]] | None:
        """The urgent records that wait, with their times, in their order; None when they are larger than so much.

        Raises:
            OSError: The file cannot be read.
        """
        data = self._data()
        places: list[Found] = []
        size = 0
        for number in self._introduced:
            # Looking for them is much quicker than going through all frames: somebody waits for the room.
            needle = _TAIL.pack(WAITING, _URGENT, number, _MARK)
            at = data.find(needle)
            while at >= 0:
                found = frame_at(data, at - _AT_STATE, self._seed) if at % 4 == 0 else None
                if found is not None:
                    places.append(found)
                    size += found.size
                    if size > max_bytes:
                        return None
                at = data.find(needle, at + 1)
        self._loaded = self._loaded if self._out else None
        return [(self._introduced[found.group], found.payload, found.time) for found in sorted(places)]

    def _learn(self, found: Found) -> None:
        if found.group not in self._introduced and len(found.payload) >= 4:
            length = 4 + int(_U32.unpack_from(found.payload)[0])
            self._know(found.group, Group(found.payload[4:length], found.payload[length:]))

    def _data(self) -> bytes | bytearray | mmap.mmap:
        if self.buffer is not None:
            return self.buffer
        if not self.sealed:
            return _read_file_at(self._fd)
        if self._loaded is None:
            assert self.path is not None
            self._loaded = bytearray(_read_file(self.path))
        return self._loaded


class _Locked(Segment):
    """A segment whose appending threads are kept apart by a lock.

    For frames that are written with system calls: these release the GIL, and nobody may close the file under a write.
    And for interpreters without a GIL, and machines whose words are not little-endian. The lock is reentrant, for
    signal handlers; such a one finds the place of the interrupted frame taken.
    """

    __slots__ = ("_lock",)

    def __init__(self, path: Path | None, lane: Lane, number: int, identity: int, created: float) -> None:
        super().__init__(path, lane, number, identity, created)
        self._lock = threading.RLock()

    def append(self, group: Group, record: bytes, urgent: bool, time: int) -> bool:
        """As above.

        Raises:
            OSError: The record could not be written; its place stays empty, and no other comes after it.
        """
        with self._lock:
            try:
                tails = self._tails.get(group) or self._introduce(group, time)
                if tails is None or not self._put(_URGENT if urgent else _RECORD, tails[0][0] >> 16, record, time):
                    return False
            except OSError:
                self.stop()  # readers wait at an empty place until the file takes no more
                raise
            self.records += 1
            self.urgent += urgent
            return True

    def stop(self) -> None:
        with self._lock:
            super().stop()


_Plain: type[Segment] = (
    Segment if sys.byteorder == "little" and getattr(sys, "_is_gil_enabled", lambda: True)() else _Locked
)


def set_aside_in(path: Path) -> list[Kept]:
    """What a `.aside` file holds.

    Raises:
        OSError: The file cannot be read.
    """
    data = _read_file(path)
    lane, _, identity = _from_name(path.name)
    groups: dict[int, Group] = {}
    kept: list[Kept] = []
    for found in frames(data, _seed(identity)):
        if isinstance(found, Damage) or len(found.payload) < 4:
            continue
        length = 4 + int(_U32.unpack_from(found.payload)[0])
        first, rest = found.payload[4:length], found.payload[length:]
        if found.kind == _GROUP:
            groups[found.group] = Group(first, rest)
        elif found.kind == _SET_ASIDE and found.group in groups:
            kept.append(Kept(lane, first.decode("utf-8", "replace"), found.time, groups[found.group], rest))
    return kept


def _named(folder: Path, lane: Lane, number: int, identity: int, suffix: str = ".seg") -> Path:
    return folder / f"{lane}-{number:08d}-{identity:016x}{suffix}"


def _from_name(name: str) -> tuple[Lane, int, int]:
    """Lane, number and identity; the first lane and zeros where the name is not one of ours."""
    parts = name.partition(".")[0].split("-")
    lane: Lane = next((lane for lane in LANES if lane == parts[0]), LANES[0])
    try:
        return lane, int(parts[1]), int(parts[2], 16) & 0xFFFFFFFFFFFFFFFF
    except (ValueError, IndexError):
        return lane, 0, 0


# --- the disk -------------------------------------------------------------------------------------------------------

FLAGS: Final[int] = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""With which every file is opened."""


def _reserve(fd: int, size: int) -> None:
    """Have the blocks of a file, so that writing to its mapping cannot fail."""
    if not hasattr(os, "posix_fallocate"):
        raise NotImplementedError("the system has no posix_fallocate")
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
            raise NotImplementedError(f"the file system reserves no space: {error.strerror}") from error
        raise


def _write_at(fd: int, data: bytes, at: int) -> None:
    while data:
        if hasattr(os, "pwrite"):
            written = os.pwrite(fd, data, at)
        else:
            with _seeking:
                os.lseek(fd, at, os.SEEK_SET)
                written = os.write(fd, data)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data, at = data[written:], at + written


def _read_at(fd: int, size: int, at: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, size, at).ljust(size, b"\0")
    with _seeking:
        os.lseek(fd, at, os.SEEK_SET)
        return os.read(fd, size).ljust(size, b"\0")


_seeking: Final = threading.RLock()


def _read_file_at(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    return _read_at(fd, size, 0)


def _read_file(path: Path) -> bytes:
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    fd = os.open(path, os.O_RDONLY | FLAGS | getattr(os, "O_NONBLOCK", 0))
    try:
        return _read_file_at(fd)
    finally:
        os.close(fd)
