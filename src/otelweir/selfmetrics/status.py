"""What a running process says of its delivery, as a document in its spool folder.

    {"weir_status": 1, "pid": ..., "service": ..., "started": ..., "time": ..., "folder": ...,
     "disk_bytes": ..., "max_bytes": ...,
     "lanes": {"logs": {"delivered": ..., "lost": {"rejected": ...}, "waiting": ..., "waiting_bytes": ...,
                        "oldest_age_s": ..., "endpoint": ..., "breaker": ..., "target_bytes": ..., "wait_s": ...,
                        "failing": ..., "outcomes": {"delivered": ...}, "last_s": ..., "mean_s": ..., "max_s": ...,
                        "compression_ratio": ...}, ...}}

Times are Unix time in seconds. No credentials are in it. Fields may be added; `weir_status` grows when a reader of an
older one would misunderstand.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otelweir.selfmetrics.exchanges import Exchanges
from otelweir.selfmetrics.tally import Tally
from otelweir.signals import LANES, Lane
from otelweir.variables import scrubbed, without_credentials

if TYPE_CHECKING:
    from otelweir.selfmetrics.sources import CourierSource, SpoolSource

VERSION: Final = 1
FILE: Final = "status.json"

_MAX_BYTES: Final = 2**18
_MAX_TEXT: Final = 1000
_MAX_ENTRIES: Final = 32
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane.

    Attributes:
        delivered: Records that a server acknowledged since the process began.
        lost: Records that will not arrive, by reason.
        waiting: Records that are neither.
        waiting_bytes: Of the records that wait.
        oldest_age_s: Of the oldest of them.
        endpoint: Where they go, without credentials; empty where the lane has no way.
        breaker: `closed`, `open` or `half-open`.
        target_bytes: How large requests are made, before compression.
        wait_s: Until the endpoint may be asked.
        failing: The last failure in words; empty when the last request was taken.
        outcomes: Requests, by what became of them.
        last_s: How long the last request took.
        mean_s: How long a request took, on average.
        max_s: How long the slowest one took.
        compression_ratio: How many bytes became one.
    """

    delivered: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    waiting_bytes: int = 0
    oldest_age_s: float = 0.0
    endpoint: str = ""
    breaker: str = ""
    target_bytes: int = 0
    wait_s: float = 0.0
    failing: str = ""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    last_s: float = 0.0
    mean_s: float = 0.0
    max_s: float = 0.0
    compression_ratio: float = 1.0

    @property
    def accepted(self) -> int:
        """All that came to the process."""
        return self.delivered + sum(self.lost.values()) + self.waiting


@dataclass(frozen=True, slots=True)
class Status:
    """What a process said of itself.

    Attributes:
        pid: Of the process.
        service: Its name.
        started: When its delivery began; Unix time.
        time: When it said this; Unix time.
        folder: The service's spool; empty for one in memory.
        disk_bytes: What that takes on disk, with the files of all processes.
        max_bytes: What it may take; 0 where that is not known.
        lanes: By lane.
    """

    pid: int = 0
    service: str = ""
    started: float = 0.0
    time: float = 0.0
    folder: str = ""
    disk_bytes: int = 0
    max_bytes: int = 0
    lanes: Mapping[Lane, LaneStatus] = field(default_factory=dict)


def status(
    tally: Tally,
    spool: SpoolSource,
    courier: CourierSource,
    exchanges: Exchanges,
    *,
    service: str,
    started: float,
    time: float,
    max_bytes: int,
) -> dict[str, Any]:
    """The document.

    Args:
        tally: Says what became of records.
        spool: Says what waits.
        courier: Says how it goes with each endpoint.
        exchanges: Says what requests were like.
        service: The service's name.
        started: When the delivery began; Unix time.
        time: Now; Unix time.
        max_bytes: What the spool may take on disk.
    """
    states = courier.state()
    lanes: dict[Lane, LaneStatus] = {}
    for lane in LANES:
        count, waiting, requests = tally.of(lane), spool.waiting(lane), exchanges.of(lane)
        state = states.get(lane)
        lanes[lane] = LaneStatus(
            delivered=count.delivered,
            lost={why.value: records for why, records in count.lost.items()},
            waiting=count.waiting,
            waiting_bytes=waiting.bytes,
            oldest_age_s=round(waiting.oldest_age_s, 3),
            endpoint=without_credentials(state.endpoint) if state else "",
            breaker=state.breaker if state else "",
            target_bytes=state.target_bytes if state else 0,
            wait_s=round(state.wait_s, 3) if state else 0.0,
            failing=scrubbed(state.failing)[:_MAX_TEXT] if state else "",
            outcomes=dict(requests.outcomes),
            last_s=round(requests.last_s, 6),
            mean_s=round(requests.mean_s, 6),
            max_s=round(requests.max_s, 6),
            compression_ratio=round(requests.compression_ratio, 3),
        )
    said = Status(
        pid=os.getpid(),
        service=service,
        started=round(started, 3),
        time=round(time, 3),
        folder=str(spool.folder or ""),
        disk_bytes=spool.disk_bytes(),
        max_bytes=max_bytes,
        lanes=lanes,
    )
    return {"weir_status": VERSION, **asdict(said)}


def read_status(path: Path) -> Status | None:
    """What a process said; None where there is nothing, or what is there is torn, foreign or of a later version.

    Whoever wrote it: numbers are finite and not negative, texts have no control characters and are of bounded length.

    Args:
        path: The document, or the folder of a process that it lies in.
    """
    document = _document(path)
    if document is None or document.get("weir_status") != VERSION:
        return None
    lanes: dict[Lane, LaneStatus] = {}
    given = document.get("lanes")
    if not isinstance(given, dict):
        return None
    for lane in LANES:
        if isinstance(given.get(lane), dict):
            lanes[lane] = LaneStatus(**_known(LaneStatus(), given[lane]))
    return Status(**{**_known(Status(), document), "lanes": lanes})


def _document(path: Path) -> dict[str, Any] | None:
    try:
        if path.is_dir():
            path = path / FILE
        fd = os.open(path, _FLAGS)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            text = file.read(_MAX_BYTES + 1)
        found = json.loads(text) if len(text) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _known(default: Status | LaneStatus, given: Mapping[str, object]) -> dict[str, Any]:
    """The fields of a dataclass as far as what is given fits them."""
    found: dict[str, Any] = {}
    for one in fields(default):
        expected, value = getattr(default, one.name), given.get(one.name)
        match expected:
            case str() if isinstance(value, str):
                found[one.name] = _plain(value)
            case int() if _is_number(value) and isinstance(value, int):
                found[one.name] = value
            case float() if _is_number(value):
                found[one.name] = float(value)  # type: ignore[arg-type]
            case Mapping() if isinstance(value, dict):
                pairs = list(value.items())[:_MAX_ENTRIES]
                found[one.name] = {_plain(key): n for key, n in pairs if _is_number(n) and isinstance(n, int)}
    return found


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63 and math.isfinite(value)
    )


def _plain(text: str) -> str:
    """Fit for a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text[:_MAX_TEXT])
