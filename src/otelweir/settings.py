"""All settings: one model, made of each folder's own section, read from the environment and from code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otelweir import errors
from otelweir.pipeline.capture.genai.settings import GenAISettings
from otelweir.pipeline.capture.settings import CaptureSettings, ResourceSettings, TrackSettings
from otelweir.pipeline.redact.settings import RedactSettings
from otelweir.pipeline.sample.logs.settings import LogSamplingSettings
from otelweir.pipeline.sample.spans.settings import TraceSamplingSettings
from otelweir.pipeline.spool.settings import SpoolSettings
from otelweir.pipeline.transmit.settings import TransmitSettings
from otelweir.selfmetrics.settings import SelfMetricsSettings
from otelweir.variables import Origin, Var, flag, read, seconds, setting, shown, variables

PREFIX: Final = "WEIR_"


@dataclass(frozen=True, eq=False, repr=False)
class DistroSettings:
    """The section of the distribution; here, because the distribution stands above the settings."""

    shutdown_timeout: float = setting("WEIR_SHUTDOWN_TIMEOUT", 5.0, seconds(0.1, 600))
    """How long the end of the process may wait for telemetry to leave, over all signals."""

    sigterm_flush: bool = setting("WEIR_SIGTERM_FLUSH", True, flag())
    """Whether SIGTERM, where the application does not handle it, first sends what waits. The exit status stays that of
    the signal."""


SECTIONS: Final = (
    DistroSettings,
    ResourceSettings,
    CaptureSettings,
    TrackSettings,
    GenAISettings,
    RedactSettings,
    LogSamplingSettings,
    TraceSamplingSettings,
    SpoolSettings,
    TransmitSettings,
    SelfMetricsSettings,
)


@dataclass(frozen=True, eq=False, repr=False)
class Settings(
    SelfMetricsSettings,
    TransmitSettings,
    SpoolSettings,
    TraceSamplingSettings,
    LogSamplingSettings,
    RedactSettings,
    GenAISettings,
    TrackSettings,
    CaptureSettings,
    ResourceSettings,
    DistroSettings,
):
    """The effective settings. A setting's name in code is its variable's name without `WEIR_`, in lower case."""


VARIABLES: Final[Mapping[str, Var]] = variables(Settings)
"""The variable of each setting, by the setting's name in code."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with where each value comes from.

    Attributes:
        settings: The effective settings.
        origins: By setting name; one that is missing is a default.
    """

    settings: Settings
    origins: Mapping[str, Origin]

    def rows(self) -> Iterator[tuple[str, str, Origin]]:
        """Variable, value as text and origin of every setting; secrets are masked."""
        for name, var in VARIABLES.items():
            yield var.name, shown(getattr(self.settings, name)), self.origins.get(name, "default")


def load(environ: Mapping[str, str], **code: Any) -> Loaded:
    """Read the settings; code wins over variables, variables over defaults.

    A value that cannot be used is reported once, with the setting's name, the value and the allowed form, and the next
    best one applies. A `WEIR_*` variable that is no setting is reported with the nearest name.

    Args:
        environ: The environment. Empty values count as unset.
        code: Settings given in code; None counts as not given.

    Raises:
        TypeError: `code` has a name that is no setting.
    """
    for name in code:
        if name not in VARIABLES:
            raise TypeError(f"{name!r} is not a setting of Weir{_did_you_mean(name, VARIABLES)}")
    known = {var.name for var in VARIABLES.values()}
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in known:
            errors.warn(errors.UNKNOWN_SETTING, f"{variable} is not a setting of Weir{_did_you_mean(variable, known)}")
    return Loaded(*read(Settings, environ, code))


def _did_you_mean(name: str, known: set[str] | Mapping[str, object]) -> str:
    import difflib  # for mistakes only

    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""
