"""The settings of what Weir says about its own delivery."""

from __future__ import annotations

from dataclasses import dataclass

from otelweir.variables import setting, text


@dataclass(frozen=True, eq=False, repr=False)
class SelfMetricsSettings:
    """The settings of what is told of the delivery."""

    debug_log: str | None = setting("WEIR_DEBUG_LOG", None, text("the path of a file, or stderr"))
    """Where to write what delivery does, a JSON line for each request and event, without secrets. The file is started
    anew at 10 MiB, and the one before it is kept with `.1` at its name."""
