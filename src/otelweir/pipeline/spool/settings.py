"""The settings of the spool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otelweir.variables import flag, one_of, seconds, setting, size, text

WhenFull = Literal["drop_oldest", "refuse_newest"]


@dataclass(frozen=True, eq=False, repr=False)
class SpoolSettings:
    """The settings of the spool."""

    spool: bool = setting("WEIR_SPOOL", True, flag())
    """Whether OTLP leaves through the spool, which outlives the process. `false` restores OpenTelemetry's own batch
    processors and exporters."""

    spool_dir: str | None = setting("WEIR_SPOOL_DIR", None, text("the path of a folder"))
    """Folder of the service's spool; all of its processes share it. Unset: named after the service, below
    `$XDG_STATE_HOME/otelweir` or `~/.local/state/otelweir`."""

    spool_max_bytes: int = setting("WEIR_SPOOL_MAX_BYTES", 512 * 2**20, size(2**20))
    """What the service's spool may take on disk."""

    spool_min_free_bytes: int = setting("WEIR_SPOOL_MIN_FREE_BYTES", 64 * 2**20, size(0))
    """What the spool leaves free on its disk."""

    spool_memory_bytes: int = setting("WEIR_SPOOL_MEMORY_BYTES", 8 * 2**20, size(2**16))
    """What may wait in memory where no disk can be used."""

    spool_when_full: WhenFull = setting("WEIR_SPOOL_WHEN_FULL", "drop_oldest", one_of("drop_oldest", "refuse_newest"))
    """What goes when the spool is full: its oldest records, or new ones. Errors and events go last. Every record is
    counted."""

    spool_fsync: float = setting("WEIR_SPOOL_FSYNC", 1.0, seconds(0.05, 3600))
    """How often the disk has to confirm what was written. Bounds what a power failure takes; the end of the process
    takes nothing in any case."""
