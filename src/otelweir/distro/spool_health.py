"""What the doctor sees of a service's spool: whether it can be written, what waits, and what its processes say."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from otelweir.pipeline.spool.inspect import Process, look
from otelweir.pipeline.spool.place import default_folder
from otelweir.selfmetrics.status import LaneStatus, read_status
from otelweir.settings import Settings
from otelweir.signals import LANES, Lane


@dataclass(frozen=True, slots=True)
class Delivery:
    """One signal of one process: what became of its records, by its own word; of a process that is gone, what it left.

    Attributes:
        state: `running`, `orphan`, or `unknown` where locks cannot tell.
        lost: By reason.
        failing: The last failure in words; empty when the last request was taken.
        response_ms: How long a request took, on average.
    """

    pid: int
    state: str
    signal: Lane
    waiting: int
    oldest_age_s: float | None = None
    delivered: int | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    endpoint: str = ""
    breaker: str = ""
    failing: str = ""
    response_ms: float | None = None
    target_bytes: int | None = None
    compression_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """A service's spool.

    Attributes:
        folder: Where it is, or will be.
        obstacle: Why it cannot be written; empty when it can.
        is_there: Whether it was made.
        disk_bytes: What its files take.
        free_bytes: What is free on its disk; None where that cannot be told.
        set_aside: Records that will not be sent, by reason.
        corrupt: Damaged files that were put away.
        orphans: Processes that are gone and left records.
        left: How many records they left.
        deliveries: By process and signal.
    """

    folder: Path
    obstacle: str = ""
    is_there: bool = False
    disk_bytes: int = 0
    free_bytes: int | None = None
    set_aside: Mapping[str, int] = field(default_factory=dict)
    corrupt: int = 0
    orphans: int = 0
    left: int = 0
    deliveries: tuple[Delivery, ...] = ()


def folder_of(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """The folder of the service that an environment describes; None where it gives the service no name."""
    if settings.spool_dir is not None:
        return Path(settings.spool_dir).expanduser().absolute()
    name = environ.get("OTEL_SERVICE_NAME", "").strip()
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if not name and key.strip() == "service.name":
            name = unquote(value.strip())
    return default_folder(name, environ) if name else None


def health(folder: Path, now: float) -> Health:
    """Look at a service's folder. Nothing is changed, and nothing raised.

    Args:
        folder: The service's.
        now: Unix time.
    """
    there = obstacle(folder)
    free = _free(folder)
    found = look(folder)
    if found.problem:
        return Health(folder, there, free_bytes=free)
    aside: Counter[str] = Counter()
    for one in found.aside:
        aside.update(one.reasons)
    deliveries: list[Delivery] = []
    for process in found.processes:
        said = read_status(process.folder) if process.state != "orphan" else None
        if said is None:
            deliveries += _left(process, now)
            continue
        # It speaks only when something has changed; what waited then has grown older.
        since_s = max(0.0, now - said.time)
        for lane, told in said.lanes.items():
            if told.accepted or told.failing:
                deliveries.append(_told(process, lane, told, since_s))
    orphans = [sum(one.waiting for one in process.files) for process in found.processes if process.state == "orphan"]
    return Health(
        folder,
        there,
        True,
        found.disk_bytes,
        free,
        dict(aside),
        len(found.corrupt),
        sum(left > 0 for left in orphans),
        sum(orphans),
        tuple(deliveries),
    )


def obstacle(folder: Path) -> str:
    """Why a service's folder cannot be made or written, in words; empty when it can. Nothing is made to find out."""
    try:
        try:
            status = folder.lstat()
        except FileNotFoundError:
            return _obstacle_above(folder)
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(status.st_mode):
        return "is a symbolic link or no folder"
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return "belongs to another user"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "may not be written"


def _obstacle_above(folder: Path) -> str:
    above = _nearest(folder)
    if not stat.S_ISDIR(above.stat().st_mode):
        return f"{above} is no folder"
    return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} may not be written"


def _nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    return next((path for path in (folder, *folder.parents) if os.access(path, os.F_OK)), Path(folder.anchor))


def _free(folder: Path) -> int | None:
    """What the user may still write to the disk of a folder that is there, or will be."""
    try:
        space = os.statvfs(_nearest(folder))
    except (OSError, AttributeError):  # not there, or not a system that tells
        return None
    return space.f_bavail * space.f_frsize


def _told(process: Process, lane: Lane, told: LaneStatus, since_s: float) -> Delivery:
    return Delivery(
        process.pid,
        process.state,
        lane,
        told.waiting,
        told.oldest_age_s + since_s if told.waiting else None,
        told.delivered,
        told.lost,
        told.endpoint,
        told.breaker,
        told.failing,
        round(told.mean_s * 1000, 1) if told.outcomes else None,
        told.target_bytes or None,
        told.compression_ratio if told.outcomes else None,
    )


def _left(process: Process, now: float) -> Iterator[Delivery]:
    """What lies in the folder of a process that says nothing."""
    for lane in LANES:
        files = [one for one in process.files if one.lane == lane and one.waiting]
        if files:
            oldest = min((one.oldest for one in files if one.oldest is not None), default=None)
            age = None if oldest is None else max(0.0, now - oldest)
            yield Delivery(process.pid, process.state, lane, sum(one.waiting for one in files), age)
