"""The settings of transmit. Where to send, and how, `OTEL_EXPORTER_OTLP_*` say."""

from __future__ import annotations

from dataclasses import dataclass

from otelweir.pipeline.transmit.sizing import FACTOR, MAX_BYTES, MIN_BYTES
from otelweir.variables import number, setting, size


@dataclass(frozen=True)
class TransmitSettings:
    batch_min_bytes: int = setting("WEIR_BATCH_MIN_BYTES", MIN_BYTES, size(1))
    """The size of requests, before compression, does not shrink below this, unless the server takes less."""

    batch_max_bytes: int = setting("WEIR_BATCH_MAX_BYTES", MAX_BYTES, size(1))
    """The size of requests does not grow above this."""

    batch_factor: float = setting("WEIR_BATCH_FACTOR", FACTOR, number(least=1))
    """By how much the size grows while answers are quick, and shrinks when they are slow or fail. 1 keeps the size."""

    backlog_rate: int = setting("WEIR_BACKLOG_RATE", 4 * 2**20, size(2**10))
    """Bytes per second, before compression, at which what waits from before is sent beside what is new. The end of the
    process knows no such limit."""
