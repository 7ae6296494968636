"""Spools as they lie on disk, for whoever looks from outside: read, and never changed.

Nothing here disturbs a running process. No file is written, and one lock is taken, for the moment of a test: whether a
process lives is told by whether its folder's `lock` can be had, *shared*, at once. That test

- cannot keep a process from its own lock: it takes that before its folder gets the name by which it is found here;
- can make somebody who adopts at this very moment pass over the folder once; it is found free again the next time;
- is not in the way of others who look, because the lock is shared.

A running process goes on while its files are read: what one reading finds damaged in them counts only when the next one
finds it, too. Files that go away or move to an heir meanwhile are looked for again.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from otelweir.pipeline.spool.otlp import Group
from otelweir.pipeline.spool.place import ASIDE, PROCESS
from otelweir.pipeline.spool.segment import (
    _FILE,
    _GROUP,
    _MAGIC,
    _SET_ASIDE,
    _U32,
    DELIVERED,
    HEAD,
    START,
    VERSION,
    WAITING,
    Damage,
    Found,
    _crc32,
    _from_name,
    _padded,
    _read_file,
    _seed,
    frames,
)
from otelweir.pipeline.spool.segment import ASIDE as SET_ASIDE
from otelweir.signals import LANES, Lane

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - not everywhere
    fcntl = None

State = Literal["running", "orphan", "unknown"]
"""Of a process: its lock is held; it is free, so the process is gone; neither can be told here."""

_MAX_NOTE: Final = 2**20
_TRIES: Final = 3
_READ_ONLY: Final[int] = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Record(NamedTuple):
    """A whole record of a file.

    Attributes:
        id: As that of the `Frame` it is handed out as.
        time: When it was written; Unix time in whole seconds.
        state: `WAITING`, `DELIVERED` or `ASIDE` of the file format.
        reason: Why it was set aside, in a file of such.
    """

    id: str
    lane: Lane
    time: int
    state: int
    group: Group
    record: bytes
    reason: str
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found in a file.

    Attributes:
        bytes: Its size.
        records: Whole ones, whatever became of them.
        waiting_bytes: Of the frames that wait.
        oldest: When the oldest record that waits was written; None when none does.
        reasons: Of records that were set aside, if it is a file of such.
        damage: Stretches that should be frames and are not.
        torn: What a write that did not come to its end left. It was never accepted, so nothing is lost with it.
        room: Bytes that are left in it.
        problem: Why the file could not be read.
    """

    path: Path
    lane: Lane
    bytes: int = 0
    records: int = 0
    waiting: int = 0
    delivered: int = 0
    set_aside: int = 0
    waiting_bytes: int = 0
    oldest: int | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    damage: tuple[Damage, ...] = ()
    torn: Damage | None = None
    room: int = 0
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.damage and not self.problem


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A damaged file that was put away, with what was found when it was."""

    path: Path
    lane: Lane
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Process:
    """The folder of a process.

    Attributes:
        problem: Why the folder could not be read.
    """

    folder: Path
    pid: int
    state: State
    files: tuple[Contents, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """The folder of a service.

    Attributes:
        aside: Files of records that will not be sent.
        corrupt: Damaged files that were put away.
        disk_bytes: What all its files take.
        problem: Why the folder could not be read.
    """

    folder: Path
    processes: tuple[Process, ...] = ()
    aside: tuple[Contents, ...] = ()
    corrupt: tuple[Corrupt, ...] = ()
    disk_bytes: int = 0
    problem: str = ""


Cache = dict[Path, tuple[tuple[int, ...], Contents]]
"""What was found in files, for looking again and again: those that did not change are not read again."""


# --- folders --------------------------------------------------------------------------------------------------------


def services_in(folder: Path) -> list[Path]:
    """The services' folders in a folder: itself, or those directly below.

    Raises:
        OSError: The folder cannot be read.
    """
    below = _subfolders(folder)
    if PROCESS.fullmatch(folder.name) or any(_is_part(path) for path in below):
        return [folder]
    found = []
    for path in below:
        try:
            if any(_is_part(part) for part in _subfolders(path)):
                found.append(path)
        except PermissionError:
            found.append(path)  # to be told of
        except OSError:
            pass  # went away
    return found


def look(folder: Path, cache: Cache | None = None) -> Service:
    """Everything about a service's folder, or about the folder of one of its processes. Nothing is raised."""
    cache = {} if cache is None else cache
    for _ in range(_TRIES):
        gone: list[Path] = []
        service = _look(folder, cache, gone)
        if not gone:
            break
        # Sent meanwhile, or moved to an heir that was looked at before.
    return service


