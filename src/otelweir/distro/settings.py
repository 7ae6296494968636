"""The settings of the distribution itself."""

from __future__ import annotations

from dataclasses import dataclass

from otelweir.variables import seconds, setting


@dataclass(frozen=True)
class DistroSettings:
    shutdown_timeout: float = setting("WEIR_SHUTDOWN_TIMEOUT", 5.0, seconds(0.1, 600))
    """How long the end of the process may wait for telemetry to leave, over all signals."""
