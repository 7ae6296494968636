"""What was set aside, to be sent again: it goes back among what waits, and is marked as gone where it lay.

The file may belong to a running process that goes on adding to it. So it stays where it is, and one byte of each record
is changed in place, as the file format allows; only when no process runs that could have it open is it deleted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from otelweir.pipeline.spool.inspect import Record, contents, records
from otelweir.pipeline.spool.segment import _AT_STATE, DELIVERED, WAITING, _write_at

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - not everywhere
    fcntl = None

_READ_WRITE: Final[int] = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)


def hand_over(path: Path, keep: Callable[[Record], bool], sync: Callable[[], None]) -> int:
    """Give the records of a file to somebody else; returns how many were taken.

    A crash in between leaves some in both places: they arrive twice rather than never.

    Args:
        path: Of a file of records that were set aside.
        keep: Whether a record is kept elsewhere now. The first that is not ends it.
        sync: Called before anything is marked: what was kept is to be on disk by then.

    Raises:
        OSError: The file cannot be read or written.
    """
    fd = os.open(path, _READ_WRITE)
    try:
        if not _locked(fd):
            return 0  # somebody else is at it
        taken = []
        for record in records(path):
            if record.state == WAITING:
                if not keep(record):
                    break
                taken.append(record.at)
        sync()
        for at in taken:
            _write_at(fd, bytes((DELIVERED,)), at + _AT_STATE)
        return len(taken)
    finally:
        os.close(fd)


def delete_spent(paths: Iterable[Path]) -> None:
    """Delete files all of whose records are gone. To be called only while no process runs that may have them open."""
    for path in paths:
        with suppress(OSError):
            found = contents(path)
            if found.is_whole and not found.waiting:
                path.unlink()


def _locked(fd: int) -> bool:
    """Whether this file is now ours to empty. Where there are no locks, two who do so at once send doubles."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
    return True