def _look(folder: Path, cache: Cache, gone: list[Path]) -> Service:
    try:
        parts = [folder] if PROCESS.fullmatch(folder.name) else _subfolders(folder)
    except OSError as error:
        return Service(folder, problem=_words(error))
    processes: list[Process] = []
    aside: list[Contents] = []
    corrupt: list[Corrupt] = []
    disk_bytes = 0
    for part in parts:
        named = PROCESS.fullmatch(part.name)
        if not named and part.name != ASIDE:
            continue
        try:
            sizes = _sizes(part)
        except FileNotFoundError:
            gone.append(part)
            continue
        except OSError as error:
            pid = int(named[1]) if named else 0
            processes.append(Process(part, pid, "unknown", problem=_words(error)))
            continue
        disk_bytes += sum(sizes.values())
        if named:
            processes.append(_process(part, int(named[1]), list(sizes), cache, gone))
            continue
        aside += _contents([path for path in sizes if path.suffix == ".aside"], cache, gone, live=True)
        corrupt += [_corrupt(path, size) for path, size in sizes.items() if path.suffix == ".corrupt"]
    return Service(folder, tuple(processes), tuple(aside), tuple(corrupt), disk_bytes)


def _process(folder: Path, pid: int, paths: list[Path], cache: Cache, gone: list[Path]) -> Process:
    held = is_held(folder)
    state: State = "unknown" if held is None else "running" if held else "orphan"
    files = _contents([path for path in paths if path.suffix == ".seg"], cache, gone, live=state != "orphan")
    return Process(folder, pid, state, tuple(files))


def processes_in(folder: Path) -> dict[Path, State]:
    """The folders of processes that hold records in a service's folder, or may yet; without reading the records.

    A process that is gone and left nothing is left out. Nothing is raised.
    """
    found: dict[Path, State] = {}
    try:
        parts = [part for part in _subfolders(folder) if PROCESS.fullmatch(part.name)]
    except OSError:
        return found
    for part in parts:
        held = is_held(part)
        try:
            left = any(path.suffix == ".seg" for path in _sizes(part))
        except FileNotFoundError:
            continue
        except OSError:
            left = True
        if held or left:
            found[part] = "unknown" if held is None else "running" if held else "orphan"
    return found


def is_held(folder: Path) -> bool | None:
    """Whether a process holds the lock of its folder; None where that cannot be told."""
    if fcntl is None:
        return None
    try:
        fd = os.open(folder / "lock", _READ_ONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES) else None
    finally:
        os.close(fd)  # and with it the lock
    return False


def _contents(paths: list[Path], cache: Cache, gone: list[Path], *, live: bool) -> Iterator[Contents]:
    for path in paths:
        try:
            yield _cached(path, cache, live=live)
        except FileNotFoundError:
            gone.append(path)
        except OSError as error:
            yield Contents(path, _from_name(path.name)[0], problem=_words(error))


def _cached(path: Path, cache: Cache, *, live: bool) -> Contents:
    status = path.lstat()
    key = (status.st_ino, status.st_size, status.st_mtime_ns)
    known = cache.get(path)
    if known and known[0] == key:
        return known[1]
    found = contents(path, live=live)
    # A file that still has room may be written to through a mapping, and then its time says nothing.
    if not live or found.room < HEAD:
        cache[path] = (key, found)
    return found


def _corrupt(path: Path, size: int) -> Corrupt:
    # A copy of a file that is in use was given another name, with random letters before.
    notes = (path.with_suffix(".json"), path.with_name(f"{path.stem.partition('-')[2]}.json"))
    note = next((found for name in notes if (found := _json(name)) is not None), {})
    reason = note.get("reason")
    return Corrupt(path, _from_name(notes[0].name)[0], size, reason if isinstance(reason, str) else "not said")


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))


def _is_part(folder: Path) -> bool:
    return folder.name == ASIDE or bool(PROCESS.fullmatch(folder.name))


def _sizes(folder: Path) -> dict[Path, int]:
    """The files of a folder and what they take, in the order of their names."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_file(follow_symlinks=False):
                    found[Path(entry.path)] = entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                pass  # went away
    return dict(sorted(found.items()))


def _json(path: Path) -> dict[str, Any] | None:
    """The JSON object of a small file; None where there is none."""
    try:
        fd = os.open(path, _READ_ONLY)
        with os.fdopen(fd, "rb") as file:
            read = json.loads(file.read(_MAX_NOTE))
    except (OSError, ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _words(error: OSError) -> str:
    return error.strerror or str(error)


# --- files ----------------------------------------------------------------------------------------------------------


def contents(path: Path, *, live: bool = False) -> Contents:
    """What a file holds.

    Args:
        live: A process may be writing to it.

    Raises:
        OSError: It cannot be read.
    """
    found = _count(path, _read_file(path))
    if live and (found.damage or found.torn):
        again = _count(path, _read_file(path))
        starts = {damage.start for damage in found.damage}
        lasting = tuple(damage for damage in again.damage if damage.start in starts)
        found = replace(again, damage=lasting, torn=None)
    return found


def records(path: Path) -> Iterator[Record]:
    """The whole records of a file, in their order.

    Raises:
        OSError: It cannot be read.
    """
    lane, identity, _ = _header(path, data := _read_file(path))
    for found in _records(lane, identity, data):
        if isinstance(found, Record):
            yield found


def _header(path: Path, data: bytes) -> tuple[Lane, int, bool]:
    """Lane, identity, and whether the header is whole; where it is not, the name says the others."""
    lane, _, identity = _from_name(path.name)
    if len(data) < START or data[_FILE.size : _FILE.size + 4] != _U32.pack(_crc32(data[: _FILE.size])):
        return lane, identity, False
    magic, version, number, said, _ = _FILE.unpack_from(data)
    if magic != _MAGIC or version != VERSION or number >= len(LANES):
        return lane, identity, False
    return LANES[number], said, True


def _records(lane: Lane, identity: int, data: bytes) -> Iterator[Record | Damage | int]:
    """Records, stretches of damage, and at last where the last whole frame ended."""
    groups: dict[int, Group] = {}
    end = START
    for found in frames(data, _seed(identity)):
        if isinstance(found, Damage):
            # At the end of a file, its room is no part of it.
            end = found.end if found.end < len(data) else max(found.start, len(data.rstrip(b"\0")))
            yield Damage(found.start, end)
            continue
        end = _padded(found.at + found.size)
        if found.kind == _GROUP:
            if len(found.payload) >= 4:
                groups.setdefault(found.group, Group(*_parted(found)))
        elif found.group not in groups:
            yield Damage(found.at, end)
        else:
            reason, record = _parted(found) if found.kind == _SET_ASIDE else (b"", found.payload)
            yield Record(
                f"{identity:016x}{found.at:08x}",
                lane,
                found.time,
                found.state,
                groups[found.group],
                record,
                reason.decode("utf-8", "replace"),
                found.at,
                end - found.at,
            )
    yield end


def _parted(found: Found) -> tuple[bytes, bytes]:
    """The two parts of a payload that begins with the length of the first."""
    length = 4 + int(_U32.unpack_from(found.payload.ljust(4, b"\0"))[0])
    return found.payload[4:length], found.payload[length:]


def _count(path: Path, data: bytes) -> Contents:
    lane, identity, whole = _header(path, data)
    # A process that was killed while it made the file left zeros, or no more than the header: nothing was promised.
    promised = data.strip(b"\0") and (len(data) < START or data[START:].strip(b"\0"))
    damage = [Damage(0, min(START, len(data)))] if promised and not whole else []
    states: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    waiting_bytes, oldest, end = 0, None, START
    for found in _records(lane, identity, data):
        if isinstance(found, Damage):
            damage.append(found)
        elif isinstance(found, int):
            end = found
        else:
            states[found.state] += 1
            if found.state == WAITING:
                waiting_bytes += found.size
                oldest = found.time if oldest is None else min(oldest, found.time)
                if path.suffix == ".aside":
                    reasons[found.reason] += 1
    used = max(end, len(data.rstrip(b"\0")))
    return Contents(
        path,
        lane,
        len(data),
        states.total(),
        states[WAITING],
        states[DELIVERED],
        states[SET_ASIDE],
        waiting_bytes,
        oldest,
        dict(reasons),
        tuple(damage),
        Damage(end, used) if used > end else None,
        max(0, len(data) - used),
    )


def aside_in(folder: Path) -> list[Path]:
    """The files of records that were set aside in a service's folder. Nothing is raised."""
    try:
        return [path for path in _sizes(folder / ASIDE) if path.suffix == ".aside"]
    except OSError:
        return []
